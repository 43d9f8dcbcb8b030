"""Anybody's table as the points of a law: which columns are meant, and one clear line where they cannot be right."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from eval import foreign, store
from eval.scaling_laws.forms.form import Form
from train.records import InputError

# What each input is read from: the option that names the column, then the columns tried when it is not given.
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
_LEAST = {"N": 1e3, "D": 1e3, "C": 1e6}  # fewer parameters, tokens or FLOPs than any language model has
_MOST = {"N": 1e15, "D": 1e18, "C": 1e33}  # more than any will have soon
_JUMP = 1e6  # a column whose sorted values leap by more mixes units


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column of the table means what; an empty name looks for the usual ones.

    Attributes:
      params: parameters N, counted as you mean them (with or without embedding and head: name that column).
      tokens: training tokens D; left out where `flops` is given, D = C / (k N).
      flops: training FLOPs C; left out where N and D are known, C = k N D.
      steps: optimizer steps S.
      unique_tokens: distinct tokens U before repetition.
      experts: number of experts.
      x: the one input of power, offset and bnsl.
      loss: the loss in nats.
      score: downstream error or accuracy, for the downstream forms.
      weight: weight of each row, if rows count differently.
      group: fit each value of this column (the architecture) by itself and together.
      cluster: rows that are not independent of each other (checkpoints of one run); `run_id` when there is one.
      flops_per_param_token: k of C = k N D.
      where: keep only rows with COLUMN=VALUE or COLUMN=VALUE,VALUE.
      drop_highest_loss: leave out this many rows of the highest loss; the fit of all rows is reported beside.
    """

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
    flops_per_param_token: float = 6.0
    where: tuple[str, ...] = ()
    drop_highest_loss: int = 0


@dataclasses.dataclass(frozen=True)
class Runs:
    """The points of a fit.

    Attributes:
      x: natural logarithms of the inputs, name -> [n].
      y: what is fitted, raw [n].
      weight: [n].
      cluster: number of the run each point belongs to [n].
      group: label [n]; all empty without groups.
      row: line of the file, the header being line 1 [n].
    """

    x: dict[str, np.ndarray]
    y: np.ndarray
    weight: np.ndarray
    cluster: np.ndarray
    group: np.ndarray
    row: np.ndarray

    def take(self, index: np.ndarray) -> "Runs":
        """These points only; `index` is a mask or positions."""
        rest = {f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self) if f.name != "x"}
        return Runs(x={name: values[index] for name, values in self.x.items()}, **rest)

    @property
    def groups(self) -> list[str]:
        """Labels in order of appearance."""
        return list(dict.fromkeys(self.group))


def points(y: np.ndarray, group: np.ndarray | None = None, cluster: np.ndarray | None = None, **inputs) -> Runs:
    """Runs from arrays of raw values (inputs by name: N=..., D=...); every point is a run of its own by default."""
    n = len(y)
    x = {name: np.log(np.broadcast_to(np.asarray(values, float), n)) for name, values in inputs.items()}
    labels = np.full(n, "") if group is None else np.asarray(group)
    codes = np.arange(n) if cluster is None else pd.factorize(np.asarray(cluster))[0]
    return Runs(x, np.asarray(y, float), np.ones(n), codes, labels, np.arange(n) + 2)


def read(path: str | os.PathLike[str], form: Form, columns: Columns = Columns()) -> Runs:
    """Reads the points of a form from a .csv, .csv.gz, .parquet or .jsonl file, or from a study's directory.

    Raises:
      InputError: the file cannot be read; a column is missing; a value is text, empty, not finite, zero or below; a
        column is in thousands, millions or billions, or mixes units; a row appears twice. Names column and row.
    """
    path = Path(path)
    return from_frame(load(path), form, columns, path)


def load(path: Path, say: Callable[[str], None] = lambda warning: None) -> pd.DataFrame:
    """A table from a file, or the finished runs of a study's directory; `say` is told what to know about the latter.

    Raises:
      InputError: it cannot be read, or no run of the study is finished.
    """
    if not path.is_dir():
        return foreign.load(path)
    study = store.read_study(path)
    for warning in study.warnings:
        say(warning)
    if study.runs.empty:
        raise InputError(f"{path}: no run is finished, so there is nothing to fit")
    return study.runs


def from_frame(frame: pd.DataFrame, form: Form, columns: Columns = Columns(), path: Path = Path("table")) -> Runs:
    """The points of a form from a table in memory; `path` is what error messages call it.

    Raises:
      InputError: as for `read`.
    """
    frame = foreign.where(frame, columns.where, path)
    x = _inputs(frame, form, columns, path)
    option, usual = _INPUTS["L"] if form.output == "loss" else ("score", ("score", "error", "accuracy"))
    y = _positive(frame, _column(frame, option, usual, columns, path), path, zero=form.space == "raw")
    n = len(frame)
    weight = _positive(frame, columns.weight, path) if _given(frame, columns.weight, "weight", path) else np.ones(n)
    cluster = columns.cluster or ("run_id" if "run_id" in frame else "")
    codes = pd.factorize(frame[cluster])[0] if _given(frame, cluster, "cluster", path) else np.arange(n)
    group = np.full(n, "", dtype=object)
    if _given(frame, columns.group, "group", path):
        group = frame[columns.group].astype(str).to_numpy(dtype=object)
    runs = Runs(
        {k: np.log(v) for k, v in x.items()}, y, weight, codes, group, np.array([*map(foreign.row_number, frame.index)])
    )
    _refuse_duplicates(frame, path)
    return runs


def read_inputs(path: str | os.PathLike[str], form: Form, columns: Columns = Columns()) -> dict[str, np.ndarray]:
    """Logarithms of a form's inputs from a table that has no losses: runs that could be made.

    Raises:
      InputError: as for `read`.
    """
    path = Path(path)
    return {name: np.log(values) for name, values in _inputs(foreign.load(path), form, columns, path).items()}


def without_highest(runs: Runs, count: int) -> Runs:
    """Leaves out the `count` points of the highest y."""
    return runs.take(np.sort(np.argsort(runs.y, kind="stable")[: len(runs.y) - count])) if count else runs


def _inputs(frame: pd.DataFrame, form: Form, columns: Columns, path: Path) -> dict[str, np.ndarray]:
    def one(name: str) -> np.ndarray:
        option, usual = _INPUTS[name]
        column = _column(frame, option, usual, columns, path)
        return _positive(frame, column, path, _LEAST.get(name, 0.0), _MOST.get(name, np.inf))

    def known(name: str) -> bool:
        option, usual = _INPUTS[name]
        return bool(getattr(columns, option)) or any(column in frame for column in usual)

    k, x = columns.flops_per_param_token, {}
    for name in form.inputs:
        if name == "D" and not columns.tokens and (columns.flops or not known("D")) and known("C"):
            x[name] = one("C") / (k * one("N"))
        elif name == "C" and not columns.flops and not known("C") and known("N") and known("D"):
            x[name] = k * one("N") * one("D")
        else:
            x[name] = one(name)
    return x


def _given(frame: pd.DataFrame, column: str, option: str, path: Path) -> bool:
    if column and column not in frame:
        raise InputError(f"{path}: {option}: no column {column!r}; it has {foreign.column_names(frame)}")
    return bool(column)


def _column(frame: pd.DataFrame, option: str, usual: tuple[str, ...], columns: Columns, path: Path) -> str:
    named = getattr(columns, option)
    if _given(frame, named, option, path):
        return named
    for column in usual:
        if column in frame:
            return column
    flag = option.replace("_", "-")
    raise InputError(f"{path}: {option}: name the column with --{flag}; it has {foreign.column_names(frame)}")


def _positive(
    frame: pd.DataFrame, column: str, path: Path, least: float = 0.0, most: float = np.inf, zero: bool = False
) -> np.ndarray:
    """A column of numbers above zero (or zero too), between `least` and `most`, that share one unit."""
    cells = frame[column]
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    above = numbers >= 0 if zero else numbers > 0
    for wrong, why in (
        (cells.isna(), "is empty"),
        (numbers.isna(), "is not a number"),
        (~np.isfinite(numbers), "is not finite"),
        (~above, "is not above zero" if not zero else "is below zero"),
        (numbers < least, f"is below {least:g}: is the column in thousands, millions or billions?"),
        (numbers > most, f"is above {most:g}: is the column in another unit?"),
    ):
        if wrong.any():
            _refuse(frame, column, np.flatnonzero(wrong)[0], why, path)
    values = numbers.to_numpy()
    if least and len(values) > 1:
        order = np.argsort(values)
        leap = np.diff(np.log(values[order]))
        i = int(leap.argmax())
        if leap[i] > np.log(_JUMP):
            odd = order[i] if i + 1 <= len(values) - i - 1 else order[i + 1]
            _refuse(frame, column, odd, f"is over {_JUMP:g} times off its neighbours: does the column mix units?", path)
    return values


def _refuse(frame: pd.DataFrame, column: str, position: int, why: str, path: Path) -> None:
    row, value = foreign.row_number(frame.index[position]), frame[column].iloc[position]
    shown = value.item() if isinstance(value, np.generic) else value
    run = f" (run {frame['run_id'].iloc[position]})" if "run_id" in frame else ""
    raise InputError(f"{path}: row {row}{run}: {column} = {shown!r} {why}")


def _refuse_duplicates(frame: pd.DataFrame, path: Path) -> None:
    """Two rows that agree in every column are one run counted twice."""
    again = frame.astype(str).duplicated()
    if again.any():
        position = int(np.flatnonzero(again)[0])
        first = int(np.flatnonzero((frame.astype(str) == frame.iloc[position].astype(str)).all(axis=1))[0])
        here, there = (foreign.row_number(frame.index[i]) for i in (position, first))
        column, value = frame.columns[0], frame.iat[position, 0]
        raise InputError(f"{path}: row {here}: repeats row {there} in every column ({column} = {value!r}, ...)")
