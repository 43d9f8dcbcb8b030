"""Routed language models: loss as a function of parameters and experts."""

from collections.abc import Mapping

import numpy as np

from eval.laws.forms.form import Form, Inputs, Parameter, grid

_LN10 = np.log(10)


class Routed(Form):
    """Clark's law with saturating numbers of experts; N is the size of the dense base model."""

    name = "routed"
    formula = (
        "log10 L = a log10 N + b log10 E^ + c log10 N log10 E^ + d, "
        "1/E^ = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max"
    )
    source = "Clark et al. 2022, arXiv 2202.01169"
    meaning = (
        "experts act as a multiple of parameters that shrinks with size and saturates between "
        "E_start and E_max"
    )
    inputs = ("N", "experts")
    parameters = (
        Parameter("a", "slope in parameters of the dense model (below zero)", -3.0, 3.0),
        Parameter("b", "slope in experts at N = 1 (below zero)", -3.0, 3.0),
        Parameter(
            "c", "how much of the experts' slope each decade of parameters takes away", -3.0, 3.0
        ),
        Parameter("d", "log10 loss at N = 1", -30.0, 30.0),
        Parameter("E_start", "experts below which adding one does little", 0.1, 1e3, positive=True),
        Parameter("E_max", "effective experts never exceed this", 0.1, 1e6, positive=True),
    )

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Natural log-predictions and gradient; the last coordinate is log(E_max / E_start)."""
        a, b, c, d, log_start, log_ratio = (theta_SP[:, [p]] for p in range(6))
        start, ratio = np.exp(log_start), np.exp(log_ratio)
        maximum = start * ratio
        base = maximum / (ratio - 1)  # 1 / (1/E_start - 1/E_max)
        shifted_Sn = np.exp(x["experts"]) - 1 + base
        inverse_Sn = 1 / shifted_Sn + 1 / maximum
        log_n, log_e_Sn = x["N"] / _LN10, -np.log(inverse_Sn) / _LN10
        slope_Sn = (b + c * log_n) / inverse_Sn  # d ln L / d(1/E^), times -1
        by_base_Sn, by_max_Sn = slope_Sn / shifted_Sn**2, slope_Sn / maximum
        by_start_Sn = by_base_Sn * base + by_max_Sn
        by_ratio_Sn = -by_base_Sn * base / (ratio - 1) + by_max_Sn
        log_Sn = _LN10 * (a * log_n + (b + c * log_n) * log_e_Sn + d)
        ones_Sn = np.ones_like(log_Sn)
        linear = [ones_Sn * log_n, log_e_Sn, log_n * log_e_Sn, ones_Sn]
        return log_Sn, np.stack(
            [*(_LN10 * column for column in linear), by_start_Sn, by_ratio_Sn], 1
        )

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """E_start and E_max from a grid; the linear parameters by least squares."""
        rows = []
        for start, ratio in grid((0.5, 1.5, 5.0), (10.0, 100.0, 1000.0)):
            theta_P = np.array([0, 0, 0, 0, np.log(start), np.log(ratio)], float)
            design_n4 = self.evaluate(theta_P[None], x)[1][0, :4].T
            theta_P[:4] = np.linalg.lstsq(design_n4, np.log(y), rcond=None)[0]
            rows.append(theta_P)
        return np.array(rows)

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures d and b at the middle of the parameters."""
        matrix_PP = np.eye(6)
        matrix_PP[3, 0] = matrix_PP[1, 2] = -np.mean(x["N"]) / _LN10
        return matrix_PP

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds that keep E_max above E_start."""
        lower_P, upper_P = super().bounds()
        lower_P[5] = 1e-3
        return lower_P, upper_P

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Converts the last coordinate to E_max."""
        values = super().publish(theta)
        values[..., 5] *= values[..., 4]
        return values

    def search(self, published: Mapping[str, float]) -> np.ndarray:
        """The inverse of `publish`."""
        return super().search({**published, "E_max": published["E_max"] / published["E_start"]})
