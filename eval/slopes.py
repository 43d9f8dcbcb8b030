"""The study's slopes: α_{F,U}, α_{F,D}, α_{U,D}, α_{P,U}, α_{P,D} per architecture, with intervals that hold at small n."""

from collections.abc import Sequence

import pandas as pd

from eval.cells import LINKS, Axes

PAIRS = ("FU", "FD", "UD", "PU", "PD")


def slopes(
    table: pd.DataFrame,
    *,
    pairs: Sequence[str] = PAIRS,
    links: Sequence[str] = LINKS,
    axes: Axes = Axes(),
    by: Sequence[str] = ("architecture",),
    protocol: str | None = None,
    errors: str = "size",
    level: float = 0.95,
) -> pd.DataFrame:
    """Fits one straight line per architecture, pair and link through the size means (seeds averaged first).

    Args:
      table: one row per run, the store's columns.
      pairs: two letters each, x then y: `FU` is α_{F,U}.
      links: names from `eval.cells.LINKS`.
      axes: which columns are meant, and the base of the logarithms.
      by: columns that group the lines; with `protocol` among them no protocol is selected.
      protocol: see `eval.cells.main_protocol`.
      errors: what an interval answers. `size`: the slope of the trend, from the scatter of the sizes around the line.
        `seed`: the slope that these very sizes would have with endless seeds, from the spread between seeds.
      level: confidence level.

    Returns:
      One row per pair, link and group, in that order, with columns
        architecture (and whatever else is in `by`), alpha ("F,U"), link, x_axis and y_axis (in words, with the base of the
        logarithm and the column, hence the FLOP convention), higher_is_better (of y),
        n_sizes, n_runs, runs_missing (runs without x or y), x_min and x_max (as fitted),
        slope, intercept, r2,
        se, df, ci_low, ci_high, p (slope = 0), method (how the interval was made),
        se_hc3 (statsmodels' HC3 of the size means, for comparison),
        theil_sen, theil_sen_low, theil_sen_high, deming, deming_low, deming_high, deming_ratio (variance of the error of y
        over that of x), reliability (share of the variance of x between sizes that is not seed noise); these only for
        α_{U,D}, where x is itself measured,
        note (in plain words what is missing or weak; empty when all is well).

    Raises:
      InputError: see `eval.cells.check`.
    """
    raise NotImplementedError
