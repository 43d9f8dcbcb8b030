"""Sweeps of known truth: the loss against the rate is flat on the left and a cliff on the right."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

RATES = (0.2, 0.3, 0.45, 0.67, 1.0)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is true of one cell of a sweep.

    Attributes:
      best: the best rate.
      steep: how much steeper the loss is above the best rate than below; 0 for a parabola in the
        logarithm of the rate.
      bend: the second derivative of the loss at the best rate, in the logarithm.
      noise: standard deviation of a run, nats.
      common: standard deviation of what a seed adds to all rates, nats.
    """

    best: float = 0.4
    steep: float = 1.2
    bend: float = 0.43
    noise: float = 0.015
    common: float = 0.02

    def regret(self, rate: float) -> float:
        """How far the loss at a rate is above the lowest one, nats."""
        z = math.log(rate / self.best)
        if not self.steep:
            return self.bend * z * z / 2
        k = self.steep
        return self.bend / k**2 * (math.exp(k * z) - k * z - 1)

    def runs(
        self,
        seed: int,
        rates: Sequence[float] = RATES,
        seeds: int = 3,
        architecture: str = "transformer",
        size: str = "nano",
        params: float = 5e4,
    ) -> pd.DataFrame:
        """Runs as `eval.analyses.tuning.curves` takes them; the lowest loss is 3 nats."""
        rng = np.random.default_rng(seed)
        rows = []
        for s, common in enumerate(self.common * rng.standard_normal(seeds)):
            for rate in rates:
                y = 3 + self.regret(rate) + common + self.noise * rng.standard_normal()
                rows.append((architecture, size, params, rate, s, float(y)))
        columns = ["architecture", "size", "params", "rate", "seed", "loss"]
        return pd.DataFrame(rows, columns=columns)
