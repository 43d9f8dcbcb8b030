"""Anybody's table as a study: a CSV, Parquet or JSONL file and the names of the columns that are meant."""

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from eval import store
from eval.conditions import column_names, where
from train.records import InputError, read_jsonl


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column of a table means what; the defaults are the store's own names.

    Attributes:
      architecture: column with the architecture's name.
      size: column with the size's label; where the table has none, sizes are labelled by their parameters.
      protocol: column with the scaling protocol, if any.
      seed: column with the seed; where the table has none, the runs of a cell are numbered.
      run_id: column that names the run, if any.
      step: column with the training step, where a run has several rows; its last row with a loss is kept. Where no
        column names the run, it is the rows of one architecture, size, protocol and seed.
      flops: column with the FLOPs that the x-axis means.
      params: column with the parameter count.
      speed: column with steps per second.
      upstream: column with the upstream quality.
      upstream_is: what that column holds: a loss in nats, a negative log-perplexity or a perplexity.
      downstream: columns with downstream scores in percent; empty takes every downstream_<task>.
      fractions: downstream scores are between 0 and 1, not in percent.
      where: keep only the rows where these columns have these values: `routing_frequency=0.5`, `num_experts=1,64`.
    """

    architecture: str = "architecture"
    size: str = "size"
    protocol: str = "protocol"
    seed: str = "seed"
    run_id: str = "run_id"
    step: str = "step"
    flops: str = "flops_forward"
    params: str = "params_total"
    speed: str = "steps_per_second"
    upstream: str = "upstream_nll"
    upstream_is: Literal["nll", "neg_log_ppl", "ppl"] = "nll"
    downstream: tuple[str, ...] = ()
    fractions: bool = False
    where: tuple[str, ...] = ()


COLUMNS = Columns()


def read_table(path: str | os.PathLike[str], columns: Columns = COLUMNS) -> store.Study:
    """Reads a table of runs into a study.

    Args:
      path: a .csv, .parquet or .jsonl file, one row per run (or per run and step).
      columns: what its columns mean.

    Raises:
      InputError: the file cannot be read, a named column is missing, a value is not a number (names column and row), or
        a run appears twice.
    """
    path = Path(path)
    raw = where(load(path), columns.where, path)
    _require(raw, columns, path)
    raw = _last_rows(raw, columns, path)
    table, tasks = _rename(raw, columns, path)
    known = {key: raw[key].to_numpy() for key in store.COST_COLUMNS if key in raw and key not in table}
    for key, values in known.items():
        table[key] = _numbers(pd.Series(values, index=raw.index), key, path).to_numpy()
    table = store.complete(table, tasks)
    duplicated = table[table.run_id.duplicated()]
    if len(duplicated):
        row = row_number(raw.index[duplicated.index[0]])
        raise InputError(
            f"{path}: row {row}: run {duplicated.run_id.iloc[0]!r} appears twice; name its step or its seed"
        )
    empty = pd.DataFrame(columns=list(store.UNFINISHED_COLUMNS))
    study = store.Study(
        name=path.name.split(".")[0],
        runs=table,
        evals=pd.DataFrame(columns=list(store.EVAL_COLUMNS)),
        unfinished=empty,
        settings=_meaning(columns, path),
        provenance=pd.DataFrame({"run_id": table.run_id, "corpus_fingerprint": table.corpus, "device": table.device}),
    )
    return dataclasses.replace(study, warnings=tuple(store.check(study)))


def load(path: Path) -> pd.DataFrame:
    """The file as it is.

    Raises:
      InputError: no such file, an unknown ending, a damaged file or one without rows.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda file: pd.DataFrame(read_jsonl(file)),
    }
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in readers:
        raise InputError(f"{path}: a table ends in .csv, .csv.gz, .parquet or .jsonl")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        table = readers[suffix](path)
    except InputError:
        raise
    except Exception as error:  # pandas and pyarrow raise a dozen kinds on a damaged file
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path}: cannot be read as {suffix[1:]} ({reason[0]})") from None
    if table.empty:
        raise InputError(f"{path}: holds no rows")
    return table


def row_number(index: object) -> int:
    """The line of a row in the file: the header is line 1."""
    return int(str(index)) + 2


def for_directory(columns: Columns, path: Path) -> tuple[str, ...]:
    """What of `columns` applies to a study's directory, whose columns have names: the conditions on its runs.

    Raises:
      InputError: a column is named.
    """
    for field in dataclasses.fields(Columns):
        value = getattr(columns, field.name)
        if field.name != "where" and value != getattr(COLUMNS, field.name):
            raise InputError(
                f"{path}: {field.name} = {value!r} is about a table's columns, but this is a directory of runs"
            )
    return columns.where


def _require(table: pd.DataFrame, columns: Columns, path: Path) -> None:
    """Columns that must be there: the architecture, and whatever was named other than by default."""
    for field in dataclasses.fields(Columns):
        if field.name in ("upstream_is", "fractions", "where"):
            continue
        named = getattr(columns, field.name)
        chosen = field.name == "architecture" or named != getattr(COLUMNS, field.name)
        for name in (named,) if isinstance(named, str) else named:
            if chosen and name not in table:
                raise InputError(f"{path}: {field.name}: no column {name!r}; it has {column_names(table)}")
    if columns.flops not in table and columns.params not in table:
        raise InputError(f"{path}: neither flops {columns.flops!r} nor params {columns.params!r} is a column")


def _last_rows(table: pd.DataFrame, columns: Columns, path: Path) -> pd.DataFrame:
    """The last row of every run that has a loss.

    Raises:
      InputError: no column names the run, and two rows of one cell (and seed) are at one of several steps.
    """
    if columns.step not in table:
        return table
    if columns.run_id in table:
        run = [columns.run_id]
    else:
        size = columns.size if columns.size in table else columns.params if columns.params in table else columns.flops
        known = (columns.architecture, size, columns.protocol, columns.seed)
        run = [name for name in dict.fromkeys(known) if name in table]
    groups = table.groupby(run, sort=False, dropna=False)
    if not table.duplicated(run).any():
        return table
    if columns.run_id not in table:
        if (groups[columns.step].nunique() < 2).all():  # all at one step: seeds, not checkpoints
            return table
        if (twice := table.duplicated([*run, columns.step])).any():
            row = row_number(table.index[twice][0])
            raise InputError(
                f"{path}: row {row}: {', '.join(run)} are there twice at {columns.step} "
                f"{table.loc[twice, columns.step].iloc[0]}: runs or checkpoints? Name the run or its seed"
            )
    if columns.upstream in table:
        table = table[table[columns.upstream].notna()]
    return table.sort_values(columns.step, kind="stable").groupby(run, sort=False, dropna=False).tail(1).sort_index()


def _numbers(cells: pd.Series, name: str, path: Path) -> pd.Series:
    """The column as floats.

    Raises:
      InputError: names the first row that is no number.
    """
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    wrong = cells.index[numbers.isna() & cells.notna()]
    if len(wrong):
        raise InputError(f"{path}: row {row_number(wrong[0])}: {name} = {cells[wrong[0]]!r} is not a number")
    return numbers


def _rename(raw: pd.DataFrame, columns: Columns, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The table under the store's names, on a fresh index, and the names of its tasks."""

    def number(name: str) -> np.ndarray | float:
        return _numbers(raw[name], name, path).to_numpy() if name in raw else math.nan

    def text(name: str, missing: object) -> pd.Series:
        if name not in raw:
            return pd.Series([str(missing)] * len(raw))
        return raw[name].astype(object).where(raw[name].notna(), missing).astype(str).reset_index(drop=True)

    table = pd.DataFrame(index=range(len(raw)))
    table["architecture"] = text(columns.architecture, "")
    unnamed = raw[columns.architecture].isna()
    if unnamed.any():
        raise InputError(f"{path}: row {row_number(raw.index[unnamed][0])}: {columns.architecture} is empty")
    table["params_total"] = number(columns.params)
    table["flops_forward"] = number(columns.flops)
    table["steps_per_second"] = number(columns.speed)
    if columns.size in raw:
        table["size"] = text(columns.size, "")
    else:
        basis = table.params_total if columns.params in raw else table.flops_forward
        table["size"] = [f"{value:.3g}" for value in basis]
    table["protocol"] = text(columns.protocol, "")
    table["study"] = text("study", path.name.split(".")[0])
    table["corpus"] = text("corpus", "not recorded")
    table["device"] = text("device", "not recorded")
    cell = ["architecture", "size", "protocol"]
    if columns.seed in raw:
        seeds = _numbers(raw[columns.seed], columns.seed, path).to_numpy()
        if not np.all(seeds == np.round(seeds)):
            row = row_number(raw.index[int(np.argmax(seeds != np.round(seeds)))])
            raise InputError(f"{path}: row {row}: {columns.seed} is not an integer")
        table["seed"] = seeds.astype(int)
    else:
        table["seed"] = table.groupby(cell).cumcount()
    made = ["-".join(filter(None, (*names, f"s{seed}"))) for *names, seed in table[[*cell, "seed"]].to_numpy()]
    table["run_id"] = text(columns.run_id, "") if columns.run_id in raw else made
    table["upstream_nll"] = _nll(number(columns.upstream), columns.upstream_is)
    table["upstream_nll_stderr"] = number("upstream_nll_stderr")
    table["upstream_bits_per_byte"] = number("upstream_bits_per_byte")
    tasks = _downstream(raw, columns, table, path)
    return table, tasks


def _nll(values: np.ndarray | float, kind: str) -> np.ndarray | float:
    """A loss in nats from what the column holds; a value no logarithm takes becomes NaN."""
    if kind == "ppl":
        return np.log(np.where(np.asarray(values) > 0, values, np.nan))
    return -values if kind == "neg_log_ppl" else values


def _downstream(raw: pd.DataFrame, columns: Columns, table: pd.DataFrame, path: Path) -> list[str]:
    """Puts the scores into `table`, in percent, and returns the tasks' names."""
    own = [c for c in raw.columns if str(c).startswith("downstream_") and c not in store.GROUP_COLUMNS]
    if "downstream_squad" in raw and not any(str(c).startswith("downstream_squad_") for c in raw.columns):
        own.append("downstream_squad")
    # The store's own runs.csv has every average as a column, also of tasks that were not run.
    named = columns.downstream or tuple(name for name in own if raw[name].notna().any())
    factor = 100.0 if columns.fractions else 1.0
    for name in named:
        task = str(name).removeprefix("downstream_")
        table[f"downstream_{task}"] = factor * _numbers(raw[name], name, path).to_numpy()
    if not named:
        for name in store.GROUP_COLUMNS:
            if name in raw:
                table[name] = factor * _numbers(raw[name], name, path).to_numpy()
    return [str(name).removeprefix("downstream_") for name in named]


def _meaning(columns: Columns, path: Path) -> pd.DataFrame:
    """How the table was read, for the report's settings."""
    rows = [("table", path.name, 0)]
    for field in dataclasses.fields(Columns):
        value = getattr(columns, field.name)
        if value != field.default:
            rows.append((f"column.{field.name}", ", ".join(value) if isinstance(value, tuple) else str(value), 0))
    return pd.DataFrame(rows, columns=["setting", "value", "runs"])
