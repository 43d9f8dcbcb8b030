"""Consequences of Kaplan's laws with their published constants.

Source: arXiv 2001.08361, sections 3 to 6 and appendix A. N counts non-embedding parameters, C is in
PF-days (8.64e19 FLOPs), B and D are in tokens, losses in nats.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

PF_DAY = 8.64e19


@dataclasses.dataclass(frozen=True)
class Constants:
    """The constants in tables 4 to 6 of the paper.

    Attributes are named as there: `<scale>_<law>` and `alpha_<law>`; nd marks L(N, D), ns marks
    L(N, S_min), cmin the optimally spent compute, crit the critical batch size, and p_<x> with
    <x>_e the published allocation x = x_e C^p_x.
    """

    alpha_n: float = 0.076
    n_c: float = 8.8e13
    alpha_d: float = 0.095
    d_c: float = 5.4e13
    alpha_c: float = 0.057
    c_c: float = 1.6e7
    alpha_cmin: float = 0.050
    cmin_c: float = 3.1e8
    alpha_crit: float = 0.21
    b_star: float = 2.1e8
    nd_alpha_n: float = 0.076
    nd_alpha_d: float = 0.103
    nd_n_c: float = 6.4e13
    nd_d_c: float = 1.8e13
    ns_alpha_n: float = 0.077
    ns_alpha_s: float = 0.76
    ns_n_c: float = 6.5e13
    ns_s_c: float = 2.1e3
    p_n: float = 0.73
    n_e: float = 1.3e9
    p_b: float = 0.24
    b_e: float = 2.0e6
    p_s: float = 0.03
    s_e: float = 5.4e3
    p_d: float = 0.27
    d_e: float = 2.0e10


PUBLISHED = Constants()


def non_embedding_params(num_layers: float, d_model: float) -> float:
    """N = 12 n_layer d^2 (d_ff = 4 d, attention of width d; decoder only)."""
    return 12 * num_layers * d_model**2


def embedding_params(vocabulary: float, context: float, d_model: float) -> float:
    """(n_vocab + n_ctx) d: token and learned position tables, which N leaves out."""
    return (vocabulary + context) * d_model


def forward_flops(n: float, num_layers: float, context: float, d_model: float) -> float:
    """C_forward = 2 N + 2 n_layer n_ctx d, per token."""
    return 2 * n + 2 * num_layers * context * d_model


def loss_nd(n, d, c: Constants = PUBLISHED):
    """L(N, D), equation 1.5."""
    return ((c.nd_n_c / n) ** (c.nd_alpha_n / c.nd_alpha_d) + c.nd_d_c / d) ** c.nd_alpha_d


def overfitting(n, d, c: Constants = PUBLISHED):
    """Relative excess of L(N, D) over the loss with unlimited data.

    (1 + (N / N_c)^(alpha_N / alpha_D) D_c / D)^alpha_D - 1.
    """
    return (1 + (n / c.nd_n_c) ** (c.nd_alpha_n / c.nd_alpha_d) * c.nd_d_c / d) ** c.nd_alpha_d - 1


def data_needed(n, excess: float = 0.02, c: Constants = PUBLISHED):
    """Tokens that keep overfitting at `excess`; for .02 about 5e3 N^.74 (equation 4.4)."""
    return (
        c.nd_d_c
        * (n / c.nd_n_c) ** (c.nd_alpha_n / c.nd_alpha_d)
        / ((1 + excess) ** (1 / c.nd_alpha_d) - 1)
    )


def early_stopping_step(n, d, c: Constants = PUBLISHED):
    """Lower bound of the step at which training on D tokens should stop (equation 5.7)."""
    return c.ns_s_c / (loss_nd(n, d, c) - loss_nd(n, np.inf, c)) ** (1 / c.ns_alpha_s)


def critical_batch(loss, c: Constants = PUBLISHED):
    """B_crit(L) = B* / L^(1 / alpha_B), tokens: twice the data trains twice as fast."""
    return c.b_star / loss ** (1 / c.alpha_crit)


def min_steps(steps, batch, loss, c: Constants = PUBLISHED):
    """S_min = S / (1 + B_crit / B): the steps that a very large batch would need."""
    return steps / (1 + critical_batch(loss, c) / batch)


def min_compute(compute, batch, loss, c: Constants = PUBLISHED):
    """C_min = C / (1 + B / B_crit): the compute that a very small batch would need."""
    return compute / (1 + batch / critical_batch(loss, c))


def loss_ns(n, min_steps_, c: Constants = PUBLISHED):
    """L(N, S_min), equation 1.6."""
    return (c.ns_n_c / n) ** c.ns_alpha_n + (c.ns_s_c / min_steps_) ** c.ns_alpha_s


def compute_exponent(c: Constants = PUBLISHED) -> float:
    """The alpha_C of L(C_min) implied by the other laws: 1 / (1/alpha_S + 1/alpha_B + 1/alpha_N).

    The rounded constants give .0525; the paper prints .054.
    """
    return 1 / (1 / c.ns_alpha_s + 1 / c.alpha_crit + 1 / c.ns_alpha_n)


def derived_allocation(c: Constants = PUBLISHED) -> dict[str, float]:
    """Exponents of N, B and S_min in C_min implied by the laws. The paper prints .71 for N.

    They sum to one.
    """
    alpha = compute_exponent(c)
    return {"N": alpha / c.ns_alpha_n, "B": alpha / c.alpha_crit, "S": alpha / c.ns_alpha_s}


def allocation(pf_days: np.ndarray | float, c: Constants = PUBLISHED) -> dict:
    """The published empirical allocation of C_min PF-days: N, B (tokens), S_min and D (tokens)."""
    return {
        "N": c.n_e * pf_days**c.p_n,
        "B": c.b_e * pf_days**c.p_b,
        "S": c.s_e * pf_days**c.p_s,
        "D": c.d_e * pf_days**c.p_d,
    }


def implications(
    form: str, params: Mapping[str, float], at: Mapping[str, float], loss: float
) -> dict[str, float]:
    """What a fitted Kaplan law implies at a place; empty for other forms.

    Args:
      form: the name of the form.
      params: its fitted constants.
      at: the inputs, raw.
      loss: its prediction there, nats.

    Returns:
      For `kaplan_nd`, from its fitted constants: `overfitting` (relative excess over unlimited
        data)
      and `D_for_2pct` (tokens that keep it at 2 %). With published values for the other constants:
      `stop_step_published` (kaplan_nd: lower bound of the step to stop at) and
      `critical_batch_published` (tokens); for `kaplan_c` the allocation of its compute:
      `N_published`, `B_published`, `S_published`, `D_published`. Numbers that a law with an
      exponent of zero does not determine are NaN or infinite.
    """
    if not form.startswith("kaplan_"):
        return {}
    found = {}
    if form == "kaplan_nd":
        names = {"nd_n_c": "N_c", "nd_d_c": "D_c", "nd_alpha_n": "alpha_N", "nd_alpha_d": "alpha_D"}
        # NumPy numbers, because an exponent of zero divides: NumPy then gives NaN or inf instead of
        # an error.
        fitted = dataclasses.replace(
            PUBLISHED, **{ours: np.float64(params[theirs]) for ours, theirs in names.items()}
        )
        with np.errstate(all="ignore"):
            found["overfitting"] = overfitting(at["N"], at["D"], fitted)
            found["D_for_2pct"] = data_needed(at["N"], 0.02, fitted)
            found["stop_step_published"] = early_stopping_step(at["N"], at["D"], fitted)
    if form == "kaplan_c":
        found |= {
            f"{name}_published": value for name, value in allocation(at["C"] / PF_DAY).items()
        }
    return {name: float(value) for name, value in found.items()} | {
        "critical_batch_published": critical_batch(loss)
    }
