"""The uncertainty of the parameters, the curve and the next run.

Runs are resampled, never checkpoints: two checkpoints of one run share its seed, and treating them
as independent would make intervals too narrow.

Below eight runs resampling fails: a resample of five runs often determines no law, and the signs of
five residuals take too few values. There new data are drawn with normal noise that has the spread
of the residuals (separately between cells and within cells with several seeds). For runs with
checkpoints, the residuals of each run are multiplied by a common random factor instead. The
interval then reaches Student's t times as far as the middle 68 % of the refits. In simulations this
covers 93-97 % from two degrees of freedom on, where the wild bootstrap covered 77-91 %.

Percentile intervals of small samples are too narrow as well, so they are widened to Student's t
(Hesterberg 2015, "expanded percentile").
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from eval.laws.fitting.fit import Fit, refit
from eval.laws.forms.form import Inputs
from train.records import InputError

Resample = Literal["auto", "cluster", "wild", "normal"]
_FEW_RUNS = 8
_FEW_RESIDUALS = 40  # fewer residuals do not determine a 2.5 % quantile
_SIGMA = float(stats.norm.cdf(1.0))
_MANY = 0.05  # share of refits that may fail or end on a bound without a warning
# Webb's six-point weights: mean 0, variance 1, and enough distinct values for few clusters.
_WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


@dataclasses.dataclass(frozen=True)
class Draws:
    """Refits of one law to resampled data.

    Attributes:
      fit: the fit to the data themselves.
      theta_BP: refitted parameters in search coordinates.
      kind: cluster, wild or normal.
      clusters: number of independent runs.
      failed: share of the refits that did not converge (not in theta_BP).
      at_bounds: share of the refits that ended on a bound.
    """

    fit: Fit
    theta_BP: np.ndarray
    kind: str
    clusters: int
    failed: float
    at_bounds: float

    @property
    def degrees(self) -> int:
        """The number of independent runs minus that of parameters; at least one."""
        return max(self.clusters - int(self.fit.free_P.sum()), 1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons to doubt the fit that the refits show, in words."""
        lines = []
        if self.at_bounds > _MANY:
            lines.append(
                f"{100 * self.at_bounds:.0f} % of the bootstrap refits end on a bound: the data "
                "barely hold this law"
            )
        if self.failed > _MANY:
            lines.append(
                f"{100 * self.failed:.0f} % of the bootstrap refits did not converge; half of them "
                "count as beyond each end of an interval"
            )
        spent = int(self.fit.free_P.sum())
        if self.clusters <= spent:
            lines.append(
                f"{self.clusters} runs for {spent} parameters: intervals rest on the scatter "
                "inside runs or cells "
                "(checkpoints, seeds), and what another run would give is unknown"
            )
        return tuple(lines)

    def interval(self, values_B: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Interval of a quantity computed from each draw [B, ...].

        NaN draws are ignored. An interval does not cross zero if no draw has the other sign. Where
        refits that did not converge would have ended is unknown: half of them count as beyond each
        end, up to the outermost refit that converged.
        """
        never = np.isnan(values_B).all(axis=0)
        values_B = np.where(never, 0.0, values_B)
        if self.kind == "cluster":
            tail = self._beyond(expanded_tail(level, self.clusters, self.degrees))
            low, high = np.nanquantile(values_B, [tail, 1 - tail], axis=0)
        else:
            tail = self._beyond(1 - _SIGMA)
            low, middle, high = np.nanquantile(values_B, [tail, 0.5, 1 - tail], axis=0)
            reach = stats.t.ppf(0.5 + level / 2, self.degrees)
            low, high = middle + reach * (low - middle), middle + reach * (high - middle)
            least, most = np.nanmin(values_B, axis=0), np.nanmax(values_B, axis=0)
            low, high = (
                np.where(least >= 0, np.maximum(low, 0), low),
                np.where(most <= 0, np.minimum(high, 0), high),
            )
        return np.where(never, np.nan, low), np.where(never, np.nan, high)

    def _beyond(self, tail: float) -> float:
        """The share of the converged refits that is beyond one end of an interval."""
        return max(tail - self.failed / 2, 0.0) / (1 - self.failed) if self.failed < 1 else 0.0

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Intervals by published symbol; NaN for what is at a bound of its search.

        Those of coefficients, which spread over powers of ten, are computed on logarithms. At a
        bound the refits show how far the search may go, not what the data say.
        """
        values_BP = self.fit.form.publish(self.theta_BP)
        log_P = np.isin(self.fit.form.symbols, self.fit.form.coefficient_symbols) & (
            values_BP > 0
        ).all(0)
        low, high = self.interval(
            np.where(log_P, np.log(np.where(log_P, values_BP, 1.0)), values_BP), level
        )
        with np.errstate(over="ignore"):
            low, high = (
                np.where(log_P, np.exp(np.where(log_P, end, 0.0)), end) for end in (low, high)
            )
        without = self.fit.without_interval
        return {
            s: (np.nan, np.nan) if s in without else (float(a), float(b))
            for s, a, b in zip(self.fit.form.symbols, low, high, strict=True)
        }


def expanded_tail(level: float, clusters: int, degrees: int) -> float:
    """Tail probability for an expanded percentile interval.

    It is the normal tail beyond sqrt(n / df) times the quantile of t.
    """
    reach = np.sqrt(clusters / degrees) * stats.t.ppf(0.5 + level / 2, degrees)
    return float(stats.norm.cdf(-reach))


def bootstrap(fit: Fit, draws: int = 2000, seed: int = 0, kind: Resample = "auto") -> Draws:
    """Refits the law to resampled runs, all at once.

    Args:
      fit: the fit to the data.
      draws: number of resamples.
      seed: seed of the resampling.
      kind: `cluster` draws runs with replacement within each group; `wild` multiplies the residuals
        of each run by a common random sign and size, after scaling them up for the fitted
        parameters; `normal` draws normal noise with the spread of the residuals for each point;
        `auto` takes `cluster`, or with fewer than eight runs in any group `normal` (`wild` if the
        points of a run have different inputs, like checkpoints).

    Raises:
      InputError: there are so few data that no residual is left.
    """
    runs, rng = fit.runs, np.random.default_rng(seed)
    clusters = runs.clusters
    if len(runs.y) <= fit.free_P.sum():
        raise InputError(
            f"bootstrap: {len(runs.y)} points and {int(fit.free_P.sum())} parameters leave no "
            "residual"
        )
    strata = _strata(fit)
    if kind == "auto":
        few = min(map(len, strata)) < _FEW_RUNS
        kind = "cluster" if not few else "normal" if _replicated(fit) else "wild"
    if kind == "cluster":
        found = refit(fit, weight_Sn=_resampled_weights(fit, strata, draws, rng))
    elif kind == "wild":
        found = refit(fit, y_Sn=wild_targets(fit, draws, rng))
    else:
        found = refit(fit, y_Sn=fit.target_n - fit.residual_n + _normal_noise(fit, draws, rng))
    good_B = found.converged_S & np.isfinite(found.value_S)
    theta_BP = found.theta_SP[good_B] if good_B.any() else found.theta_SP
    near_P = 1e-6 * (fit.upper_P - fit.lower_P)
    on_BP = (theta_BP <= fit.lower_P + near_P) | (theta_BP >= fit.upper_P - near_P)
    return Draws(
        fit,
        theta_BP,
        kind,
        clusters,
        float(1 - good_B.mean()),
        float((on_BP & fit.free_P).any(1).mean()),
    )


def _strata(fit: Fit) -> list[np.ndarray]:
    """The clusters of each group; a resample keeps the number of runs of every group."""
    group_of = pd.Series(fit.runs.group).groupby(fit.runs.cluster).first()
    return [group_of.index[group_of == label].to_numpy() for label in group_of.unique()]


def _resampled_weights(
    fit: Fit, strata: list[np.ndarray], draws: int, rng: np.random.Generator
) -> np.ndarray:
    count_BC = np.zeros((draws, fit.runs.cluster.max() + 1))
    for clusters in strata:
        count_BC[:, clusters] = rng.multinomial(
            len(clusters), np.full(len(clusters), 1 / len(clusters)), draws
        )
    return count_BC[:, fit.runs.cluster] * fit.runs.weight


def _replicated(fit: Fit) -> bool:
    """Whether the points of each run have the same inputs, such as the seeds of a cell."""
    x = pd.DataFrame(dict(fit.runs.x)).round(9)
    return bool((x.groupby(fit.runs.cluster).nunique() == 1).all(axis=None))


def _spread(fit: Fit) -> tuple[float, float]:
    """Standard deviations between and within clusters, for a run of mean weight.

    The former is corrected for the fitted parameters. Not robust, since few residuals show no
    outliers.
    """
    r = pd.Series(fit.standardised_n).groupby(fit.runs.cluster)
    mean_n, clusters = r.transform("mean").to_numpy(), fit.runs.clusters
    between = (r.mean() ** 2).sum() / max(clusters - int(fit.free_P.sum()), 1)
    within = ((fit.standardised_n - mean_n) ** 2).sum() / max(len(mean_n) - clusters, 1)
    return float(np.sqrt(between)), float(np.sqrt(within))


def _normal_noise(fit: Fit, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Noise [draws, n] with the spread of the residuals, between clusters and within them."""
    (between, within), code_n = _spread(fit), np.unique(fit.runs.cluster, return_inverse=True)[1]
    inside_Bn = rng.standard_normal((draws, len(code_n)))
    if within:
        member_nC = np.eye(fit.runs.clusters)[code_n]
        inside_Bn -= inside_Bn @ member_nC / member_nC.sum(0) @ member_nC.T
        inside_Bn = (
            within * inside_Bn
            + between * rng.standard_normal((draws, fit.runs.clusters))[:, code_n]
        )
    else:
        inside_Bn = between * inside_Bn
    return inside_Bn / np.sqrt(fit.runs.weight)


def wild_targets(fit: Fit, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Data sets around a fit [draws, n]; each run's residuals get a random sign and size.

    Least squares: Webb's weights, and residuals scaled up for the fitted parameters. Huber and L1:
    signs only, because other weights would change the density at zero, which determines their
    spread (Feng, He and Hu 2011). Their fit passes through as many points as it has parameters, so
    those zero residuals are replaced by other ones.
    """
    n, spent, r = fit.runs.clusters, int(fit.free_P.sum()), fit.standardised_n
    clean_n, clusters, scale_n = (
        fit.target_n - fit.residual_n,
        fit.runs.cluster.max() + 1,
        np.sqrt(fit.runs.weight),
    )
    if fit.objective.name == "l2":
        factor_BC = rng.choice(_WEBB, (draws, clusters)) * np.sqrt(n / max(n - spent, 1))
        return clean_n + r / scale_n * factor_BC[:, fit.runs.cluster]
    order = np.argsort(np.abs(r))
    drawn_Bn = np.tile(r, (draws, 1))
    drawn_Bn[:, order[:spent]] = rng.choice(r[order[spent:]], (draws, spent))
    return (
        clean_n
        + drawn_Bn / scale_n * rng.choice([-1.0, 1.0], (draws, clusters))[:, fit.runs.cluster]
    )


def bca(
    draws: Draws, value: Callable[[np.ndarray], np.ndarray], level: float = 0.95
) -> tuple[float, float]:
    """BCa interval of `value(theta [S,P]) -> [S]`; the jackknife leaves out one run at a time.

    Raises:
      InputError: the draws are not resamples of runs. Below eight runs they are not, since BCa
        would be far too narrow.
    """
    fit = draws.fit
    if draws.kind != "cluster":
        raise InputError(
            f"intervals: bca corrects resamples of runs; these {draws.clusters} runs were drawn "
            "otherwise"
        )
    leave_CP = refit(
        fit, weight_Sn=fit.runs.weight * (fit.runs.cluster != np.unique(fit.runs.cluster)[:, None])
    ).theta_SP
    jack_C, drawn_B, here = value(leave_CP), value(draws.theta_BP), value(fit.theta_P[None])[0]
    away_C = jack_C.mean() - jack_C
    acceleration = (away_C**3).sum() / max(6 * (away_C**2).sum() ** 1.5, 1e-300)
    bias = stats.norm.ppf(np.clip((drawn_B < here).mean(), 1e-4, 1 - 1e-4))
    z = bias + stats.norm.ppf([0.5 - level / 2, 0.5 + level / 2])
    low, high = np.quantile(drawn_B, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def profile(fit: Fit, symbol: str, level: float = 0.95, points: int = 41) -> pd.DataFrame:
    """Profile of the objective: the symbol is held fixed, everything else is refitted.

    The cut is F for least squares. For Huber and L1 the difference of objectives is scaled by the
    spread and density of the residuals, as in the tau-test of M-estimators.

    Args:
      fit: the fit.
      symbol: a published symbol.
      level: confidence level of the cut.
      points: number of values of the symbol.

    Returns:
      Columns `value` (published), `objective`, `inside` (not rejected at `level`).

    Raises:
      InputError: the form has no such symbol, or computes it from several search coordinates; or
        rows share a run, which the cut does not account for.
    """
    if fit.runs.dependent:
        raise InputError(
            f"profile: {fit.runs.dependent}, which it would count apart; take bootstrap intervals"
        )
    if symbol not in fit.form.symbols:
        raise InputError(
            f"profile: {fit.form.name} has no parameter {symbol!r}; it has "
            f"{', '.join(fit.form.symbols)}"
        )
    p = fit.form.symbols.index(symbol)
    if fit.form.behind(symbol, fit.theta_P).sum() > 1:
        raise InputError(
            f"profile: {symbol} of {fit.form.name} is computed from several parameters of the "
            "search"
        )
    error = float(np.sqrt(fit.covariance()[p, p]))
    if not fit.free_P[p] or not 0 < error < np.inf:
        raise InputError(f"profile: {symbol} is fixed or the objective does not depend on it")
    cut = fit.value + _cut(fit, level)
    reach, inside = 3 * error, np.ones(points, bool)
    for _ in range(4):  # widen until the ends are rejected, within the bounds
        held_S = np.clip(
            fit.theta_P[p] + reach * np.linspace(-1, 1, points), fit.lower_P[p], fit.upper_P[p]
        )
        found = _held(fit, p, held_S)
        inside = found.value_S <= cut
        if not (inside[0] and held_S[0] > fit.lower_P[p]) and not (
            inside[-1] and held_S[-1] < fit.upper_P[p]
        ):
            break
        reach *= 3
    value = fit.form.publish(found.theta_SP)[:, p]
    return pd.DataFrame({"value": value, "objective": found.value_S, "inside": inside})


def profile_interval(fit: Fit, symbol: str, level: float = 0.95) -> tuple[float, float]:
    """Where the profile crosses its cut, interpolated; limited by the bounds of the search."""
    table, cut = profile(fit, symbol, level), fit.value + _cut(fit, level)
    inside, value, height = (table[c].to_numpy() for c in ("inside", "value", "objective"))
    first, last = np.flatnonzero(inside)[[0, -1]]

    def crossing(i: int, j: int) -> float:
        if not 0 <= j < len(value) or height[j] <= height[i]:
            return float(value[i])
        share = (np.sqrt(cut - fit.value) - np.sqrt(max(height[i] - fit.value, 0))) / (
            np.sqrt(height[j] - fit.value) - np.sqrt(max(height[i] - fit.value, 0))
        )
        return float(value[i] + share * (value[j] - value[i]))

    low, high = sorted((crossing(first, first - 1), crossing(last, last + 1)))
    return low, high


def _held(fit: Fit, p: int, held_S: np.ndarray):
    rows = len(held_S)
    bounds = {k: np.tile(getattr(fit, f"{k}_P"), (rows, 1)) for k in ("lower", "upper")}
    start_SP = np.tile(fit.theta_P, (rows, 1))
    for array in (*bounds.values(), start_SP):
        array[:, p] = held_S
    return refit(fit, lower_SP=bounds["lower"], upper_SP=bounds["upper"], start_SP=start_SP)


def _cut(fit: Fit, level: float) -> float:
    left = max(len(fit.runs.y) - int(fit.free_P.sum()), 1)
    return loss_of_fit_unit(fit) * float(stats.f.ppf(level, 1, left)) / 2


def loss_of_fit_unit(fit: Fit) -> float:
    """The amount by which one useless parameter reduces twice the objective on average.

    It is sigma^2 for least squares, else E psi^2 / E psi'. E psi' is estimated over a zone that is
    at least as wide as the bandwidth n^(-1/5) of the residuals, because a narrow Huber zone
    contains too few of them to count. By construction as many residuals as there are parameters are
    in the zone; they are not counted.
    """
    weight_n = fit.runs.weight
    r, n, spent = fit.residual_n, len(fit.runs.y), int(fit.free_P.sum())
    inflate = n / max(n - spent, 1)
    if fit.objective.name == "l2":
        return float((weight_n * r**2).mean() * inflate)
    delta = fit.objective.delta if fit.objective.name == "huber" else 0.0
    height = delta if fit.objective.name == "huber" else 1.0
    zone = max(delta, fit.sigma * n**-0.2)
    slope = (
        height * max(float(weight_n[np.abs(r) <= zone].sum()) - spent, 1) / max(n - spent, 1) / zone
    )
    return float(((weight_n * fit.objective.psi(r)) ** 2).mean() * inflate / max(slope, 1e-300))


def seed_noise(fit: Fit) -> float:
    """Standard deviation between runs that differ only in their seed; NaN if there are none.

    In the objective's space.
    """
    cell = pd.DataFrame({"group": fit.runs.group, **{k: v.round(9) for k, v in fit.runs.x.items()}})
    target = pd.Series(fit.target_n).groupby([cell[c] for c in cell])
    left = int((target.size() - 1).sum())
    return (
        float(np.sqrt(((fit.target_n - target.transform("mean")) ** 2).sum() / left))
        if left
        else float("nan")
    )


def predict(
    draws: Draws, x: Inputs, level: float = 0.95, seed_sd: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """Predicts the curve and a new run at logarithms of inputs.

    Args:
      draws: bootstrap of a fit.
      x: logarithms of inputs [n].
      level: coverage of both intervals.
      seed_sd: spread between seeds to add if the fitted rows are averages over seeds, in the unit
        of the prediction (nats, or score). Residuals of rows that are single runs already contain
        it.
      seed: seed of the resampling of residuals.

    Returns:
      Columns `prediction`, `lower`, `upper` (the curve: parameters only) and `run_lower`,
      `run_upper`
      (a new run: parameters, noise or a resampled residual, and seed_sd).
    """
    fit, rng = draws.fit, np.random.default_rng(seed)
    curve_Bn = fit.predict(x, draws.theta_BP)
    n, spent, residual_n = (
        len(fit.runs.y),
        int(fit.free_P.sum()),
        fit.standardised_n - fit.standardised_n.mean(),
    )
    if draws.kind == "normal" or n < _FEW_RESIDUALS:
        between, within = _spread(fit)
        one = np.sqrt(
            between**2 + within**2 * (1 - fit.runs.clusters / n)
        )  # a cell's mean already contains part of the noise within it
        noise_Bn = one * rng.standard_normal(curve_Bn.shape)
    else:
        noise_Bn = rng.choice(residual_n, curve_Bn.shape) * np.sqrt(n / max(n - spent, 1))
    run_Bn = curve_Bn * np.exp(noise_Bn) if fit.objective.space == "log" else curve_Bn + noise_Bn
    run_Bn = run_Bn + seed_sd * rng.standard_normal(curve_Bn.shape)
    (low, high), (run_low, run_high) = (
        draws.interval(curve_Bn, level),
        draws.interval(run_Bn, level),
    )
    columns = {
        "prediction": fit.predict(x),
        "lower": low,
        "upper": high,
        "run_lower": run_low,
        "run_upper": run_high,
    }
    return pd.DataFrame(columns)
