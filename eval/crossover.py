"""Where two architectures' lines cross, and how little is known about it."""

import pandas as pd

from eval.cells import Axes
from eval.compare import REFERENCE


def crossovers(
    table: pd.DataFrame, *, x: str = "F", y: str = "U", link: str = "semilog", axes: Axes = Axes(),
    reference: str | None = REFERENCE, protocol: str | None = None, errors: str = "size", variance: str = "separate",
    level: float = 0.95, draws: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """The budget at which two lines meet, with Fieller's interval and a bootstrap as a check.

    Args:
      reference: pair every architecture with this one; `None` takes all pairs.
      draws: bootstrap samples (residuals of the size means, resampled within an architecture).

    Returns:
      One row per pair, with columns
        architecture_a, architecture_b, alpha, link, x_axis, y_axis,
        crossing (in the unit of x, e.g. FLOPs), ci_low, ci_high (0 and inf where that side is open),
        interval (`bounded`; `outside`: everything but the stretch from ci_low to ci_high; `unbounded`: every budget is
        compatible, the slopes cannot be told apart; `none`: too few sizes),
        p_slopes (the slopes are equal), better_below, better_above (architecture names, by the lines),
        range_low, range_high (the budgets that both cover), position (`inside`, `extrapolated below`, `extrapolated above`,
        `none`), bootstrap_low, bootstrap_high (percentiles), probability_inside (share of samples that cross inside the
        common range), method, note.
    """
    raise NotImplementedError
