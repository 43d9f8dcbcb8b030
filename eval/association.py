"""Rank correlation of upstream with downstream over cells: bootstrap over clusters and permutation, as matrix products."""

import numpy as np
from scipy import stats

from eval.resample import Sample

_FEWEST = 5  # cells (or architectures, where they are the clusters) below which there is no interval


def correlate(
    cells: Sample, use: np.ndarray, scope: str, method: str, level: float, draws: int, permutations: int,
    rng: np.random.Generator,
) -> dict:  # fmt: skip
    """Estimate, interval, p and note of one scope; the columns of `up_down_correlation` from `estimate` on."""
    up, down, cost = (cells.mean[use, q] for q in range(3))
    clusters = np.arange(len(up)) if scope.startswith("within") else cells.architecture[use]
    blocks = cells.size[use] if scope == "given log F" else np.zeros(len(up))
    found = {"estimate": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p": np.nan, "reliability_corrected": np.nan,
             "n": len(up), "note": ""}  # fmt: skip
    if len(up) < 3 or np.ptp(up) == 0 or np.ptp(down) == 0:
        return found | {"note": f"{len(up)} cells: no correlation" if len(up) < 3 else "all values are equal"}
    statistic = _Partial(up, down, cost, method) if scope == "given log F" else _Plain(up, down, method)
    found["estimate"] = float(statistic(np.ones((1, len(up))))[0])
    order = _permutations(blocks, permutations, rng)
    permuted = statistic.permuted(order)
    found["p"] = float((1 + (np.abs(permuted) >= abs(found["estimate"]) - 1e-12).sum()) / (1 + permutations))
    distinct, cluster = np.unique(clusters, return_inverse=True)
    if len(distinct) < _FEWEST:
        found["note"] = f"{len(distinct)} {'cells' if scope.startswith('within') else 'architectures'}: no interval"
    else:
        counts = rng.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), size=draws)
        found["ci_low"], found["ci_high"] = _fisher(
            found["estimate"], statistic(counts[:, cluster].astype(float)), len(distinct), level
        )
    if method == "spearman" and scope != "given log F":
        found["reliability_corrected"] = _disattenuated(cells, use, found["estimate"])
    return found


class _Plain:
    """Rank correlation of two variables under weights: ranks and pairs are weighted counts, one product for all draws."""

    def __init__(self, up: np.ndarray, down: np.ndarray, method: str):
        self.method = method
        self.signs = [np.sign(v[:, None] - v[None, :]) for v in (up, down)]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """[B, n] -> [B]."""
        if self.method == "kendall":
            return _pair_correlation(*self.signs, weights)
        return _moment_correlation(*(weights @ sign.T for sign in self.signs), weights)

    def permuted(self, order: np.ndarray) -> np.ndarray:
        """The statistic with downstream values permuted, [B, n] -> [B]."""
        up, down = self.signs
        if self.method == "kendall":
            scale = np.sqrt((up**2).sum() * (down**2).sum())
            return np.array([(up * down[np.ix_(o, o)]).sum() / scale for o in order])
        return _moment_correlation(up.sum(1), down.sum(1)[order], np.ones(order.shape))


class _Partial:
    """The same given a third variable: (r_ud - r_uc r_dc) / sqrt((1 - r_uc^2) (1 - r_dc^2))."""

    def __init__(self, up: np.ndarray, down: np.ndarray, cost: np.ndarray, method: str):
        self.parts = [_Plain(a, b, method) for a, b in ((up, down), (up, cost), (down, cost))]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """[B, n] -> [B]."""
        return self._combine(*(part(weights) for part in self.parts))

    def permuted(self, order: np.ndarray) -> np.ndarray:
        """The statistic with downstream values permuted, [B, n] -> [B]."""
        both, up_cost, down_cost = self.parts
        turned = _Plain.__new__(_Plain)
        turned.method, turned.signs = down_cost.method, down_cost.signs[::-1]
        one = np.ones((1, order.shape[1]))
        return self._combine(both.permuted(order), up_cost(one), turned.permuted(order))

    @staticmethod
    def _combine(both: np.ndarray, up_cost: np.ndarray, down_cost: np.ndarray) -> np.ndarray:
        scale = np.sqrt((1 - up_cost**2) * (1 - down_cost**2))
        return np.divide(both - up_cost * down_cost, scale, out=np.full_like(scale * both, np.nan), where=scale > 1e-9)


def _pair_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Kendall's tau-b under weights from the signs of all differences."""
    both, aa, bb = (((weights @ m) * weights).sum(1) for m in (a * b, a * a, b * b))
    return np.divide(both, np.sqrt(aa * bb), out=np.full_like(both, np.nan), where=aa * bb > 0)


def _moment_correlation(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted Pearson correlation along the last axis; a and b are broadcast to the weights."""
    total = weights.sum(-1, keepdims=True)
    a, b = (v - (v * weights).sum(-1, keepdims=True) / total for v in (a, b))
    ab, aa, bb = ((p * weights).sum(-1) for p in (a * b, a * a, b * b))
    return np.divide(ab, np.sqrt(aa * bb), out=np.full_like(ab, np.nan), where=aa * bb > 1e-12)


def _permutations(blocks: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Orders that permute within blocks only, [draws, n]."""
    order = np.tile(np.arange(len(blocks)), (draws, 1))
    for block in np.unique(blocks):
        order[:, blocks == block] = rng.permuted(order[:, blocks == block], axis=1)
    return order


def _fisher(estimate: float, drawn: np.ndarray, clusters: int, level: float) -> tuple[float, float]:
    """Interval on Fisher's scale from the bootstrap's standard error; NaN at a correlation of 1, which has no scale."""
    if not abs(estimate) < 1 - 1e-9:
        return np.nan, np.nan
    drawn = np.arctanh(np.clip(drawn[np.isfinite(drawn)], -0.9999, 0.9999))
    half = stats.t.ppf((1 + level) / 2, clusters - 2) * drawn.std(ddof=1)
    return float(np.tanh(np.arctanh(estimate) - half)), float(np.tanh(np.arctanh(estimate) + half))


def _disattenuated(cells: Sample, use: np.ndarray, estimate: float) -> float:
    """Spearman's correction for attenuation by the noise of the seeds; NaN without two seeds anywhere."""
    runs = use[cells.cell]
    free = (cells.seeds[use] - 1).sum()
    if not free:
        return np.nan
    noise = ((cells.runs[runs] - cells.mean[cells.cell[runs]]) ** 2).sum(0)[:2] / free * (1 / cells.seeds[use]).mean()
    reliability = 1 - noise / cells.mean[use, :2].var(0, ddof=1)
    if (reliability <= 0).any():
        return np.nan
    return float(np.clip(estimate / np.sqrt(reliability.prod()), -1, 1))
