"""Optimal allocation without a law of the loss: Hoffmann's approaches 1 and 2.

Approach 1 uses the envelope of training curves, approach 2 isoFLOP profiles. Both end with a line
log N* = log g + a log C through the best N of several budgets.
"""

import dataclasses
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats
from scipy.interpolate import Akima1DInterpolator

from eval.stats.resampling import DEFAULT, Resampling
from train.records import InputError

_SAME_BUDGET = 0.25  # largest gap in log C between neighbouring runs of one budget
_SIGMA = float(stats.norm.cdf(1.0))


@dataclasses.dataclass(frozen=True)
class AllocationLaw:
    """N* = g C^a and D* = C^b / (k g) for C = k N D, with bootstrap intervals.

    Attributes:
      budgets: one row per budget: `flops`, `points`, `N`, `D`, `loss`, `weight`, `note` (why a
        budget was left out).
      a: exponent of N.
      a_interval: its interval; NaN if the size of the noise is unknown.
      b: exponent of D; its interval is 1 minus that of a.
      log_g: intercept in natural logarithms.
      warnings: what the interval does not account for, in words.
    """

    budgets: pd.DataFrame
    a: float
    a_interval: tuple[float, float]
    b: float
    log_g: float
    warnings: tuple[str, ...] = ()


def isoflop(
    n: np.ndarray,
    flops: np.ndarray,
    loss: np.ndarray,
    method: Literal["quadratic", "akima"] = "quadratic",
    resampling: Resampling = DEFAULT,
    k: float = 6.0,
) -> AllocationLaw:
    """Approach 2: fits a line through the minima over N of each budget's profile.

    The minima are weighted by 1 / variance. Runs are sorted by FLOPs, and a run with more than 1.28
    times the FLOPs of the one before starts a new budget. Seeds of a size are averaged, because
    they share the misfit of the parabola. A budget counts if it has three sizes (Akima: four) and
    its minimum is between them.

    One noise is assumed for all: the pooled scatter around the budgets' parabolas, with n - 3
    degrees of freedom from each budget; misfit of a parabola counts as noise. The variance of a
    minimum, and the interval of the line by Student's t, come from profiles that are redrawn with
    this noise. If every budget has three sizes, there are no degrees of freedom: the budgets get
    equal weights, and the interval is NaN.

    Args:
      n: parameters of each run.
      flops: training FLOPs of each run.
      loss: loss of each run.
      method: how the minimum of a profile is found.
      resampling: of the interval.
      k: FLOPs per parameter and token.

    Raises:
      InputError: fewer than two budgets have a minimum.
    """
    runs = pd.DataFrame({"x": np.log(n), "y": np.log(loss), "c": np.log(flops)})
    x, y, c = runs.groupby([runs["x"].round(9), runs["c"].round(6)]).mean().to_numpy().T
    members = _budgets(c)
    chained = _chained(c, members)
    sigma, left = _noise(x, y, members)
    draws, level = resampling.draws, resampling.level
    rng, rows, drawn = np.random.default_rng(resampling.seed), [], []
    for member in members:
        flops_here = float(np.exp(c[member].mean()))
        here, low, note = _minimum(x[member], y[member], method)
        row = {
            "flops": flops_here,
            "points": len(member),
            "N": np.exp(here),
            "loss": np.exp(low),
            "note": note,
        }
        rows.append(row | {"D": flops_here / k / np.exp(here)})
        drawn.append(
            _redrawn_minima(x[member], y[member], sigma, method, draws, rng)
            if not note
            else [np.nan] * draws
        )
    table, drawn_mB = pd.DataFrame(rows), np.array(drawn)
    use = (table["note"] == "").to_numpy()
    if use.sum() < 2:
        few = (
            f"{int(use.sum())} of {len(table)} budgets have a minimum inside their sizes; two are "
            "needed"
        )
        raise InputError("; ".join((f"isoflop: {few}", *chained)))
    table["weight"] = use.astype(float)
    if not left:
        why = (
            "every budget has three sizes or fewer: they fit any parabola, so there is no noise to "
            "make intervals of"
        )
        return _line(
            table,
            np.log(table["N"].to_numpy()),
            drawn_mB[:, :0],
            level,
            k,
            warnings=(*chained, why),
        )
    table.loc[use, "weight"] = 1 / np.maximum(np.nanvar(drawn_mB[use], axis=1), 1e-12)
    return _line(table, np.log(table["N"].to_numpy()), drawn_mB, level, k, left, chained)


def envelope(
    n: np.ndarray,
    flops: np.ndarray,
    loss: np.ndarray,
    run: np.ndarray,
    budgets: int = 200,
    resampling: Resampling = DEFAULT,
    k: float = 6.0,
) -> AllocationLaw:
    """Approach 1: fits a line through the N with the lowest training curve at log-spaced budgets.

    Training curves are made monotonic. The interval comes from resampled runs. Budgets that only
    one run reaches, and minima at the smallest or largest size, are left out: there the envelope is
    an edge of the study, not an optimum.

    Args:
      n: parameters of each point.
      flops: training FLOPs of each point.
      loss: loss of each point.
      run: the run of each point.
      budgets: number of budgets.
      resampling: of the interval.
      k: FLOPs per parameter and token.

    Raises:
      InputError: fewer than two budgets have an optimum.
    """
    labels, code = np.unique(run, return_inverse=True)
    span = np.linspace(np.log(flops).min(), np.log(flops).max(), budgets)
    curves = np.full((len(labels), budgets), np.inf)
    size = np.empty(len(labels))
    for r in range(len(labels)):
        at = np.flatnonzero(code == r)
        at = at[np.argsort(flops[at])]
        size[r] = np.log(n[at]).mean()
        # A noisy curve may rise; its best loss so far does not.
        lowest = np.minimum.accumulate(np.log(loss[at]))
        curves[r] = np.interp(span, np.log(flops[at]), lowest, left=np.inf, right=np.inf)
    draws, level = resampling.draws, resampling.level
    rng = np.random.default_rng(resampling.seed)
    best = _lowest(curves, size)
    drawn = [
        _lowest(curves[pick], size[pick])
        for pick in rng.integers(0, len(labels), (draws, len(labels)))
    ]
    table = pd.DataFrame({"flops": np.exp(span), "N": np.exp(best), "D": np.exp(span - best) / k})
    table["loss"], table["points"] = np.exp(curves.min(0)), np.isfinite(curves).sum(0)
    table["note"] = np.where(np.isnan(best), "minimum at the edge of the sizes", "")
    table["weight"] = (table["note"] == "").astype(float)
    if table["weight"].sum() < 2:
        raise InputError(
            "envelope: no two budgets have their lowest loss inside the range of sizes"
        )
    return _line(table, best, np.array(drawn).T, level, k)


def _budgets(log_c: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(log_c)
    cuts = np.flatnonzero(np.diff(log_c[order]) > _SAME_BUDGET) + 1
    return np.split(order, cuts)


def _chained(log_c: np.ndarray, members: list[np.ndarray]) -> tuple[str, ...]:
    """A warning if runs of different FLOPs were joined into one budget, each close to the next."""
    wide = [log_c[member] for member in members if np.ptp(log_c[member]) > _SAME_BUDGET]
    if not wide:
        return ()
    widest = np.exp(max(wide, key=np.ptp))
    span = f"{widest.min():.3g} to {widest.max():.3g} FLOPs in the widest"
    return (
        f"{len(wide)} of {len(members)} budgets are chains of runs, each within a factor of "
        f"{np.exp(_SAME_BUDGET):.2f} of the next ({span}): this is no table of isoFLOP budgets; "
        "approach 3 needs none",
    )


def _minimum(x: np.ndarray, y: np.ndarray, method: str) -> tuple[float, float, str]:
    """Log N and log loss of a profile's minimum, and the reason if there is none."""
    sizes = np.unique(x.round(9))
    least = 3 if method == "quadratic" else 4
    if len(sizes) < least:
        return np.nan, np.nan, f"{len(sizes)} sizes; {least} are needed"
    if method == "quadratic":
        middle = x.mean()
        curve = np.polynomial.Polynomial.fit(x - middle, y, 2, domain=[-1, 1])
        _, slope, bend = curve.coef
        if bend <= 0:
            return np.nan, np.nan, "the profile has no minimum"
        here = float(-slope / (2 * bend) + middle)
        low = float(curve(here - middle))
    else:
        mean = pd.Series(y).groupby(x.round(9)).mean()
        fine = np.linspace(sizes[0], sizes[-1], 2001)
        values = Akima1DInterpolator(mean.index.to_numpy(), mean.to_numpy())(fine)
        here, low = float(fine[values.argmin()]), float(values.min())
    if not sizes[0] < here < sizes[-1]:
        return np.nan, np.nan, "minimum at or beyond the edge of the sizes"
    return here, low, ""


def _noise(x: np.ndarray, y: np.ndarray, members: list[np.ndarray]) -> tuple[float, int]:
    """Standard deviation around the parabolas of all budgets, and its degrees of freedom."""
    squares, left = 0.0, 0
    for member in members:
        if len(np.unique(x[member].round(9))) >= 3:
            squares += float(((y[member] - _parabola(x[member]) @ y[member]) ** 2).sum())
            left += len(member) - 3
    return float(np.sqrt(squares / max(left, 1))), left


def _parabola(x: np.ndarray) -> np.ndarray:
    """The matrix that maps losses to their least-squares parabola."""
    design = np.vander(x - x.mean(), 3)
    return design @ np.linalg.pinv(design)


def _redrawn_minima(x, y, sigma, method, draws, rng) -> np.ndarray:
    """Minima of the parabola redrawn with normal noise; NaN where a draw has none.

    For Akima too the noise is added to the parabola, not to the measured losses: those already
    contain noise, and its dip would stay in every draw.
    """
    noisy = _parabola(x) @ y + sigma * rng.standard_normal((draws, len(x)))
    if method == "akima":
        return np.array([_minimum(x, row, method)[0] for row in noisy])
    middle = x.mean()
    bend, slope, _ = (noisy @ np.linalg.pinv(np.vander(x - middle, 3)).T).T
    return np.where(bend > 0, -slope / (2 * np.where(bend > 0, bend, 1)) + middle, np.nan)


def _lowest(curves: np.ndarray, size: np.ndarray) -> np.ndarray:
    best = size[curves.argmin(0)]
    alone = np.isfinite(curves).sum(0) < 2
    return np.where(alone | (best <= size.min() + 1e-9) | (best >= size.max() - 1e-9), np.nan, best)


def _line(
    table, best, drawn_mB, level: float, k: float, degrees: int = 0, warnings: tuple[str, ...] = ()
) -> AllocationLaw:
    """Fits the line through the budgets' optima, with its interval.

    The interval reaches Student's t times the spread of the draws. Without `degrees` the draws are
    resampled runs, and their percentiles are the interval.
    """
    log_c, weight = np.log(table["flops"].to_numpy()), table["weight"].to_numpy()

    def slope(values: np.ndarray) -> tuple[float, float]:
        known = np.isfinite(values) & (weight > 0)
        if known.sum() < 2:
            return np.nan, np.nan
        a, log_g = np.polyfit(log_c[known], values[known], 1, w=np.sqrt(weight[known]))
        return float(a), float(log_g)

    a, log_g = slope(best)
    drawn = np.array([slope(values)[0] for values in drawn_mB.T])
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return AllocationLaw(table, a, (np.nan, np.nan), 1 - a, log_g, warnings)
    if degrees:
        low, middle, high = np.quantile(drawn, [1 - _SIGMA, 0.5, _SIGMA])
        reach = stats.t.ppf(0.5 + level / 2, degrees)
        low, high = a + reach * (low - middle), a + reach * (high - middle)
    else:
        low, high = np.quantile(drawn, [0.5 - level / 2, 0.5 + level / 2])
    return AllocationLaw(table, a, (float(low), float(high)), 1 - a, log_g, warnings)
