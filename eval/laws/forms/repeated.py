"""Data-constrained training: the value of repeated tokens and of excess parameters."""

import numpy as np

from eval.laws.forms.form import Form, Inputs, Parameter, centred
from eval.laws.forms.powers import Chinchilla, coefficient, floor


class DataConstrained(Form):
    """Chinchilla's law in effective parameters and effective tokens."""

    name = "data_constrained"
    formula = (
        "L = E + A N'^-alpha + B D'^-beta, D' = U_D + U_D R_D* (1 - exp(-R_D / R_D*)), R_D = D / "
        "U_D - 1, "
        "N' likewise with U_N = min(N, the parameters for which U_D tokens are compute-optimal)"
    )
    source = "Muennighoff et al. 2023, arXiv 2305.16264, equations 5 to 7"
    meaning = (
        "each further epoch, and each parameter beyond what the unique tokens can use, is worth "
        "less"
    )
    inputs = ("N", "D", "U")
    parameters = (
        coefficient("A", "size of the penalty for few parameters"),
        coefficient("B", "size of the penalty for few tokens"),
        floor(),
        Parameter("alpha", "how fast parameters remove their penalty", 1e-2, 4.0),
        Parameter("beta", "how fast tokens remove theirs", 1e-2, 4.0),
        Parameter(
            "R_D_star",
            "repetitions after which 63 % of all that repeating can give is gained",
            1e-2,
            1e4,
            positive=True,
        ),
        Parameter("R_N_star", "the same for excess parameters", 1e-2, 1e4, positive=True),
    )
    floor_symbol = "E"

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Log-predictions and gradient, by the chain rule through log N' and log D'."""
        a, b, e, alpha, beta, log_rd, log_rn = (theta_SP[:, [p]] for p in range(7))
        unique_n = np.minimum(x["U"], x["D"])
        worth_d_Sn, _, by_rd_Sn = _worth(np.expm1(x["D"] - unique_n), np.exp(log_rd))
        optimal_Sn = (
            np.log(alpha) + a - np.log(beta) - b + beta * unique_n
        ) / alpha  # log U_N, before the minimum with N
        excess_Sn = optimal_Sn < x["N"]
        used_Sn = np.minimum(optimal_Sn, x["N"])
        repeats_Sn = np.expm1(x["N"] - used_Sn)
        worth_n_Sn, by_repeats_Sn, by_rn_Sn = _worth(repeats_Sn, np.exp(log_rn))
        n_Sn, d_Sn = used_Sn + worth_n_Sn, unique_n + worth_d_Sn
        log_Sn = np.logaddexp(e, np.logaddexp(a - alpha * n_Sn, b - beta * d_Sn))
        share_n_Sn, share_d_Sn = np.exp(a - alpha * n_Sn - log_Sn), np.exp(b - beta * d_Sn - log_Sn)
        by_n_Sn = -alpha * share_n_Sn
        by_used_Sn = by_n_Sn * np.where(excess_Sn, 1 - by_repeats_Sn * (repeats_Sn + 1), 0) / alpha
        gradient = [
            share_n_Sn + by_used_Sn,
            share_d_Sn - by_used_Sn,
            np.exp(e - log_Sn),
            -share_n_Sn * n_Sn + by_used_Sn * (1 / alpha - optimal_Sn),
            -share_d_Sn * d_Sn + by_used_Sn * (unique_n - 1 / beta),
            -beta * share_d_Sn * by_rd_Sn,
            by_n_Sn * by_rn_Sn,
        ]
        return log_Sn, np.stack(gradient, 1)

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """Chinchilla's starts, each with two values of repetition."""
        plain_SP = np.maximum(Chinchilla().starts(x, y), [-np.inf] * 3 + [0.02] * 2)
        return np.concatenate(
            [
                np.column_stack([plain_SP, np.full((len(plain_SP), 2), np.log(r))])
                for r in (2.0, 20.0)
            ]
        )

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures coefficients at the middle of the data."""
        return centred(7, [(0, 3, x["N"]), (1, 4, x["D"])])


def _worth(repeats, star):
    """log(1 + star (1 - exp(-repeats / star))), and its derivatives by repeats and by log star."""
    left = np.exp(-repeats / star)
    total = 1 + star * (1 - left)
    return np.log(total), left / total, (star * (1 - left) - repeats * left) / total
