"""Compares trained models on the same held-out examples.

Some examples are hard for all models. So most of the standard error of one model's score is common
to all of them, and a difference between two models is much more certain than that error suggests.
The error of a difference does not contain the noise between trainings: it says whether these
trained models differ, not whether their architectures do.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.question import Inquiry
from eval.data.cells import CELL, Cells, RunTable
from eval.data.examples import PairedExamples, behind
from eval.data.quantity import Axis, Quantity
from eval.stats.decision import holm

COLUMNS = (
    "architecture",
    "reference",
    "size",
    "y_axis",
    "difference",
    "se",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "n_examples",
    "note",
)


class Paired(Inquiry):
    """The models of a study, compared example by example at each size.

    Example:
      >>> Paired(study, Question(y=LOSS)).differences()
    """

    def differences(self) -> pd.DataFrame:
        """The quality of every architecture minus the reference's at one size, paired.

        Returns:
          One row per size and architecture but the reference, with columns
            architecture, reference, size, y_axis, difference (higher is better; means over the
            seeds of a cell), se (over examples, of the difference), ci_low, ci_high (at `level`,
            not corrected), p, p_holm (over the architectures of a size), n_examples, note. Empty if
            the runs did not keep the values of each example.
        """
        question, axis = self.question, self.question.axis(self.question.y)
        cells = self.runs.cells((axis, self.question.axis(self.question.x)))
        empty = pd.DataFrame(columns=list(COLUMNS))
        means = _of_cells(self.runs, cells, axis)
        if means is None:
            return empty
        sign, names, rows = -1.0 if axis.reversed else 1.0, cells.names(), []
        count = len(cells.group)
        for c in range(count):
            name, size = names[cells.group[c]], cells.size[c]
            own = [
                k
                for k in range(count)
                if cells.size[k] == size and names[cells.group[k]] == question.reference
            ]
            if name == question.reference or not own:
                continue
            value, error = _difference(means, c, own[0])
            value *= sign
            half = stats.norm.ppf((1 + question.level) / 2) * error
            single = cells.seeds[c] == 1 or cells.seeds[own[0]] == 1
            note = "one seed: the noise between trainings is not in this error" if single else ""
            rows.append(
                {
                    "architecture": name,
                    "reference": question.reference,
                    "size": size,
                    "y_axis": axis.label,
                    "difference": value,
                    "se": error,
                    "ci_low": value - half,
                    "ci_high": value + half,
                    "p": 2 * stats.norm.sf(abs(value) / error) if error > 0 else np.nan,
                    "n_examples": sum(len(part.weight) for part in means),
                    "note": note,
                }
            )
        if not rows:
            return empty
        frame = pd.DataFrame(rows)
        frame["p_holm"] = frame.groupby("size")["p"].transform(holm)
        return frame[list(COLUMNS)]


@dataclasses.dataclass(frozen=True)
class PairedErrors:
    """How exactly the examples fix each cell's difference from the reference at the same size.

    Attributes:
      reference: the architecture that the others are compared with.
      table: one row per cell (index: the columns of CELL) and one column per quality: the standard
        error over held-out examples of the cell's value minus the reference's at the same size and
        protocol. NaN for the reference, where it was not run, and where the runs did not keep the
        values behind a quality.
    """

    reference: str
    table: pd.DataFrame

    @classmethod
    def of(cls, runs: RunTable, reference: str, qualities: Iterable[Quantity]) -> "PairedErrors":
        """Computes the errors for several qualities.

        Args:
          runs: the runs, of all protocols.
          reference: the architecture that the others are compared with.
          qualities: losses and scores; those that no run has are left out.
        """
        if not runs.paths:  # a table has no examples
            return cls(reference, pd.DataFrame())
        found = {q.column: _errors(runs, q, reference) for q in qualities if runs.knows(q)}
        index = pd.MultiIndex.from_frame(runs.frame[list(CELL)].drop_duplicates())
        return cls(reference, pd.DataFrame(found, index=index))

    def known(self, column: str) -> bool:
        """Whether at least one cell has an error of this quality."""
        return column in self.table and bool(self.table[column].notna().any())


def _errors(runs: RunTable, quality: Quantity, reference: str) -> pd.Series:
    """The paired standard errors of one quality, by cell."""
    axis = quality.axis()
    cells = runs.cells((axis,), CELL)
    keys = [tuple(cells.groups[group]) for group in cells.group]
    found = pd.Series(np.nan, index=pd.MultiIndex.from_tuples(keys or [("", "", "")], names=CELL))
    means = _of_cells(runs, cells, axis)
    if means is None:
        return found
    # Of several checkpoints the best one counts, but only the last one kept its examples.
    shown = axis.unread(cells.mean[:, 0])
    if not np.allclose(np.mean([part.values for part in means], axis=0), shown, rtol=1e-5):
        return found
    place = {key: c for c, key in enumerate(keys)}
    for (name, size, protocol), c in place.items():
        own = place.get((reference, size, protocol))
        if own is not None and name != reference:
            found.iloc[c] = _difference(means, c, own)[1]
    return found


def _of_cells(runs: RunTable, cells: Cells, axis: Axis) -> list[PairedExamples] | None:
    """The examples behind a quality, averaged over the seeds of every cell; None without them."""
    parts = behind(runs, cells, axis)
    if parts is None:
        return None
    every = range(len(cells.group))
    return [
        PairedExamples(np.stack([part.total[cells.cell == c].mean(0) for c in every]), part.weight)
        for part in parts
    ]


def _difference(means: Sequence[PairedExamples], a: int, b: int) -> tuple[float, float]:
    """The quality of cell `a` minus that of cell `b`, averaged over tasks, and its error."""
    found = np.array([part.difference(a, b) for part in means])
    # Tasks have examples of their own, so their errors are independent.
    return float(found[:, 0].mean()), float(np.sqrt((found[:, 1] ** 2).sum()) / len(found))
