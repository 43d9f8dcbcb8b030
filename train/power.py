"""The smallest difference that a design finds: what a study can tell, and what it cannot.

It is used before a study is run (`python -m train plan`) and beside every verdict on it.
"""

import functools

import numpy as np
from scipy import optimize, stats

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
    size = (1 - level) / max(tests, 1)
    each = [_multiple(float(one), size, power) for one in np.ravel(df)]
    return np.reshape(np.array(each, float), np.shape(df))


@functools.lru_cache(maxsize=4096)
def _multiple(df: float, size: float, power: float) -> float:
    if not df > 0:
        return np.nan
    critical = stats.t.isf(size / 2, df)

    def lacks(shift: float) -> float:
        # The other tail adds less than the test's size where the power is this high.
        return float(stats.nct.sf(critical, df, shift)) - power

    return optimize.root_scalar(lacks, bracket=(0.0, 4.0 * critical + 10.0), xtol=1e-6).root
