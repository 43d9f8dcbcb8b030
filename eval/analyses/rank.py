"""Is the order of architectures stable: between sizes, at a budget, upstream and downstream?"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.question import Inquiry, Question
from eval.data.examples import example_noise
from eval.data.quantity import SCORE, Quantity
from eval.stats.bootstrap import Resampled, join, percentiles, resample
from eval.stats.correlation import Correlation
from train.records import InputError

_AT_ONCE = 2_000_000  # pairs in one block of bootstrap draws; bounds the memory


class Ranking(Inquiry):
    """The order of a study's architectures by quality y, along cost x.

    Qualities are read in their own unit; the question's link is ignored.

    Example:
      >>> ranking = eval.Ranking(study, eval.Question(x=FLOPS, y=LOSS))
      >>> ranking.stability()  # do two sizes agree on the order of architectures?
      >>> ranking.probability_best([1e12])  # which architecture is best at 1e12 FLOPs?
    """

    def _admitted(self, question: Question) -> Question:
        return question.ask(link="semilog")

    def _sample(self, *qualities: Quantity) -> Resampled:
        """The cells with these qualities and the cost, and bootstrap draws of the qualities."""
        question = self.question
        axes = [question.axis(quality) for quality in qualities]
        cells = self.runs.cells([*axes, self.x])
        noise = example_noise(self.runs, cells, axes, question.draws, question.seed)
        return resample(cells, len(qualities), question.draws, question.seed, noise)

    def stability(self) -> pd.DataFrame:
        """How well rankings agree between sizes: Kendall's tau for pairs, W for all.

        Returns:
          One row per pair of sizes (ordered by FLOPs) and a last row with size_a = size_b = `all`,
          with columns
          y_axis, size_a, size_b, statistic (`tau` or `W`), value, ci_low, ci_high
          (bootstrap over seeds: how firmly these runs fix the ranking, not how other
          architectures would rank; noise can only disturb a ranking, so the interval leans
          towards less agreement), p (tau: exact, of no association; W: rankings permuted),
          n_architectures (ranked in both, or in all), note.
        """
        question = self.question
        cells = self._sample(question.y)
        sizes = _by_cost(cells)
        grid, drawn = _grid(cells, sizes)
        rows = []
        for i, j in itertools.combinations(range(len(sizes)), 2):
            found = _tau(grid[:, [i, j]], drawn[:, :, [i, j]], question.level)
            rows.append({"size_a": sizes[i], "size_b": sizes[j], **found})
        found = _concordance(grid, drawn, question)
        rows.append({"size_a": "all", "size_b": "all", **found})
        frame = pd.DataFrame(rows)
        frame["note"] = [join(cells.note, note) for note in frame["note"]]
        frame.insert(0, "y_axis", self.y.label)
        return frame

    def probability_best(self, budgets: Sequence[float] | int = 7) -> pd.DataFrame:
        """How often an architecture is the best at a budget when its seeds are redrawn.

        Quality at a budget is interpolated between an architecture's two neighbouring sizes, never
        extrapolated.

        Args:
          budgets: values in the unit of x, or how many to space evenly (in log) from the smallest
            to the largest cell.

        Returns:
          Rows by budget and architecture (only those that cover the budget), with columns
            budget, architecture, x_axis, y_axis, quality (higher is better), rank (1 is best),
            probability_best, candidates (how many architectures cover the budget), note.

        Raises:
          InputError: no run has both quantities.
        """
        cells = self._sample(self.question.y)
        cost = cells.mean[:, 1]
        if not len(cost):
            columns = f"{self.question.x.column} and {self.question.y.column}"
            raise InputError(f"no run has both {columns}")
        if isinstance(budgets, int):
            places = np.linspace(cost.min(), cost.max(), budgets)
        else:
            places = self.x.read(np.asarray(budgets, float))
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
        labels = {"x_axis": self.x.label, "y_axis": self.y.label}
        rows = [
            {"budget": float(self.x.unread(place)), **labels, **row}
            for place in places
            for row in _best_at(cells, float(place))
        ]
        return pd.DataFrame(rows, columns=columns)

    def agreement(self, other: Quantity = SCORE) -> pd.DataFrame:
        """Correlation of y with another quality: overall, within groups, given FLOPs.

        Args:
          other: the other quality.

        Returns:
          Rows by scope and method, with columns
            scope (`overall`, `within size`, `within architecture`, `given log F`), group (the size
            or architecture, else empty), method (`spearman`; `kendall`, but not given log F),
            estimate, ci_low, ci_high (bootstrap: percentiles over cells within a size or
            architecture; else whole architectures are drawn, t on Fisher's scale), p (spearman:
            permutation, for `given log F` of whole architectures; kendall: SciPy's; none for
            `overall`, whose cells are not independent; `within architecture` mostly says that scale
            helps both), reliability_corrected (Spearman over the root of both reliabilities, at
            most 1; NaN with one seed), n (cells), note.
        """
        question = self.question
        cells = self._sample(question.y, other)
        correlation = Correlation(
            cells.cells, question.level, question.draws, question.permutations
        )
        rng = np.random.default_rng(question.seed)
        rows = []
        for scope, group, use in _scopes(cells):
            for method in ("spearman",) if scope == "given log F" else ("spearman", "kendall"):
                found = correlation.over(use, scope, method, rng)
                found["note"] = join(cells.note, found["note"])
                rows.append({"scope": scope, "group": group, "method": method, **found})
        return pd.DataFrame(rows)

    def discordant_pairs(self, other: Quantity = SCORE) -> pd.DataFrame:
        """Pairs of architectures of one size that y and another quality rank in opposite order.

        Args:
          other: the other quality.

        Returns:
          One row per discordant pair, the most certain first, with columns
            size, architecture_a (the better upstream), architecture_b (the better downstream),
            upstream_difference (nats, a - b, positive), downstream_difference (percent, a - b,
            negative), probability_discordant (share of bootstrap draws in which the pair is
            discordant in this direction, NaN with one seed), n_pairs (pairs compared at that size),
            note.
        """
        cells = self._sample(self.question.y, other)
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
                probability = (
                    ((drawn[:, 0] > 0) & (drawn[:, 1] < 0)).mean() if len(drawn) else np.nan
                )
                names = (cells.names[cells.architecture[i]] for i in (a, b))
                rows.append(
                    (
                        size,
                        *names,
                        up,
                        down,
                        probability,
                        len(here) * (len(here) - 1) // 2,
                        cells.note,
                    )
                )
        frame = pd.DataFrame(rows, columns=columns)
        return frame.sort_values(
            "probability_discordant", ascending=False, kind="stable", ignore_index=True
        )


def _by_cost(cells: Resampled) -> list[str]:
    """Size labels, sorted by their mean cost (the last quantity of the sample)."""
    cost = pd.Series(cells.mean[:, -1]).groupby(cells.size).mean()
    return cost.sort_values(kind="stable").index.tolist()


def _grid(cells: Resampled, sizes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Quality by architecture and size, [A, K], and draws, [B, A, K]; NaN without a cell."""
    place = {size: k for k, size in enumerate(sizes)}
    column = np.array([place[size] for size in cells.size], dtype=int)
    grid = np.full((len(cells.names), len(sizes)), np.nan)
    drawn = np.full((len(cells.draws), *grid.shape), np.nan)
    grid[cells.architecture, column] = cells.mean[:, 0]
    drawn[:, cells.architecture, column] = cells.draws[:, :, 0]
    return grid, drawn


def _tau(grid: np.ndarray, drawn: np.ndarray, level: float) -> dict:
    """Kendall's tau between two columns of the grid, as a row of the table."""
    both = np.isfinite(grid).all(1)
    n = int(both.sum())
    row = {
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
    blocks = 1 + len(drawn) * len(a) // _AT_ONCE  # of bounded memory
    for part in np.array_split(drawn[:, both], blocks):
        steps = np.sign(part[:, a] - part[:, b])
        taus.append((steps[..., 0] * steps[..., 1]).mean(1))
    low, high = percentiles(np.concatenate(taus), level)
    return row | {"value": value, "ci_low": float(low), "ci_high": float(high), "p": p}


def _concordance(grid: np.ndarray, drawn: np.ndarray, question: Question) -> dict:
    """Kendall's W over all sizes, for the architectures that have every size."""
    whole = np.isfinite(grid).all(1)
    n, k = int(whole.sum()), grid.shape[1]
    row = {
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
    rng = np.random.default_rng(question.seed)
    ranks = stats.rankdata(grid[whole], axis=0)
    shuffled = rng.permuted(np.broadcast_to(ranks, (question.permutations, n, k)).copy(), axis=1)
    value = float(kendall_w(ranks))
    low, high = (
        percentiles(kendall_w(stats.rankdata(drawn[:, whole], axis=1)), question.level)
        if len(drawn)
        else (np.nan,) * 2
    )
    p = (1 + (kendall_w(shuffled) >= value - 1e-12).sum()) / (1 + question.permutations)
    return row | {"value": value, "ci_low": float(low), "ci_high": float(high), "p": p}


def kendall_w(ranks: np.ndarray) -> np.ndarray:
    """Kendall's coefficient of concordance W of rankings without ties.

    Args:
      ranks: [..., n things, k rankings].

    Returns:
      W, [...].
    """
    n, k = ranks.shape[-2:]
    sums = ranks.sum(-1)
    return 12 * ((sums - sums.mean(-1, keepdims=True)) ** 2).sum(-1) / (k**2 * (n**3 - n))


def _best_at(cells: Resampled, place: float) -> list[dict]:
    """The rows of one budget, best first."""
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
            "architecture": cells.names[weights[i][0]],
            "quality": quality[i],
            "rank": rank[i],
            "probability_best": share[i],
            "candidates": len(weights),
            "note": cells.note,
        }
        for i in np.argsort(rank, kind="stable")
    ]


def _interpolate(cells: Resampled, architecture: int, place: float) -> np.ndarray | None:
    """Weights of the cells that sum to the architecture's quality at `place`.

    None if the architecture's sizes do not reach that far.
    """
    own = np.flatnonzero(cells.architecture == architecture)
    own = own[np.argsort(cells.mean[own, 1], kind="stable")]
    x = cells.mean[own, 1]
    slack = 1e-9 * max(1.0, abs(place))  # log and exp round
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


def _scopes(cells: Resampled) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yields (scope, group, mask of the cells in it)."""
    everyone = np.ones(len(cells.size), dtype=bool)
    yield "overall", "", everyone
    yield "given log F", "", everyone
    for size in _by_cost(cells):
        yield "within size", size, cells.size == size
    for a, name in enumerate(cells.names):
        yield "within architecture", name, cells.architecture == a
