"""Slopes α_{F,U}, α_{F,D}, α_{U,D}, α_{P,U}, α_{P,D} of each architecture, with intervals."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.question import Inquiry, Question
from eval.data.cells import Cells, RunTable
from eval.data.quantity import LINKS, Link
from eval.stats.bootstrap import join
from eval.stats.regression import Lines, fit

PAIRS = ("FU", "FD", "UD", "PU", "PD")
_APART = 1.5  # the ratio of two standard errors from which both are told
_ROBUST_FROM = 5  # sizes; with four, no interval of pairwise slopes can cover 95 %
_MEASURED = (
    "theil_sen",
    "theil_sen_low",
    "theil_sen_high",
    "deming",
    "deming_low",
    "deming_high",
    "deming_ratio",
    "reliability",
)


class Slopes(Inquiry):
    """The slopes of a study's architectures, on several pairs of quantities."""

    by: tuple[str, ...] = ("architecture",)

    def _chosen(self, everything: RunTable) -> RunTable:
        return everything.main(self.question.protocol)

    def table(self, pairs: Sequence[str] = PAIRS, links: Sequence[Link] = LINKS) -> pd.DataFrame:
        """The slope tables of several pairs and links, concatenated.

        Args:
          pairs: two letters each, x then y: `FU` is α_{F,U}. The question says which column a
            letter means.
          links: names from `eval.data.quantity.LINKS`.

        Returns:
          The columns of `slope_table`, by pair, link and group.
        """
        quantities, tables = self.question.quantities, []
        self.runs.check(quantities[symbol] for symbol in dict.fromkeys("".join(pairs)))
        for (x, y), link in itertools.product(pairs, links):
            asked = self.question.ask(x=quantities[x], y=quantities[y], link=link)
            cells = self.runs.cells(asked.axes, self.by).along_x()
            tables.append(slope_table(cells, asked, self.by))
        return pd.concat(tables, ignore_index=True)


def slope_table(
    cells: Cells, question: Question, by: Sequence[str] = ("architecture",)
) -> pd.DataFrame:
    """Fits a straight line to the cell means of each group and describes its slope.

    Args:
      cells: means of x and y; those of a group are in order of x.
      question: the settings.
      by: names of the keys of the groups.

    Returns:
      One row per group, with columns
        architecture (and any other keys in `by`), alpha ("F,U"), link, x_axis and y_axis (in
        words, with the base of the logarithm and the column, hence the FLOP convention),
        higher_is_better (of the slope),
        n_sizes, n_runs, runs_missing (runs without x or y), x_min and x_max (as fitted),
        slope, intercept, r2,
        se, df, ci_low, ci_high, p (slope = 0), method (how the interval was made),
        se_hc3 (statsmodels' HC3 of the size means, for comparison),
        seed_low, seed_high (the interval of `errors="seed"`: the uncertainty that the seeds alone
        leave at exactly these sizes), theil_sen, theil_sen_low, theil_sen_high, deming, deming_low,
        deming_high, deming_ratio (variance of the error of y over that of x), reliability (share of
        the variance of x between sizes that is not seed noise); these only where x is itself
        measured, as in α_{U,D} (Theil-Sen's interval comes in steps and covers 97-98 % at 5 to 7
        sizes), note (what is missing or weak, in words; empty if nothing is).
    """
    lines = fit(cells, question.errors, question.variance)
    slope = lines.slope_estimates()
    low, high = slope.interval(question.level)
    of_seeds = fit(cells, "seed", question.variance).slope_estimates()
    seed_low, seed_high = of_seeds.interval(question.level)
    frame = pd.DataFrame(cells.groups, columns=list(by))
    frame = frame.assign(
        **question.columns(),
        higher_is_better=question.higher_slope_is_better,
        n_sizes=lines.n,
        n_runs=np.bincount(cells.group, cells.seeds, len(lines.n)).astype(int),
        runs_missing=cells.missing,
        x_min=np.where(lines.n > 0, lines.low, np.nan),
        x_max=np.where(lines.n > 0, lines.high, np.nan),
        slope=slope.value,
        intercept=lines.coefficients[:, 0],
        r2=lines.r2,
        se=slope.se,
        df=slope.df,
        ci_low=low,
        ci_high=high,
        p=slope.p,
        method=lines.method,
        se_hc3=lines.se_hc3,
        seed_low=seed_low,
        seed_high=seed_high,
    )
    measured, groups = question.x.kind != "cost", range(len(lines.n))
    robust = [(np.nan,) * len(_MEASURED) for _ in groups]
    if measured:
        robust = [_measured_x(cells, i, question.level) for i in groups]
    frame[list(_MEASURED)] = np.array(robust)
    frame["note"] = [
        _note(lines, i, frame["reliability"][i])
        if measured
        else join(lines.notes[i], _robust_note(slope.se[i], lines.se_hc3[i]))
        for i in groups
    ]
    return frame


def _robust_note(se: float, se_hc3: float) -> str:
    """A note where the two standard errors of a slope differ by more than half."""
    if not (se > 0 and np.isfinite(se_hc3)) or 1 / _APART <= se_hc3 / se <= _APART:
        return ""
    return f"standard error {se:.2g} (t), {se_hc3:.2g} (HC3)"


def _note(lines: Lines, group: int, reliability: float) -> str:
    """The note on a line whose x is measured."""
    words = [lines.notes[group]] if lines.notes[group] else []
    if 2 < lines.n[group] < _ROBUST_FROM and not lines.notes[group]:
        words.append(f"{lines.n[group]} sizes: no interval for Theil-Sen and Deming slopes")
    if lines.n[group] > 2 and np.isnan(reliability):
        words.append("one seed per size: the noise of x is unknown, no Deming slope")
    elif reliability < 0.9:
        noise = f"{1 - reliability:.0%} of the variance of x is seed noise"
        words.append(f"{noise}: least squares is biased to 0")
    return "; ".join(words)


def _measured_x(cells: Cells, group: int, level: float) -> tuple[float, ...]:
    """The _MEASURED columns of one line: Theil-Sen and Deming slopes, for an x that is measured."""
    here = cells.group == group
    x, y = cells.x[here], cells.y[here]
    seeds, (xx, _, yy) = cells.seeds[here], cells.within[here].sum(0)
    if len(x) < 3 or np.ptp(x) == 0 or cells.no_log[group]:
        return (np.nan,) * len(_MEASURED)
    sen, _, sen_low, sen_high = map(float, stats.theilslopes(y, x, level))
    if len(x) < _ROBUST_FROM:
        sen_low = sen_high = np.nan
    free = (seeds - 1).sum()
    if not (free and xx > 0 and yy > 0):
        return (sen, sen_low, sen_high, np.nan, np.nan, np.nan, np.nan, np.nan)
    ratio = yy / xx
    slope, low, high = deming_interval(x, y, ratio, level)
    reliability = max(0.0, 1 - (xx / free) * np.mean(1 / seeds) / np.var(x, ddof=1))
    return (sen, sen_low, sen_high, slope, low, high, ratio, reliability)


def deming(x: np.ndarray, y: np.ndarray, ratio: float) -> np.ndarray | float:
    """Deming's slope through points whose x and y both have measurement errors.

    Args:
      x: [..., n].
      y: [..., n].
      ratio: variance of the errors of y over that of x.

    Returns:
      The slope, [...].
    """
    dx, dy = (v - v.mean(-1, keepdims=True) for v in (np.asarray(x, float), np.asarray(y, float)))
    sxx, sxy, syy = ((a * b).sum(-1) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    difference = syy - ratio * sxx
    return (difference + np.sqrt(difference**2 + 4 * ratio * sxy**2)) / (2 * sxy)


def deming_interval(
    x: np.ndarray, y: np.ndarray, ratio: float, level: float
) -> tuple[float, float, float]:
    """Deming's slope with Linnet's jackknife interval over the sizes.

    The interval is NaN below five sizes, where it would cover 98 %.
    """
    n, slope = len(x), float(deming(x, y, ratio))
    if n < _ROBUST_FROM:
        return slope, np.nan, np.nan
    others = ~np.eye(n, dtype=bool)
    x, y = (np.broadcast_to(v, (n, n))[others].reshape(n, n - 1) for v in (x, y))
    left_out = deming(x, y, ratio)
    # The pseudo-values n * slope - (n - 1) * left_out have n - 1 times the spread of left_out.
    half = stats.t.ppf((1 + level) / 2, n - 2) * (n - 1) * np.std(left_out, ddof=1) / np.sqrt(n)
    return slope, slope - half, slope + half
