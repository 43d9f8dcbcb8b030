"""Reads a table with the user's own column names as a study."""

import dataclasses
import functools
import os
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from eval.data import naming, replicates, units
from eval.data.families import FAMILIES, PLAIN
from eval.data.study import (
    COST_COLUMNS,
    EVAL_COLUMNS,
    GROUP_COLUMNS,
    TEXT_COLUMNS,
    UNFINISHED_COLUMNS,
    UPSTREAM_COLUMNS,
    Study,
    check,
    complete,
)
from eval.data.table import Table
from train.records import InputError


@dataclasses.dataclass(frozen=True)
class RunColumns:
    """The meaning of a table's columns; the defaults are the names in a study's own run table.

    Attributes:
      columns: a TOML file that sets these options by their names, as in `upstream = "eval/loss"`.
      architecture: column with the architecture's name.
      size: column with the size's label; in a table without one, sizes are labelled by their number
        of parameters.
      protocol: column with the scaling protocol, if any.
      seed: column with the seed; in a table without one, the runs of a cell are numbered.
      run_id: column with the name of the run, if any. (A column `family` of encoder_decoder and
        decoder_only is part of a cell as well.)
      step: column with the training step, for tables with several rows per run. Only the last row
        of a run counts, and a run without a loss in that row counts as missing. If no column names
        the run, the rows of one architecture, size, protocol and seed are one run.
      flops: column with the FLOPs for the x-axis.
      params: column with the parameter count.
      speed: column with steps per second.
      state: column with the numbers that decoding keeps of a sequence.
      upstream: column with the upstream quality.
      upstream_is: what that column holds: a loss in nats, a negative log-perplexity or a
        perplexity.
      downstream: columns with downstream scores in percent; empty takes every downstream_<task>.
      fractions: downstream scores are between 0 and 1, not in percent.
      where: keep only the rows where these columns have these values: `routing_frequency=0.5`,
        `num_experts=1,64`.
      ignore: columns that are not settings, although they differ between the replicates of a cell
        (for example a cluster's name).
      trust_units: skip the checks that refuse implausible numbers: other units, mixed units,
        fractions among percentages.
    """

    columns: Path | None = None
    architecture: str = "architecture"
    size: str = "size"
    protocol: str = "protocol"
    seed: str = "seed"
    run_id: str = "run_id"
    step: str = "step"
    flops: str = "flops_forward"
    params: str = "params_total"
    speed: str = "steps_per_second"
    state: str = "state_size"
    upstream: str = "upstream_nll"
    upstream_is: Literal["nll", "neg_log_ppl", "ppl"] = "nll"
    downstream: tuple[str, ...] = ()
    fractions: bool = False
    where: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    trust_units: bool = False


COLUMNS = RunColumns()
_NO_COLUMNS = ("columns", "upstream_is", "fractions", "where", "ignore", "trust_units")
# Suffixes of columns that belong to a score: its error, count and interval, as in a report's table
# 1.
_BESIDE = re.compile(
    r"(.+?)_(std_?err|se|se_eval|sem|std|sd|var|n|count|ci|ci_?\w+|lower|upper|low|high|min|max)"
)
_NO_PERCENT = re.compile(r".*(perplexity|ppl|nll|loss|bits_per_(byte|char\w*)|bpb|bpc|entropy)")


def read_table(path: str | os.PathLike[str], columns: RunColumns = COLUMNS) -> Study:
    """Reads a table of runs as a study.

    Example:
      >>> study = eval.read_table("sweep.csv", RunColumns(params="n_params", upstream="val_loss"))

    Args:
      path: a table (see `eval.data.files`), one row per run (or per run and step).
      columns: the meaning of its columns.

    Raises:
      InputError: the file cannot be read, a named column is missing, a value has another type or
        unit than its column should (the message names column and row), a run appears twice, or rows
        of a cell differ in a setting.
    """
    columns = naming.from_file(columns)
    table = Table.read(Path(path), columns.where)
    columns, said = naming.guessed(columns, table)
    table, left_out = naming.ended(table, columns.run_id)
    study = _RunReader(table, columns).study()
    return dataclasses.replace(study, warnings=(*said, *left_out, *study.warnings))


def for_directory(columns: RunColumns, path: Path) -> tuple[str, ...]:
    """The conditions on the runs of a study's directory. Its columns have fixed names.

    Raises:
      InputError: `columns` names a column.
    """
    for field in dataclasses.fields(RunColumns):
        value = getattr(columns, field.name)
        if field.name != "where" and value != getattr(COLUMNS, field.name):
            raise InputError(
                f"{path}: {field.name} = {value!r} is about a table's columns, but this is a "
                "directory of runs"
            )
    return columns.where


class _RunReader:
    """Turns a table into a study: types the columns, keeps one row per run, and checks the runs."""

    def __init__(self, table: Table, columns: RunColumns):
        """Types every column that is used, in all rows."""
        self.table, self.columns, self.path = table, columns, table.path
        self.warnings: list[str] = []
        self._require()
        self.tasks = self._task_columns()
        if columns.upstream in table or self.tasks:
            table.refuse_repeated()
        numeric = (*COST_COLUMNS, "upstream_nll_stderr", "upstream_bits_per_byte", *GROUP_COLUMNS)
        named = (columns.flops, columns.params, columns.speed, columns.state)
        named = (*named, columns.upstream, *self.tasks)
        for column in dict.fromkeys((*named, *(c for c in numeric if c not in self._meant()))):
            if column in table:
                table.numbers(column)
        for column in (columns.architecture, columns.size, columns.run_id):
            if column in table:
                table.texts(column)
        for column in (columns.architecture, columns.size, columns.protocol):
            self.warnings += table.lookalikes(column) if column in table else []

    def study(self) -> Study:
        """Builds the study."""
        steps = self._last_rows()
        made = self._cells()
        cell = self._names(made).agg(lambda row: "-".join(filter(None, row)), axis=1)
        self._refuse_twice(made, cell)
        choose = "give it a meaning with --protocol {column}"
        replicates.refuse_settings(self.table, cell, self._known(), choose, steps="--step")
        if not self.columns.trust_units:
            self._check_units(cell)
        if steps is not None:
            self.warnings += replicates.ended_early(cell, steps, made["run_id"])
            self.warnings += self._diverged(made["run_id"])
        table, tasks = self._scored(made.reset_index(drop=True))
        study = Study(
            name=self._name,
            runs=table,
            evals=pd.DataFrame(columns=list(EVAL_COLUMNS)),
            unfinished=pd.DataFrame(columns=list(UNFINISHED_COLUMNS)),
            settings=_meaning(self.columns, self.path),
            provenance=pd.DataFrame(
                {"run_id": table.run_id, "corpus_fingerprint": table.corpus, "device": table.device}
            ),
        )
        return dataclasses.replace(study, warnings=(*self.warnings, *check(study)))

    @property
    def _name(self) -> str:
        return self.path.name.split(".")[0]

    def _meant(self) -> set[str]:
        """The columns that the user names, or whose default name is in the table."""
        values = (
            getattr(self.columns, f.name)
            for f in dataclasses.fields(RunColumns)
            if f.name not in _NO_COLUMNS
        )
        return {
            name for value in values for name in ((value,) if isinstance(value, str) else value)
        }

    def _known(self) -> set[str]:
        """Columns that are not settings: those with a meaning, the store's own, and `ignore`."""
        own = {*TEXT_COLUMNS, *UPSTREAM_COLUMNS, *GROUP_COLUMNS, "corpus", "device", "seed"}
        own |= set(COST_COLUMNS) - {"tokens_seen", "unique_tokens"}
        own -= set() if self._of_families else {"family"}
        if self.columns.seed not in self.table:
            own -= {"steps"}  # without seeds, rows at several steps may be checkpoints
        scores = {
            str(c)
            for c in self.table.frame.columns
            if str(c).startswith(("downstream_", "upstream_"))
        }
        return own | self._meant() | scores | set(self.columns.ignore)

    def _require(self) -> None:
        """Checks the columns that must exist: the architecture, and every column the user named."""
        columns, wanted = self.columns, []
        for field in dataclasses.fields(RunColumns):
            named = getattr(columns, field.name)
            if field.name in _NO_COLUMNS and field.name != "ignore":
                continue
            if field.name == "architecture" or named != getattr(COLUMNS, field.name):
                names = (named,) if isinstance(named, str) else named
                wanted += [(field.name, name) for name in names]
        costs = columns.flops in self.table or columns.params in self.table
        neither = f"neither flops {columns.flops!r} nor params {columns.params!r} is a column"
        naming.missing(self.table, wanted, [] if costs else [neither])

    def _task_columns(self) -> list[str]:
        """The columns of scores: those the user named, or every downstream_<task>."""
        names = [str(c) for c in self.table.frame.columns]
        for name in self.columns.downstream:
            if _NO_PERCENT.fullmatch(name.lower()):
                raise InputError(
                    f"{self.path}: downstream: {name!r} is no score where more is better, in "
                    "percent"
                )
        if self.columns.downstream:
            return list(self.columns.downstream)
        own = [c for c in names if c.startswith("downstream_") and c not in GROUP_COLUMNS]
        if "downstream_squad" in names and not any(
            c.startswith("downstream_squad_") for c in names
        ):
            own.append("downstream_squad")
        beside = [c for c in own if (found := _BESIDE.fullmatch(c)) and found[1] in names]
        other = [c for c in own if c not in beside and _NO_PERCENT.fullmatch(c)]
        if beside:
            self.warnings.append(
                f"No tasks, but errors or counts of the columns beside them: {', '.join(beside)}."
            )
        if other:
            self.warnings.append(f"No scores in percent, hence no tasks: {', '.join(other)}.")
        # A report's runs.csv has a column for every average, even for tasks that were not run.
        return [c for c in own if c not in beside and c not in other and self.table.holds(c)]

    def _last_rows(self) -> pd.Series | None:
        """Keeps the last row of every run. Returns its step, or None if each row is one run."""
        table, columns = self.table, self.columns
        cell = [
            c
            for c in (columns.architecture, columns.size, columns.protocol, columns.seed)
            if c in table
        ]
        cell += ["family"] if self._of_families else []
        if columns.run_id in table:
            run = [columns.run_id]
            replicates.one_name_one_run(table, columns.run_id, cell)
        else:
            by_cost = columns.params if columns.params in table else columns.flops
            run = cell if columns.size in table else [columns.architecture, by_cost, *cell[1:]]
        if columns.step not in table:
            return None
        steps, names = table.wholes(columns.step), replicates.key(table, run)
        self._lossless(names)
        if not names.duplicated().any():
            return steps
        if columns.run_id not in table and (steps.groupby(names).nunique() < 2).all():
            return steps  # all at one step: seeds, not checkpoints
        self.table, steps = replicates.last_rows(table, run, columns.step)
        return steps

    def _cells(self) -> pd.DataFrame:
        """Architecture, size, protocol, seed, run_id and corpus of every run."""
        table, columns = self.table, self.columns
        made = pd.DataFrame(index=table.frame.index)
        made["architecture"] = table.texts(columns.architecture)
        if columns.size in table:
            made["size"] = table.texts(columns.size)
        else:
            basis = columns.params if columns.params in table else columns.flops
            for row, value in (values := table.numbers(basis)).items():
                if not np.isfinite(value):
                    table.refuse(
                        row, basis, "must be a number: no column of sizes (--size) is given"
                    )
            made["size"] = [f"{value:.3g}" for value in values]
        for name, column, missing in (
            ("protocol", columns.protocol, ""),
            ("study", "study", self._name),
            ("corpus", "corpus", "not recorded"),
            ("device", "device", "not recorded"),
        ):
            made[name] = table.texts(column, missing) if column in table else missing
        made["family"] = table.texts("family", "") if self._of_families else ""
        cell = self._names(made)
        known = columns.seed in table
        made["seed"] = (
            table.wholes(columns.seed) if known else cell.groupby([*cell], sort=False).cumcount()
        )
        named = [
            "-".join(filter(None, (*names, f"s{seed}")))
            for *names, seed in cell.assign(seed=made["seed"]).to_numpy()
        ]
        made["run_id"] = table.texts(columns.run_id) if columns.run_id in table else named
        return made

    @functools.cached_property
    def _of_families(self) -> bool:
        """Whether the table's column `family` holds families; other values are a user's own."""
        if "family" not in self.table or "family" in self._meant():
            return False
        return set(self.table.texts("family", "")) <= {"", *FAMILIES}

    @staticmethod
    def _names(made: pd.DataFrame) -> pd.DataFrame:
        """What names a cell, as in the name of a run: a plain family is not in it."""
        family = made["family"].mask(made["family"].isin(PLAIN), "")
        return made[["architecture", "size", "protocol"]].assign(family=family)[
            ["architecture", "size", "family", "protocol"]
        ]

    def _refuse_twice(self, made: pd.DataFrame, cell: pd.Series) -> None:
        """Refuses two rows of one run, and two runs of one cell and seed."""
        keys = [made["run_id"], cell + " seed " + made["seed"].astype(str)]
        for key, what in zip(keys, ("run {!r} appears twice", "{} is there twice"), strict=True):
            if not key.duplicated().any():
                continue
            row = key.index[key.duplicated()][0]
            before = key.index[(key == key[row]).to_numpy()][0]
            frame, known = self.table.frame, self._known()
            ours, theirs = frame.loc[row].astype(str), frame.loc[before].astype(str)
            differ = [str(c) for c in frame.columns if str(c) not in known and ours[c] != theirs[c]]
            more = f"; they differ in {', '.join(differ[:4])}" if differ else ""
            more += f": --where {differ[0]}={theirs[differ[0]]}?" if differ else ""
            said = f"{what.format(key[row])} ({self.table.row(before)} as well{more})"
            raise InputError(
                f"{self.path}: {self.table.row(row)}: {said}; name its step or its seed"
            )

    def _check_units(self, cell: pd.Series) -> None:
        table, columns = self.table, self.columns
        kinds = {
            columns.params: "N",
            columns.flops: "C",
            "flops_train_total": "C",
            "tokens_seen": "D",
        }
        for column, kind in kinds.items():
            if column in table:
                self._positive(column)
                self.warnings += units.costs(table, column, kind, scale_free=True)
        for column in (columns.params, columns.flops, columns.state):
            if column in table:
                self.warnings += units.same_size(table, column, cell)
        for column in (columns.speed, columns.state):
            if column in table:
                self._positive(column)
        if columns.upstream in table:
            units.losses(table, columns.upstream, columns.upstream_is)
        averages = [
            c
            for c in GROUP_COLUMNS
            if c in table and c not in self.tasks and not columns.downstream
        ]
        option = "without --fractions" if columns.fractions else "--fractions"
        self.warnings += units.scores(
            table, [*self.tasks, *averages], 1.0 if columns.fractions else 100.0, option
        )

    def _positive(self, column: str) -> None:
        values = self.table.numbers(column)
        for row, value in values.items():
            if value <= 0 or np.isinf(value):
                self.table.refuse(
                    row, column, "is not above zero" if value <= 0 else "is not finite"
                )

    def _lossless(self, names: pd.Series) -> None:
        """Records which runs have no loss in any row. Must be called before rows are dropped."""
        upstream = self.columns.upstream
        known = pd.Series(True, names.index)
        if upstream in self.table:
            known = known & np.isfinite(self.table.numbers(upstream).to_numpy())
        self.never = dict((~known.groupby(names).transform("any")).items())

    def _diverged(self, run_ids: pd.Series) -> list[str]:
        """Names the runs without a loss in their last row, apart from those without any."""
        if self.columns.upstream not in self.table:
            return []
        lost = run_ids[~np.isfinite(self.table.numbers(self.columns.upstream).to_numpy())]
        said = []
        for never, what in (
            (False, "have no loss in their last row, but had one before (diverged?)"),
            (True, "have no loss in any row"),
        ):
            names = [
                f"{run} ({self.table.row(row)})"
                for row, run in lost.items()
                if self.never[row] == never
            ]
            said += (
                [f"{len(names)} runs {what}, and count as missing: {', '.join(names)}."]
                if names
                else []
            )
        return said

    def _scored(self, made: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
        """The runs in the store's columns, with costs and scores, and the names of the tasks."""
        table, columns = self.table, self.columns

        def number(column: str) -> np.ndarray:
            return (
                table.numbers(column).to_numpy() if column in table else np.full(len(table), np.nan)
            )

        for key in COST_COLUMNS:
            made[key] = number(key)
        made["params_total"] = number(columns.params)
        made["flops_forward"] = number(columns.flops)
        made["steps_per_second"] = number(columns.speed)
        made["state_size"] = number(columns.state)
        made["upstream_nll"] = _nll(number(columns.upstream), columns.upstream_is)
        made["upstream_nll_stderr"] = number("upstream_nll_stderr")
        made["upstream_bits_per_byte"] = number("upstream_bits_per_byte")
        factor = 100.0 if columns.fractions else 1.0
        names = {column: column.removeprefix("downstream_") for column in self.tasks}
        for column, task in names.items():
            made[f"downstream_{task}"] = factor * number(column)
        given = {
            c: factor * number(c) for c in GROUP_COLUMNS if c in table and not columns.downstream
        }
        if not self.tasks:
            made = made.assign(**given)
        full = complete(made, names.values())
        return self._own_averages(full, given if self.tasks else {}), list(names.values())

    def _own_averages(self, full: pd.DataFrame, given: dict[str, np.ndarray]) -> pd.DataFrame:
        """Uses the table's own averages where it has them, as in the table 1 of a report."""
        for column, values in given.items():
            if column.removeprefix("downstream_") in (
                c.removeprefix("downstream_") for c in self.tasks
            ):
                continue
            theirs = pd.Series(values, index=full.index, dtype=float)
            off = (theirs - full[column]).abs() > 1e-6 * (1 + theirs.abs())
            if off.any():
                row = self.table.row(self.table.frame.index[off.to_numpy()][0])
                what = f"is not the mean of its tasks in {off.sum()} rows ({row} first)"
                self.warnings.append(f"{column} {what}; it is taken as it is.")
            full = full.assign(**{column: theirs.where(theirs.notna(), full[column])})
        return full


def _nll(values: np.ndarray, kind: str) -> np.ndarray:
    """Converts a loss to nats; an infinite one, of a run that diverged, counts as missing."""
    values = np.where(np.isfinite(values), values, np.nan)
    if kind == "ppl":
        return np.log(np.where(values > 0, values, np.nan))
    return -values if kind == "neg_log_ppl" else values


def _meaning(columns: RunColumns, path: Path) -> pd.DataFrame:
    """The settings by which the table was read, for the report."""
    rows = [("table", path.name, 0)]
    for field in dataclasses.fields(RunColumns):
        value = getattr(columns, field.name)
        if value != field.default:
            rows.append(
                (
                    f"column.{field.name}",
                    ", ".join(value) if isinstance(value, tuple) else str(value),
                    0,
                )
            )
    return pd.DataFrame(rows, columns=["setting", "value", "runs"])
