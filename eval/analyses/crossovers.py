"""Finds where the lines of two architectures cross, and how uncertain the crossing is."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from eval.analyses.question import Question
from eval.stats.bootstrap import join
from eval.stats.regression import Lines, divide, fieller

_ANYWHERE = "the slopes cannot be told apart: the crossing may be anywhere"


def crossovers(lines: Lines, pairs: Iterable[tuple[int, int]], question: Question) -> pd.DataFrame:
    """The budget at which two lines meet, with Fieller's interval.

    A parametric bootstrap checks the interval. It redraws both lines with the errors and degrees of
    freedom of their fits. Below four sizes there is neither a Fieller interval nor a bootstrap.

    Args:
      lines: one line per architecture.
      pairs: pairs of groups of `lines`.
      question: the settings.

    Returns:
      One row per pair, with columns
        architecture_a, architecture_b, alpha, link, x_axis, y_axis,
        crossing (in the unit of x, e.g. FLOPs), ci_low, ci_high (0 and inf where that side of a
        logarithmic axis is open), interval (`bounded`; `outside`: everything except the stretch
        from ci_low to ci_high; `unbounded`: every budget is compatible; `none`: too few sizes;
        where the slopes cannot be told apart it is one of the last three), p_slopes (of equal
        slopes), better_below, better_above (architecture names, by the lines, at lower and higher
        x), range_low, range_high (the budgets that both cover), position (`inside`, `extrapolated
        below`, `extrapolated above`; `none` where the lines do not cross or no range is common),
        bootstrap_low, bootstrap_high (percentiles), probability_inside (share of samples that cross
        inside the common range), method, note.
    """
    names = lines.cells.names()
    samples = lines.resampled(question.draws, question.seed)
    rows = []
    for a, b in pairs:
        found = _crossing(lines, a, b, samples, question)
        found["note"] = join(lines.explain((a, b)), *found["note"])
        pair = {"architecture_a": names[a], "architecture_b": names[b]}
        rows.append({**pair, **question.columns(), **found})
    return pd.DataFrame(rows)


def _crossing(
    lines: Lines, a: int, b: int, samples: np.ndarray, question: Question
) -> dict[str, Any]:
    """One row of the table, in the unit of x; `note` is a list."""
    axis, level = question.axes[0], question.level
    slope = lines.slope_weights(a) - lines.slope_weights(b)
    start = lines.value_weights(a, 0.0) - lines.value_weights(b, 0.0)
    difference = lines.combine(slope)
    # The lines meet where start + slope * x is zero.
    at = divide(lines.combine(-start).value, difference.value)
    low, high, kind = fieller(lines, -start, slope, level)
    range_low, range_high = _common(lines, a, b)
    note = [] if range_low <= range_high else ["no range that both cover"]
    if kind in ("outside", "unbounded"):
        but = "" if kind == "unbounded" else " but inside the interval"
        note.append(_ANYWHERE + but)
    boot = _bootstrap(samples[:, a] - samples[:, b], level, range_low, range_high)
    ci_low, ci_high = axis.span(low, high)
    unit_low, unit_high = axis.span(range_low, range_high)
    bootstrap_low, bootstrap_high = axis.span(*boot[:2])
    crossing = float(axis.unread(at))
    return {
        "crossing": crossing,
        "ci_low": ci_low,
        "ci_high": ci_high,
        "interval": kind,
        "p_slopes": float(difference.p),
        **_better(lines.cells.names(), a, b, at, float(difference.value), question),
        "range_low": unit_low,
        "range_high": unit_high,
        "position": _position(at, range_low, range_high, axis.reversed),
        "bootstrap_low": bootstrap_low,
        "bootstrap_high": bootstrap_high,
        "probability_inside": boot[2],
        "method": "none" if kind == "none" else "Fieller, " + lines.method[a],
        "note": note,
    }


def _common(lines: Lines, a: int, b: int) -> tuple[float, float]:
    """The range of positions that both lines cover; NaN if there is none."""
    low, high = max(lines.low[a], lines.low[b]), min(lines.high[a], lines.high[b])
    return (low, high) if low <= high else (np.nan, np.nan)


def _better(
    names: list[str], a: int, b: int, at: float, difference: float, question: Question
) -> dict[str, str]:
    """Which of two architectures is better below and above their crossing."""
    x, y = question.axes
    if not np.isfinite(x.unread(at)):
        return {"better_below": "", "better_above": ""}
    a_gains = (difference > 0) == y.higher_is_better  # along the axis of x
    above, below = (a, b) if a_gains != x.reversed else (b, a)
    return {"better_below": names[below], "better_above": names[above]}


def _position(at: float, low: float, high: float, reversed: bool) -> str:
    """Where a crossing lies. Below and above refer to x in its unit, positions to the axis."""
    if not (np.isfinite(at) and np.isfinite(low)):
        return "none"
    if low <= at <= high:
        return "inside"
    return f"extrapolated {'below' if (at < low) != reversed else 'above'}"


def _bootstrap(
    difference: np.ndarray, level: float, low: float, high: float
) -> tuple[float, float, float]:
    """Percentiles of the resampled crossings and the share of them inside the common range.

    Args:
      difference: intercept and slope of one line minus the other's, [B, 2].
      level: of the interval.
      low: end of the common range.
      high: the other end.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -difference[:, 0] / difference[:, 1]
    # A draw with equal slopes never crosses, so percentiles would be meaningless.
    if not len(crossing) or not np.isfinite(crossing).all():
        return np.nan, np.nan, np.nan
    ends = np.quantile(crossing, ((1 - level) / 2, (1 + level) / 2))
    inside = float(((crossing >= low) & (crossing <= high)).mean()) if np.isfinite(low) else np.nan
    return float(ends[0]), float(ends[1]), inside
