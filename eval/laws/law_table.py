"""Reads a table in the user's own columns as points; errors name file, row and column."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import tyro

from eval.data import entries, naming, replicates, units
from eval.data.cells import CELL, DEFAULT_PROTOCOLS
from eval.data.families import told_apart
from eval.data.study import read_study
from eval.data.table import Table, first
from eval.data.where import column_names
from eval.laws.fitting.points import USUAL_K, Runs, points
from eval.laws.forms.form import Form
from train import ranges
from train.ranges import CountOrZero, Positive
from train.records import InputError

__all__ = [
    "LawColumns",
    "Runs",
    "from_table",
    "load",
    "points",
    "read_inputs",
    "without_highest",
]

# For each input: the option that names its column, then the columns tried if it is not given.
_INPUTS = {
    "N": ("params", ("params", "params_total", "N")),
    "D": ("tokens", ("tokens", "tokens_seen", "D")),
    "C": ("flops", ("flops", "flops_train_total", "C")),
    "S": ("steps", ("steps", "S")),
    "U": ("unique_tokens", ("unique_tokens", "U")),
    "experts": ("experts", ("experts", "num_experts")),
    "x": ("x", ("x", "flops_train_total", "flops_forward")),
    "L": ("loss", ("loss", "upstream_nll")),
}
_SCORES = ("score", "error", "accuracy", "downstream_mean")
SQRT_FLOPS = "sqrt(C)"  # a value of `weight` that is not a column
POOLED = "none"  # of `group`: one law for all; of `cluster`: every row is a run
_CELL = (*CELL, "tokens_seen")


@dataclasses.dataclass(frozen=True)
class LawColumns:
    """The meaning of a table's columns; an empty name looks for the usual ones.

    Attributes:
      columns: a TOML file with options of columns by name, such as `loss = "eval/loss"`; what the
        command line says comes first.
      params: parameters N; if several columns count them, name the one that includes or leaves out
        embedding and head as you intend.
      tokens: training tokens D; if left out and `flops` is given, D = C / (k N).
      flops: training FLOPs C; if left out and N and D are known, C = k N D; if all three are given,
        they determine k.
      steps: optimizer steps S.
      unique_tokens: distinct tokens U before repetition.
      experts: number of experts.
      x: the one input of power, offset and bnsl.
      loss: the loss in nats.
      score: downstream error or accuracy, for the downstream forms.
      weight: weight of each row, if rows count differently (only ratios matter), or `sqrt(C)`.
      group: fit each value of this column (such as the architecture) separately and together. For a
        study's directory the default is the architecture; `none` fits one law to everything.
      cluster: column whose equal values mark rows that are not independent, such as checkpoints of
        one run. By default the column that names the runs, with a warning unless it is `run_id`;
        for a study's directory, the seeds of a cell. `none` treats every row as a run.
      flops_per_param_token: k of C = k N D; by default the median of C / (N D) in each group if the
        table has training FLOPs, else 6.
      where: keep only rows with COLUMN=VALUE or COLUMN=VALUE,VALUE.
      drop_highest_loss: leave out this many rows with the highest loss; the fit to all rows is also
        reported.
      ignore: columns that are not settings, although they differ between rows with the same inputs
        (for example a cluster's name).
      trust_units: skip the checks that refuse implausible numbers: other units, mixed units,
        perplexities.
    """

    columns: Path | None = None
    params: str = ""
    tokens: str = ""
    flops: str = ""
    steps: str = ""
    unique_tokens: str = ""
    experts: str = ""
    x: str = ""
    loss: str = ""
    score: str = ""
    weight: str = ""
    group: str = ""
    cluster: str = ""
    flops_per_param_token: Annotated[Positive | None, tyro.conf.arg(aliases=("--k",))] = None
    where: tuple[str, ...] = ()
    drop_highest_loss: CountOrZero = 0
    ignore: tuple[str, ...] = ()
    trust_units: bool = False

    fits_groups: ClassVar[bool] = True  # whether `group` may name a column


def load(
    path: Path, columns: LawColumns, say: Callable[[str], None] = lambda warning: None
) -> tuple[Table, dict]:
    """Reads a table from a file or a study's directory, and the `columns` that it determines.

    From a study it takes the finished runs of the plain protocol, or those that `where` selects. If
    there is no plain protocol, as in a study of budgets, it takes all runs. It fits one law per
    architecture, and per family if there are several. The seeds of a cell are one cluster, because
    they share the misfit of their size.

    Args:
      path: a table (see `eval.data.files`), or a study's directory.
      columns: the columns that the user named.
      say: called with each warning about a study.

    Returns:
      The table, and values that replace fields of `columns`.

    Raises:
      InputError: it cannot be read, no row meets the conditions, or no run of the study is
        finished.
    """
    if not path.is_dir():
        return _of_a_table(path, columns, say)
    if columns.columns is not None:
        raise InputError(f"columns: {path} is a study, whose columns are known")
    study = read_study(path)
    for warning in study.warnings:
        say(warning)
    if study.runs.empty:
        raise InputError(f"{path}: no run is finished, so there is nothing to fit")
    every = told_apart(Table(path, study.runs).where(columns.where).frame)
    plain = every["protocol"].fillna("").isin(DEFAULT_PROTOCOLS)
    frame = every[plain] if plain.any() else every
    if len(frame) < len(every):
        kept = frame["protocol"].fillna("").astype(str).iloc[0]
        say(
            f"{len(every) - len(frame)} runs of other protocols than {kept!r} are left out; "
            "--where protocol=NAME"
        )
    elif (several := sorted(set(every["protocol"]))) and len(several) > 1:
        say(
            f"none of the protocols {', '.join(several)} is plain: all are fitted together; "
            "--where protocol=NAME"
        )
    group = columns.group or ("architecture" if frame["architecture"].nunique() > 1 else "")
    cell = [c for c in _CELL if c in frame]
    frame = frame.assign(cell=frame[cell].astype(str).agg("|".join, axis=1))
    return Table(path, frame), {"where": (), "group": group, "cluster": columns.cluster or "cell"}


def _of_a_table(path: Path, columns: LawColumns, say: Callable[[str], None]) -> tuple[Table, dict]:
    chosen = naming.from_file(columns, LawColumns)
    names = [field.name for field in dataclasses.fields(LawColumns)]
    decided = {name: getattr(chosen, name) for name in names}
    table = Table.read(path, chosen.where)
    name = naming.column_of(table, ("run_id", *naming.USUAL["run_id"]))
    table, left_out = naming.ended(table, name)
    for line in left_out:
        say(line)
    return table, decided | {"where": (), "columns": None}


def from_table(
    table: Table,
    form: Form,
    columns: LawColumns = LawColumns(),
    say: Callable[[str], None] = lambda warning: None,
) -> Runs:
    """Reads the points of a form from a table.

    Args:
      table: the rows.
      form: the law, which determines the inputs to read.
      columns: the meaning of the table's columns.
      say: called with each warning about the table.

    Raises:
      InputError: a column is missing; a value is text, empty, not finite, zero or below; a column
        is in thousands, millions or billions, or mixes units; a loss is a perplexity; a row appears
        twice, or differs from another only in a setting. Names column and row.
    """
    ranges.check(columns)
    reader = _LawReader(table, columns, say)
    x = reader.inputs(form)
    y = reader.output(form)
    flops = reader.measured_flops()
    if columns.weight == SQRT_FLOPS:
        weight = np.sqrt(_compute(x, flops, table.path))
    else:
        weight = (
            reader.positive(columns.weight, "weight") if columns.weight else np.ones(len(table))
        )
    group = np.full(len(table), "", dtype=object)
    if columns.group and columns.group != POOLED:
        table.require(columns.group, "group")
        group = table.texts(columns.group).to_numpy(dtype=object)
        reader.tell(table.lookalikes(columns.group))
    table.refuse_repeated()
    reader.refuse_settings(x, group)
    cluster = reader.clusters(x, group)
    logs = {name: np.log(values) for name, values in x.items()}
    return Runs(logs, y, weight, cluster, group, table.frame.index.to_numpy(), flops)


def read_inputs(
    path: Path, form: Form, columns: LawColumns = LawColumns()
) -> dict[str, np.ndarray]:
    """Logarithms of a form's inputs, from a table without losses that lists possible runs.

    Raises:
      InputError: as for `from_table`.
    """
    reader = _LawReader(Table.read(path), columns, lambda warning: None)
    return {name: np.log(values) for name, values in reader.inputs(form).items()}


def without_highest(runs: Runs, count: int) -> Runs:
    """Leaves out the `count` points with the highest y."""
    return (
        runs.take(np.sort(np.argsort(runs.y, kind="stable")[: len(runs.y) - count]))
        if count
        else runs
    )


class _LawReader:
    """Reads the columns of a table that a law needs."""

    def __init__(self, table: Table, columns: LawColumns, say: Callable[[str], None]):
        """Reads nothing yet; `used` is filled with the columns that are read later."""
        self.table, self.columns, self.say = table, columns, say
        self.used: dict[str, str] = {}  # meaning -> column

    def tell(self, warnings: list[str]) -> None:
        """Passes on every warning."""
        for warning in warnings:
            self.say(warning)

    def positive(self, column: str, what: str, zero: bool = False) -> np.ndarray:
        """A column of numbers above zero, or with `zero` not below it."""
        table = self.table
        table.require(column, what)
        self.used[what] = column
        values = table.numbers(column)
        for wrong, why in (
            (values.isna(), "is empty"),
            (~np.isfinite(values), "is not finite"),
            (values < 0 if zero else values <= 0, "is below zero" if zero else "is not above zero"),
        ):
            if wrong.any():
                table.refuse(first(wrong, values.index), column, why)
        return values.to_numpy()

    def inputs(self, form: Form) -> dict[str, np.ndarray]:
        """The inputs of a form.

        Tokens may be computed from FLOPs and parameters, FLOPs from parameters and tokens.
        """
        columns, x = self.columns, {}
        k = columns.flops_per_param_token or USUAL_K
        for name in form.inputs:
            if (
                name == "D"
                and not columns.tokens
                and (columns.flops or not self._known("D"))
                and self._known("C")
            ):
                x[name] = self._cost("C") / (k * self._cost("N"))
            elif (
                name == "C"
                and not columns.flops
                and not self._known("C")
                and self._known("N")
                and self._known("D")
            ):
                x[name] = k * self._cost("N") * self._cost("D")
            else:
                x[name] = self._cost(name)
        return x

    def output(self, form: Form) -> np.ndarray:
        """The values that the form predicts: a loss in nats, or a score."""
        option, usual = _INPUTS["L"] if form.output == "loss" else ("score", _SCORES)
        column = self._column(option, usual)
        values = self.positive(column, form.output, zero=form.space == "raw")
        if self.columns.trust_units or self.table.path.is_dir():  # a study's units are known
            return values
        if form.scale is None:
            units.nats(self.table, column)
        else:
            option = "--perfect 100" if form.scale <= 1 else "--perfect 1"
            self.tell(units.scores(self.table, [column], form.scale, option))
        return values

    def measured_flops(self) -> np.ndarray:
        """Training FLOPs of each row, from the named column or a usual one; NaN where unknown."""
        option, usual = _INPUTS["C"]
        if self.columns.flops:
            self.table.require(self.columns.flops, option)
            return self._cost("C")
        known = next((column for column in usual if column in self.table), None)
        if known is None:
            return np.full(len(self.table), np.nan)
        values = np.array([entries.number(value) for value in self.table.frame[known]])
        return np.where(np.isfinite(values) & (values > 0), values, np.nan)

    def refuse_settings(self, x: dict[str, np.ndarray], group: np.ndarray) -> None:
        """Refuses rows with the same inputs that differ in a setting.

        Does nothing if the user pools all rows, or for a study, whose settings are known.
        """
        if self.columns.group == POOLED or self.table.path.is_dir():
            return
        index = self.table.frame.index
        labels = [
            ", ".join(f"{name}={values[i]:.10g}" for name, values in x.items())
            for i in range(len(index))
        ]
        cell = pd.Series(
            [f"{g}: {label}" if g else label for g, label in zip(group, labels, strict=True)], index
        )
        choose = "fit each with --group {column}" if self.columns.fits_groups else ""
        replicates.refuse_settings(self.table, cell, self._meant(), choose)

    def clusters(self, x: dict[str, np.ndarray], group: np.ndarray) -> np.ndarray:
        """The number of the run that each row belongs to."""
        table, n = self.table, len(self.table)
        cluster = self.columns.cluster
        if cluster == POOLED and cluster not in table:
            return np.arange(n)
        if not cluster and "run_id" in table:
            cluster = "run_id"
            self._refuse_two_sizes(cluster, x)
        if not cluster:
            size = pd.Series(x["N"] if "N" in x else np.ones(n), table.frame.index)
            seen = [x[name] for name in ("D", "S", "C", "x") if name in x]
            data = pd.Series([*seen, np.arange(n)][0], size.index)
            cluster, warning = replicates.run_column(table, self._meant(), size, data)
            own = pd.Series(
                [f"{label} {value:.10g}" for label, value in zip(group, size, strict=True)],
                size.index,
            )
            if not cluster and seen and replicates.histories(own, data):
                which = self.used.get("N", "")
                self.say(
                    f"rows with one {which or 'model'} are taken as checkpoints of one run, since "
                    f"they are at equal steps ({own.nunique()} runs); --cluster none if they are "
                    "not"
                )
                return pd.factorize(own)[0]
            self.tell([warning] if warning else [])
        if not cluster:
            return np.arange(n)
        table.require(cluster, "cluster")
        return pd.factorize(table.texts(cluster))[0]

    def _refuse_two_sizes(self, run: str, x: dict[str, np.ndarray]) -> None:
        """Refuses a run name whose rows have two sizes."""
        if "N" not in x:
            return
        names = self.table.texts(run, "")
        sizes = pd.Series(x["N"], names.index)
        wrong = sizes != sizes.groupby(names).transform("first")
        if wrong.any():
            row = first(wrong, names.index)
            before = names.index[names == names[row]][0]
            what = (
                f"but {self.table.row(before)} of this run has {sizes[before]:.10g}: one name for "
                "two runs? Else"
            )
            self.table.refuse(row, self.used["N"], f"{what} --cluster {run}")

    def _meant(self) -> set[str]:
        """Columns that have a meaning, or that the user declared not to be settings."""
        named = [
            getattr(self.columns, option)
            for option, _ in (*_INPUTS.values(), ("score", ()), ("weight", ()))
        ]
        usual = [column for _, several in _INPUTS.values() for column in several]
        group = [self.columns.group, self.columns.cluster]
        return {*named, *usual, *group, *self.used.values(), *self.columns.ignore}

    def _known(self, name: str) -> bool:
        option, usual = _INPUTS[name]
        return bool(getattr(self.columns, option)) or any(column in self.table for column in usual)

    def _cost(self, name: str) -> np.ndarray:
        """One input, with a check of its unit if it has one."""
        option, usual = _INPUTS[name]
        column = self._column(option, usual)
        values = self.positive(column, name)
        if name in units.LEAST and not self.columns.trust_units:
            self.tell(units.costs(self.table, column, name))
        if name == "L" and not self.columns.trust_units:
            units.nats(self.table, column)
        return values

    def _column(self, option: str, usual: tuple[str, ...]) -> str:
        named = getattr(self.columns, option)
        if named:
            self.table.require(named, option)
            return named
        for column in usual:
            if column in self.table:
                return column
        if column := naming.column_of(self.table, naming.USUAL_OF_LAWS.get(option, ())):
            self.say(f"read {column!r} as {option} (--{option} or --columns names another).")
            return column
        flag, names = option.replace("_", "-"), column_names(self.table.frame)
        raise InputError(
            f"{self.table.path}: {option}: name the column with --{flag}; it has {names}"
        )


def _compute(x: dict[str, np.ndarray], flops: np.ndarray, path: Path) -> np.ndarray:
    """Training FLOPs of each row, for the weights."""
    if np.isfinite(flops).all():
        return flops
    if {"N", "D"} <= set(x):
        return x["N"] * x["D"]
    raise InputError(f"{path}: weight: {SQRT_FLOPS} needs training FLOPs (--flops), or N and D")
