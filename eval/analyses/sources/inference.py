"""From an estimate to a finding: linear models of cell means, fitted laws, and the decision.

Every test ends in an `Estimate` (value, standard error, degrees of freedom) and one of three
hypotheses about it: above a number, below it, or inside a range. "Inside" is a test of equivalence,
so a wide interval never supports it.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from eval.laws.fitting.fit import Fit, fit
from eval.laws.fitting.objective import Objective
from eval.laws.fitting.points import Runs
from eval.laws.forms.form import Form
from eval.stats.decision import CANNOT_BE_TOLD, Finding, Untestable, judge
from eval.stats.regression import Estimate

LEAST_SQUARES = Objective("l2")
_DRAWS = 20_000  # of the distribution of a ratio; enough for a p value of .001
_STEP = 1e-4  # of numerical derivatives, relative


class Open(Exception):
    """The runs have what a claim is about, but determine no estimate; the message says why."""


def linear(design_nP: np.ndarray, y_n: np.ndarray, weight_P: np.ndarray) -> Estimate:
    """A combination of the coefficients of a least-squares fit, with the residual scatter's error.

    Raises:
      Open: no point is left over for the error, or the points do not determine the coefficients.
    """
    n, p = design_nP.shape
    if n <= p or np.linalg.matrix_rank(design_nP) < p:
        raise Open(f"{n} cells do not determine {p} coefficients and an error")
    inverse_PP = np.linalg.inv(design_nP.T @ design_nP)
    theta_P = inverse_PP @ design_nP.T @ y_n
    variance = float(((y_n - design_nP @ theta_P) ** 2).sum()) / (n - p)
    return estimate(
        float(weight_P @ theta_P),
        math.sqrt(variance * float(weight_P @ inverse_PP @ weight_P)),
        n - p,
    )


def slope(x_n: np.ndarray, y_n: np.ndarray, level_n: np.ndarray | None = None) -> Estimate:
    """The slope of y on x; with `level_n` the slope that levels of different heights share."""
    levels_n = np.zeros(len(x_n), int) if level_n is None else np.asarray(level_n)
    heights_nL = (levels_n[:, None] == np.unique(levels_n)).astype(float)
    design_nP = np.column_stack([x_n, heights_nL])
    return linear(design_nP, np.asarray(y_n, float), np.eye(design_nP.shape[1])[0])


def mean(values_n: np.ndarray) -> Estimate:
    """The mean of independent values.

    Raises:
      Open: there are fewer than two.
    """
    if len(values_n) < 2:
        raise Open(f"only {len(values_n)} run or cell; a standard error needs two")
    se = float(np.std(values_n, ddof=1)) / math.sqrt(len(values_n))
    return estimate(float(np.mean(values_n)), se, len(values_n) - 1)


def difference(one_n: np.ndarray, other_n: np.ndarray) -> Estimate:
    """The mean of the first values minus that of the others, each with its own variance (Welch)."""
    a, b = mean(one_n), mean(other_n)
    variance = a.se**2 + b.se**2
    spread = float(a.se**4 / a.df + b.se**4 / b.df)
    return estimate(a.value - b.value, np.sqrt(variance), variance**2 / spread if spread else a.df)


def estimate(value: float | np.ndarray, se: float | np.ndarray, df: float | np.ndarray) -> Estimate:
    """An estimate of one number."""
    return Estimate(np.asarray(value, float), np.asarray(se, float), np.asarray(df, float))


def combined(one: Estimate, other: Estimate) -> Estimate:
    """The sum of two independent estimates, with Welch and Satterthwaite's degrees of freedom."""
    variance = one.se**2 + other.se**2
    spread = one.se**4 / one.df + other.se**4 / other.df
    return estimate(
        one.value + other.value,
        np.sqrt(variance),
        np.where(spread > 0, variance**2 / np.maximum(spread, 1e-300), one.df),
    )


def law(form: Form, runs: Runs, fixed: dict[str, float] | None = None) -> Fit:
    """Fits a law by least squares of log losses.

    Raises:
      Open: there are not more points than parameters.
    """
    free = len(form.parameters) - len(fixed or ())
    if runs.clusters <= free:
        raise Open(f"{runs.clusters} cells for the {free} parameters of {form.name}")
    return fit(form, runs, LEAST_SQUARES, fixed=fixed)


def of_law(fitted: Fit, number: Callable[[dict[str, float]], float], *needs: str) -> Estimate:
    """A number computed from a law's parameters, with an error by the delta method.

    Points of one run are not independent, so their squares are summed run by run.

    Args:
      fitted: the law.
      number: computes it from the published parameters.
      *needs: the symbols that it is computed from.

    Raises:
      Open: one of them is at a bound of its search.
    """
    lost = sorted(set(needs) & set(fitted.without_interval))
    if lost:
        raise Open(f"{', '.join(lost)} of {fitted.form.name} is at a bound of its search")

    def at(theta_P: np.ndarray) -> float:
        published = fitted.form.publish(theta_P)
        return number(dict(zip(fitted.form.symbols, map(float, published), strict=True)))

    free, here_P = np.flatnonzero(fitted.free_P & ~fitted.bounded_P), fitted.theta_P
    gradient_P = np.zeros(len(here_P))
    for p in free:
        step_P = np.zeros(len(here_P))
        step_P[p] = _STEP * (1 + abs(here_P[p]))
        gradient_P[p] = (at(here_P + step_P) - at(here_P - step_P)) / (2 * step_P[p])
    jac_nP = fitted.surface.evaluate(here_P[None])[1][0].T[:, free]
    bread_PP = np.linalg.pinv(jac_nP.T @ jac_nP, rcond=1e-15)
    spare = fitted.runs.clusters - len(free)
    if fitted.runs.dependent:
        score_nP = jac_nP * fitted.residual_n[:, None]
        score_GP = np.stack(
            [score_nP[fitted.runs.cluster == c].sum(0) for c in np.unique(fitted.runs.cluster)]
        )
        meat_PP = score_GP.T @ score_GP * fitted.runs.clusters / max(spare, 1)
        covariance_PP = bread_PP @ meat_PP @ bread_PP
    else:
        covariance_PP = fitted.sigma**2 * bread_PP
    variance = float(gradient_P[free] @ covariance_PP @ gradient_P[free])
    return estimate(at(here_P), math.sqrt(max(variance, 0.0)), max(spare, 1))


def draws(e: Estimate, seed: int) -> np.ndarray:
    """Draws from the fiducial distribution of an estimate, from which those of ratios are made."""
    return e.value + e.se * np.random.default_rng(seed).standard_t(e.df, _DRAWS)


def variance_draws(value: float, df: float, seed: int) -> np.ndarray:
    """Draws from the fiducial distribution of a variance: chi-squared around its estimate."""
    return value * df / np.random.default_rng(seed).chisquare(df, _DRAWS)


def above(e: Estimate, level: float, bound: float = 0.0, note: str = "") -> Finding:
    """The finding on the hypothesis that a number is above a bound."""
    moved = dataclasses.replace(e, value=e.value - bound)
    return _finding(e, (float(moved.p_above), float(moved.p_below)), level, note)


def below(e: Estimate, level: float, bound: float = 0.0, note: str = "") -> Finding:
    """The finding on the hypothesis that a number is below a bound."""
    moved = dataclasses.replace(e, value=e.value - bound)
    return _finding(e, (float(moved.p_below), float(moved.p_above)), level, note)


def inside(e: Estimate, ends: tuple[float, float], level: float, note: str = "") -> Finding:
    """The finding on the hypothesis that a number is inside a range: two one-sided tests."""
    low, high = (dataclasses.replace(e, value=e.value - end) for end in ends)
    return _finding(
        e,
        (
            float(max(low.p_above, high.p_below)),
            float(min(low.p_below, high.p_above)),
        ),
        level,
        note,
    )


def below_in_draws(
    value: float, drawn_B: np.ndarray, bound: float, level: float, note: str = ""
) -> Finding:
    """The finding on the hypothesis that a number with this distribution is below a bound."""
    tail = (1 - level) / 2
    low, high = np.quantile(drawn_B, [tail, 1 - tail])
    share = (1 + float((drawn_B >= bound).sum())) / (1 + len(drawn_B))
    verdict, p = judge(share, 1 - share + 1 / (1 + len(drawn_B)), level)
    return Finding(float(value), float(low), float(high), p, verdict, note)


def _finding(e: Estimate, p: tuple[float, float], level: float, note: str) -> Finding:
    """A finding from one-sided p values for and against."""
    low, high = e.interval(level)
    verdict, p_two = judge(*p, level)
    if not e.se > 0:  # judged as unknown by `judge`, because a perfect fit has no scatter
        note = "; ".join(filter(None, (note, "no scatter to test against")))
    return Finding(float(e.value), float(low), float(high), p_two, verdict, note)


def undecided(reason: str) -> Finding:
    """The finding of a claim that was looked at and gave no estimate."""
    return Finding(np.nan, np.nan, np.nan, np.nan, CANNOT_BE_TOLD, reason)


def need(enough: bool, what: str) -> None:
    """Raises Untestable unless there is enough of what a claim is about."""
    if not enough:
        raise Untestable(what)
