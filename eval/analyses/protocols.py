"""Scaling protocols: does an architecture gain more from depth or from width?

The ladder of a protocol consists of the runs with its name in the column `protocol`.
"""

import numpy as np
import pandas as pd

from eval.analyses.question import Inquiry, Question
from eval.analyses.slopes import Slopes
from eval.data.cells import RunTable, supported
from eval.stats.decision import holm, verdict
from eval.stats.regression import Lines, fit

_DIFFERENCE = (
    "slope_first",
    "slope_second",
    "difference",
    "se",
    "df",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "verdict",
    "method",
    "note",
)


class Protocols(Slopes):
    """The slopes of every architecture along each protocol. The question's own protocol is ignored.

    `table` has the column `protocol` after `architecture` (empty for the plain ladder).
    """

    needs = ("protocol",)
    by = ("architecture", "protocol")

    def _chosen(self, everything: RunTable) -> RunTable:
        return everything

    def differences(self, first: str = "depth", second: str = "width") -> pd.DataFrame:
        """The slope under one protocol minus the slope under another, for each architecture.

        Args:
          first: a protocol.
          second: the protocol whose slope is subtracted.

        Returns:
          One row per architecture that has both, and a last row `all` (mean over those with a
            difference), with columns architecture, first, second, alpha, link, x_axis, y_axis,
            higher_is_better (of the slope), slope_first, slope_second, difference, se, df, ci_low,
            ci_high, p, p_holm (over the architectures; NaN for `all`), verdict (`depth scales
            better`,
            `width scales better`, with the protocols' own names, `not told apart`, `not tested`; by
            p_holm, `all` by p), method, note. Empty if no architecture has both.
        """
        question = self.question
        cells = self.runs.cells(question.axes, self.by).along_x()
        place = {group: i for i, group in enumerate(cells.groups)}
        names = [name for name, own in place if own == first and (name, second) in place]
        for name in names:
            cells = supported(cells, [place[name, first], place[name, second]], question.support)
        lines = fit(cells, question.errors, question.variance)
        front = {
            "first": first,
            "second": second,
            **question.columns(),
            "higher_is_better": question.higher_slope_is_better,
        }
        slope = lines.coefficients[:, 1]
        whole = [n for n in names if np.isfinite(slope[[place[n, first], place[n, second]]]).all()]
        rows = []
        for name, members in [*((n, [n]) for n in names), *([("all", whole)] if names else [])]:
            sides = [[place[n, protocol] for n in members] for protocol in (first, second)]
            found = _difference(lines, sides[0], sides[1], question.level)
            rows.append({"architecture": name, **front, **found})
        frame = pd.DataFrame(rows, columns=["architecture", *front, *_DIFFERENCE])
        if rows:
            frame["p_holm"] = [*holm(frame["p"].to_numpy(float)[:-1]), np.nan]
            judged = frame["p_holm"].where(frame["architecture"] != "all", frame["p"])
            better = 1.0 if question.higher_slope_is_better else -1.0
            words = (f"{first} scales better", f"{second} scales better")
            frame["verdict"] = [
                verdict(better * difference, p, question.level, *words)
                for difference, p in zip(frame["difference"], judged, strict=True)
            ]
        return frame


def _difference(lines: Lines, first: list[int], second: list[int], level: float) -> dict:
    """The columns _DIFFERENCE: the mean slope of the groups in `first` minus that of `second`."""
    if not first:
        return dict.fromkeys(_DIFFERENCE, np.nan) | {
            "method": "none",
            "note": "no architecture has both slopes",
        }
    pairs = zip(first, second, strict=True)
    weights = np.mean([lines.slope_weights(a) - lines.slope_weights(b) for a, b in pairs], axis=0)
    found, slope = lines.combine(weights), lines.coefficients[:, 1]
    low, high = found.interval(level)
    values = (
        slope[first].mean(),
        slope[second].mean(),
        found.value,
        found.se,
        found.df,
        low,
        high,
        found.p,
    )
    return dict(zip(_DIFFERENCE, map(float, values), strict=False)) | {
        "method": lines.method_of(*first, *second),
        "note": lines.explain(first + second),
    }


class DepthWidth(Inquiry):
    """The quality y by depth and width, over the runs of all protocols, in y's own unit."""

    def _admitted(self, question: Question) -> Question:
        return question.ask(link="semilog")

    def _chosen(self, everything: RunTable) -> RunTable:
        everything.check((self.question.x, self.question.y))
        return everything

    def grid(self, depth: str = "num_layers", width: str = "embed_dim") -> pd.DataFrame:
        """Quality by depth and width, for a heat map.

        Where the table has no column for depth or width, the value is read from the operators in
        the size's name (`base-NL24-DM512`). A run without either is left out.

        Args:
          depth: the column with the number of layers.
          width: the column with the model dimension.

        Returns:
          Rows by architecture, depth and width, with columns
            architecture, depth, width, y_axis, quality (mean over runs, higher is better), stderr
            (over seeds, NaN with one), n_runs, flops (mean), note (how many runs were left out).
        """
        x, y, table = self.x, self.y, self.runs.frame
        frame = pd.DataFrame(
            {
                "architecture": table["architecture"].astype(str),
                "depth": _dimension(table, depth, r"-NL(\d+)"),
                "width": _dimension(table, width, r"-DM(\d+)"),
                "quality": y.read(y.quantity.values(table)),
                "flops": x.quantity.values(table),
            }
        )
        known = frame.notna().all(axis=1)
        columns = [
            "architecture",
            "depth",
            "width",
            "y_axis",
            "quality",
            "stderr",
            "n_runs",
            "flops",
            "note",
        ]
        if not known.any():
            return pd.DataFrame(columns=columns)
        grid = (
            frame[known]
            .groupby(["architecture", "depth", "width"])
            .agg(
                quality=("quality", "mean"),
                stderr=("quality", "sem"),
                n_runs=("quality", "size"),
                flops=("flops", "mean"),
            )
            .reset_index()
        )
        lost = int((~known).sum())
        note = f"{lost} runs of unknown depth, width or quality are left out" if lost else ""
        return grid.assign(y_axis=y.label, note=note)[columns]


def _dimension(table: pd.DataFrame, column: str, operator: str) -> pd.Series:
    if column in table.columns:
        return table[column].astype(float)
    return table["size"].astype(str).str.extract(operator, expand=False).astype(float)
