"""The best N and D for a compute budget C = k N D, and the cost of choosing others."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eval.laws.fitting.fit import Fit
from eval.laws.fitting.uncertainty import Draws
from eval.laws.forms.form import Form
from train.records import InputError

_GOLDEN = (np.sqrt(5) - 1) / 2
_STEPS = (
    60  # golden-section steps; then the interval is below the rounding error of the flat minimum
)

_FAR = 300.0  # limit on natural logarithms; the exponential is still finite

_BLOCK = 64  # rows evaluated together; only the diagonal of the result is used


def check(form: Form) -> None:
    """Raises InputError if the form does not trade N against D."""
    if not {"N", "D"} <= set(form.inputs):
        raise InputError(
            f"allocate: {form.name} does not predict loss from N and D; use chinchilla or another "
            "N, D form"
        )


def undetermined(fit: Fit) -> tuple[str, ...]:
    """Parameters at a bound that leave the best N and D open; the floor does not count."""
    return tuple(symbol for symbol in fit.at_bounds if symbol != fit.form.floor_symbol)


def chinchilla_exponents(params: Mapping[str, float]) -> dict[str, float]:
    """Closed form of Chinchilla's allocation: N* = G (C/k)^a, D* = (C/k)^b / G. Keys G, a, b.

    All three are NaN if a coefficient or an exponent is zero, because such a law has no best N at
    any finite budget.
    """
    alpha, beta, a, b = (params[symbol] for symbol in ("alpha", "beta", "A", "B"))
    if min(alpha, beta, a, b) <= 0:
        return dict.fromkeys(("G", "a", "b"), math.nan)
    log_scale = (math.log(alpha) + math.log(a) - math.log(beta) - math.log(b)) / (alpha + beta)
    return {
        "G": float(_natural(log_scale)),
        "a": beta / (alpha + beta),
        "b": alpha / (alpha + beta),
    }


def optimum(
    form: Form,
    theta_SP: np.ndarray,
    flops_m: np.ndarray,
    k: float = 6.0,
    unique_tokens: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Log of the best N [S,m] and the log-loss there [S,m].

    Uses the closed form if there is one, else golden-section search in log N at fixed C.

    Args:
      form: a law in N and D, and possibly U, which is then `unique_tokens`.
      theta_SP: parameters in search coordinates.
      flops_m: budgets.
      k: FLOPs per parameter and token.
      unique_tokens: number of distinct tokens available; by default every token is new.
    """
    log_c = np.log(flops_m / k)
    rows, budgets = len(theta_SP), len(flops_m)
    flat_SP = np.repeat(theta_SP, budgets, axis=0)
    log_c_R = np.tile(log_c, rows)

    def loss(log_n_R: np.ndarray) -> np.ndarray:
        return _at(form, flat_SP, log_n_R, log_c_R - log_n_R, unique_tokens)

    closed_Sm = form.best_log_n(theta_SP, log_c)
    if closed_Sm is not None:
        return closed_Sm, loss(closed_Sm.ravel()).reshape(rows, budgets)
    low_R, high_R = np.zeros(rows * budgets), log_c_R.copy()
    for _ in range(_STEPS):
        width_R = _GOLDEN * (high_R - low_R)
        left_R, right_R = high_R - width_R, low_R + width_R
        right_is_worse = loss(left_R) < loss(right_R)
        low_R, high_R = (
            np.where(right_is_worse, low_R, left_R),
            np.where(right_is_worse, right_R, high_R),
        )
    best_R = (low_R + high_R) / 2
    return best_R.reshape(rows, budgets), loss(best_R).reshape(rows, budgets)


def _at(form, theta_RP, log_n_R, log_d_R, unique_tokens) -> np.ndarray:
    """Log-loss of row r at its own N and D [R], one point per row."""
    out = np.empty(len(theta_RP))
    for r in range(0, len(theta_RP), _BLOCK):
        part = slice(r, r + _BLOCK)
        x = {"N": log_n_R[part], "D": log_d_R[part]}
        if "U" in form.inputs:
            x["U"] = x["D"] if unique_tokens is None else np.minimum(x["D"], np.log(unique_tokens))
        with np.errstate(all="ignore"):  # with an exponent of zero, no N or every N is optimal
            out[part] = np.diagonal(form.evaluate(theta_RP[part], x)[0])
    return out


@dataclasses.dataclass(frozen=True)
class Allocation:
    """The result of `allocate`.

    Where the law does not determine the best N and D (see `undetermined`), every number about them
    is NaN.

    Attributes:
      optima: one row per budget: `flops`, `N`, `D`, `loss`, each with `_lower` and `_upper`, and
        `extrapolated`.
      off: one row per budget and factor: `flops`, `factor` (N over the best N), `N`, `D`, `loss`,
        `excess` (loss above the best), `compute` (the compute that the best allocation needs for
        the same loss, as a factor below one).
      exponents: `a` and `b` of N* ~ C^a, D* ~ C^b between the smallest and largest budget, with
        intervals.
      warnings: optima that the law does not determine, or that are outside the measured N or D.
    """

    optima: pd.DataFrame
    off: pd.DataFrame
    exponents: dict[str, object]
    warnings: tuple[str, ...]


def allocate(
    draws: Draws,
    flops: Sequence[float],
    k: float = 6.0,
    factors: Sequence[float] = (0.25, 0.5, 2.0, 4.0),
    level: float = 0.95,
    unique_tokens: float | None = None,
) -> Allocation:
    """Compute-optimal N and D with intervals, and the cost of a wrong N.

    Args:
      draws: bootstrap of the law.
      flops: compute budgets.
      k: FLOPs per parameter and token.
      factors: the wrong N, as multiples of the best N.
      level: coverage of the intervals.
      unique_tokens: number of distinct tokens available; by default every token is new.

    Raises:
      InputError: the form has no N and D, or a budget is not above zero.
    """
    fit = draws.fit
    check(fit.form)
    for budget in flops:
        if not budget > 0:
            raise InputError(f"flops: {budget!r} is not above zero")
    flops_m = np.array(sorted(flops), float)
    if unknown := undetermined(fit):
        return _not_determined(unknown, flops_m, factors)
    log_n, log_loss = optimum(fit.form, fit.theta_P[None], flops_m, k, unique_tokens)
    drawn_n, drawn_loss = optimum(fit.form, draws.theta_BP, flops_m, k, unique_tokens)
    log_c = np.log(flops_m / k)
    columns = {"flops": flops_m}
    for name, here, drawn in (
        ("N", log_n[0], drawn_n),
        ("D", log_c - log_n[0], log_c - drawn_n),
        ("loss", log_loss[0], drawn_loss),
    ):
        low, high = draws.interval(_natural(drawn), level)
        columns |= {name: np.exp(here), f"{name}_lower": low, f"{name}_upper": high}
    optima = pd.DataFrame(columns)
    optima["extrapolated"] = _outside(fit, log_n[0], log_c - log_n[0])
    off = pd.DataFrame(_off(fit, flops_m, log_n[0], log_loss[0], k, factors, unique_tokens))
    return Allocation(
        optima, off, _exponents(draws, flops_m, k, level, unique_tokens), _warnings(optima)
    )


def _natural(log: float | np.ndarray) -> np.ndarray:
    """The exponential of a logarithm that may be infinite, as in bootstrap draws at a bound."""
    return np.exp(np.clip(log, -_FAR, _FAR))


def _not_determined(
    unknown: Sequence[str], flops_m: np.ndarray, factors: Sequence[float]
) -> Allocation:
    """The result for a law without a best N and D."""
    spans = [f"{name}{end}" for name in ("N", "D", "loss") for end in ("", "_lower", "_upper")]
    optima = pd.DataFrame(
        {"flops": flops_m, **dict.fromkeys(spans, math.nan), "extrapolated": False}
    )
    off = pd.DataFrame(
        [{"flops": flops, "factor": factor} for flops in flops_m for factor in factors]
    )
    off[["N", "D", "loss", "excess", "compute"]] = math.nan
    nothing: dict[str, object] = {"a": math.nan, "a_interval": [math.nan] * 2}
    return Allocation(
        optima, off, nothing | {"b": math.nan, "b_interval": [math.nan] * 2}, (why_not(unknown),)
    )


def why_not(unknown: Sequence[str]) -> str:
    """A sentence that the parameters `unknown` leave the best N and D open."""
    return f"the best N and D are not determined: {', '.join(unknown)} at the bound of the search"


def _off(
    fit: Fit, flops_m, log_n_m, log_loss_m, k, factors, unique_tokens
) -> list[dict[str, float]]:
    span = np.geomspace(flops_m.min() * 1e-3, flops_m.max(), 400)
    frontier = optimum(fit.form, fit.theta_P[None], span, k, unique_tokens)[1][0]
    rows = []
    for flops, log_n, best in zip(flops_m, log_n_m, log_loss_m, strict=True):
        for factor in factors:
            n = log_n + np.log(factor)
            d = np.log(flops / k) - n
            here = float(
                _at(fit.form, fit.theta_P[None], np.array([n]), np.array([d]), unique_tokens)[0]
            )
            # np.interp needs rising values, and losses fall along the frontier.
            same = np.exp(np.interp(-here, -frontier, np.log(span)))
            row = {
                "flops": flops,
                "factor": factor,
                "N": np.exp(n),
                "D": np.exp(d),
                "loss": np.exp(here),
            }
            rows.append({**row, "excess": np.exp(here) - np.exp(best), "compute": same / flops})
    return rows


def _exponents(draws: Draws, flops_m, k, level, unique_tokens) -> dict[str, object]:
    ends = np.array(
        [flops_m[0], flops_m[-1]] if len(flops_m) > 1 else [flops_m[0] / 10, flops_m[0] * 10]
    )
    step = np.log(ends[1] / ends[0])
    fit = draws.fit
    here = np.diff(optimum(fit.form, fit.theta_P[None], ends, k, unique_tokens)[0][0])[0] / step
    drawn_B = np.diff(optimum(fit.form, draws.theta_BP, ends, k, unique_tokens)[0])[:, 0] / step
    low, high = map(float, draws.interval(drawn_B, level))
    return {
        "a": float(here),
        "a_interval": [low, high],
        "b": float(1 - here),
        "b_interval": [1 - high, 1 - low],
    }


def outside_grid(fit: Fit, k: float) -> list[str]:
    """A warning if the law has no best N and D, or has them outside the measured range.

    In both cases any optimum is a guess.
    """
    if unknown := undetermined(fit):
        return [why_not(unknown)]
    if fit.at_bounds:  # a floor of zero: another, more serious warning says so already
        return []
    flops = np.exp(np.median(log_compute(fit, k)))
    log_n = optimum(fit.form, fit.theta_P[None], np.array([flops]), k)[0][0]
    if not _outside(fit, log_n, np.log(flops / k) - log_n)[0]:
        return []
    return [
        f"the best N at the median compute, {np.exp(log_n[0]):.3g}, lies outside the measured "
        "runs: so do optima"
    ]


def _outside(fit: Fit, log_n_m: np.ndarray, log_d_m: np.ndarray) -> np.ndarray:
    x = fit.runs.x
    inside = (x["N"].min() <= log_n_m) & (log_n_m <= x["N"].max())
    return ~(inside & (x["D"].min() <= log_d_m) & (log_d_m <= x["D"].max()))


def _warnings(optima: pd.DataFrame) -> tuple[str, ...]:
    return tuple(
        f"the optimum at {row['flops']:.3g} FLOPs (N {row['N']:.3g}, D {row['D']:.3g}) lies "
        "outside the measured runs"
        for row in optima[optima["extrapolated"]].to_dict("records")
    )


def frontier(form: Form, theta_SP: np.ndarray, flops_m: np.ndarray, k: float = 6.0) -> np.ndarray:
    """Loss of the best run at each budget [S,m]; for a law in C or x alone, the law itself."""
    if {"N", "D"} <= set(form.inputs):
        return np.exp(optimum(form, theta_SP, flops_m, k)[1])
    return form.values(theta_SP, {form.inputs[0]: np.log(flops_m)})


def multiplier(
    ours: Draws,
    reference: Draws,
    losses: Sequence[float],
    k: float = 6.0,
    k_reference: float | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """How many times less compute ours needs than the reference for the same loss.

    Both are allocated optimally.

    Args:
      ours: bootstrap of the law in question.
      reference: bootstrap of the law to compare with.
      losses: the losses at which to compare.
      k: FLOPs per parameter and token of ours.
      k_reference: the same for the reference; by default `k`.
      level: coverage of the intervals.

    Returns:
      One row per loss: `loss`, `multiplier` (C_reference / C_ours; above one is better), `lower`,
      `upper`, `extrapolated` (one of the laws reaches this loss only outside its measured compute),
      `note`. A law that does not determine its best N and D has no multiplier.
    """
    for unknown in map(undetermined, (ours.fit, reference.fit)):
        if unknown:
            columns = {
                "loss": list(losses),
                **dict.fromkeys(("multiplier", "lower", "upper"), math.nan),
            }
            return pd.DataFrame({**columns, "extrapolated": False, "note": why_not(unknown)})
    ks = k, k if k_reference is None else k_reference
    here = [
        _compute(d.fit, d.fit.theta_P[None], losses, each)
        for d, each in zip((ours, reference), ks, strict=True)
    ]
    rows = min(len(ours.theta_BP), len(reference.theta_BP))
    shuffle = np.random.default_rng(0).permutation(
        len(reference.theta_BP)
    )  # both bootstraps may have used the same seed
    drawn_SP = ours.theta_BP[:rows], reference.theta_BP[shuffle[:rows]]
    both = zip((ours, reference), drawn_SP, ks, strict=True)
    drawn = [_compute(d.fit, theta_SP, losses, each) for d, theta_SP, each in both]
    ratio = np.exp(here[1] - here[0])[0]
    fewer = min(ours, reference, key=lambda d: d.degrees)
    low, high = fewer.interval(np.exp(drawn[1] - drawn[0]), level)
    outside = _beyond(ours.fit, here[0][0], ks[0]) | _beyond(reference.fit, here[1][0], ks[1])
    note = np.where(
        np.isnan(ratio), "a law's floor lies above this loss", np.where(outside, "extrapolated", "")
    )
    columns = {"loss": list(losses), "multiplier": ratio, "lower": low, "upper": high}
    return pd.DataFrame({**columns, "extrapolated": outside, "note": note})


def log_compute(fit: Fit, k: float) -> np.ndarray:
    """Log compute of each run [n], in the unit of the frontier's budgets."""
    x = fit.runs.x
    return (
        x["N"] + x["D"] + np.log(k) if {"N", "D"} <= set(fit.form.inputs) else x[fit.form.inputs[0]]
    )


def _compute(fit: Fit, theta_SP: np.ndarray, losses: Sequence[float], k: float) -> np.ndarray:
    """Log compute at which the frontier reaches each loss [S, losses]; NaN if it never does."""
    measured = log_compute(fit, k)
    span = np.linspace(measured.min() - 10, measured.max() + 20, 200)
    reached_Sm = frontier(fit.form, theta_SP, np.exp(span), k)
    out = [
        np.interp(-np.asarray(losses), -row, span, left=np.nan, right=np.nan) for row in reached_Sm
    ]
    return np.array(out)


def _beyond(fit: Fit, log_c: np.ndarray, k: float) -> np.ndarray:
    measured = log_compute(fit, k)
    return ~((measured.min() <= log_c) & (log_c <= measured.max()))
