"""The smallest difference that a design finds: what a study can tell, and what it cannot.

It is used before a study is run (`python -m train plan`) and beside every verdict on it.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special, stats

POWER = 0.8
"""The probability with which a detectable difference is found."""


def detectable(
    df: np.ndarray | float, tests: int = 1, level: float = 0.95, power: float = POWER
) -> np.ndarray:
    """The difference that a two-sided t test finds with probability `power`, in standard errors.

    Holm's correction is taken at its first and strictest step, `(1 - level) / tests`, so the other
    differences of the family need not be found first.

    Args:
      df: degrees of freedom of the standard error, of any shape; NaN gives NaN.
      tests: the number of tests that are corrected together.
      level: the confidence level.
      power: the probability of finding the difference.

    Returns:
      Multiples of the standard error, of the shape of `df`.
    """
    df = np.where(np.asarray(df, float) > 0, df, np.nan)
    critical = stats.t.isf((1 - level) / max(tests, 1) / 2, df)
    # The shift whose noncentral t exceeds the critical value that often. The other tail is left
    # out: it adds less than the test's size.
    return special.nctdtrinc(df, 1 - power, critical)


@dataclasses.dataclass(frozen=True)
class ExpectedNoise:
    """What a study's upstream losses are assumed to look like before it is run.

    The defaults are the noise of small studies (that of the CPU study is alike) around the slope
    that arXiv 2207.10551 gives for the vanilla Transformer, read as nats per decade of FLOPs.

    Attributes:
      size: standard deviation of a size around its line, in nats; all seeds share it.
      seed: standard deviation between seeds, in nats.
      slope: the reference's slope, in nats per decade of FLOPs.
    """

    size: float = 0.02
    seed: float = 0.01
    slope: float = 0.54

    def of_mean(self, seeds: int) -> float:
        """The standard deviation of a mean over seeds around its line."""
        return float(np.hypot(self.size, self.seed / np.sqrt(seeds)))


USUAL = ExpectedNoise()
DRAWS = 20_000
LEAST_SIZES = 4
"""Fewer leave too few degrees of freedom for an interval, so slopes are not compared."""


def smallest_slope(
    x: Mapping[str, Sequence[float]],
    reference: str,
    seeds: int,
    noise: ExpectedNoise = USUAL,
    level: float = 0.95,
) -> tuple[float, float] | None:
    """The differences in slope that a study finds with probability POWER, before it is run.

    The test is that of the report: Welch's t with a residual variance for each architecture and
    Holm's correction over the architectures. Its variances and degrees of freedom are drawn, since
    they differ from study to study.

    Args:
      x: decades of FLOPs of every size, by architecture.
      reference: the architecture that the others are compared with.
      seeds: runs of every size.
      noise: the assumed noise.
      level: the confidence level of the report.

    Returns:
      Shares of the reference's slope, the smallest and the largest over the architectures; None if
      no other architecture, or not the reference, has LEAST_SIZES sizes.
    """
    able = {name: np.asarray(own, float) for name, own in x.items() if len(own) >= LEAST_SIZES}
    others = [name for name in able if name != reference]
    if reference not in able or not others:
        return None
    rng, found = np.random.default_rng(0), []
    for name in others:
        pair = [able[name], able[reference]]
        spread = np.array([((own - own.mean()) ** 2).sum() for own in pair])
        if not (spread > 0).all():
            continue
        df = np.array([len(own) - 2.0 for own in pair])
        true = 1 / spread
        drawn = true * rng.chisquare(df, (DRAWS, 2)) / df
        welch = drawn.sum(1) ** 2 / (drawn**2 / df).sum(1)
        error = np.sqrt(drawn.sum(1))
        critical = stats.t.isf((1 - level) / len(others) / 2, welch) * error
        chance = rng.standard_normal(DRAWS) * np.sqrt(true.sum())
        # A difference is found where it exceeds this, so its quantile is found that often.
        found.append(float(np.quantile(critical - chance, POWER)))
    if not found:
        return None
    scale = noise.of_mean(seeds) / noise.slope
    return min(found) * scale, max(found) * scale
