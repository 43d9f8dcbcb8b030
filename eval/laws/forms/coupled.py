"""Laws that raise a sum of terms to a power: Kaplan's L(N, D) and Chinchilla's with an exponent."""

from collections.abc import Mapping

import numpy as np

from eval.laws.forms.form import Form, Inputs, Parameter, centred, grid
from eval.laws.forms.kaplan import SOURCE
from eval.laws.forms.powers import Chinchilla, coefficient


class KaplanND(Form):
    """Kaplan's overfitting law: loss of early-stopped models on limited data."""

    name = "kaplan_nd"
    formula = "L = [(N_c / N)^(alpha_N / alpha_D) + D_c / D]^alpha_D"
    source = SOURCE + ", equation 1.5"
    meaning = (
        "the larger of a parameter-limited and a data-limited loss, with a smooth passage between "
        "them"
    )
    inputs = ("N", "D")
    parameters = (
        coefficient("N_c", "parameters at a loss of one nat with unlimited data"),
        coefficient("D_c", "tokens at a loss of one nat with an unlimited model"),
        Parameter("alpha_N", "slope in parameters", 1e-3, 4.0),
        Parameter("alpha_D", "slope in tokens; also how sharp the passage is", 1e-3, 4.0),
    )

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Log L = T log(exp(u / T) + exp(v / T)), with its gradient.

        T is alpha_D; u and v are the log-losses of the two limits.
        """
        a, b, alpha_n, alpha_d = (theta_SP[:, [p]] for p in range(4))
        u_Sn, v_Sn = (a - alpha_n * x["N"]) / alpha_d, (b - alpha_d * x["D"]) / alpha_d
        log_sum_Sn = np.logaddexp(u_Sn, v_Sn)
        share_Sn = np.exp(u_Sn - log_sum_Sn)
        entropy_Sn = log_sum_Sn - share_Sn * u_Sn - (1 - share_Sn) * v_Sn
        rest_Sn = 1 - share_Sn
        gradient = [share_Sn, rest_Sn, -share_Sn * x["N"], entropy_Sn - rest_Sn * x["D"]]
        return alpha_d * log_sum_Sn, np.stack(gradient, 1)

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """Both limits start near the median loss at the middle of the inputs."""
        points = grid((0.05, 0.1, 0.3), (0.05, 0.1, 0.3), (-0.7, -0.2, 0.0), (-0.7, -0.2, 0.0))
        middle = np.median(np.log(y))
        theta_SP = np.empty((len(points), 4))
        theta_SP[:, 2:] = points[:, :2]
        theta_SP[:, 0] = middle + points[:, 2] * abs(middle) + points[:, 0] * np.median(x["N"])
        theta_SP[:, 1] = middle + points[:, 3] * abs(middle) + points[:, 1] * np.median(x["D"])
        return theta_SP

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures coefficients at the middle of the data."""
        return centred(4, [(0, 2, x["N"]), (1, 3, x["D"])])

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Converts N_c^alpha_N and D_c^alpha_D, the search coordinates, to N_c and D_c."""
        values = super().publish(theta)
        values[..., :2] = np.exp(np.minimum(theta[..., :2] / theta[..., 2:], 700.0))
        return values

    def search(self, published: Mapping[str, float]) -> np.ndarray:
        """The inverse of `publish`."""
        slopes = [published["alpha_N"], published["alpha_D"]]
        return np.array(
            [slopes[0] * np.log(published["N_c"]), slopes[1] * np.log(published["D_c"]), *slopes]
        )


class ChinchillaGamma(Form):
    """Chinchilla's law with an exponent on the sum of its two penalties."""

    name = "chinchilla_gamma"
    formula = "L = E + (A N^-alpha + B D^-beta)^gamma"
    source = "Beck et al. 2025, xLSTM scaling laws"
    meaning = (
        "gamma below one lets the penalties saturate each other; gamma = 1 is Chinchilla's law"
    )
    inputs = ("N", "D")
    parameters = (
        *Chinchilla.parameters,
        Parameter("gamma", "exponent on the sum of the penalties", 0.02, 5.0, positive=True),
    )
    floor_symbol = "E"

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Log-predictions and gradient."""
        a, b, e, alpha, beta, log_gamma = (theta_SP[:, [p]] for p in range(6))
        gamma = np.exp(log_gamma)
        u_Sn, v_Sn = a - alpha * x["N"], b - beta * x["D"]
        log_sum_Sn = np.logaddexp(u_Sn, v_Sn)
        share_Sn = np.exp(u_Sn - log_sum_Sn)
        log_Sn = np.logaddexp(e, gamma * log_sum_Sn)
        reducible_Sn = gamma * np.exp(gamma * log_sum_Sn - log_Sn)
        n_Sn, d_Sn = reducible_Sn * share_Sn, reducible_Sn * (1 - share_Sn)
        floor_Sn = np.exp(e - log_Sn)
        return log_Sn, np.stack(
            [n_Sn, d_Sn, floor_Sn, -n_Sn * x["N"], -d_Sn * x["D"], reducible_Sn * log_sum_Sn], 1
        )

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """Chinchilla's starts, each with three values of gamma."""
        plain_SP = Chinchilla().starts(x, y)
        return np.concatenate([self._raised(plain_SP, x, y, gamma) for gamma in (0.3, 1.0, 2.0)])

    @staticmethod
    def _raised(plain_SP: np.ndarray, x: Inputs, y: np.ndarray, gamma: float) -> np.ndarray:
        """Raises the terms to 1/gamma, which leaves the law about the same near the data."""
        theta_SP = np.column_stack([plain_SP, np.full(len(plain_SP), np.log(gamma))])
        theta_SP[:, [0, 1, 3, 4]] /= gamma
        return theta_SP

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures coefficients at the middle of the data."""
        return centred(6, [(0, 3, x["N"]), (1, 4, x["D"])])
