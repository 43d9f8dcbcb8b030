"""Variable projection: least squares on raw values, for laws with one or two exponents.

Such a law is linear apart from the exponents. For given exponents the best E, A, B >= 0 solve a
non-negative least-squares problem exactly. So only the exponents are searched, on a grid that is
refined until it cannot shrink further. This needs no gradient, start or tolerance, so it checks the
raw L2 optimum of the Newton fit independently. It is also far better conditioned (kappa about 10
instead of 1e11).
"""

import itertools

import numpy as np

from eval.laws.fitting.fit import Fit, fit
from eval.laws.fitting.objective import LEAST_SQUARES
from eval.laws.forms.form import Form, grid
from eval.laws.forms.powers import SumOfPowers
from eval.laws.law_table import Runs
from train.records import InputError

_GRID = 41  # values of each exponent
_ZOOM = 0.25  # size of the next grid as a share of the current one
_FINEST = 1e-10


def variable_projection(form: Form, runs: Runs) -> Fit:
    """The raw least-squares fit of a sum of powers, in the same form as any other fit.

    Raises:
      InputError: the form is not a sum of powers, or has more than two exponents.
    """
    if not isinstance(form, SumOfPowers) or len(form.exponents) > 2:
        raise InputError(
            f"method: varpro needs a sum of powers with one or two exponents; {form.name} is not"
        )
    lower_P, upper_P = (bound[list(form.exponents)] for bound in form.bounds())
    low_K, high_K = lower_P, np.minimum(upper_P, 2.0)
    while True:
        exponent_SK = grid(
            *(np.linspace(low, high, _GRID) for low, high in zip(low_K, high_K, strict=True))
        )
        coefficient_SC, cost_S = _solve(form, exponent_SK, runs)
        best = int(cost_S.argmin())
        if (high_K - low_K).max() < _FINEST:
            break
        half_K = 0.5 * _ZOOM * (high_K - low_K)
        low_K, high_K = (
            np.maximum(exponent_SK[best] - half_K, lower_P),
            np.minimum(exponent_SK[best] + half_K, upper_P),
        )
    theta_P = np.empty(len(form.parameters))
    theta_P[list(form.exponents)] = exponent_SK[best]
    columns = [term.coefficient for term in form.terms] + (
        [form.offset] if form.offset is not None else []
    )
    theta_P[columns] = np.log(np.maximum(coefficient_SC[best], 1e-300))
    lower_P, upper_P = form.bounds()
    return fit(form, runs, LEAST_SQUARES, start_SP=np.clip(theta_P, lower_P, upper_P)[None])


def _solve(form: SumOfPowers, exponent_SK: np.ndarray, runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative coefficients [S,C] (terms, then E) and sums of squares [S].

    Tries every set of active columns.
    """
    where = {p: k for k, p in enumerate(form.exponents)}
    basis = [-exponent_SK[:, [where[t.exponent]]] * runs.x[t.input] for t in form.terms]
    shift = [column.max(1, keepdims=True) for column in basis]  # largest entry becomes one
    basis = [np.exp(column - top) for column, top in zip(basis, shift, strict=True)]
    if form.offset is not None:
        basis.append(np.ones_like(basis[0]))
        shift.append(np.zeros_like(shift[0]))
    design_SnC = np.stack(basis, -1) * np.sqrt(runs.weight)[:, None]
    y_n = runs.y * np.sqrt(runs.weight)
    gram_SCC, moment_SC = design_SnC.swapaxes(1, 2) @ design_SnC, y_n @ design_SnC
    columns = design_SnC.shape[-1]
    best_SC, cost_S = np.zeros((len(exponent_SK), columns)), np.full(len(exponent_SK), np.inf)
    for size in range(1, columns + 1):
        for active in map(list, itertools.combinations(range(columns), size)):
            inner_SCC = gram_SCC[:, active][:, :, active]
            inner_SCC = (
                inner_SCC
                + 1e-15 * np.eye(size) * np.trace(inner_SCC, axis1=1, axis2=2)[:, None, None]
            )
            part_SC = np.linalg.solve(inner_SCC, moment_SC[:, active][..., None])[..., 0]
            residual_Sn = y_n - np.einsum("snc,sc->sn", design_SnC[:, :, active], part_SC)
            found_S = np.where((part_SC >= 0).all(1), (residual_Sn**2).sum(1), np.inf)
            better_S = found_S < cost_S
            cost_S = np.where(better_S, found_S, cost_S)
            full_SC = np.zeros_like(best_SC)
            full_SC[:, active] = part_SC
            best_SC = np.where(better_S[:, None], full_SC, best_SC)
    return best_SC * np.exp(-np.concatenate(shift, 1)), cost_S
