"""Sweeps of known truth: the loss against the rate is flat on the left and a cliff on the right."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eval.data.study import Study
from eval.simulation.sources import assembled

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


def study(truths: Mapping[tuple[str, str], Sweep], seeds: int = 3, seed: int = 0) -> Study:
    """A study of sweeps, from `eval.simulation.sources.assembled`.

    Args:
      truths: what is true of each architecture and size, sizes from small to large.
      seeds: runs of each rate.
      seed: of the generator.
    """
    sizes = list(dict.fromkeys(size for _, size in truths))
    parts = []
    for i, ((architecture, size), truth) in enumerate(truths.items()):
        params = 5e4 * 4.0 ** sizes.index(size)
        parts.append(
            truth.runs(seed + i, RATES, seeds, architecture=architecture, size=size, params=params)
        )
    runs = pd.concat(parts, ignore_index=True)
    runs["protocol"] = "learning_rate" + runs["rate"].map("{:g}".format)
    names = ["architecture", "size", "protocol", "seed"]
    runs["run_id"] = ["-".join(map(str, row)) for row in runs[names].itertuples(index=False)]
    costs = {"tokens_seen": 2e6, "unique_tokens": 2e6, "steps": 1000.0}
    recipes = runs[["run_id"]].assign(batch_size=16.0, learning_rate=runs["rate"])
    table = runs.rename(columns={"params": "params_non_embedding", "loss": "upstream_nll"})
    return assembled(table.drop(columns="rate").assign(**costs), (), recipes)
