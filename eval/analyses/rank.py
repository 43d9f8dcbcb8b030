"""Does the order of the architectures hold: between sizes, at a budget, between upstream and downstream?

The functions share these arguments: table (one row per run), axes and protocol (`eval.data.cells`),
level, draws (of the bootstrap), permutations, and seed (of both).
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from eval.data.cells import AXES, Axes, check, main_protocol
from eval.stats.bootstrap import Sample, join, percentiles, sample
from eval.stats.correlation import correlate
from train.records import InputError

_AT_ONCE = 2_000_000  # pairs of one block of redrawings


def rank_stability(
    table: pd.DataFrame,
    *,
    y: str = "U",
    axes: Axes = AXES,
    protocol: str | None = None,
    level: float = 0.95,
    draws: int = 1000,
    permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Kendall's tau between the rankings at two sizes, for all pairs of sizes, and W over all sizes.

    Returns:
      One row per pair of sizes (ordered by FLOPs) and a last row with size_a = size_b = `all`, with
        columns y_axis, size_a, size_b, statistic (`tau` or `W`), value, ci_low, ci_high (bootstrap
        over seeds: how firmly these runs fix the ranking, not how other architectures would rank;
        noise can only disturb a ranking, so the interval leans to less agreement), p (tau: exact,
        no association; W: rankings permuted), n_architectures (ranked in both, or in all), note.
    """
    check(table, "F" + y, axes)
    cells = sample(main_protocol(table, protocol), y, "F", axes, draws, seed)
    sizes = _by_cost(cells)
    grid, drawn = _grid(cells, sizes)
    pairs = list(itertools.combinations(range(len(sizes)), 2))
    rows = [_tau(grid[:, [i, j]], drawn[:, :, [i, j]], sizes[i], sizes[j], level) for i, j in pairs]
    rows.append(_concordance(grid, drawn, level, permutations, seed))
    frame = pd.DataFrame(rows)
    frame["note"] = [join(cells.note, note) for note in frame["note"]]
    frame.insert(0, "y_axis", axes.label(y))
    return frame


def _by_cost(cells: Sample) -> list[str]:
    """Size labels by their mean cost (the last quantity of the sample)."""
    cost = pd.Series(cells.mean[:, -1]).groupby(cells.size).mean()
    return cost.sort_values(kind="stable").index.tolist()


def _grid(cells: Sample, sizes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Quality as architecture by size, [A, K], and redrawn, [B, A, K]; NaN where there is no cell."""
    place = {size: k for k, size in enumerate(sizes)}
    column = np.array([place[size] for size in cells.size], dtype=int)
    grid = np.full((len(cells.names), len(sizes)), np.nan)
    drawn = np.full((len(cells.draws), *grid.shape), np.nan)
    grid[cells.architecture, column] = cells.mean[:, 0]
    drawn[:, cells.architecture, column] = cells.draws[:, :, 0]
    return grid, drawn


def _tau(grid: np.ndarray, drawn: np.ndarray, size_a: str, size_b: str, level: float) -> dict:
    """One row: agreement of two columns of the grid."""
    both = np.isfinite(grid).all(1)
    n = int(both.sum())
    row = {
        "size_a": size_a,
        "size_b": size_b,
        "statistic": "tau",
        "value": np.nan,
        "ci_low": np.nan,
        "ci_high": np.nan,
        "p": np.nan,
        "n_architectures": n,
        "note": "",
    }
    if n < 3:
        return row | {"note": f"{n} architectures at both sizes: no ranking to compare"}
    value, p = stats.kendalltau(grid[both, 0], grid[both, 1])
    a, b = np.triu_indices(n, 1)
    taus = []
    for part in np.array_split(
        drawn[:, both], 1 + len(drawn) * len(a) // _AT_ONCE
    ):  # pairs of hundreds fill memory
        steps = np.sign(part[:, a] - part[:, b])
        taus.append((steps[..., 0] * steps[..., 1]).mean(1))
    low, high = percentiles(np.concatenate(taus), level)
    return row | {"value": value, "ci_low": float(low), "ci_high": float(high), "p": p}


def _concordance(
    grid: np.ndarray, drawn: np.ndarray, level: float, permutations: int, seed: int
) -> dict:
    """The last row: Kendall's W over all sizes, for the architectures that have them all."""
    whole = np.isfinite(grid).all(1)
    n, k = int(whole.sum()), grid.shape[1]
    row = {
        "size_a": "all",
        "size_b": "all",
        "statistic": "W",
        "value": np.nan,
        "ci_low": np.nan,
        "ci_high": np.nan,
        "p": np.nan,
        "n_architectures": n,
        "note": "",
    }
    if n < 3 or k < 2:
        return row | {"note": f"{n} architectures at all of {k} sizes: no W"}
    rng = np.random.default_rng(seed)
    ranks = stats.rankdata(grid[whole], axis=0)
    shuffled = rng.permuted(np.broadcast_to(ranks, (permutations, n, k)).copy(), axis=1)
    value = float(kendall_w(ranks))
    low, high = (
        percentiles(kendall_w(stats.rankdata(drawn[:, whole], axis=1)), level)
        if len(drawn)
        else (np.nan,) * 2
    )
    p = (1 + (kendall_w(shuffled) >= value - 1e-12).sum()) / (1 + permutations)
    return row | {"value": value, "ci_low": float(low), "ci_high": float(high), "p": p}


def kendall_w(ranks: np.ndarray) -> np.ndarray:
    """Kendall's coefficient of concordance of rankings without ties, [..., n things, k rankings] -> [...]."""
    n, k = ranks.shape[-2:]
    sums = ranks.sum(-1)
    return 12 * ((sums - sums.mean(-1, keepdims=True)) ** 2).sum(-1) / (k**2 * (n**3 - n))


def probability_best(
    table: pd.DataFrame,
    *,
    x: str = "F",
    y: str = "U",
    axes: Axes = AXES,
    budgets: Sequence[float] | int = 7,
    protocol: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How often an architecture comes out best at a budget when its seeds are drawn again.

    Quality at a budget is interpolated between an architecture's two neighbouring sizes, never
    extrapolated. `budgets` are values in the unit of x, or how many to space evenly (in log) from
    the smallest to the largest cell.

    Returns:
      Rows by budget and architecture (only those that cover the budget), with columns
        budget, architecture, x_axis, y_axis, quality (higher is better), rank (1 is best),
        probability_best, candidates (how many architectures cover the budget), note.
    """
    check(table, x + y, axes)
    cells = sample(main_protocol(table, protocol), y, x, axes, draws, seed)
    cost = cells.mean[:, 1]
    if not len(cost):
        raise InputError(f"no run has both {axes.column(x)} and {axes.column(y)}")
    if isinstance(budgets, int):
        places = np.linspace(cost.min(), cost.max(), budgets)
    else:
        places = axes.log(np.asarray(budgets, float))
    columns = [
        "budget",
        "architecture",
        "x_axis",
        "y_axis",
        "quality",
        "rank",
        "probability_best",
        "candidates",
        "note",
    ]
    rows = [
        row
        for place in places
        for row in _best_at(cells, float(place), axes, axes.label(x), axes.label(y))
    ]
    return pd.DataFrame(rows, columns=columns)


def _best_at(cells: Sample, place: float, axes: Axes, x_axis: str, y_axis: str) -> list[dict]:
    """Rows of one budget, best first."""
    weights = [
        (a, w) for a in range(len(cells.names)) if (w := _interpolate(cells, a, place)) is not None
    ]
    if not weights:
        return []
    matrix = np.stack([w for _, w in weights])
    quality, drawn = matrix @ cells.mean[:, 0], cells.draws[:, :, 0] @ matrix.T
    share = np.full(len(weights), np.nan)
    if len(drawn):
        share = np.bincount(drawn.argmax(1), minlength=len(weights)) / len(drawn)
    rank = stats.rankdata(-quality, method="min").astype(int)
    return [
        {
            "budget": float(axes.budget(place)),
            "architecture": cells.names[weights[i][0]],
            "x_axis": x_axis,
            "y_axis": y_axis,
            "quality": quality[i],
            "rank": rank[i],
            "probability_best": share[i],
            "candidates": len(weights),
            "note": cells.note,
        }
        for i in np.argsort(rank, kind="stable")
    ]


def _interpolate(cells: Sample, architecture: int, place: float) -> np.ndarray | None:
    """Weights of the cells whose sum is the architecture's quality at `place`; None where it does not reach there."""
    own = np.flatnonzero(cells.architecture == architecture)
    own = own[np.argsort(cells.mean[own, 1], kind="stable")]
    x = cells.mean[own, 1]
    slack = 1e-9 * max(1.0, abs(place))  # an end of the range came through a logarithm and back
    if not x[0] - slack <= place <= x[-1] + slack:
        return None
    weights = np.zeros(len(cells.architecture))
    upper = int(np.clip(np.searchsorted(x, place), 1, len(x) - 1)) if len(x) > 1 else 0
    lower = max(upper - 1, 0)
    step = x[upper] - x[lower]
    share = float(np.clip((place - x[lower]) / step, 0, 1)) if step > 0 else 0.0
    weights[own[lower]] += 1 - share
    weights[own[upper]] += share
    return weights


def up_down_correlation(
    table: pd.DataFrame,
    *,
    axes: Axes = AXES,
    protocol: str | None = None,
    level: float = 0.95,
    draws: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Association of upstream with downstream quality over the cells: overall, within a size, and given FLOPs.

    Returns:
      Rows by scope and method, with columns
        scope (`overall`, `within size`, `within architecture`, `given log F`), group (the size or
        architecture, else empty), method (`spearman`; `kendall`, but not given log F), estimate,
        ci_low, ci_high (bootstrap: percentiles over cells within a size or architecture; else whole
        architectures are drawn, t on Fisher's scale), p (spearman: permutation, for `given log F`
        among the architectures of a size; kendall: SciPy's; both take cells for independent, so
        `overall` and `within architecture` mostly say that scale helps both), reliability_corrected
        (Spearman over the root of
        both reliabilities, at most 1; NaN with one seed), n (cells), note.
    """
    check(table, "UDF", axes)
    cells = sample(main_protocol(table, protocol), "UD", "F", axes, 0, seed)
    rng = np.random.default_rng(seed)
    rows = []
    for scope, group, use in _scopes(cells):
        for method in ("spearman",) if scope == "given log F" else ("spearman", "kendall"):
            found = correlate(cells, use, scope, method, level, draws, permutations, rng)
            found["note"] = join(cells.note, found["note"])
            rows.append({"scope": scope, "group": group, "method": method, **found})
    return pd.DataFrame(rows)


def _scopes(cells: Sample) -> Iterator[tuple[str, str, np.ndarray]]:
    """(scope, group, cells that belong to it)."""
    everyone = np.ones(len(cells.size), dtype=bool)
    yield "overall", "", everyone
    yield "given log F", "", everyone
    for size in _by_cost(cells):
        yield "within size", size, cells.size == size
    for a, name in enumerate(cells.names):
        yield "within architecture", name, cells.architecture == a


def discordant_pairs(
    table: pd.DataFrame,
    *,
    axes: Axes = AXES,
    protocol: str | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Pairs of architectures of one size that upstream and downstream put in opposite order.

    Returns:
      One row per discordant pair, the surest first, with columns
        size, architecture_a (the better upstream), architecture_b (the better downstream),
        upstream_difference (nats, a - b, positive), downstream_difference (percent, a - b,
        negative), probability_discordant (share of redrawings of the seeds in which the pair is
        discordant in this direction, NaN with one seed), n_pairs (pairs compared at that size),
        note.
    """
    check(table, "UDF", axes)
    cells = sample(main_protocol(table, protocol), "UD", "F", axes, draws, seed)
    columns = [
        "size",
        "architecture_a",
        "architecture_b",
        "upstream_difference",
        "downstream_difference",
        "probability_discordant",
        "n_pairs",
        "note",
    ]
    rows = []
    for size in _by_cost(cells):
        here = np.flatnonzero(cells.size == size)
        for a, b in itertools.permutations(here, 2):
            up, down = (cells.mean[a] - cells.mean[b])[:2]
            if not (up > 0 > down):
                continue
            drawn = cells.draws[:, a, :2] - cells.draws[:, b, :2]
            probability = ((drawn[:, 0] > 0) & (drawn[:, 1] < 0)).mean() if len(drawn) else np.nan
            names = (cells.names[cells.architecture[i]] for i in (a, b))
            rows.append(
                (size, *names, up, down, probability, len(here) * (len(here) - 1) // 2, cells.note)
            )
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values(
        "probability_discordant", ascending=False, kind="stable", ignore_index=True
    )
