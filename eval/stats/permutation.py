"""Tests over all architectures at once: nested F tests, and permutations at equal x.

Residuals are permuted only between cells with the same x. If all architectures share one bent line,
residuals around straight lines depend on x, so to permute between different x would call that a
difference in slope.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import stats

from eval.data.cells import Cells
from eval.stats.regression import Lines

_MATCHED = 0.01  # of a step between sizes: x that differ by no more count as equal
TESTS = {  # test: (hypothesis in words, smaller model, larger model)
    "slopes": ("all architectures have one slope", "parallel", "separate"),
    "levels": ("given one slope, all architectures have one level", "common", "parallel"),
    "lines": ("all architectures lie on one line", "common", "separate"),
}


@dataclasses.dataclass(frozen=True)
class Ancova:
    """The cells of the architectures that have a line, for an analysis of covariance.

    Attributes:
      group: the number of each cell's architecture, [N].
      starts: the first cell of each architecture, [G].
      stratum: the number of each cell's x, [N]; cells with equal x have one number.
      x: means on the first axis, [N].
      y: means on the second axis, [N].
    """

    group: np.ndarray
    starts: np.ndarray
    stratum: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, cells: Cells, keep: np.ndarray) -> "Ancova":
        """Keeps the cells of the groups in `keep` [G] (bool) and numbers those groups from 0."""
        cell = keep[cells.group]
        group = np.unique(cells.group[cell], return_inverse=True)[1]
        starts = np.searchsorted(group, np.arange(keep.sum()))
        return cls(group, starts, strata(cells)[cell], cells.x[cell], cells.y[cell])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over the cells of each group, [..., N] -> [..., G]."""
        return np.add.reduceat(values, self.starts, axis=-1)

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Values minus the mean of their group."""
        return values - (self.sums(values) / self.sums(np.ones(len(self.x))))[..., self.group]

    def parameters(self, model: str) -> int:
        """The number of coefficients of a model."""
        return {"common": 2, "parallel": len(self.starts) + 1, "separate": 2 * len(self.starts)}[
            model
        ]

    def residuals(self, model: str, y: np.ndarray) -> np.ndarray:
        """Residuals of [..., N] values under a model."""
        if model == "common":
            dx, dy = self.x - self.x.mean(), y - y.mean(-1, keepdims=True)
            slope = (dy @ dx / (dx @ dx))[..., None]
        else:
            dx, dy = self.centred(self.x), self.centred(y)
            slope = (dy @ dx / (dx @ dx))[..., None]
            if model == "separate":
                slope = (self.sums(dy * dx) / self.sums(dx * dx))[..., self.group]
        return dy - slope * dx

    def permuted(self, model: str, draws: int, seed: int) -> np.ndarray:
        """Values with the residuals of `model` permuted between architectures, [draws, N]."""
        rng = np.random.default_rng(seed)
        residual = self.residuals(model, self.y)
        order = np.tile(np.arange(len(self.y)), (draws, 1))
        for number in np.unique(self.stratum):
            here = self.stratum == number
            order[:, here] = rng.permuted(order[:, here], axis=1)
        return self.y - residual + residual[order]

    @property
    def common_slope(self) -> float:
        """The common slope of the parallel lines."""
        dx = self.centred(self.x)
        return float(self.centred(self.y) @ dx / (dx @ dx))

    @property
    def shares_x(self) -> bool:
        """Whether some x has several architectures, so that there is something to permute."""
        return bool((np.unique(self.stratum, return_counts=True)[1] > 1).any())


def strata(cells: Cells) -> np.ndarray:
    """The number of each cell's x, [C]; x closer than a small part of a step count as equal."""
    x = np.sort(cells.x)
    gaps = np.diff(np.unique(x))
    steps = np.concatenate([np.diff(np.sort(cells.x[cells.group == g])) for g in set(cells.group)])
    slack = _MATCHED * float(np.median(steps)) if len(steps) else 0.0
    edges = np.unique(x)[1:][gaps > slack]
    return np.searchsorted(edges, cells.x, side="right")


class NestedTest(NamedTuple):
    """An F test of a smaller model within a larger one; the note says why it is missing."""

    f: float
    df_num: float
    df_den: float
    p: float
    p_permutation: float
    note: str


def nested_f(
    ancova: Ancova | None, small: str, large: str, permutations: int, seed: int
) -> NestedTest:
    """Tests a smaller model within a larger one, also by permuting the residuals of the smaller.

    Args:
      ancova: the cells; None if no architecture has a line.
      small: the smaller model, `common`, `parallel` or `separate`.
      large: the larger model.
      permutations: how often residuals are permuted between architectures at equal x (Freedman and
        Lane).
      seed: the seed of the permutations.
    """
    nan = np.nan
    if ancova is None or len(ancova.starts) < 2:
        return NestedTest(nan, nan, nan, nan, nan, "fewer than two architectures with a line")
    df_num = ancova.parameters(large) - ancova.parameters(small)
    df_den = len(ancova.x) - ancova.parameters(large)
    untested = NestedTest(nan, df_num, df_den, nan, nan, "")
    if df_den < 1:
        return untested._replace(note="no point is left over for the residual variance")

    def statistic(y: np.ndarray) -> np.ndarray:
        rss_small, rss_large = (
            (ancova.residuals(model, y) ** 2).sum(-1) for model in (small, large)
        )
        return (rss_small - rss_large) / df_num / (rss_large / df_den)

    if not (ancova.residuals(large, ancova.y) ** 2).sum() > 0:
        return untested._replace(note="no scatter around the lines: nothing to test against")
    f = float(statistic(ancova.y))
    found = untested._replace(f=f, p=float(stats.f.sf(f, df_num, df_den)))
    if not permutations:
        return found
    if not ancova.shares_x:
        return found._replace(note="no two architectures share an x: nothing to permute")
    drawn = statistic(ancova.permuted(small, permutations, seed))
    return found._replace(p_permutation=_share(drawn >= f * (1 - 1e-12)))


def separate_p(lines: Lines, keep: np.ndarray, draws: int, seed: int) -> float:
    """The p value of equal slopes if every architecture has its own noise.

    A parametric bootstrap of the weighted scatter of the slopes. Welch's approximation rejects a
    true hypothesis in 8-17 % of studies with twelve architectures of four to seven sizes; redrawing
    slopes and their variances (Krishnamoorthy, Lu and Mathew 2007) does so in 2-6 %.
    """
    found = lines.slope_estimates()
    slope, variance, df = found.value[keep], found.se[keep] ** 2, found.df[keep]
    if not (draws and len(slope) > 1 and (variance > 0).all() and (df > 0).all()):
        return np.nan

    def scatter(slopes: np.ndarray, variances: np.ndarray) -> np.ndarray:
        weight = 1 / variances
        middle = (weight * slopes).sum(-1, keepdims=True) / weight.sum(-1, keepdims=True)
        return (weight * (slopes - middle) ** 2).sum(-1)

    rng, shape = np.random.default_rng(seed), (draws, len(slope))
    drawn = scatter(
        rng.standard_normal(shape) * np.sqrt(variance), variance * rng.chisquare(df, shape) / df
    )
    return _share(drawn >= scatter(slope, variance))


def largest_t(
    lines: Lines, reference: int, alike: np.ndarray, permutations: int, seed: int
) -> np.ndarray:
    """Permutation p values of every slope against the reference's, [G]; NaN where untested.

    They are corrected by using the largest |t|. Only the groups in `alike` [G] (bool) take part:
    those whose sizes are compared with the reference's without leaving any out. Of these, only
    those take part whose sizes have the same x as the reference's. Residuals of the parallel model
    are permuted between architectures at equal x. t uses a residual variance for each architecture
    if every one has at least three sizes, else one for all.
    """
    result = np.full(len(lines.n), np.nan)
    keep = np.isfinite(lines.coefficients[:, 1]) & alike
    if not (permutations and keep[reference] and keep.sum() > 1):
        return result
    number, group = strata(lines.cells), lines.cells.group
    away = ~np.isin(number, number[group == reference])
    keep &= np.bincount(group[away], minlength=len(keep)) == 0
    ancova = Ancova.of(lines.cells, keep)
    place = int(keep[:reference].sum())
    n = ancova.sums(np.ones(len(ancova.x)))
    scatter = ancova.sums(ancova.residuals("separate", ancova.y) ** 2)
    if not ancova.shares_x or (n - 2).sum() < 1 or not (scatter[n > 2] > 0).all():
        return result
    dx = ancova.centred(ancova.x)
    sxx = ancova.sums(dx * dx)

    def statistic(y: np.ndarray) -> np.ndarray:
        slope = ancova.sums(ancova.centred(y) * dx) / sxx
        rss = ancova.sums(ancova.residuals("separate", y) ** 2)
        separate = (n > 2).all()
        variance = (rss / (n - 2) if separate else (rss.sum(-1) / (n - 2).sum())[..., None]) / sxx
        return np.abs(slope - slope[..., [place]]) / np.sqrt(variance + variance[..., [place]])

    drawn = statistic(ancova.permuted("parallel", permutations, seed)).max(-1)
    observed = statistic(ancova.y)
    result[keep] = [_share(drawn >= t * (1 - 1e-12)) for t in observed]
    result[reference] = np.nan
    return result


def _share(hits: np.ndarray) -> float:
    """The permutation p value; the observed order counts as one of the permutations."""
    return float((1 + hits.sum()) / (1 + len(hits)))
