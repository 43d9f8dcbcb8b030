"""Between architectures: are slopes equal, which differ from the reference, by how much, and what does that cost in FLOPs?

All of it reads off one fit, a line per architecture through its size means (`eval.lines`).
"""

from collections.abc import Sequence

import pandas as pd

from eval.cells import Axes

REFERENCE = "transformer"


def equal_slopes(
    table: pd.DataFrame, *, x: str = "F", y: str = "U", link: str = "semilog", axes: Axes = Axes(),
    protocol: str | None = None, permutations: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Nested F tests (analysis of covariance on size means, one residual variance for all architectures).

    Returns:
      Three rows, test = `slopes` (one common slope against one each), `levels` (one common line against parallel lines) and
      `lines` (one common line against one line each), with columns
        test, hypothesis (in words), alpha, link, x_axis, y_axis, architectures (how many), n (size means), f, df_num, df_den,
        p, p_permutation (residuals of the smaller model permuted between architectures within a size, Freedman and Lane),
        common_slope (of the parallel fit), note.
    """
    raise NotImplementedError


def contrasts(
    table: pd.DataFrame, *, x: str = "F", y: str = "U", link: str = "semilog", axes: Axes = Axes(),
    reference: str = REFERENCE, protocol: str | None = None, errors: str = "size", variance: str = "separate",
    level: float = 0.95, permutations: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Slope of every architecture minus the slope of the reference, with Holm's correction over the architectures.

    Args:
      errors: as in `eval.slopes.slopes`.
      variance: `separate`: a residual variance for each architecture, Welch's degrees of freedom. `pooled`: one for all
        (more power, wrong where one architecture is noisier than the others).

    Returns:
      One row per architecture but the reference, sorted by name, with columns
        architecture, reference, alpha, link, x_axis, y_axis, higher_is_better, n_sizes, n_sizes_reference, slope,
        slope_reference, difference, se, df, ci_low, ci_high (each at `level`, not corrected), p, p_holm,
        p_permutation (largest |t| over all architectures under permutation within sizes: corrected already),
        verdict (`scales better`, `scales worse`, `not told apart`, `not tested`; by p_holm), method, note.
    """
    raise NotImplementedError


def equivalence(
    table: pd.DataFrame, *, margin: float = 0.1, x: str = "F", y: str = "U", link: str = "semilog", axes: Axes = Axes(),
    reference: str = REFERENCE, protocol: str | None = None, errors: str = "size", variance: str = "separate",
    level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Two one-sided tests: does an architecture scale like the reference, to within `margin` of the reference's slope?

    Args:
      margin: set before looking, as a fraction of the reference's slope (0.1: between 0.9 and 1.1 times it).

    Returns:
      One row per architecture but the reference, with columns
        architecture, reference, alpha, link, margin, slope, slope_reference, ratio, ratio_low, ratio_high (Fielller's
        interval at 2 * level - 1, the one that matches the test), p (the larger of the two), p_holm, equivalent (bool),
        method, note.
    """
    raise NotImplementedError


def level_difference(
    table: pd.DataFrame, *, at: Sequence[float] | None = None, x: str = "F", y: str = "U", link: str = "semilog",
    axes: Axes = Axes(), reference: str = REFERENCE, protocol: str | None = None, errors: str = "size",
    variance: str = "separate", level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Quality minus the reference's at equal FLOPs (or parameters), on the lines, within the range that both cover.

    Args:
      at: budgets in the unit of x; `None` takes the low end, the (geometric) middle and the high end of the common range.

    Returns:
      Rows by architecture and budget, with columns
        architecture, reference, alpha, link, y_axis, higher_is_better, position (`low`, `middle`, `high` or `given`),
        budget (in the unit of x), inside (bool: both architectures cover the budget), difference, se, df, ci_low, ci_high,
        p, p_holm (over the architectures at one position), verdict (`better`, `worse`, `not told apart`, `not tested`),
        method, note.
    """
    raise NotImplementedError


def multiplier(
    table: pd.DataFrame, *, at: Sequence[float] | None = None, x: str = "F", y: str = "U", link: str = "semilog",
    axes: Axes = Axes(), reference: str = REFERENCE, protocol: str | None = None, errors: str = "size",
    variance: str = "separate", level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Times the reference's FLOPs that an architecture needs to reach the quality the reference has at a budget.

    The logarithm of the multiplier is a ratio of two linear functions of the coefficients, so its interval is Fieller's.

    Returns:
      Rows by architecture and budget, with columns
        architecture, reference, alpha, link, position, budget (the reference's), inside (bool: the budget the architecture
        then needs is within its own range), multiplier (2.0: twice the FLOPs), ci_low, ci_high (0 and inf where unbounded),
        interval (`bounded`, `unbounded`, `none`), method, note.
    """
    raise NotImplementedError
