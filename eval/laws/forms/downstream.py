"""Downstream error or accuracy as a function of upstream loss.

Both are fitted to raw values, since logarithms of an accuracy have no special meaning.
"""

from collections.abc import Mapping

import numpy as np

from eval.laws.forms.form import Form, Inputs, Parameter, grid

_RATES = (0.1, 0.3, 1.0, 3.0)


class DownstreamExponential(Form):
    """Error falls exponentially with loss."""

    name = "downstream_exp"
    formula = "Err = epsilon - k exp(-gamma L)"
    source = "Gadre et al. 2024, arXiv 2403.08540, equation 5"
    meaning = "error is a power of perplexity below the error of a model that has learned nothing"
    inputs = ("L",)
    output = "error"
    space = "raw"
    parameters = (
        Parameter("epsilon", "error at infinite loss", 1e-9, 1e3, positive=True),
        Parameter("k", "epsilon less the error at zero loss", 1e-9, 1e12, positive=True),
        Parameter("gamma", "how fast error falls with loss, per nat", 1e-3, 50.0, positive=True),
    )

    def __init__(self, scale: float = 1.0):
        """A law for errors of at most `scale`."""
        self.scale = scale

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Errors and gradient."""
        loss, gamma = np.exp(x["L"]), np.exp(theta_SP[:, [2]])
        gained_Sn = np.exp(theta_SP[:, [1]] - gamma * loss)
        epsilon_Sn = np.exp(theta_SP[:, [0]]) + np.zeros_like(gained_Sn)
        return epsilon_Sn - gained_Sn, np.stack(
            [epsilon_Sn, -gained_Sn, gained_Sn * gamma * loss], 1
        )

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """Rates from a grid; epsilon and k by least squares."""
        loss, rows = np.exp(x["L"]), []
        for rate in (*_RATES, 10.0):
            design_n2 = np.stack([np.ones_like(loss), -np.exp(-rate * (loss - loss.mean()))], -1)
            epsilon, k = np.maximum(np.linalg.lstsq(design_n2, y, rcond=None)[0], 1e-3 * y.max())
            rows.append([np.log(epsilon), np.log(k) + rate * loss.mean(), np.log(rate)])
        return np.array(rows)

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures k at the middle of the losses.

        The rate is searched as a logarithm, so this is exact only near a rate of one.
        """
        matrix_PP = np.eye(3)
        matrix_PP[1, 2] = np.mean(np.exp(x["L"]))
        return matrix_PP


class DownstreamSigmoid(Form):
    """Accuracy that rises from chance to a ceiling as loss falls."""

    name = "downstream_sigmoid"
    formula = "Acc = a / (1 + exp(-k (L - L_0))) + b, k < 0, b >= chance, a + b <= 1"
    source = "Bhagia et al. 2024, arXiv 2412.04403 (OLMo ladder), equation 4"
    meaning = "accuracy leaves the plateau b near loss L_0 and approaches a + b"
    inputs = ("L",)
    output = "accuracy"
    space = "raw"

    def __init__(self, chance: float = 0.0, scale: float = 1.0):
        """A law for a task where guessing scores `chance` and perfect answers score `scale`."""
        self.chance, self.scale = chance, scale
        self.parameters = (
            Parameter("a", "accuracy gained between plateau and ceiling", chance, scale),
            Parameter("k", "steepness, per nat", 1e-2, 100.0, positive=True),
            Parameter("L_0", "loss half-way up", 0.0, 50.0),
            Parameter(
                "b", "accuracy of models that have learned nothing of the task", chance, scale
            ),
        )

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Accuracies and gradient.

        The first search coordinate is the ceiling a + b, the second is log(-k).
        """
        ceiling, log_k, half, floor = (theta_SP[:, [p]] for p in range(4))
        k, gap_Sn = np.exp(log_k), np.exp(x["L"]) - half
        risen_Sn = np.exp(-np.logaddexp(0, k * gap_Sn))
        bump_Sn = (ceiling - floor) * risen_Sn * (1 - risen_Sn) * k
        return floor + (ceiling - floor) * risen_Sn, np.stack(
            [risen_Sn, -bump_Sn * gap_Sn, bump_Sn, 1 - risen_Sn], 1
        )

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """Rates and half-way points from a grid; plateau and ceiling from the data or the task."""
        loss = np.exp(x["L"])
        points = grid((*_RATES, 10.0), np.quantile(loss, (0.0, 0.25, 0.5, 0.75)), (0, 1), (0, 1))
        ceiling = np.where(points[:, 2] == 0, y.max(), self.scale)
        plateau = np.where(points[:, 3] == 0, y.min(), self.chance)
        return np.column_stack([ceiling, np.log(points[:, 0]), points[:, 1], plateau])

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Converts the ceiling to a, and the rate to a negative k."""
        values = super().publish(theta)
        values[..., 0] -= values[..., 3]
        values[..., 1] = -values[..., 1]
        return values

    def search(self, published: Mapping[str, float]) -> np.ndarray:
        """The inverse of `publish`."""
        return super().search(
            {**published, "a": published["a"] + published["b"], "k": -published["k"]}
        )
