"""Optimal allocation without a law of the loss: Hoffmann's approaches 1 and 2.

Approach 1 uses the envelope of training curves, approach 2 isoFLOP profiles. Both end with a line
log N* = log g + a log C through the best N of several budgets.

The minima of profiles scatter about a line by more than the noise of the losses explains: a
parabola misfits, and each budget has its own way of doing so. So approach 2 weights a minimum by
1 / (s^2 + tau^2), as a meta-analysis weights studies: s is its own standard error, tau the scatter
between budgets (Paule and Mandel 1982). The interval is Student's t on the scatter about the line,
with budgets - 2 degrees of freedom (Knapp and Hartung 2003).
"""

import dataclasses
from typing import Literal

import numpy as np
import pandas as pd
from scipy import optimize, stats
from scipy.interpolate import Akima1DInterpolator

from eval.stats.resampling import DEFAULT, Resampling
from train.records import InputError

_SAME_BUDGET = 0.25  # largest gap in log C between neighbouring runs of one budget
_SIGMA = float(stats.norm.cdf(1.0))
_VANISHING = 0.1  # a budget with a smaller share of an equal weight is warned of
_NOISY = 3.0  # so is a scatter about the line that is this many times what noise explains
_LEAST_SD = 1e-6  # standard error of a minimum of losses without noise

Weights = Literal["robust", "equal"]


@dataclasses.dataclass(frozen=True)
class AllocationLaw:
    """N* = g C^a and D* = C^b / (k g) for C = k N D, with intervals.

    Attributes:
      budgets: one row per budget: `flops`, `points`, `N`, `D`, `loss`, `weight` (share, they sum to
        one), `sd` (of log N, approach 2), `note` (why a budget was left out).
      a: exponent of N.
      a_interval: its interval; NaN with two budgets, which lie on any line.
      b: exponent of D; its interval is 1 minus that of a.
      log_g: intercept in natural logarithms.
      warnings: what the interval does not account for, in words.
      unweighted: the exponent of N and its interval (a, low, high) if every budget counts alike.
      scatter: squared distances of the minima from the line over those that the noise of the losses
        explains (chi2 / degrees of freedom); NaN if that noise is unknown, and in approach 1.
      tau: the standard deviation between budgets that explains the rest, of log N.
    """

    budgets: pd.DataFrame
    a: float
    a_interval: tuple[float, float]
    b: float
    log_g: float
    warnings: tuple[str, ...] = ()
    unweighted: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    scatter: float = np.nan
    tau: float = np.nan


def isoflop(
    n: np.ndarray,
    flops: np.ndarray,
    loss: np.ndarray,
    method: Literal["quadratic", "akima"] = "quadratic",
    resampling: Resampling = DEFAULT,
    k: float = 6.0,
    weights: Weights = "robust",
) -> AllocationLaw:
    """Approach 2: fits a line through the minima over N of each budget's profile.

    Runs are sorted by FLOPs, and a run with more than 1.28 times the FLOPs of the one before starts
    a new budget. Seeds of a size are averaged, because they share the misfit of the parabola. A
    budget counts if it has three sizes (Akima: four) and its minimum is between them.

    One noise is assumed for all losses: the pooled scatter around the budgets' parabolas, with n -
    3 degrees of freedom from each budget; misfit of a parabola counts as noise. The standard error
    of a minimum comes from profiles that are redrawn with this noise. If every budget has three
    sizes, the noise is unknown and the budgets get equal weights.

    Args:
      n: parameters of each run.
      flops: training FLOPs of each run.
      loss: loss of each run.
      method: how the minimum of a profile is found.
      resampling: draws behind the standard errors of the minima, and the level of the interval.
      k: FLOPs per parameter and token.
      weights: `robust` weights by the standard error of a minimum and the scatter between budgets
        together; `equal` counts all budgets alike.

    Raises:
      InputError: fewer than two budgets have a minimum.
    """
    runs = pd.DataFrame({"x": np.log(n), "y": np.log(loss), "c": np.log(flops)})
    x, y, c = runs.groupby([runs["x"].round(9), runs["c"].round(6)]).mean().to_numpy().T
    members = _budgets(c)
    warnings = [*_chained(c, members)]
    sigma, left = _noise(x, y, members)
    rng, rows = np.random.default_rng(resampling.seed), []
    for member in members:
        flops_here = float(np.exp(c[member].mean()))
        here, low, note = _minimum(x[member], y[member], method)
        spread = np.nan
        if not note and left:
            drawn = _redrawn_minima(x[member], y[member], sigma, method, resampling.draws, rng)
            spread = min(max(_half_width(drawn), _LEAST_SD), np.ptp(x[member]))
        rows.append(
            {
                "flops": flops_here,
                "points": len(member),
                "N": np.exp(here),
                "loss": np.exp(low),
                "note": note,
                "D": flops_here / k / np.exp(here),
                "sd": spread,
            }
        )
    table = pd.DataFrame(rows)
    use = (table["note"] == "").to_numpy()
    if use.sum() < 2:
        few = (
            f"{int(use.sum())} of {len(table)} budgets have a minimum inside their sizes; two are "
            "needed"
        )
        raise InputError("; ".join((f"isoflop: {few}", *warnings)))
    log_c, log_n = (np.log(table.loc[use, column].to_numpy()) for column in ("flops", "N"))
    sd, scatter, tau = table.loc[use, "sd"].to_numpy(), np.nan, np.nan
    equal = weight = np.ones(len(sd))
    if left:
        scatter, tau = _between(log_c, log_n, sd)
        weight = 1 / (sd**2 + tau**2) if weights == "robust" else equal
    else:
        warnings.append(
            "every budget has three sizes or fewer: they fit any parabola, so the noise of the "
            "minima is unknown and they count alike"
        )
    table["weight"] = 0.0
    table.loc[use, "weight"] = weight / weight.sum()
    a, log_g, half = _weighted_line(log_c, log_n, weight, resampling.level)
    plain, _, plain_half = _weighted_line(log_c, log_n, equal, resampling.level)
    warnings += _doubts(table[use], scatter)
    return AllocationLaw(
        table,
        a,
        (a - half, a + half),
        1 - a,
        log_g,
        tuple(warnings),
        (plain, plain - plain_half, plain + plain_half),
        scatter,
        tau,
    )


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
    use = (table["note"] == "").to_numpy()
    if use.sum() < 2:
        raise InputError(
            "envelope: no two budgets have their lowest loss inside the range of sizes"
        )
    table["weight"] = use / use.sum()

    def line(values: np.ndarray) -> tuple[float, float]:
        known = np.isfinite(values) & use
        if known.sum() < 2:
            return np.nan, np.nan
        slope, log_g = np.polyfit(span[known], values[known], 1)
        return float(slope), float(log_g)

    a, log_g = line(best)
    slopes = np.array([line(values)[0] for values in drawn])
    slopes = slopes[np.isfinite(slopes)]
    ends = (np.nan, np.nan)
    if len(slopes):
        low, high = np.quantile(slopes, [0.5 - level / 2, 0.5 + level / 2])
        ends = (float(low), float(high))
    return AllocationLaw(table, a, ends, 1 - a, log_g, unweighted=(a, *ends))


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


def _half_width(drawn: np.ndarray) -> float:
    """Half the range of the middle 68 %; a flat profile's few far minima do not move it.

    Infinite if a third of the draws have no minimum; the caller limits it to the range of sizes.
    """
    lost = np.isnan(drawn).mean() / 2
    if lost >= 1 - _SIGMA:
        return np.inf
    tail = (1 - _SIGMA - lost) / (1 - 2 * lost)
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return float(high - low) / 2


def _between(log_c: np.ndarray, log_n: np.ndarray, sd: np.ndarray) -> tuple[float, float]:
    """The scatter about the line over what `sd` explains, and the tau that explains the rest.

    With tau the weighted squares equal the degrees of freedom (Paule and Mandel). With two budgets
    there are none: NaN, and a tau of zero.
    """
    left = len(log_c) - 2
    if left < 1:
        return np.nan, 0.0

    def squares(tau: float) -> float:
        weight = 1 / (sd**2 + tau**2)
        return float((weight * _residuals(log_c, log_n, weight) ** 2).sum())

    scatter = squares(0.0) / left
    if scatter <= 1:
        return scatter, 0.0
    most = float(np.sqrt((_residuals(log_c, log_n, np.ones(len(sd))) ** 2).sum()))
    tau = optimize.root_scalar(lambda tau: squares(tau) - left, bracket=(0.0, most)).root
    return scatter, float(tau)


def _residuals(log_c: np.ndarray, log_n: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Distances from the weighted line."""
    slope, at = np.polyfit(log_c, log_n, 1, w=np.sqrt(weight))
    return log_n - (slope * log_c + at)


def _weighted_line(
    log_c: np.ndarray, log_n: np.ndarray, weight: np.ndarray, level: float
) -> tuple[float, float, float]:
    """Slope, intercept and the half-width of the slope's interval; NaN with two budgets."""
    slope, log_g = np.polyfit(log_c, log_n, 1, w=np.sqrt(weight))
    left = len(log_c) - 2
    if left < 1:
        return float(slope), float(log_g), np.nan
    off = log_c - np.average(log_c, weights=weight)
    variance = (weight * (log_n - slope * log_c - log_g) ** 2).sum() / left
    error = np.sqrt(variance / (weight * off**2).sum())
    return float(slope), float(log_g), float(stats.t.ppf(0.5 + level / 2, left) * error)


def _doubts(used: pd.DataFrame, scatter: float) -> list[str]:
    """Warnings about the line through these budgets."""
    lines = []
    if len(used) < 3:
        lines.append("two budgets lie on any line: its exponent has no interval")
    for row in used.to_dict("records"):
        if row["weight"] * len(used) < _VANISHING:
            lines.append(
                f"the budget of {row['flops']:.3g} FLOPs has {100 * row['weight']:.2g} % of the "
                f"weight: its profile is so flat that its best N is known to a factor of "
                f"{np.exp(row['sd']):.3g} only"
            )
    if scatter > _NOISY:
        lines.append(
            f"the minima scatter about the line {scatter:.3g} times as much as the noise of the "
            "losses explains (chi2 / df): profiles are no parabolas, or the law is no line"
        )
    return lines
