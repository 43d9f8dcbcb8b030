"""Kaplan's laws of the loss (arXiv 2001.08361): L(N), L(D), L(C_min) and L(N, S_min).

Their scale constants N_c, D_c, C_c and S_c are the inputs at which a term alone would give a loss
of one nat. The search uses the coefficient N_c^alpha_N instead, which the data determine far
better; `publish` converts it back. L(N, D) is in coupled.py, and consequences of the laws (critical
batch size, overfitting, allocation) are in `eval.laws.kaplan_implications`.
"""

from collections.abc import Mapping

import numpy as np

from eval.laws.forms.powers import SumOfPowers, Term, coefficient, exponent

SOURCE = "Kaplan et al. 2020, arXiv 2001.08361"


class _ScaleConstants(SumOfPowers):
    """A sum of powers whose coefficients are published as scale constants x_c = A^(1/alpha)."""

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Converts coefficients to scale constants."""
        values = super().publish(theta)
        for term in self.terms:
            slope = np.maximum(theta[..., term.exponent], 1e-12)
            values[..., term.coefficient] = np.exp(
                np.minimum(theta[..., term.coefficient] / slope, 700.0)
            )
        return values

    def search(self, published: Mapping[str, float]) -> np.ndarray:
        """The inverse of `publish`."""
        scaled = dict(published)
        for term in self.terms:
            scale, slope = self.symbols[term.coefficient], self.symbols[term.exponent]
            scaled[scale] = published[scale] ** published[slope]
        return super().search(scaled)


class KaplanN(_ScaleConstants):
    """Loss as a function of parameters, with data and steps to spare."""

    name = "kaplan_n"
    formula = "L = (N_c / N)^alpha_N"
    source = SOURCE
    meaning = "loss of models limited only by their parameters (non-embedding, in the paper)"
    inputs = ("N",)
    parameters = (
        coefficient("N_c", "parameters at a loss of one nat"),
        exponent("alpha_N", "slope in parameters"),
    )
    terms = (Term(0, 1, "N"),)


class KaplanD(_ScaleConstants):
    """Loss as a function of data, for large models that are stopped early."""

    name = "kaplan_d"
    formula = "L = (D_c / D)^alpha_D"
    source = SOURCE
    meaning = "loss of models limited only by their data"
    inputs = ("D",)
    parameters = (
        coefficient("D_c", "tokens at a loss of one nat"),
        exponent("alpha_D", "slope in tokens"),
    )
    terms = (Term(0, 1, "D"),)


class KaplanC(_ScaleConstants):
    """Loss as a function of compute that is spent optimally."""

    name = "kaplan_c"
    formula = "L = (C_c / C)^alpha_C"
    source = SOURCE
    meaning = "loss of the best model for each compute budget (C_min in PF-days, in the paper)"
    inputs = ("C",)
    parameters = (
        coefficient("C_c", "compute at a loss of one nat"),
        exponent("alpha_C", "slope in compute"),
    )
    terms = (Term(0, 1, "C"),)


class KaplanNS(_ScaleConstants):
    """Learning curves with unlimited data."""

    name = "kaplan_ns"
    formula = "L = (N_c / N)^alpha_N + (S_c / S)^alpha_S"
    source = SOURCE
    meaning = "loss after S steps at a batch far above critical (S_min)"
    inputs = ("N", "S")
    parameters = (
        coefficient("N_c", "parameters at which the first term is one nat"),
        coefficient("S_c", "steps at which the second term is one nat"),
        exponent("alpha_N", "slope in parameters"),
        exponent("alpha_S", "slope in steps"),
    )
    terms = (Term(0, 2, "N"), Term(1, 3, "S"))
