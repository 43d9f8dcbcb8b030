"""Where two architectures' lines cross, and how little is known about it."""

import itertools

import numpy as np
import pandas as pd

from eval.analyses.comparison import REFERENCE
from eval.data.cells import AXES, Axes, cell_means, check, higher_is_better, main_protocol
from eval.stats.bootstrap import join
from eval.stats.regression import Lines, divide, fieller, fit
from train.records import InputError


def crossovers(
    table: pd.DataFrame,
    *,
    x: str = "F",
    y: str = "U",
    link: str = "semilog",
    axes: Axes = AXES,
    reference: str | None = REFERENCE,
    protocol: str | None = None,
    errors: str = "size",
    variance: str = "separate",
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The budget at which two lines meet, with Fieller's interval and a parametric bootstrap as a check.

    `reference` is paired with every other architecture; `None` takes all pairs. The `draws` samples
    redraw both lines with the errors and degrees of freedom of their fits; without Fieller's
    interval (below four sizes) there are none. The other arguments are those of
    `eval.analyses.comparison`.

    Returns:
      One row per pair, with columns
        architecture_a, architecture_b, alpha, link, x_axis, y_axis,
        crossing (in the unit of x, e.g. FLOPs), ci_low, ci_high (0 and inf where that side is
        open), interval (`bounded`; `outside`: everything but the stretch from ci_low to ci_high;
        `unbounded`: every budget is compatible; `none`: too few sizes; where the slopes cannot be
        told apart it is one of the last three), p_slopes (the slopes are equal), better_below,
        better_above (architecture names, by the lines), range_low, range_high (the budgets that
        both cover), position (`inside`, `extrapolated below`, `extrapolated above`; `none` where
        the lines do not cross or no range is common), bootstrap_low, bootstrap_high (percentiles),
        probability_inside (share of samples that cross inside the common range), method, note.
    """
    check(table, x + y, axes)
    cells = cell_means(main_protocol(table, protocol), x, y, link, axes)
    names = [group[0] for group in cells.groups]
    if reference is not None and reference not in names:
        raise InputError(
            f"reference {reference!r} is not among the architectures: {', '.join(names)}"
        )
    lines = fit(cells, errors, variance)
    pairs = itertools.combinations(range(len(names)), 2)
    if reference is not None:
        r = names.index(reference)
        pairs = ((i, r) for i in range(len(names)) if i != r)
    samples = _resampled(lines, draws, seed)
    front = {
        "alpha": f"{x},{y}",
        "link": link,
        "x_axis": axes.label(x, link),
        "y_axis": axes.label(y, link),
    }
    sign = 1.0 if higher_is_better(y, link) else -1.0
    rows = []
    for a, b in pairs:
        row = _crossing(lines, a, b, samples, level, axes)
        ahead = sign * row.pop("slope_difference") > 0  # a is better above the crossing
        if np.isfinite(row["crossing"]):
            row["better_below"], row["better_above"] = (
                (names[b], names[a]) if ahead else (names[a], names[b])
            )
        row["note"] = join(lines.explain((a, b)), *row["note"])
        rows.append({"architecture_a": names[a], "architecture_b": names[b], **front, **row})
    return pd.DataFrame(rows)


def _crossing(lines: Lines, a: int, b: int, samples: np.ndarray, level: float, axes: Axes) -> dict:
    """One row of the table, in the unit of x; `note` is a list."""
    slope = lines.slope_weights(a) - lines.slope_weights(b)
    start = lines.value_weights(a, 0.0) - lines.value_weights(b, 0.0)
    difference, origin = lines.combine(slope), lines.combine(-start)
    at = divide(origin.value, difference.value)
    low, high, kind = fieller(lines, -start, slope, level)
    range_low, range_high = max(lines.low[a], lines.low[b]), min(lines.high[a], lines.high[b])
    note = []
    if range_low > range_high:
        range_low = range_high = np.nan
        note.append("no range that both cover")
    if kind in ("outside", "unbounded"):
        note.append(
            "the slopes cannot be told apart: the crossing may be anywhere"
            if kind == "unbounded"
            else "the slopes cannot be told apart: the crossing may be anywhere but between ci_low and ci_high"
        )
    position = "none"
    if np.isfinite(at) and np.isfinite(range_low):
        position = (
            "extrapolated below"
            if at < range_low
            else "extrapolated above"
            if at > range_high
            else "inside"
        )
    boot = _bootstrap(samples, a, b, level, range_low, range_high)
    budget = lambda v: float(axes.budget(v))
    return {
        "crossing": budget(at),
        "ci_low": budget(low),
        "ci_high": budget(high),
        "interval": kind,
        "p_slopes": float(difference.p),
        "better_below": "",
        "better_above": "",
        "range_low": budget(range_low),
        "range_high": budget(range_high),
        "position": position,
        "bootstrap_low": budget(boot[0]),
        "bootstrap_high": budget(boot[1]),
        "probability_inside": boot[2],
        "method": "none" if kind == "none" else "Fieller, " + lines.method[a],
        "note": note,
        "slope_difference": float(difference.value),
    }


def _resampled(lines: Lines, draws: int, seed: int) -> np.ndarray:
    """Coefficients drawn around the fit as its t intervals have them, [draws, G, 2]; NaN for lines without an error."""
    rng = np.random.default_rng(seed)
    result = np.full((draws, len(lines.n), 2), np.nan)
    shared = (
        None
        if lines.pooled_df is None
        else rng.chisquare(lines.pooled_df, (draws, 1)) / lines.pooled_df
    )
    for g in np.flatnonzero(np.isfinite(lines.covariance).all((1, 2)) & (lines.df > 0)):
        values, vectors = np.linalg.eigh(lines.covariance[g])
        scale = rng.chisquare(lines.df[g], (draws, 1)) / lines.df[g] if shared is None else shared
        normal = rng.standard_normal((draws, 2)) * np.sqrt(np.maximum(values, 0.0))
        result[:, g] = lines.coefficients[g] + normal @ vectors.T / np.sqrt(scale)
    return result


def _bootstrap(
    samples: np.ndarray, a: int, b: int, level: float, low: float, high: float
) -> tuple[float, float, float]:
    """Percentiles of the resampled crossings and the share of them inside the common range."""
    difference = samples[:, a] - samples[:, b]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -difference[:, 0] / difference[:, 1]
    if not np.isfinite(crossing).all():
        return np.nan, np.nan, np.nan
    ends = np.quantile(crossing, ((1 - level) / 2, (1 + level) / 2))
    inside = float(((crossing >= low) & (crossing <= high)).mean()) if np.isfinite(low) else np.nan
    return float(ends[0]), float(ends[1]), inside
