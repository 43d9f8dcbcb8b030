"""Measures the speed of the scaling-law fit, and of SciPy with one start at a time.

    python -m benchmarks.scaling_law_fit

Fits Chinchilla's law to 240 synthetic points from Hoffmann's 4,500 starts, refits 2,000 bootstrap
resamples, and times SciPy's L-BFGS-B and BFGS (same objective, same analytic gradient) on a sample
of the same starts. On 2 cores under 10 s in all are wanted. Then compares the laws of six groups
with 529 rows together, as `eval fit --group` does with its default draws; under 20 s of processor
time are wanted. Prints JSON: seconds of every part, their processor time, and the ratio to SciPy.
"""

import dataclasses
import json
import time

import numpy as np
from scipy.optimize import minimize

from eval.laws import forms, groups
from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import fit
from eval.laws.law_table import points
from eval.stats.resampling import Resampling

SAMPLE = 40  # starts given to SciPy, whose time for all starts is extrapolated


def synthetic(n: int = 240, noise: float = 0.01, seed: int = 0):
    """Points of Hoffmann's law with heavy-tailed noise over the range of the Chinchilla study."""
    rng = np.random.default_rng(seed)
    params, flops = (
        np.exp(rng.uniform(np.log(5e7), np.log(1.6e10), n)),
        np.exp(rng.uniform(np.log(1e18), np.log(1e22), n)),
    )
    law = {"A": 477.8, "B": 2143.4, "E": 1.8172, "alpha": 0.3473, "beta": 0.3672}
    tokens = np.clip(flops / 6 / params, 2e8, 5e12)
    loss = forms.get("chinchilla").predict(law, N=params, D=tokens) * np.exp(
        noise * rng.standard_t(3, n)
    )
    return points(loss, N=params, D=tokens)


def six_groups(n: int = 529, seed: int = 0):
    """Points of six groups, each with another multiple of the loss of `synthetic`."""
    every, rng = synthetic(n, seed=seed), np.random.default_rng(seed)
    group_n = rng.integers(0, 6, n)
    return dataclasses.replace(
        every,
        y=every.y * (1 + 0.05 * group_n),
        group=np.array([f"group{g}" for g in group_n], dtype=object),
    )


def time_groups() -> dict[str, object]:
    """Seconds of a fit and bootstrap of each group and of their comparison, and the verdict."""
    form, runs = forms.Chinchilla(), six_groups()
    began, busy = time.perf_counter(), time.process_time()
    for label in runs.groups:
        uncertainty.bootstrap(fit(form, runs.take(runs.group == label)), 1000)
    compared = groups.compare(form, runs, resampling=Resampling(1000))
    return {
        "rows": len(runs.y),
        "groups": len(runs.groups),
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - busy,
        "verdict": compared.verdict,
    }


def one_at_a_time(
    form, runs, objective, start_SP: np.ndarray, method: str
) -> tuple[float, np.ndarray]:
    """Seconds per start and SciPy's final objectives, with tolerances that do not stop it early."""
    target_n = np.log(runs.y)

    def value_and_gradient(theta_P):
        with np.errstate(all="ignore"):
            values_Sn, jac_SPn = form.evaluate(theta_P[None], runs.x)
        residual_n = target_n - values_Sn[0]
        return objective.rho(residual_n).sum(), -jac_SPn[0] @ objective.psi(residual_n)

    options = {"maxiter": 5000, "gtol": 1e-12} | (
        {"ftol": 1e-15, "maxfun": 20000} if method == "L-BFGS-B" else {}
    )
    began, ends = time.perf_counter(), []
    for start_P in start_SP:
        with np.errstate(all="ignore"):
            ends.append(
                minimize(value_and_gradient, start_P, jac=True, method=method, options=options).fun
            )
    return (time.perf_counter() - began) / len(start_SP), np.array(ends)


def main() -> None:
    """Prints the measurements."""
    form, runs = forms.Chinchilla(), synthetic()
    start_SP = form.hoffmann_starts()
    began, busy = time.perf_counter(), time.process_time()
    law = fit(form, runs, start_SP=start_SP)
    fitted = time.perf_counter()
    drawn = uncertainty.bootstrap(law, 2000)
    done = time.perf_counter()
    busy = time.process_time() - busy
    result = {
        "points": len(runs.y),
        "starts": len(start_SP),
        "refits_converged": len(drawn.theta_BP),
        "fit_seconds": fitted - began,
        "bootstrap_seconds": done - fitted,
        "together_seconds": done - began,
        "processor_seconds": busy,
        "starts_that_agree": law.agreed,
        "parameters": law.params,
    }
    rows = []
    sample_SP = start_SP[np.random.default_rng(0).choice(len(start_SP), SAMPLE, replace=False)]
    for method in ("L-BFGS-B", "BFGS"):
        seconds, ends = one_at_a_time(form, runs, law.objective, sample_SP, method)
        share, best = (ends <= law.value * (1 + 1e-6)).mean(), ends.min() / law.value
        every = seconds * len(start_SP)
        rows.append(
            {
                "scipy": method,
                "seconds_of_all_starts": every,
                "over_ours": every / (fitted - began),
                "starts_at_our_optimum": float(share),
                "best_objective_over_ours": float(best),
            }
        )
    print(
        json.dumps(
            {**result, "one_start_at_a_time": rows, "comparison_of_groups": time_groups()}, indent=2
        )
    )


if __name__ == "__main__":
    main()
