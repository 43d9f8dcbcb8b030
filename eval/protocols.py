"""Scaling protocols: does an architecture gain more from depth or from width?"""

from collections.abc import Sequence

import pandas as pd

from eval.cells import AXES, LINKS, Axes


def protocol_slopes(
    table: pd.DataFrame, *, pairs: Sequence[str] = ("FU", "FD"), links: Sequence[str] = LINKS, axes: Axes = AXES,
    errors: str = "size", level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """`eval.slopes.slopes` for each architecture and protocol.

    Returns:
      The columns of `slopes`, with `protocol` after `architecture`.
    """
    raise NotImplementedError


def protocol_differences(
    table: pd.DataFrame, *, first: str = "depth", second: str = "width", x: str = "F", y: str = "U", link: str = "semilog",
    axes: Axes = AXES, errors: str = "size", variance: str = "separate", level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Slope under one protocol minus the slope under another, per architecture.

    Returns:
      One row per architecture that has both, and a last row `all` (mean over them), with columns
        architecture, first, second, alpha, link, x_axis, y_axis, higher_is_better, slope_first, slope_second, difference,
        se, df, ci_low, ci_high, p, p_holm, verdict (`first scales better`, `second scales better`, `not told apart`,
        `not tested`, with the protocols' own names), method, note.
    """
    raise NotImplementedError


def width_depth_grid(
    table: pd.DataFrame, *, y: str = "U", axes: Axes = AXES, depth: str = "num_layers", width: str = "embed_dim",
) -> pd.DataFrame:  # fmt: skip
    """Quality by depth and width, for a heat map.

    Args:
      depth: column with the number of layers; where the table lacks it, read from the size's operators (`base-NL24`).
      width: column with the model dimension; where the table lacks it, read from the size's operators (`base-DM512`).

    Returns:
      Rows by architecture, depth and width, with columns
        architecture, depth, width, y_axis, quality (mean over runs, higher is better), stderr (over seeds, NaN with one),
        n_runs, flops (mean), note. Cells whose depth or width is unknown are left out and counted in `note`.
    """
    raise NotImplementedError
