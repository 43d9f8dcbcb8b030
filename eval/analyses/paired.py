"""Compares trained models on the same held-out examples.

Some examples are hard for all models. So most of the standard error of one model's score is common
to all of them, and a difference between two models is much more certain than that error suggests.
The error of a difference does not contain the noise between trainings: it says whether these
trained models differ, not whether their architectures do.
"""

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.question import Inquiry
from eval.data.examples import PairedExamples, behind
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
        parts = behind(self.runs, cells, axis)
        if parts is None:
            return empty
        count = len(cells.group)
        means = [
            PairedExamples(
                np.stack([part.total[cells.cell == c].mean(0) for c in range(count)]), part.weight
            )
            for part in parts
        ]
        sign, names, rows = -1.0 if axis.reversed else 1.0, cells.names(), []
        for c in range(count):
            name, size = names[cells.group[c]], cells.size[c]
            own = [
                k
                for k in range(count)
                if cells.size[k] == size and names[cells.group[k]] == question.reference
            ]
            if name == question.reference or not own:
                continue
            found = np.array([part.difference(c, own[0]) for part in means])
            # Tasks have examples of their own, so their errors are independent.
            value = sign * found[:, 0].mean()
            error = np.sqrt((found[:, 1] ** 2).sum()) / len(found)
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
