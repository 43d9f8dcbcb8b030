"""Checks on simulated studies that the laws' verdict on groups is right as often as it claims.

Every group follows one law, straight (`power`) or bent (`offset`), so each verdict that groups
differ is false: their share is the level. The power is the share of studies in which a group with
another exponent is found.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from eval.laws import forms, groups
from eval.laws.fitting.objective import Name, Objective
from eval.laws.law_table import Runs, points
from eval.stats.resampling import Resampling

DESIGNS = ((12, 4), (4, 5), (2, 5))
"""Groups and sizes of the simulated studies."""

TRUTHS = {"power": {"A": 20.0, "alpha": 0.05}, "offset": {"A": 300.0, "alpha": 0.12, "E": 1.8}}
"""The straight law and the bent one, over the compute of `SPAN`."""

SPAN = (1e17, 1e20)
"""Training FLOPs of the smallest and the largest size."""


@dataclasses.dataclass(frozen=True)
class Groups:
    """A simulated study of several groups that each have one run at every size.

    Attributes:
      groups: number of groups.
      sizes: number of sizes.
      truth: the law that all follow, a key of TRUTHS.
      fitted: the law that is fitted; another one is misfitted by all groups alike.
      noise: standard deviation of a run, of log loss.
      noisier: factor on the noise of the first group.
      steeper: factor on the exponent of the last group.
      shift: factor between the compute of the first and the last group.
      objective: what is minimised.
    """

    groups: int = 12
    sizes: int = 4
    truth: str = "power"
    fitted: str = "power"
    noise: float = 0.01
    noisier: float = 1.0
    steeper: float = 1.0
    shift: float = 1.0
    objective: Name = "l2"

    def study(self, rng: np.random.Generator) -> Runs:
        """One study."""
        g, s = (v.ravel() for v in np.indices((self.groups, self.sizes)))
        x = np.geomspace(*SPAN, self.sizes)[s] * self.shift ** (g / max(self.groups - 1, 1))
        form, law = forms.get(self.truth), TRUTHS[self.truth]
        middle = np.sqrt(SPAN[0] * SPAN[1])
        steep = {**law, "alpha": law["alpha"] * self.steeper}
        steep["A"] *= middle ** (steep["alpha"] - law["alpha"])  # crosses the others in the middle
        y = np.where(g < self.groups - 1, form.predict(law, x=x), form.predict(steep, x=x))
        scale = self.noise * np.where(g == 0, self.noisier, 1.0)
        y = y * np.exp(scale * rng.standard_normal(len(y)))
        return points(y, group=np.array([f"g{i:02d}" for i in g]), x=x)

    def verdicts(self, studies: int, draws: int, seed: int) -> Iterator[str]:
        """The verdict on each of several studies."""
        form = forms.get(self.fitted)
        for i in range(studies):
            runs = self.study(np.random.default_rng([seed, i]))
            objective = Objective(self.objective, space=form.space)
            yield groups.compare(form, runs, objective, Resampling(draws, seed=i)).verdict


def shares(design: Groups, studies: int, draws: int = 199, seed: int = 0) -> dict[str, float]:
    """What the verdicts on many studies say.

    Returns:
      The shares of studies with a verdict that groups `differ` (in anything), that their
      `exponents` do, that it `cannot` be told; and the standard error of the first.
    """
    found = list(design.verdicts(studies, draws, seed))
    differ = float(np.mean([v.startswith("the groups differ") for v in found]))
    return {
        "differ": differ,
        "exponents": float(np.mean(["differ in their exponents" in v for v in found])),
        "cannot": float(np.mean(["cannot be told" in v or "not compared" in v for v in found])),
        "error": float(np.sqrt(differ * (1 - differ) / studies)),
    }
