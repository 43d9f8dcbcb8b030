"""Pareto frontiers of quality against cost, and how sure they are."""

from collections.abc import Sequence

import pandas as pd

from eval.cells import Axes


def frontier(
    table: pd.DataFrame, *, cost: str = "F", y: str = "U", axes: Axes = Axes(), protocol: str | None = None,
    draws: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Every cell, whether it is on the frontier, how surely, and how far behind it is: membership and gaps in one table.

    Args:
      cost: `F` and `P` are minimised, `S` (speed) is maximised.

    Returns:
      One row per cell, by cost, with columns
        architecture, size, cost_axis, y_axis, cost (in the unit of its column), quality (higher is better), n_seeds,
        on_frontier (bool), probability_on_frontier (bootstrap over seeds), quality_gap (best quality at no more cost, minus
        this one: 0 on the frontier), cost_multiplier (this cost over the least cost at no less quality: 1 on the frontier),
        note.
    """
    raise NotImplementedError


def membership(
    table: pd.DataFrame, *, cost: str = "F", y: str = "U", axes: Axes = Axes(), protocol: str | None = None,
    draws: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Per architecture: does any of its sizes reach the frontier, and how surely?

    Returns:
      One row per architecture, with columns
        architecture, cost_axis, y_axis, cells, cells_on_frontier, sizes_on_frontier (names joined by a comma),
        probability_any (some cell of it is on the frontier), expected_cells (mean number on the frontier), note.
    """
    raise NotImplementedError


def attainment(
    table: pd.DataFrame, *, cost: str = "F", y: str = "U", axes: Axes = Axes(), levels: Sequence[float] = (0.05, 0.5, 0.95),
    by_architecture: bool = False, protocol: str | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Empirical attainment surfaces over seeds (moocore): what a share of the repetitions of the study reaches.

    Repetition s of the study is made of the s-th seed of every cell.

    Returns:
      Corners of the surfaces, by architecture, level and cost, with columns
        architecture (`all` for the whole study), cost_axis, y_axis, level (at least this share of the repetitions attains
        it), cost, quality, repetitions, note.
    """
    raise NotImplementedError


def hypervolume(
    table: pd.DataFrame, *, cost: str = "F", y: str = "U", axes: Axes = Axes(),
    reference: tuple[float, float] | None = None, protocol: str | None = None, level: float = 0.95, draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Area dominated by the cells on (log cost, quality), and what each architecture adds to it.

    Args:
      reference: (cost, quality) of the reference point; `None` takes the highest cost and the worst quality in the table.

    Returns:
      A first row with architecture `all`, then one per architecture, with columns
        architecture, cost_axis, y_axis, reference_cost, reference_quality, hypervolume (of its cells alone), contribution
        (what the study's area loses without it), share (contribution over the study's area), ci_low, ci_high (of the
        contribution, and of the area in row `all`; bootstrap over seeds), note.
    """
    raise NotImplementedError


def gaps(
    table: pd.DataFrame, *, cost: str = "F", y: str = "U", axes: Axes = Axes(), protocol: str | None = None,
    level: float = 0.95, draws: int = 1000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """How far each architecture stays behind the frontier of the others, averaged over its sizes.

    Returns:
      One row per architecture, with columns
        architecture, cost_axis, y_axis, cells, cells_compared (those that the others' frontier spans), quality_gap (mean of
        best quality of the others at no more cost minus its own; negative: ahead of them), quality_gap_low,
        quality_gap_high, cost_multiplier (geometric mean of its cost over the least cost at which the others reach its
        quality; below 1: ahead), cost_multiplier_low, cost_multiplier_high (bootstrap over seeds), note.
    """
    raise NotImplementedError
