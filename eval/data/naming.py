"""Which column of a table means what, where the user does not say it: a file, or usual names.

Trackers and harnesses have names of their own: Weights & Biases exports `Name`, `State` and
`eval/loss`, MLflow `run_id`, `status`, `params.lr` and `metrics.val_loss`, EleutherAI's harness
`arc_easy/acc_norm`. What is guessed is said.
"""

import dataclasses
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from eval.data.table import Table
from eval.data.where import column_names
from train.records import InputError

Columns = TypeVar("Columns")

# Usual names by option, the likeliest first, as `_plain` writes them.
USUAL: dict[str, tuple[str, ...]] = {
    "architecture": ("arch", "model_type", "architecture_name", "model_name", "model"),
    "size": ("model_size", "size_name"),
    "seed": ("random_seed", "rng_seed"),
    "run_id": ("run_name", "mlflow_runname", "run", "name", "id"),
    "step": ("global_step", "train_global_step", "trainer_global_step", "_step"),
    "flops": ("flops", "forward_flops", "flops_per_token", "total_flos", "train_total_flos"),
    "params": (
        "params",
        "n_params",
        "num_params",
        "parameters",
        "n_parameters",
        "num_parameters",
        "model_num_parameters",
        "total_params",
        "param_count",
    ),
    "speed": ("steps_per_sec", "train_steps_per_second", "eval_steps_per_second"),
    "upstream": (
        "eval_loss",
        "val_loss",
        "valid_loss",
        "validation_loss",
        "heldout_loss",
        "test_loss",
        "eval_nll",
        "val_nll",
        "nll",
        "loss",
    ),
}
# The same for the options of laws.
USUAL_OF_LAWS: dict[str, tuple[str, ...]] = {
    "params": USUAL["params"],
    "tokens": (
        "num_tokens",
        "n_tokens",
        "train_tokens",
        "total_tokens",
        "num_input_tokens_seen",
        "train_num_input_tokens_seen",
    ),
    "flops": ("train_flops", "total_flops", "total_flos", "train_total_flos"),
    "steps": USUAL["step"],
    "loss": USUAL["upstream"],
}
# And for those of sweeps.
USUAL_OF_SWEEPS: dict[str, tuple[str, ...]] = {
    **{name: USUAL[name] for name in ("architecture", "size", "seed", "params")},
    "tokens": USUAL_OF_LAWS["tokens"],
    "rate": ("lr", "peak_lr", "max_lr", "learning_rate", "optimizer_lr", "pretrain_learning_rate"),
    "loss": USUAL["upstream"],
}
# Prefixes under which trackers export settings and results.
_PREFIXES = ("config_", "params_", "metrics_", "summary_", "tags_", "attributes_")
_SCORE = re.compile(
    r"(?!config|params)(?P<task>[\w.-]+?)[/.](acc_norm|acc|exact_match|f1|em)(,\w+)?"
)

STATES = ("state", "status")
_ENDED = frozenset({"finished", "done", "completed", "complete", "success", "succeeded"})
_OTHER = frozenset(
    {
        *("crashed", "failed", "killed", "running", "pending", "queued", "scheduled"),
        *("preempted", "preempting", "aborted", "cancelled", "canceled", "interrupted"),
    }
)


def from_file(columns: Columns, kind: type | None = None) -> Columns:
    """The options, with those that the file of `--columns` sets and the command line does not.

    Args:
      columns: the options.
      kind: the class whose fields are about columns, by default that of `columns`.

    Raises:
      InputError: the file cannot be read, or sets something else than an option of columns.
    """
    path: Path | None = getattr(columns, "columns")  # noqa: B009
    if path is None:
        return columns
    about = dataclasses.fields(kind or type(columns))  # pyright: ignore
    fields = {field.name: field for field in about if field.name != "columns"}
    found: dict[str, Any] = {}
    for key, value in _toml(path).items():
        name = key.replace("-", "_")
        if name not in fields:
            raise InputError(f"{path}: {key!r} is not one of {', '.join(fields)}")
        default = fields[name].default
        if isinstance(default, tuple) and isinstance(value, str):
            value = [value]
        wanted = {tuple: list, type(None): float}.get(type(default), type(default))
        if type(value) is not wanted or not all(isinstance(one, str) for one in _items(value)):
            raise InputError(f"{path}: {key} = {value!r}: must be {_KINDS[wanted]}")
        if getattr(columns, name) == default:  # the command line comes first
            found[name] = tuple(value) if wanted is list else value
    return dataclasses.replace(columns, **found)  # pyright: ignore


_KINDS = {list: "a list of texts", bool: "true or false", str: "text"}
_KINDS |= {int: "a whole number", float: "a number with a point"}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise InputError(f"columns: {str(path)!r} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"columns: {path}: is not TOML ({error})") from None


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def guessed(
    columns: Columns, table: Table, names: Mapping[str, tuple[str, ...]] = USUAL
) -> tuple[Columns, list[str]]:
    """The options with usual names in place of default names that the table does not have.

    Args:
      columns: the options.
      table: the table.
      names: usual names by option.

    Returns:
      The options, and a sentence on what was guessed, or none.
    """
    found: dict[str, Any] = {}
    meant = {getattr(columns, option) for option in names}
    for option, usual in names.items():
        default = _default(columns, option)
        if getattr(columns, option) != default or default in table:
            continue
        taken = {*meant, *found.values()}
        if name := column_of(table, (default, *usual), taken):
            found[option] = name
    said = [f"{name!r} as {_default(columns, option)}" for option, name in found.items()]
    if getattr(columns, "downstream", None) == () and (scores := _scores(table)):
        found["downstream"] = tuple(scores)
        said.append(f"{', '.join(map(repr, scores))} as scores (--downstream)")
    columns = dataclasses.replace(columns, **found)  # pyright: ignore
    options = " or ".join(f"--{option.replace('_', '-')}" for option in found if option in names)
    change = f" ({options} or --columns names others)" if options else ""
    return columns, [f"read {', '.join(said)}{change}."] if said else []


def column_of(table: Table, usual: Sequence[str], taken: Collection[str] = ()) -> str:
    """The first column of one of these usual names that is not `taken`; empty without one."""
    plain: dict[str, list[str]] = {}
    for name in map(str, table.frame.columns):
        plain.setdefault(_plain(name), []).append(name)
    names = (name for alias in usual for name in plain.get(alias, ()) if name not in taken)
    return next(names, "")


def _default(columns: Any, option: str) -> str:
    return type(columns).__dataclass_fields__[option].default


def _plain(name: str) -> str:
    """A column's name in lower case, with _ for other signs and without a tracker's prefix."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    return f"_{plain}" if name.startswith("_") else plain


def _scores(table: Table) -> list[str]:
    """Columns such as arc_easy/acc_norm, one for each task, if there are no columns of ours."""
    names = [str(name) for name in table.frame.columns]
    if any(name.startswith("downstream_") for name in names):
        return []
    found: dict[str, str] = {}
    for name in names:
        if (match := _SCORE.fullmatch(name)) and table.holds(name):
            before = found.get(match["task"], "")
            found[match["task"]] = name if "acc_norm" in name or not before else before
    return list(found.values())


def ended(table: Table, name_column: str) -> tuple[Table, list[str]]:
    """The rows of runs that ended well, if a column says how runs ended.

    Returns:
      Those rows, and a sentence that names the others.

    Raises:
      InputError: no run has ended.
    """
    for column in (c for c in map(str, table.frame.columns) if _plain(c) in STATES):
        states = table.texts(column, "").str.lower()
        if not set(states) <= {*_ENDED, *_OTHER, ""}:
            continue
        other = states.isin(_OTHER)
        if not other.any():
            return table, []
        names = list(_named(table, states[other], name_column))
        if other.all():
            raise InputError(f"{table.path}: no run has ended: {column} is {', '.join(names[:8])}")
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        rows = "1 row is" if len(names) == 1 else f"{len(names)} rows are"
        return table.take(states.index[~other]), [f"{rows} left out by column {column!r}: {shown}."]
    return table, []


def _named(table: Table, states: Any, name_column: str) -> Iterator[str]:
    known = name_column in table
    for row, state in states.items():
        name = f"{table.frame.loc[row, name_column]}, " if known else ""
        yield f"{state} ({name}{table.row(row)})"


def missing(table: Table, wanted: Sequence[tuple[str, str]], more: Sequence[str] = ()) -> None:
    """Refuses a table without some columns, and names all of them at once.

    Args:
      table: the table.
      wanted: options and the columns that they name.
      more: what else is missing.

    Raises:
      InputError: a column is not there.
    """
    lacks = [f"{option}: no column {name!r}" for option, name in wanted if name not in table]
    if lacks := [*lacks, *more]:
        raise InputError(f"{table.path}: {'; '.join(lacks)}; it has {column_names(table.frame)}")
