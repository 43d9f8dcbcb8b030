"""Values of every held-out example, by which two runs are compared on the same examples.

All runs of a study score the same examples. An example that is hard is hard for all of them, so the
standard error of one run's mean is nearly all common to the runs, and the error of a difference is
much smaller. Runs write these values at their final evaluation (`heldout/<task>.jsonl`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.data.cells import Cells, RunTable
from eval.data.quantity import Axis
from eval.data.study import AVERAGES, BITS_PER_BYTE, task_columns
from train import records
from train.records import InputError

_TOKENS, _BYTES = "corpus", "corpus_bytes"  # the held-out text, per target token and per byte


@dataclasses.dataclass(frozen=True)
class PairedExamples:
    """Values of the N examples of one task or of the held-out text, for several runs.

    The quality of a run is the ratio of sums of `total` and `weight`.

    Attributes:
      total: nats of a sequence, or the score of an example, [R, N].
      weight: target tokens of a sequence, or 1, [N].
    """

    total: np.ndarray
    weight: np.ndarray

    @property
    def values(self) -> np.ndarray:
        """The quality of every run, [R]."""
        return self.total.sum(1) / self.weight.sum()

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """The quality of run `a` minus that of run `b`, and its standard error over examples."""
        count, total = len(self.weight), self.weight.sum()
        gap = self.total[a] - self.total[b]
        value = gap.sum() / total
        if count < 2:
            return float(value), np.nan
        spread = np.sqrt(((gap - value * self.weight) ** 2).sum() * count / (count - 1))
        return float(value), float(spread / total)

    def redrawn(self, draws: int, seed: int) -> np.ndarray:
        """The qualities of all runs on examples that are drawn again, the same for all, [B, R]."""
        rng, count = np.random.default_rng(seed), len(self.weight)
        times = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
        return (times @ self.total.T) / (times @ self.weight)[:, None]


def read(
    paths: Mapping[str, Path], task: str, kept: dict[tuple[str, str], Any] | None = None
) -> tuple[list[str], PairedExamples] | None:
    """The examples of one task, for the runs that have them.

    Args:
      paths: run directories by run id.
      task: a task; or `corpus` for the held-out text of pretraining, in nats per target token; or
        `corpus_bytes` for the same text in bits per byte.
      kept: what earlier calls have read, by run id and task; new files are added to it.

    Returns:
      The ids of the runs that have the values of the same examples, in the order of `paths`, and
      these values; None if fewer than two runs have them. Runs with other examples than most (of
      another number, or with other weights) are left out.

    Raises:
      InputError: a file is damaged. Names file and row.
    """
    kept = {} if kept is None else kept
    found: dict[tuple, list[tuple[str, np.ndarray]]] = {}
    for run, path in paths.items():
        if (run, task) not in kept:
            kept[run, task] = _of_run(path, task)
        if kept[run, task] is not None:
            total, weight = kept[run, task]
            found.setdefault(tuple(weight), []).append((run, total))
    if not found:
        return None
    weight, runs = max(found.items(), key=lambda pair: len(pair[1]))
    if len(runs) < 2:
        return None
    names = [run for run, _ in runs]
    return names, PairedExamples(np.stack([total for _, total in runs]), np.array(weight))


def _of_run(path: Path, task: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The totals and weights of one run's examples; None if it did not keep them."""
    text = task in (_TOKENS, _BYTES)
    file = path / records.HELDOUT / f"{_TOKENS if text else task}.jsonl"
    kinds = ("nll", "weight") if text else ("score",)
    rows = records.read_jsonl(file, {name: (int, float) for name in kinds})
    # Records of earlier versions do not have the bytes.
    if not rows or (task == _BYTES and not all("bytes" in row for row in rows)):
        return None
    kinds += ("bytes",) if task == _BYTES else ()
    values = {name: np.array([row[name] for row in rows], float) for name in kinds}
    if not all(np.isfinite(value).all() for value in values.values()):
        raise InputError(f"{file}: a value of an example is not a finite number")
    if task == _BYTES:
        return values["nll"] / np.log(2), values["bytes"]
    return (values["nll"], values["weight"]) if text else (values["score"], np.ones(len(rows)))


def behind(runs: RunTable, cells: Cells, axis: Axis) -> list[PairedExamples] | None:
    """The examples behind one quality: of the held-out text, of a task, or of each of several.

    They are read once for a study, however many analyses ask.

    Args:
      runs: the table that the cells come from.
      cells: cells of these runs.
      axis: how the quality is read.

    Returns:
      One entry for each task that is averaged, with one row for each complete run of `cells`; None
      if some run lacks the values of some task, or the quality is none of these.
    """
    if not (runs.paths and len(cells.run) and "run_id" in runs.frame):
        return None
    ids = tuple(str(run) for run in runs.frame["run_id"].iloc[cells.run])
    first = runs.paths.get(ids[0])
    if first is None or not (first / records.HELDOUT).is_dir() or not runs.paths.keys() >= {*ids}:
        return None
    found = []
    for name in _tasks(axis.quantity.column, runs):
        entry = read({run: runs.paths[run] for run in ids}, name, runs.examples)
        if entry is None or entry[0] != list(ids):
            return None
        found.append(entry[1])
    return found or None


def _tasks(column: str, runs: RunTable) -> list[str]:
    """The names under which `read` finds the examples behind a column."""
    if column in ("upstream_nll", "upstream_neg_log_ppl"):
        return [_TOKENS]
    if column == BITS_PER_BYTE:
        return [_BYTES]
    tasks = [task.removeprefix("downstream_") for task in task_columns(runs.frame)]
    if column in AVERAGES:
        return [task for task in tasks if task.startswith(AVERAGES[column])]
    return [column.removeprefix("downstream_")]


def example_noise(
    runs: RunTable, cells: Cells, axes: Sequence[Axis], draws: int, seed: int
) -> np.ndarray | None:
    """What other held-out examples would have changed in every run.

    The same examples are drawn for all runs, so what they change alike cancels in a difference.

    Args:
      runs: the table that the cells come from.
      cells: cells of these runs.
      axes: the qualities, each read without a logarithm.
      draws: the number of draws, B.
      seed: of the draws.

    Returns:
      Changes on the axes for the complete runs of `cells`, [B, R, len(axes)]; None if the runs did
      not keep the values of each example.
    """
    if not draws or any(axis.logarithmic for axis in axes):
        return None
    changes = []
    for axis in axes:
        parts = behind(runs, cells, axis)
        if parts is None:
            return None
        # Tasks have examples of their own, so each is drawn by itself.
        drawn = [part.redrawn(draws, seed + k) - part.values for k, part in enumerate(parts)]
        changes.append(np.mean(drawn, axis=0) * (-1.0 if axis.reversed else 1.0))
    return np.stack(changes, axis=-1)
