"""Anybody's table as the points of a law: which columns are meant, and one clear line where they cannot be right."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro

from eval import foreign, store
from eval.cells import DEFAULT_PROTOCOLS
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
SQRT_FLOPS = "sqrt(C)"  # what `weight` takes besides a column
POOLED = "none"  # what `group` takes for one law of everything
_USUAL_K = 6.0  # forward and backward pass of a model whose every parameter meets every token
_KNOWN_K = 0.1, 1e4  # outside, the column of FLOPs is no training FLOPs; sharing and pooling move k within
_CELL = ["architecture", "size", "protocol", "tokens_seen"]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which column of the table means what; an empty name looks for the usual ones.

    Attributes:
      params: parameters N, counted as you mean them (with or without embedding and head: name that column).
      tokens: training tokens D; left out where `flops` is given, D = C / (k N).
      flops: training FLOPs C; left out where N and D are known, C = k N D; where all three are, they give k.
      steps: optimizer steps S.
      unique_tokens: distinct tokens U before repetition.
      experts: number of experts.
      x: the one input of power, offset and bnsl.
      loss: the loss in nats.
      score: downstream error or accuracy, for the downstream forms.
      weight: weight of each row, if rows count differently (only ratios matter), or `sqrt(C)`.
      group: fit each value of this column (the architecture) by itself and together; of a study's directory its
        architecture, unless `none` asks for one law of everything.
      cluster: rows that are not independent of each other (checkpoints of one run); `run_id` when there is one, and of
        a study's directory the seeds of a cell.
      flops_per_param_token: k of C = k N D; by default the median of C / (N D), by group, where the table has training
        FLOPs, and 6 where not.
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
    flops_per_param_token: Annotated[float | None, tyro.conf.arg(aliases=("--k",))] = None
    where: tuple[str, ...] = ()
    drop_highest_loss: int = 0


@dataclasses.dataclass(frozen=True)
class Runs:
    """The points of a fit.

    Attributes:
      x: natural logarithms of the inputs, name -> [n].
      y: what is fitted, raw [n].
      weight: [n]; scaled to mean one, so that a common factor changes nothing.
      cluster: number of the run each point belongs to [n].
      group: label [n]; all empty without groups.
      row: line of the file, the header being line 1 [n].
      flops: measured training FLOPs [n], NaN where they are not known.
    """

    x: dict[str, np.ndarray]
    y: np.ndarray
    weight: np.ndarray
    cluster: np.ndarray
    group: np.ndarray
    row: np.ndarray
    flops: np.ndarray

    def __post_init__(self):
        """Scales the weights."""
        if len(self.weight):
            object.__setattr__(self, "weight", self.weight / self.weight.mean())

    def take(self, index: np.ndarray) -> "Runs":
        """These points only; `index` is a mask or positions."""
        rest = {f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self) if f.name != "x"}
        return Runs(x={name: values[index] for name, values in self.x.items()}, **rest)

    @property
    def groups(self) -> list[str]:
        """Labels in order of appearance."""
        return list(dict.fromkeys(self.group))

    @property
    def clusters(self) -> int:
        """Number of independent runs."""
        return len(np.unique(self.cluster))

    @property
    def dependent(self) -> str:
        """Why statistics that take the points as independent are not given; empty where they are."""
        if self.clusters == len(self.y):
            return ""
        return f"{len(self.y)} rows are {self.clusters} independent runs or cells"

    @property
    def k(self) -> float:
        """FLOPs per parameter and token: the median of C / (N D) where FLOPs were measured, 6 elsewhere."""
        ratio = self._ratio()
        return float(np.median(ratio)) if len(ratio) else _USUAL_K

    def doubts_of_k(self) -> list[str]:
        """What the measured FLOPs say against C = k N D with one k."""
        ratio = self._ratio()
        if not len(ratio):
            return []
        if not _KNOWN_K[0] < self.k < _KNOWN_K[1]:
            return [f"C / (N D) is {self.k:.3g}: are these the FLOPs of the whole training?"]
        if ratio.max() > 2 * ratio.min():
            return [f"C / (N D) runs from {ratio.min():.3g} to {ratio.max():.3g}; budgets use the median, {self.k:.3g}"]
        return []

    def _ratio(self) -> np.ndarray:
        if not {"N", "D"} <= set(self.x):
            return np.empty(0)
        ratio = self.flops / np.exp(self.x["N"] + self.x["D"])
        return ratio[np.isfinite(ratio)]


def points(
    y: np.ndarray,
    group: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    flops: np.ndarray | None = None,
    **inputs,
) -> Runs:
    """Runs from arrays of raw values (inputs by name: N=..., D=...); every point is a run of its own by default."""
    n = len(y)
    weight, flops = np.ones(n) if weight is None else weight, np.full(n, np.nan) if flops is None else flops
    x = {name: np.log(np.broadcast_to(np.asarray(values, float), n)) for name, values in inputs.items()}
    labels = np.full(n, "") if group is None else np.asarray(group)
    codes = np.arange(n) if cluster is None else pd.factorize(np.asarray(cluster))[0]
    y, weight, flops = (np.asarray(values, float) for values in (y, weight, flops))
    return Runs(x, y, weight, codes, labels, np.arange(n) + 2, flops)


def load(path: Path, columns: Columns, say: Callable[[str], None] = lambda warning: None) -> tuple[pd.DataFrame, dict]:
    """A table from a file or a study's directory, and the fields of `columns` that it decides.

    Of a study these are the finished runs of its plain protocol (or of those that `where` names; where none is plain,
    as in a study of budgets, of all of them), with a law for each architecture; the seeds of a cell are one cluster,
    because they share whatever its size does not fit.

    Args:
      path: a .csv, .csv.gz, .parquet or .jsonl file, or a study's directory.
      columns: what the person asked for.
      say: is told what to know about a study.

    Raises:
      InputError: it cannot be read, or no run of the study is finished.
    """
    if not path.is_dir():
        return foreign.load(path), {"group": "" if columns.group == POOLED else columns.group}
    study = store.read_study(path)
    for warning in study.warnings:
        say(warning)
    if study.runs.empty:
        raise InputError(f"{path}: no run is finished, so there is nothing to fit")
    every = foreign.where(study.runs, columns.where, path)
    plain = every["protocol"].fillna("").isin(DEFAULT_PROTOCOLS)
    frame = every[plain] if plain.any() else every
    if len(frame) < len(every):
        kept = frame["protocol"].fillna("").astype(str).iloc[0]
        say(f"{len(every) - len(frame)} runs of other protocols than {kept!r} are left out; --where protocol=NAME")
    elif (several := sorted(set(every["protocol"]))) and len(several) > 1:
        say(f"none of the protocols {', '.join(several)} is plain: all are fitted together; --where protocol=NAME")
    group = columns.group or ("architecture" if frame["architecture"].nunique() > 1 else "")
    cell = [c for c in _CELL if c in frame]
    frame = frame.assign(cell=frame[cell].astype(str).agg("|".join, axis=1))
    return frame, {"where": (), "group": "" if group == POOLED else group, "cluster": columns.cluster or "cell"}


def from_frame(frame: pd.DataFrame, form: Form, columns: Columns = Columns(), path: Path = Path("table")) -> Runs:
    """The points of a form from a table in memory; `path` is what error messages call it.

    Raises:
      InputError: a column is missing; a value is text, empty, not finite, zero or below; a column is in thousands,
        millions or billions, or mixes units; a row appears twice. Names column and row.
    """
    if columns.flops_per_param_token is not None and not columns.flops_per_param_token > 0:
        raise InputError(f"flops_per_param_token: {columns.flops_per_param_token!r} is not above zero")
    frame = foreign.where(frame, columns.where, path)
    x = _inputs(frame, form, columns, path)
    option, usual = _INPUTS["L"] if form.output == "loss" else ("score", ("score", "error", "accuracy"))
    y = _positive(frame, _column(frame, option, usual, columns, path), path, zero=form.space == "raw")
    n, flops = len(frame), _measured_flops(frame, columns, path)
    if columns.weight == SQRT_FLOPS:
        weight = np.sqrt(_compute(x, flops, path))
    else:
        weight = _positive(frame, columns.weight, path) if _given(frame, columns.weight, "weight", path) else np.ones(n)
    cluster = columns.cluster or ("run_id" if "run_id" in frame else "")
    codes = pd.factorize(frame[cluster])[0] if _given(frame, cluster, "cluster", path) else np.arange(n)
    group = np.full(n, "", dtype=object)
    if _given(frame, columns.group, "group", path):
        group = frame[columns.group].astype(str).to_numpy(dtype=object)
    row = np.array([*map(foreign.row_number, frame.index)])
    _refuse_duplicates(frame, path)
    return Runs({name: np.log(v) for name, v in x.items()}, y, weight, codes, group, row, flops)


def read_inputs(path: Path, form: Form, columns: Columns = Columns()) -> dict[str, np.ndarray]:
    """Logarithms of a form's inputs from a table that has no losses: runs that could be made.

    Raises:
      InputError: as for `from_frame`.
    """
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

    k, x = columns.flops_per_param_token or _USUAL_K, {}
    for name in form.inputs:
        if name == "D" and not columns.tokens and (columns.flops or not known("D")) and known("C"):
            x[name] = one("C") / (k * one("N"))
        elif name == "C" and not columns.flops and not known("C") and known("N") and known("D"):
            x[name] = k * one("N") * one("D")
        else:
            x[name] = one(name)
    return x


def _measured_flops(frame: pd.DataFrame, columns: Columns, path: Path) -> np.ndarray:
    """Training FLOPs of each row: of the column that is named, or what a usual one holds; NaN where nothing does."""
    option, usual = _INPUTS["C"]
    if columns.flops:
        _given(frame, columns.flops, option, path)
        return _positive(frame, columns.flops, path, _LEAST["C"], _MOST["C"])
    known = [column for column in usual if column in frame]
    values = pd.to_numeric(frame[known[0]], errors="coerce") if known else pd.Series(np.nan, frame.index)
    return values.where(np.isfinite(values) & (values > 0)).to_numpy(float)


def _compute(x: dict[str, np.ndarray], flops: np.ndarray, path: Path) -> np.ndarray:
    """Training FLOPs of each row, as far as a weight needs them."""
    if np.isfinite(flops).all():
        return flops
    if {"N", "D"} <= set(x):
        return x["N"] * x["D"]
    raise InputError(f"{path}: weight: {SQRT_FLOPS} needs training FLOPs (--flops), or N and D")


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
