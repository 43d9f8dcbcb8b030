"""Does the order of the architectures hold: between sizes, at a budget, between upstream and downstream?"""

from collections.abc import Sequence

import pandas as pd

from eval.cells import Axes


def rank_stability(
    table: pd.DataFrame, *, y: str = "U", axes: Axes = Axes(), protocol: str | None = None, level: float = 0.95,
    draws: int = 1000, permutations: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Kendall's tau between the rankings at two sizes, for all pairs of sizes, and W over all sizes.

    Returns:
      One row per pair of sizes (ordered by FLOPs) and a last row with size_a = size_b = `all`, with columns
        y_axis, size_a, size_b, statistic (`tau` or `W`), value, ci_low, ci_high (bootstrap over seeds: how firmly these
        runs fix the ranking, not how other architectures would rank), p (tau: exact, no association; W: permutation),
        n_architectures (ranked in both, or in all), note.
    """
    raise NotImplementedError


def probability_best(
    table: pd.DataFrame, *, x: str = "F", y: str = "U", axes: Axes = Axes(), budgets: Sequence[float] | int = 7,
    protocol: str | None = None, draws: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """How often an architecture comes out best at a budget when its seeds are drawn again.

    Quality at a budget is interpolated between an architecture's two neighbouring sizes, never extrapolated.

    Args:
      budgets: values in the unit of x, or how many to space evenly (in log) from the smallest to the largest cell.

    Returns:
      Rows by budget and architecture (only those that cover the budget), with columns
        budget, architecture, x_axis, y_axis, quality (higher is better), rank (1 is best), probability_best, candidates
        (how many architectures cover the budget), note.
    """
    raise NotImplementedError


def up_down_correlation(
    table: pd.DataFrame, *, axes: Axes = Axes(), protocol: str | None = None, level: float = 0.95, draws: int = 2000,
    permutations: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Association of upstream with downstream quality over the cells: overall, within a size, and given FLOPs.

    Returns:
      Rows by scope and method, with columns
        scope (`overall`, `within size`, `within architecture`, `given log F`), group (the size or architecture, else empty),
        method (`spearman`, `kendall`), estimate, ci_low, ci_high (bootstrap; whole architectures are drawn where the scope
        spans several sizes), p (permutation; downstream values permuted among architectures within a size for
        `given log F`), reliability_corrected (Spearman divided by the square root of both reliabilities; NaN with one
        seed), n (cells), note.
    """
    raise NotImplementedError


def discordant_pairs(
    table: pd.DataFrame, *, axes: Axes = Axes(), protocol: str | None = None, draws: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Pairs of architectures of one size that upstream and downstream put in opposite order.

    Returns:
      One row per discordant pair, the surest first, with columns
        size, architecture_a (the better upstream), architecture_b (the better downstream), upstream_difference (nats, a - b,
        positive), downstream_difference (percent, a - b, negative), probability_discordant (share of seed resamples in
        which the pair is discordant, NaN with one seed), n_pairs (pairs compared at that size), note.
    """
    raise NotImplementedError
