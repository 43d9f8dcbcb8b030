"""Sums of power laws: one power, one with an offset, Chinchilla's law, the over-training law.

    L = E + sum_k A_k x_k^(-alpha_k)

In search coordinates log L is a log-sum-exp of terms that are linear in the parameters. So the
gradient and the second derivatives are products of each term's share of L. They are written out by
hand here, because that is faster than automatic differentiation.
"""

import dataclasses

import numpy as np

from eval.laws.forms.form import Form, Inputs, Parameter, centred, grid

_EXPONENT_STARTS = (0.1, 0.25, 0.5, 1.0)
_FLOOR_STARTS = (0.05, 0.5, 0.9)  # E as a fraction of the smallest loss

_SMALLEST = np.finfo(float).tiny  # avoids the logarithm of an exponent of zero


def coefficient(symbol: str, meaning: str) -> Parameter:
    """A positive coefficient. Its range covers inputs up to 1e18 with exponents up to 2."""
    return Parameter(symbol, meaning, 1e-9, 1e40, positive=True)


def exponent(symbol: str, meaning: str) -> Parameter:
    """The rate at which a term falls; zero would make the term a constant."""
    return Parameter(symbol, meaning, 0.0, 4.0)


def floor(
    symbol: str = "E", meaning: str = "loss of an infinite model on infinite data"
) -> Parameter:
    """The irreducible loss; its lower bound counts as zero."""
    return Parameter(symbol, meaning, 1e-5, 1e3, positive=True)


@dataclasses.dataclass(frozen=True)
class Term:
    """coefficient * input^(-exponent); the fields are positions in `parameters`."""

    coefficient: int
    exponent: int
    input: str


class SumOfPowers(Form):
    """L = [E +] sum of terms; `offset` is the position of E, or None."""

    terms: tuple[Term, ...]
    offset: int | None = None

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Log-predictions and gradient: d log L / d log A_k is the term's share of L."""
        n = len(x[self.inputs[0]])
        jac_SPn = np.zeros((len(theta_SP), len(self.parameters), n))
        parts = [self._term(theta_SP, term, x) for term in self.terms]
        total_Sn = np.add.reduce(parts)
        if self.offset is not None:
            e_S1 = np.exp(theta_SP[:, [self.offset]])
            total_Sn += e_S1
        log_Sn = np.log(total_Sn)
        np.reciprocal(total_Sn, out=total_Sn)
        for term, part_Sn in zip(self.terms, parts, strict=True):
            part_Sn *= total_Sn
            jac_SPn[:, term.coefficient] = part_Sn
            jac_SPn[:, term.exponent] -= part_Sn * x[term.input]
        if self.offset is not None:
            np.multiply(total_Sn, e_S1, out=jac_SPn[:, self.offset])
        return log_Sn, jac_SPn

    @staticmethod
    def _term(theta_SP, term: Term, x: Inputs) -> np.ndarray:
        design_2n = np.stack([np.ones_like(x[term.input]), -x[term.input]])
        part_Sn = theta_SP[:, [term.coefficient, term.exponent]] @ design_2n
        return np.exp(part_Sn, out=part_Sn)

    def curvature(self, theta_SP: np.ndarray, x: Inputs, weight_Sn: np.ndarray) -> np.ndarray:
        """Second derivatives of a log-sum-exp.

        The sum of share * z z' over terms, minus the outer product of the gradient.
        """
        jac_SPn = self.evaluate(theta_SP, x)[1]
        hess_SPP = -(jac_SPn * weight_Sn[:, None]) @ jac_SPn.swapaxes(1, 2)
        for term in self.terms:
            a, k, log_x = term.coefficient, term.exponent, x[term.input]
            share_Sn = weight_Sn * jac_SPn[:, a]
            zero_S, one_S, two_S = share_Sn.sum(-1), share_Sn @ log_x, share_Sn @ log_x**2
            hess_SPP[:, a, a] += zero_S
            hess_SPP[:, a, k] -= one_S
            hess_SPP[:, k, a] -= one_S
            hess_SPP[:, k, k] += two_S
        if self.offset is not None:
            hess_SPP[:, self.offset, self.offset] += (weight_Sn * jac_SPn[:, self.offset]).sum(-1)
        return hess_SPP

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures coefficients at the middle of the data."""
        return centred(
            len(self.parameters), [(t.coefficient, t.exponent, x[t.input]) for t in self.terms]
        )

    def best_log_n(self, theta_SP: np.ndarray, log_nd_m: np.ndarray) -> np.ndarray | None:
        """The N where alpha A N^-alpha = beta B D^-beta.

        If one exponent is zero, this is the limit; if both are, it is NaN.
        """
        if tuple(term.input for term in self.terms) != ("N", "D"):
            return None
        (a, alpha), (b, beta) = (
            (theta_SP[:, [t.coefficient]], theta_SP[:, [t.exponent]]) for t in self.terms
        )
        log_alpha, log_beta = (
            np.log(np.maximum(exponent, _SMALLEST)) for exponent in (alpha, beta)
        )
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log_n_Sm = (log_alpha + a - log_beta - b + beta * log_nd_m) / (alpha + beta)
        return np.where(alpha + beta > 0, log_n_Sm, np.nan)

    @property
    def exponents(self) -> tuple[int, ...]:
        """Positions of the distinct exponents."""
        return tuple(dict.fromkeys(term.exponent for term in self.terms))

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """Exponents and E from a grid.

        The terms share the rest of the median loss at the middle of the inputs.
        """
        floors = _FLOOR_STARTS if self.offset is not None else (0.0,)
        shares = (0.5,) if len(self.terms) == 1 else (0.2, 0.8)
        points = grid(floors, shares, *[_EXPONENT_STARTS] * len(self.exponents))
        theta_SP = np.zeros((len(points), len(self.parameters)))
        theta_SP[:, list(self.exponents)] = points[:, 2:]
        e_S = points[:, 0] * y.min()
        if self.offset is not None:
            theta_SP[:, self.offset] = np.log(e_S)
        rest_S = np.maximum(np.median(y) - e_S, 1e-3 * np.median(y))
        first_S = np.ones(len(points)) if len(self.terms) == 1 else points[:, 1]
        for i, term in enumerate(self.terms):
            share_S = first_S if i == 0 else (1 - first_S) / (len(self.terms) - 1)
            middle = np.median(x[term.input])
            theta_SP[:, term.coefficient] = (
                np.log(share_S * rest_S) + theta_SP[:, term.exponent] * middle
            )
        return theta_SP


class Power(SumOfPowers):
    """A power law: a straight line on log-log axes."""

    name = "power"
    formula = "y = A x^-alpha"
    source = "Hestness et al. 2017 (M1 of arXiv 2209.06640)"
    meaning = "quality improves by the same factor with every multiple of x, for ever"
    inputs = ("x",)
    parameters = (coefficient("A", "value at x = 1"), exponent("alpha", "slope on log-log axes"))
    terms = (Term(0, 1, "x"),)


class Offset(SumOfPowers):
    """A power law that ends at a floor."""

    name = "offset"
    formula = "y = E + A x^-alpha"
    source = "Henighan et al. 2020 (M2 of arXiv 2209.06640)"
    meaning = "what x can still remove falls as a power; E stays"
    inputs = ("x",)
    parameters = (
        floor("E", "value at infinite x"),
        coefficient("A", "reducible value at x = 1"),
        exponent("alpha", "how fast the reducible part falls"),
    )
    terms = (Term(1, 2, "x"),)
    offset = 0
    floor_symbol = "E"


class Chinchilla(SumOfPowers):
    """Hoffmann's parametric law (approach 3)."""

    name = "chinchilla"
    formula = "L = E + A N^-alpha + B D^-beta"
    source = "Hoffmann et al. 2022, arXiv 2203.15556, equation 2"
    meaning = "a floor, a penalty for few parameters and a penalty for few tokens that add up"
    inputs = ("N", "D")
    parameters = (
        coefficient("A", "size of the penalty for few parameters"),
        coefficient("B", "size of the penalty for few tokens"),
        floor(),
        exponent("alpha", "how fast parameters remove their penalty"),
        exponent("beta", "how fast tokens remove theirs"),
    )
    terms = (Term(0, 3, "N"), Term(1, 4, "D"))
    offset = 2
    floor_symbol = "E"

    def hoffmann_starts(self) -> np.ndarray:
        """The 4,500 starts of appendix D.3: a grid of log A, log B, log E, alpha, beta."""
        logs, halves = np.arange(0, 30, 5), np.arange(0, 2.5, 0.5)
        return grid(logs, logs, np.arange(-1, 1.5, 0.5), halves, halves)


class Overtrained(SumOfPowers):
    """Gadre's over-training law, with one exponent for parameters and tokens."""

    name = "overtrained"
    formula = "L = E + a N^alpha_c + b 6^(alpha_c/2) D^alpha_c, alpha_c < 0"
    source = "Gadre et al. 2024, arXiv 2403.08540, as in the released code (C = 6 N D, M = D / N)"
    meaning = (
        "at a fixed ratio of tokens to parameters loss falls as one power of compute, whatever the "
        "ratio"
    )
    inputs = ("N", "D")
    parameters = (
        coefficient("a", "size of the penalty for few parameters"),
        coefficient("b", "size of the penalty for few tokens, times 6^(-alpha_c/2)"),
        floor(),
        exponent("alpha_c", "exponent of N and of D, published with its sign: negative"),
    )
    terms = (Term(0, 3, "N"), Term(1, 3, "D"))
    offset = 2
    floor_symbol = "E"

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Makes the exponent negative, and divides the factor 6^(alpha_c/2) out of b."""
        values = super().publish(theta)
        values[..., 3] = -values[..., 3]
        values[..., 1] *= 6 ** (-values[..., 3] / 2)
        return values

    def search(self, published):
        """The inverse of `publish`."""
        exponent_ = published["alpha_c"]
        return super().search(
            {**published, "alpha_c": -exponent_, "b": published["b"] * 6 ** (exponent_ / 2)}
        )
