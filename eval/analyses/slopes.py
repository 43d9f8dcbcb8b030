"""The study's slopes α_{F,U}, α_{F,D}, α_{U,D}, α_{P,U}, α_{P,D} by architecture, with intervals that hold."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from eval.data.cells import (
    AXES,
    LINKS,
    Axes,
    Cells,
    cell_means,
    check,
    higher_slope_is_better,
    main_protocol,
)
from eval.stats.regression import Lines, fit

PAIRS = ("FU", "FD", "UD", "PU", "PD")
_ROBUST_FROM = 5  # with four points no set of pairwise slopes can cover 95 %
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


def slopes(
    table: pd.DataFrame,
    *,
    pairs: Sequence[str] = PAIRS,
    links: Sequence[str] = LINKS,
    axes: Axes = AXES,
    by: Sequence[str] = ("architecture",),
    protocol: str | None = None,
    errors: str = "size",
    variance: str = "separate",
    level: float = 0.95,
) -> pd.DataFrame:
    """Fits one straight line per architecture, pair and link through the size means (seeds averaged first).

    Args:
      table: one row per run, the store's columns.
      pairs: two letters each, x then y: `FU` is α_{F,U}.
      links: names from `eval.data.cells.LINKS`.
      axes: which columns are meant, and the base of the logarithms.
      by: columns that group the lines; with `protocol` among them no protocol is selected.
      protocol: see `eval.data.cells.main_protocol`.
      errors: what an interval answers. `size`: the slope of the trend, from the scatter of the
        sizes around the line. `seed`: the slope that these very sizes would have with endless
        seeds, from the spread between seeds.
      variance: `separate`: a residual variance for each line; `pooled`: one for all of them.
      level: confidence level.

    Returns:
      One row per pair, link and group, in that order, with columns
        architecture (and whatever else is in `by`), alpha ("F,U"), link, x_axis and y_axis (in
        words, with the base of the logarithm and the column, hence the FLOP convention),
        higher_is_better (of the slope),
        n_sizes, n_runs, runs_missing (runs without x or y), x_min and x_max (as fitted),
        slope, intercept, r2,
        se, df, ci_low, ci_high, p (slope = 0), method (how the interval was made),
        se_hc3 (statsmodels' HC3 of the size means, for comparison),
        seed_low, seed_high (the interval of `errors="seed"`: what the seeds alone leave open at
        these very sizes), theil_sen, theil_sen_low, theil_sen_high, deming, deming_low,
        deming_high, deming_ratio (variance of the error of y over that of x), reliability (share of
        the variance of x between sizes that is not seed noise); these only for α_{U,D}, where x is
        itself measured (Theil-Sen's interval comes in steps and covers 97-98 % at 5 to 7 sizes),
        note (in plain words what is missing or weak; empty when all is well).

    Raises:
      InputError: see `eval.data.cells.check`.
    """
    check(table, "".join(dict.fromkeys("".join(pairs))), axes)
    table = table if "protocol" in by else main_protocol(table, protocol)
    rows = [
        _pair(table, pair, link, axes, by, errors, variance, level)
        for pair in pairs
        for link in links
    ]
    return pd.concat(rows, ignore_index=True)


def _pair(
    table,
    pair: str,
    link: str,
    axes: Axes,
    by: Sequence[str],
    errors: str,
    variance: str,
    level: float,
) -> pd.DataFrame:
    x, y = pair
    cells = cell_means(table, x, y, link, axes, by)
    lines = fit(cells, errors, variance)
    slope = lines.slope_estimates()
    low, high = slope.interval(level)
    seed_low, seed_high = fit(cells, "seed", variance).slope_estimates().interval(level)
    frame = pd.DataFrame(cells.groups, columns=list(by))
    frame = frame.assign(
        alpha=f"{x},{y}",
        link=link,
        x_axis=axes.label(x, link),
        y_axis=axes.label(y, link),
        higher_is_better=higher_slope_is_better(x, y, link),
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
    robust = [
        _measured_x(cells, i, level) if x == "U" else (np.nan,) * len(_MEASURED)
        for i in range(len(lines.n))
    ]
    frame[list(_MEASURED)] = np.array(robust)
    frame["note"] = [_note(lines, i, x, frame["reliability"][i]) for i in range(len(lines.n))]
    return frame


def _note(lines: Lines, group: int, x: str, reliability: float) -> str:
    words = [lines.notes[group]] if lines.notes[group] else []
    if x == "U" and 2 < lines.n[group] < _ROBUST_FROM and not lines.notes[group]:
        words.append(f"{lines.n[group]} sizes: no interval for Theil-Sen and Deming slopes")
    if x == "U" and lines.n[group] > 2 and np.isnan(reliability):
        words.append("one seed per size: the noise of x is unknown, no Deming slope")
    elif x == "U" and reliability < 0.9:
        words.append(
            f"{1 - reliability:.0%} of the variance of x is seed noise: least squares is biased to 0"
        )
    return "; ".join(words)


def _measured_x(cells: Cells, group: int, level: float) -> tuple[float, ...]:
    """The _MEASURED columns of one line: Theil-Sen and Deming, for an x that is itself measured."""
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
    """Deming's slope through points whose x and y are both measured.

    Args:
      x: [..., n].
      y: [..., n].
      ratio: variance of the errors of y over that of x.
    """
    dx, dy = (v - v.mean(-1, keepdims=True) for v in (np.asarray(x, float), np.asarray(y, float)))
    sxx, sxy, syy = ((a * b).sum(-1) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    difference = syy - ratio * sxx
    return (difference + np.sqrt(difference**2 + 4 * ratio * sxy**2)) / (2 * sxy)


def deming_interval(
    x: np.ndarray, y: np.ndarray, ratio: float, level: float
) -> tuple[float, float, float]:
    """Deming's slope with Linnet's jackknife interval over the sizes; NaN below five sizes, where it covers 98 %."""
    n, slope = len(x), float(deming(x, y, ratio))
    if n < _ROBUST_FROM:
        return slope, np.nan, np.nan
    others = ~np.eye(n, dtype=bool)
    x, y = (np.broadcast_to(v, (n, n))[others].reshape(n, n - 1) for v in (x, y))
    left_out = deming(x, y, ratio)
    # The pseudo-values, n * slope - (n - 1) * left_out, spread as the slopes do, n - 1 times as far.
    half = stats.t.ppf((1 + level) / 2, n - 2) * (n - 1) * np.std(left_out, ddof=1) / np.sqrt(n)
    return slope, slope - half, slope + half
