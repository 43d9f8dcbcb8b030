"""Which run to make next: the one that most narrows a chosen quantity's interval for its FLOPs.

To first order, a run at x adds the outer product of its gradient to the information about the
parameters. The quantity is a function of the parameters, so its variance after the run can be
computed before the run is made.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from eval.laws import allocation, at
from eval.laws.fitting.fit import Fit
from eval.laws.forms.form import Inputs
from train.records import InputError

Functional = Callable[[np.ndarray], np.ndarray]  # theta [S,P] -> [S]


def quantity(fit: Fit, text: str, k: float = 6.0) -> Functional:
    """Parses a quantity: a symbol (`alpha`), `loss@N=1e9,D=2e10`, or `optimum@C=1e21`.

    The optimum is the log of the best N; it is NaN if the law has none (`allocation.undetermined`).

    Raises:
      InputError: it is none of these, or names inputs that the form does not have.
    """
    form = fit.form
    if text in form.symbols:
        place = form.symbols.index(text)
        return lambda theta: form.publish(theta)[:, place]
    kind, _, rest = text.partition("@")
    allowed = f"a symbol ({', '.join(form.symbols)}), loss@N=...,D=... or optimum@C=..."
    given = at.given(rest)
    if kind == "loss" and set(given) == set(form.inputs):
        x = {name: np.array([np.log(value)]) for name, value in given.items()}
        return lambda theta: form.values(theta, x)[:, 0]
    if kind == "optimum" and set(given) == {"C"}:
        allocation.check(form)
        if allocation.undetermined(fit):
            return lambda theta: np.full(len(theta), np.nan)
        return lambda theta: allocation.optimum(form, theta, np.array([given["C"]]), k)[0][:, 0]
    raise InputError(f"quantity: {text!r} is not {allowed}")


def rank(fit: Fit, value: Functional, candidates: Inputs, flops_m: np.ndarray) -> pd.DataFrame:
    """Ranks candidate runs, best first.

    Args:
      fit: the law so far.
      value: the quantity whose interval should shrink.
      candidates: logarithms of the inputs of each candidate run [m].
      flops_m: FLOPs of each candidate.

    Returns:
      Columns: the inputs (raw), `flops`, `sd_now`, `sd_after` (standard error of the quantity),
      `shrink` (share of its standard error that the run removes) and `shrink_per_flop`.
    """
    covariance_PP = fit.covariance()
    gradient_P = _gradient(value, fit.theta_P, fit.free_P)
    surface = type(fit.surface)(fit.form, candidates, fit.objective.space)
    jac_mP = surface.evaluate(fit.theta_P[None])[1][0].T
    reach_mP = jac_mP @ covariance_PP
    now = float(gradient_P @ covariance_PP @ gradient_P)
    gain_m = (reach_mP @ gradient_P) ** 2 / (fit.variance + np.einsum("mp,mp->m", reach_mP, jac_mP))
    after_m = np.sqrt(np.maximum(now - gain_m, 0))
    table = pd.DataFrame({name: np.exp(values) for name, values in candidates.items()})
    table["flops"], table["sd_now"], table["sd_after"] = flops_m, np.sqrt(now), after_m
    table["shrink"] = 0.0 if now <= 0 else 1 - after_m / np.sqrt(now)
    table["shrink_per_flop"] = table["shrink"] / table["flops"]
    return table.sort_values("shrink_per_flop", ascending=False, ignore_index=True)


def _gradient(value: Functional, theta_P: np.ndarray, free_P: np.ndarray) -> np.ndarray:
    step_PP = 1e-5 * np.diag((1 + np.abs(theta_P)) * free_P)
    span_P = 2 * np.diag(step_PP)
    change_P = value(theta_P + step_PP) - value(theta_P - step_PP)
    return np.where(free_P, change_P / np.where(span_P > 0, span_P, 1), 0.0)
