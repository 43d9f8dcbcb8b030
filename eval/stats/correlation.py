"""Rank correlation of two qualities over cells, with a cluster bootstrap and permutation tests."""

import dataclasses
from typing import Any

import numpy as np
from scipy import stats

from eval.data.cells import Cells
from eval.stats.bootstrap import join, percentiles

# With fewer there is no interval. In simulations percentiles cover 93-98 % from 8 cells on. If
# whole architectures are drawn, percentiles cover only 65-93 %, but t on Fisher's scale covers
# 92-98 % from 6 architectures on.
_FEWEST_CELLS = 8
_FEWEST_ARCHITECTURES = 6
_FEWEST_PERMUTED = 5  # architectures; fewer have too few orders for a p value below .05


@dataclasses.dataclass(frozen=True)
class Correlation:
    """The rank correlation of two qualities over cells.

    Attributes:
      cells: means of the two qualities, and of the log cost that may be held fixed.
      level: confidence level of the intervals.
      draws: number of bootstrap draws.
      permutations: number of permutations of the test.
    """

    cells: Cells
    level: float
    draws: int
    permutations: int

    def over(
        self, use: np.ndarray, scope: str, method: str, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Estimate, interval, p and note for one set of cells.

        Args:
          use: the cells in the set, [C] bool.
          scope: `overall`, `within ...`, or `given log F` for the partial correlation.
          method: `spearman` or `kendall`.
          rng: draws clusters and permutations.
        """
        values = self.cells.mean[use].T
        n, given = values.shape[1], scope == "given log F"
        within = scope.startswith("within")
        found = {
            "estimate": np.nan,
            "ci_low": np.nan,
            "ci_high": np.nan,
            "p": np.nan,
            "reliability_corrected": np.nan,
            "n": n,
            "note": "",
        }
        if n < 3 or (np.ptp(values[:2], axis=1) == 0).any():
            return found | {
                "note": f"{n} cells: no correlation" if n < 3 else "all values are equal"
            }
        signs = [np.sign(v[:, None] - v[None, :]) for v in (values if given else values[:2])]
        statistic = _kendall if method == "kendall" else _partial if given else _spearman
        up, down, _ = values
        found["estimate"] = estimate = float(statistic(signs, np.ones((1, n)))[0])
        if scope == "overall":
            # Cells of one architecture, and of one size, resemble each other, and scale helps both
            # qualities: no permutation of cells is a test of anything else.
            found["note"] = "no test: cells are not independent"
        elif method == "kendall":
            _, found["p"] = stats.kendalltau(up, down)
        elif (orders := self._orders(use, rng, whole=given)) is not None:
            permuted = _permuted([sign.sum(1) for sign in signs], orders)
            # Given a third variable, the permuted values need not have mean 0, so both tails are
            # counted from their own mean.
            far = np.abs(permuted - permuted.mean()) >= abs(estimate - permuted.mean()) - 1e-12
            found["p"] = float((1 + far.sum()) / (1 + self.permutations))
        else:
            found["note"] = f"fewer than {_FEWEST_PERMUTED} architectures with the same sizes"
        if method == "spearman" and not given:
            found["reliability_corrected"] = _disattenuated(self.cells, use, estimate)
        clusters = (
            np.arange(n) if within else np.unique(self.cells.group[use], return_inverse=True)[1]
        )
        count = clusters.max() + 1
        if count < (_FEWEST_CELLS if within else _FEWEST_ARCHITECTURES):
            counted = "cells" if within else "architectures"
            short = f"{count} {counted}: not enough for an interval"
            return found | {"note": join(found["note"], short)}
        weights = rng.multinomial(count, np.full(count, 1 / count), size=self.draws)[
            :, clusters
        ].astype(float)
        drawn = statistic(signs, weights)
        drawn = drawn[np.isfinite(drawn)]
        ends = (
            percentiles(drawn, self.level)
            if within
            else _fisher(estimate, drawn, count, self.level)
        )
        found["ci_low"], found["ci_high"] = (float(end) for end in ends)
        return found

    def _orders(
        self, use: np.ndarray, rng: np.random.Generator, *, whole: bool
    ) -> np.ndarray | None:
        """Orders of the cells in use for a permutation test, [draws, n].

        Args:
          use: the cells, [C] bool.
          rng: draws the permutations.
          whole: permutes whole architectures, among those with the same sizes, because the cells of
            one architecture resemble each other. None if there are too few of them.
        """
        group, size = self.cells.group[use], self.cells.size[use]
        order = np.tile(np.arange(len(group)), (self.permutations, 1))
        if not whole:
            return rng.permuted(order, axis=1)
        alike: dict[tuple[str, ...], list[np.ndarray]] = {}
        for g in np.unique(group):
            own = np.flatnonzero(group == g)
            own = own[np.argsort(size[own], kind="stable")]
            alike.setdefault(tuple(size[own]), []).append(own)
        if max(map(len, alike.values())) < _FEWEST_PERMUTED:
            return None
        for members in alike.values():
            cells_AS = np.array(members)
            drawn = rng.permuted(np.tile(np.arange(len(cells_AS)), (self.permutations, 1)), axis=1)
            order[:, cells_AS.ravel()] = cells_AS[drawn].reshape(self.permutations, -1)
        return order


def _spearman(signs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation of two variables from the signs of all differences.

    Weights are [B, n], the result is [B].
    """
    a, b = (weights @ sign.T for sign in signs)
    return _pearson(a, b, weights)


def _partial(signs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Spearman's correlation of the first two variables given the third."""
    a, b, c = (weights @ sign.T for sign in signs)
    return _given(_pearson(a, b, weights), _pearson(a, c, weights), _pearson(b, c, weights))


def _kendall(signs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Kendall's tau-b under weights."""
    a, b = signs
    both, aa, bb = (((weights @ m) * weights).sum(1) for m in (a * b, a * a, b * b))
    return np.divide(both, np.sqrt(aa * bb), out=np.full_like(both, np.nan), where=aa * bb > 0)


def _permuted(ranks: list[np.ndarray], order: np.ndarray) -> np.ndarray:
    """Spearman's (partial) correlation with the second variable permuted, [B, n] -> [B]."""
    one, a, b = np.ones(order.shape), ranks[0][None], ranks[1][order]
    if len(ranks) == 2:
        return _pearson(a, b, one)
    c = ranks[2][None]
    return _given(_pearson(a, b, one), _pearson(a, c, one), _pearson(b, c, one))


def _given(ab: np.ndarray, ac: np.ndarray, bc: np.ndarray) -> np.ndarray:
    """Partial correlation of a and b given c; NaN if c determines either."""
    scale = np.sqrt((1 - ac**2) * (1 - bc**2))
    return np.divide(ab - ac * bc, scale, out=np.full_like(ab, np.nan), where=scale > 1e-9)


def _pearson(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation along the last axis; a and b are broadcast to the weights."""
    total = weights.sum(-1, keepdims=True)
    a, b = (v - (v * weights).sum(-1, keepdims=True) / total for v in (a, b))
    ab, aa, bb = ((p * weights).sum(-1) for p in (a * b, a * a, b * b))
    return np.divide(ab, np.sqrt(aa * bb), out=np.full_like(ab, np.nan), where=aa * bb > 1e-12)


def _fisher(estimate: float, drawn: np.ndarray, clusters: int, level: float) -> tuple[float, float]:
    """Interval on Fisher's scale from the bootstrap's standard error.

    NaN at a correlation of 1 or -1, where the scale is infinite.
    """
    if not abs(estimate) < 1 - 1e-9 or len(drawn) < 2:
        return np.nan, np.nan
    # The clip keeps draws of a perfect correlation finite.
    spread = np.arctanh(np.clip(drawn, -0.9999, 0.9999)).std(ddof=1)
    half = stats.t.ppf((1 + level) / 2, clusters - 2) * spread
    return float(np.tanh(np.arctanh(estimate) - half)), float(np.tanh(np.arctanh(estimate) + half))


def _disattenuated(cells: Cells, use: np.ndarray, estimate: float) -> float:
    """Spearman's correction for the noise of the seeds; NaN if no cell has two seeds."""
    runs = use[cells.cell]
    free = (cells.seeds[use] - 1).sum()
    if not free:
        return np.nan
    noise = (
        ((cells.values[runs] - cells.mean[cells.cell[runs]]) ** 2).sum(0)[:2]
        / free
        * (1 / cells.seeds[use]).mean()
    )
    reliability = 1 - noise / cells.mean[use, :2].var(0, ddof=1)
    if (reliability <= 0).any():
        return np.nan
    return float(np.clip(estimate / np.sqrt(reliability.prod()), -1, 1))
