"""Fits one law to one table, with everything needed to judge whether the data determine it."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping

import numpy as np

from eval.laws.fitting import optimise
from eval.laws.fitting.objective import HOFFMANN, Objective
from eval.laws.forms.form import Form, Inputs
from eval.laws.law_table import Runs
from train.records import InputError

_SAME_VALUE = 1e-6  # relative distance of objectives that count as the same optimum
_SAME_PARAMETER = 1e-2
_FEW = 0.01  # if a smaller share of the starts finds the optimum, that may be luck
_TIED = 0.99  # two inputs with a higher correlation of logarithms cannot be told apart
_INTERCHANGEABLE = (
    0.99  # correlation of two parameters, with coefficients at the middle of the data or at input 1
)
_ILL = 1e4  # condition number of the scaled Jacobian
_OPEN = 0.5  # the data leave a parameter open if standard error over value is larger
_SCALED = ("N", "D", "C", "S", "x", "U")  # inputs that should span more than a decade


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted law.

    Attributes:
      form: the law.
      runs: the points it was fitted to.
      objective: what was minimised.
      theta_P: the optimum in search coordinates.
      value: the summed objective there.
      lower_P: lower bounds of the search (equal to the upper ones if a parameter was fixed).
      upper_P: upper bounds of the search.
      start_SP: all starts, for the landscape.
      found: where each start ended.
    """

    form: Form
    runs: Runs
    objective: Objective
    theta_P: np.ndarray
    value: float
    lower_P: np.ndarray
    upper_P: np.ndarray
    start_SP: np.ndarray
    found: optimise.Optima

    @property
    def params(self) -> dict[str, float]:
        """The parameters by their published symbols."""
        return dict(
            zip(self.form.symbols, map(float, self.form.publish(self.theta_P)), strict=True)
        )

    @property
    def free_P(self) -> np.ndarray:
        """Whether each parameter was searched."""
        return self.upper_P > self.lower_P

    @property
    def surface(self) -> optimise.Surface:
        """The form at this fit's points."""
        return optimise.Surface(self.form, self.runs.x, self.objective.space)

    @property
    def target_n(self) -> np.ndarray:
        """The values that are fitted, in the objective's space."""
        return target(self.runs.y, self.objective)

    @property
    def residual_n(self) -> np.ndarray:
        """The target minus the prediction."""
        return self.target_n - self.surface.evaluate(self.theta_P[None])[0][0]

    @property
    def standardised_n(self) -> np.ndarray:
        """Residuals, scaled to those of a run of mean weight."""
        return np.sqrt(self.runs.weight) * self.residual_n

    @property
    def sigma(self) -> float:
        """Residual standard deviation of a run of mean weight, corrected for the fitted parameters.

        For Huber and L1 it is a robust estimate from the median. A robust fit passes through about
        as many points as it has parameters, so that many zeros are left out of the median.
        """
        n, spent = len(self.runs.y), int(self.free_P.sum())
        left = max(n - spent, 1)
        if self.objective.name == "l2":
            return float(np.sqrt((self.standardised_n**2).sum() / left))
        # The median absolute residual times 1.4826 estimates a normal standard deviation.
        return float(1.4826 * np.median(np.sort(np.abs(self.standardised_n))[min(spent, n - 1) :]))

    @property
    def variance(self) -> float:
        """The variance that one run of mean weight contributes; sigma^2 for least squares.

        An objective that clips most residuals behaves like a median, whose variance is pi / 2 times
        that.
        """
        clips = self.objective.name == "l1" or (
            self.objective.name == "huber" and self.objective.delta < self.sigma
        )
        return (np.pi / 2 if clips else 1.0) * self.sigma**2

    def predict(self, x: Inputs, theta_SP: np.ndarray | None = None) -> np.ndarray:
        """Predictions in the data's unit at logarithms of inputs: [n], or [S,n] for rows."""
        if theta_SP is None:
            return self.form.values(self.theta_P[None], x)[0]
        return self.form.values(theta_SP, x)

    def covariance(self) -> np.ndarray:
        """Gauss-Newton covariance [P,P] in search coordinates; zero for fixed parameters."""
        free = np.flatnonzero(self.free_P)
        jac_nP = (
            self.surface.evaluate(self.theta_P[None])[1][0].T[:, free]
            * np.sqrt(self.runs.weight)[:, None]
        )
        matrix_PP = np.zeros((len(self.theta_P),) * 2)
        matrix_PP[np.ix_(free, free)] = self.variance * np.linalg.pinv(
            jac_nP.T @ jac_nP, rcond=1e-15
        )
        return matrix_PP

    @functools.cached_property
    def agreeing_S(self) -> np.ndarray:
        """Which of the starts found the optimum, [S]."""
        # Data without noise are fitted up to rounding errors, whose ratios mean nothing.
        exact = 1e-24 * self.runs.weight.sum()
        return self.found.value_S <= self.value * (1 + _SAME_VALUE) + exact

    @property
    def agreed(self) -> float:
        """The share of the starts that found the optimum."""
        return float(self.agreeing_S.mean())

    @functools.cached_property
    def bounded_P(self) -> np.ndarray:
        """Which free parameters ended on a bound, [P]."""
        near = 1e-6 * (self.upper_P - self.lower_P)
        low_P, high_P = self.lower_P + near, self.upper_P - near
        return self.free_P & ((self.theta_P <= low_P) | (self.theta_P >= high_P))

    @property
    def at_bounds(self) -> tuple[str, ...]:
        """The symbols of free parameters that ended on a bound."""
        return tuple(s for s, on in zip(self.form.symbols, self.bounded_P, strict=True) if on)

    @property
    def without_interval(self) -> tuple[str, ...]:
        """The symbols whose published value is computed from a parameter at a bound."""
        if not self.bounded_P.any():
            return ()
        form = self.form
        return tuple(
            s for s in form.symbols if (form.behind(s, self.theta_P) & self.bounded_P).any()
        )

    @functools.cached_property
    def conditioning(self) -> tuple[float, dict[str, str]]:
        """The condition number, and why parameters are open, by symbol; see `condition`."""
        return _conditioning(self, self.free_P & ~self.bounded_P)

    @property
    def condition(self) -> float:
        """Condition number of the Jacobian with centred, scaled columns of free parameters."""
        return self.conditioning[0]

    @functools.cached_property
    def warnings(self) -> tuple[str, ...]:
        """Why the data may not determine the law, in words; empty if nothing was found."""
        return tuple(_warnings(self))


def target(y: np.ndarray, objective: Objective) -> np.ndarray:
    """Raw values converted to the objective's space."""
    return np.log(y) if objective.space == "log" else y


def fit(
    form: Form,
    runs: Runs,
    objective: Objective = HOFFMANN,
    start_SP: np.ndarray | None = None,
    fixed: Mapping[str, float] | None = None,
) -> Fit:
    """Fits a law from all of its starts at once.

    Args:
      form: the law.
      runs: points with the form's inputs.
      objective: what to minimise, summed over points.
      start_SP: starts in search coordinates; by default the form's own grid.
      fixed: values, by published symbol, of parameters that are not searched.

    Raises:
      InputError: there are no points, a zero has no logarithm, or the form does not have a fixed
        symbol or computes it from others that are free.
    """
    if not len(runs.y):
        raise InputError("fit: no points")
    if objective.space == "log" and (runs.y <= 0).any():
        row = runs.row[runs.y <= 0][0]
        raise InputError(
            f"fit: {form.output} is zero in row {row}, and its logarithm is fitted; use --space raw"
        )
    start_SP = form.starts(runs.x, runs.y) if start_SP is None else np.atleast_2d(start_SP)
    lower_P, upper_P, start_SP = _fix(form, fixed or {}, start_SP)
    surface = optimise.Surface(form, runs.x, objective.space)
    found = optimise.minimise(
        surface, start_SP, (lower_P, upper_P), target(runs.y, objective), runs.weight, objective
    )
    best = int(found.value_S.argmin())
    theta_P, value = found.theta_SP[best], float(found.value_S[best])
    return Fit(form, runs, objective, theta_P, value, lower_P, upper_P, start_SP, found)


def refit(
    fit_: Fit, y_Sn: np.ndarray | None = None, weight_Sn: np.ndarray | None = None, **bounds
) -> optimise.Optima:
    """Fits the same law to many variants of its data at once, each started from the optimum.

    Args:
      fit_: the fit whose points, objective and bounds are used.
      y_Sn: targets in the objective's space; by default those of the fit.
      weight_Sn: weights; by default those of the fit.
      **bounds: lower_SP, upper_SP, start_SP if they differ by row.
    """
    y_Sn = fit_.target_n[None] if y_Sn is None else y_Sn
    weight_Sn = fit_.runs.weight[None] if weight_Sn is None else weight_Sn
    rows = max(len(y_Sn), len(weight_Sn), *(len(b) for b in bounds.values()), 1)
    start_SP = bounds.get("start_SP", np.tile(fit_.theta_P, (rows, 1)))
    lower, upper = bounds.get("lower_SP", fit_.lower_P), bounds.get("upper_SP", fit_.upper_P)
    return optimise.minimise(
        fit_.surface, start_SP, (lower, upper), y_Sn, weight_Sn, fit_.objective, near=True
    )


def _fix(form: Form, fixed: Mapping[str, float], start_SP: np.ndarray):
    lower_P, upper_P = form.bounds()
    unknown = [symbol for symbol in fixed if symbol not in form.symbols]
    if unknown:
        raise InputError(
            f"fix: {form.name} has no parameter {unknown[0]!r}; it has {', '.join(form.symbols)}"
        )
    start_SP = np.array(start_SP, float)
    if fixed:
        middle = dict(zip(form.symbols, form.publish(start_SP[len(start_SP) // 2]), strict=True))
        values_P = form.search({**middle, **fixed})
        for symbol in fixed:
            free = [
                s for s, yes in zip(form.symbols, form.behind(symbol, values_P), strict=True) if yes
            ]
            free = [s for s in free if s not in fixed]
            if free:
                raise InputError(
                    f"fix: {symbol} of {form.name} depends on {', '.join(free)}; fix that too"
                )
        for p in (form.symbols.index(symbol) for symbol in fixed):
            lower_P[p] = upper_P[p] = start_SP[:, p] = values_P[p]
        start_SP = np.unique(start_SP, axis=0)
    return lower_P, upper_P, start_SP


def _warnings(fit_: Fit) -> Iterator[str]:
    same_S, free_P, symbols = fit_.agreeing_S, fit_.free_P, np.array(fit_.form.symbols)
    yield from _bound_warnings(fit_)
    yield from _data_warnings(fit_.form, fit_.runs, int(free_P.sum()))
    condition, open_ = fit_.conditioning
    if condition > _ILL:
        yield f"parameters are nearly interchangeable (condition number {condition:.1e})"
    else:
        for one, other, c in _tied(fit_, free_P & ~fit_.bounded_P):
            yield f"{one} and {other} are nearly interchangeable (correlation {c:.3f})"
    for symbol, why in open_.items():
        yield f"the data leave {symbol} open ({why})"
    if fit_.agreed < _FEW:
        yield (
            f"only {same_S.sum()} of {len(same_S)} starts found the best optimum: there may be a "
            "better one"
        )
    spread_P = np.ptp(fit_.found.theta_SP[same_S], axis=0) / (1 + np.abs(fit_.theta_P))
    if (spread_P > _SAME_PARAMETER).any():
        names = ", ".join(symbols[spread_P > _SAME_PARAMETER])
        yield f"different values of {names} fit equally well"
    if not fit_.found.converged_S[same_S].any():
        yield "the search ran out of steps before it was certain of the optimum"


def _conditioning(fit_: Fit, inner_P: np.ndarray) -> tuple[float, dict[str, str]]:
    """Condition number of the centred, scaled Jacobian, and parameters that the data leave open.

    A parameter is open if its standard error is about as large as its value.
    """
    if not inner_P.any():
        return 1.0, {}
    centre_PP = fit_.form.centre(fit_.runs.x)
    jac_nP = fit_.surface.evaluate(fit_.theta_P[None])[1][0].T * np.sqrt(fit_.runs.weight)[:, None]
    centred_nP = (jac_nP @ centre_PP)[:, inner_P]
    length_P = np.linalg.norm(centred_nP, axis=0)
    if not (length_P > 0).all():
        return np.inf, {}
    singular = np.linalg.svd(centred_nP / length_P, compute_uv=False)
    condition = (
        float(singular[0] / singular[-1])
        if singular[-1] > 0 and len(centred_nP) >= inner_P.sum()
        else np.inf
    )
    coefficient_P = (centre_PP != np.eye(len(centre_PP))).any(
        1
    )  # coefficients are judged by their exponents
    error_P, open_ = np.sqrt(np.maximum(np.diag(fit_.covariance()), 0)), {}
    for p in np.flatnonzero(inner_P & ~coefficient_P):
        positive = fit_.form.parameters[
            p
        ].positive  # the search coordinate is a logarithm, so its error is already relative
        relative = error_P[p] if positive else error_P[p] / max(abs(fit_.theta_P[p]), 1e-12)
        if relative > _OPEN:
            open_[fit_.form.symbols[p]] = f"standard error {100 * relative:.0f} % of its value"
    return condition, open_


def _tied(fit_: Fit, inner_P: np.ndarray) -> list[tuple[str, str, float]]:
    """Pairs of parameters whose estimates move together, wherever coefficients are measured."""
    covariance_PP, inverse_PP = fit_.covariance(), np.linalg.inv(fit_.form.centre(fit_.runs.x))
    both = []
    for matrix_PP in (covariance_PP, inverse_PP @ covariance_PP @ inverse_PP.T):
        scale_P = np.sqrt(np.maximum(np.diag(matrix_PP), 1e-300))
        both.append(matrix_PP / np.outer(scale_P, scale_P))
    least_PP = np.where(np.abs(both[0]) < np.abs(both[1]), *both)
    rows, columns = np.nonzero(
        np.triu((np.abs(least_PP) > _INTERCHANGEABLE) & np.outer(inner_P, inner_P), 1)
    )
    symbols = fit_.form.symbols
    return [
        (symbols[i], symbols[j], float(least_PP[i, j])) for i, j in zip(rows, columns, strict=True)
    ]


def _bound_warnings(fit_: Fit) -> list[str]:
    lines = []
    for symbol in fit_.at_bounds:
        parameter = fit_.form.parameters[fit_.form.symbols.index(symbol)]
        low = fit_.params[symbol] <= parameter.lower * 1.01 + 1e-9
        if symbol == fit_.form.floor_symbol and low:
            lines.append(
                f"{symbol} is at zero: the data show no floor; do not trust exponents or "
                "extrapolations"
            )
        else:
            lines.append(f"{symbol} is at the bound of its search, {fit_.params[symbol]:.4g}")
    return lines


def _data_warnings(form: Form, runs: Runs, free: int) -> list[str]:
    lines = []
    if len(runs.y) <= free:
        lines.append(
            f"{len(runs.y)} points for {free} parameters: the fit is exact or arbitrary, and has "
            "no residuals"
        )
    names = [name for name in form.inputs if name in _SCALED]
    for name in names:
        decades, distinct = (
            float(np.ptp(runs.x[name]) / np.log(10)),
            len(np.unique(runs.x[name].round(6))),
        )
        if distinct < 3:
            lines.append(
                f"{name} takes {distinct} value{'s' * (distinct > 1)}: its exponent cannot be told "
                "from a constant"
            )
        elif decades < 1.01:
            lines.append(
                f"{name} spans {decades:.2f} decades: one or less does not determine an exponent"
            )
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if np.ptp(runs.x[one]) and np.ptp(runs.x[other]):
                tie = float(np.corrcoef(runs.x[one], runs.x[other])[0, 1])
                if abs(tie) > _TIED:
                    lines.append(
                        f"{other} is tied to {one} (correlation {tie:.3f}): their terms are one"
                    )
    return lines
