"""Smoothly broken power laws (BNSL)."""

import numpy as np

from eval.laws.forms.form import Form, Inputs, Parameter, centred, grid
from eval.laws.forms.powers import coefficient, floor


class Broken(Form):
    """A power law whose log-log slope c_0 grows by c_1 at d_1 (by c_2 at d_2, ...)."""

    formula = "y = a + b x^-c_0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i)"
    source = "Caballero et al. 2023, arXiv 2210.14891"
    meaning = "power laws of different slope joined by smooth breaks, down to a floor"
    inputs = ("x",)
    floor_symbol = "a"

    def __init__(self, breaks: int = 1):
        """A law with `breaks` breaks: 3 + 3 * breaks parameters."""
        self.breaks = breaks
        self.name = "bnsl" if breaks == 1 else f"bnsl{breaks}"
        segments = (
            (
                Parameter(f"c_{i}", f"change of slope at break {i}", -4.0, 4.0),
                Parameter(f"d_{i}", f"x at break {i}", 1e-9, 1e30, positive=True),
                Parameter(
                    f"f_{i}", f"width of break {i}, in powers of e", 1e-2, 10.0, positive=True
                ),
            )
            for i in range(1, breaks + 1)
        )
        first = Parameter("c_0", "slope before the first break", -4.0, 4.0)
        head = (
            floor("a", "value at infinite x"),
            coefficient("b", "size of the reducible part"),
            first,
        )
        self.parameters = (*head, *(p for segment in segments for p in segment))

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Log-predictions and gradient."""
        log_x = x["x"]
        power_Sn = theta_SP[:, [1]] - theta_SP[:, [2]] * log_x
        gradient = [np.ones_like(power_Sn), np.broadcast_to(-log_x, power_Sn.shape)]
        for i in range(self.breaks):
            slope, log_d, log_f = (theta_SP[:, [3 + 3 * i + k]] for k in range(3))
            width = np.exp(log_f)
            z_Sn = (log_x - log_d) / width
            bend_Sn = np.logaddexp(0, z_Sn)
            past_Sn = np.exp(z_Sn - bend_Sn)
            power_Sn = power_Sn - slope * width * bend_Sn
            gradient += [
                -width * bend_Sn,
                slope * past_Sn,
                -slope * width * (bend_Sn - z_Sn * past_Sn),
            ]
        log_Sn = np.logaddexp(theta_SP[:, [0]], power_Sn)
        share_Sn = np.exp(power_Sn - log_Sn)
        return log_Sn, np.stack([1 - share_Sn, *(share_Sn * g for g in gradient)], 1)

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """Floors, slopes and widths from a grid; breaks at quantiles of the data."""
        log_x = x["x"]
        quantiles = np.quantile(log_x, np.linspace(0, 1, self.breaks + 3)[1:-1])
        places = [quantiles[i : i + self.breaks] for i in range(len(quantiles) - self.breaks + 1)]
        points = grid(
            (0.05, 0.5, 0.9), (0.05, 0.2, 0.6), (-0.2, 0.2), (-0.2, 0.2)[: self.breaks], (-2.0, 0.0)
        )
        rows = []
        for place in places:
            rest = np.median(y) - points[:, 0] * y.min()
            head = [np.log(points[:, 0] * y.min()), np.log(np.maximum(rest, 1e-3)), points[:, 1]]
            changes = [points[:, 2], points[:, 3]] if self.breaks > 1 else [points[:, 2]]
            tail = [
                c
                for i in range(self.breaks)
                for c in (changes[i % 2], np.full(len(points), place[i]), points[:, 4])
            ]
            rows.append(np.column_stack([*head, *tail]))
        theta_SP = np.concatenate(rows)
        middle = {"x": np.array([np.median(log_x)])}  # middle of the data
        reducible_S = np.exp(theta_SP[:, 1])
        theta_SP[:, 1] = 0.0
        bare_SP = theta_SP.copy()
        bare_SP[:, 0] = -700.0
        theta_SP[:, 1] = np.log(reducible_S) - self.evaluate(bare_SP, middle)[0][:, 0]
        return theta_SP

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures coefficients at the middle of the data."""
        return centred(len(self.parameters), [(1, 2, x["x"])])
