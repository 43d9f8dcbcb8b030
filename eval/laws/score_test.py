"""Tests whether groups follow one law, where each group may have noise of its own size.

The test is a score test: both models are replaced by their tangents at the fit of the smaller one,
so what the larger model adds is a projection, and a simulated study costs a matrix product instead
of two searches. Each group is weighted by its own residual variance, shrunken towards that of all
groups, and the statistic is compared with that of studies drawn from the smaller model with normal
noise of each group's spread (a parametric bootstrap, as Krishnamoorthy, Lu and Mathew 2007 for
means of groups with unequal variances). An F test with one variance for all, or residuals with
random signs, takes the noise of the noisiest of few groups for a difference of laws.

The spreads are those about the smaller model, fitted with the same weights. Without weights a noisy
group moves the common law, and a quiet group's distance from it would count as noise of the quiet
group: with two groups, one of them noisier, the test would then call one law different almost twice
as often as it claims.

Checkpoints of a run cannot be drawn one by one; there the residuals of a run get a common random
sign. Axes: `n` points, `G` groups, `B` draws, `K` columns of a basis.
"""

import numpy as np
import pandas as pd

from eval.laws.fitting.fit import Fit
from eval.laws.fitting.optimise import Surface
from eval.laws.grouped import Grouped

_PRIOR = 0.5  # degrees of freedom by which a variance is shrunken to that of all groups
_NO_RESIDUAL = 1e-12  # residuals of this size relative to the target are rounding errors
_SAME_SPACE = 1e-9  # singular values below this share of the largest add no direction
_OUTLIER = 3.0  # robust standard deviations to which robust objectives pull in a residual
_ENOUGH = 8  # points of a group from which its median says what an outlier is


def p_value(small: Fit, large: Fit, separate: Fit, draws: int, seed: int) -> float:
    """How often a study drawn from the smaller model gains as much from the larger one.

    Args:
      small: fit of the model with more shared parameters, of a form `grouped.Grouped`.
      large: fit of a model that contains it; only its form is used.
      separate: fit of the model that shares nothing; only its form is used.
      draws: number of simulated studies.
      seed: seed of the draws.

    Returns:
      The p value, (1 + draws with as large a statistic) / (1 + draws); 1 if the smaller model fits
      exactly, NaN without draws or if no group has a degree of freedom of its own.
    """
    if not draws:
        return float("nan")
    points = _Points(small)
    if points.exact:
        return 1.0
    own_nK = points.tangent(separate)
    bases = [_basis(own_nK * (points.code_n == g)[:, None]) for g in range(points.groups)]
    left_G = np.array(
        [(points.code_n == g).sum() - basis.shape[1] for g, basis in enumerate(bases)]
    )
    if not left_G.sum() > 0:
        return float("nan")
    inner_nK, outer_nK = _basis(points.tangent(small)), _basis(points.tangent(large))
    rng = np.random.default_rng(seed)

    def weights(y_Bn: np.ndarray) -> np.ndarray:
        """One over each group's own residual variance [B,G], shrunken."""
        rss_BG = np.stack(
            [
                (y_Bn[:, points.code_n == g] ** 2).sum(1) - ((y_Bn @ basis) ** 2).sum(1)
                for g, basis in enumerate(bases)
            ],
            axis=1,
        )
        rss_BG = np.maximum(rss_BG, 0.0)
        common_B = rss_BG.sum(1, keepdims=True) / left_G.sum()
        return (left_G + _PRIOR) / (rss_BG + _PRIOR * common_B)

    def statistic(y_Bn: np.ndarray) -> np.ndarray:
        weight_BG = weights(y_Bn)
        return _cost(y_Bn, inner_nK, points.code_n, weight_BG) - _cost(
            y_Bn, outer_nK, points.code_n, weight_BG
        )

    seen = statistic(points.residual_n[None])[0]
    weight_G = weights(points.residual_n[None])[0]
    drawn_B = statistic(points.draw(inner_nK, weight_G, draws, rng))
    return float((1 + (drawn_B >= seen * (1 - 1e-9)).sum()) / (1 + draws))


class _Points:
    """The residuals of a fit and their groups; runs whose rows have the same inputs are averaged.

    Attributes:
      residual_n: residuals of runs of mean weight.
      code_n: number of each point's group.
      run_n: number of each point's run.
      groups: number of groups.
      exact: whether the residuals are rounding errors.
    """

    def __init__(self, fit: Fit):
        runs = fit.runs
        self.fit = fit
        self.groups = len(runs.groups)
        r, scale_n = fit.residual_n, np.sqrt(runs.weight)
        self.exact = bool(np.abs(r).max() <= _NO_RESIDUAL * np.abs(fit.target_n).max())
        code_n = np.array([runs.groups.index(label) for label in runs.group])
        standard_n = scale_n * r
        if fit.objective.name != "l2":
            standard_n = _pulled_in(standard_n, code_n)
        run_n = np.unique(runs.cluster, return_inverse=True)[1]
        same_x = pd.DataFrame(dict(runs.x)).round(9).groupby(run_n).nunique().eq(1).all(axis=None)
        if runs.dependent and same_x:
            member_Cn = np.eye(runs.clusters)[:, run_n]
            self.mean_Cn = member_Cn / member_Cn.sum(1, keepdims=True)
            first_C = np.unique(run_n, return_index=True)[1]
            code_n, run_n = code_n[first_C], np.arange(runs.clusters)
        else:
            self.mean_Cn = np.eye(len(runs.y))
        self.scale_n, self.code_n, self.run_n = scale_n, code_n, run_n
        self.residual_n = self.mean_Cn @ standard_n

    def tangent(self, model: Fit) -> np.ndarray:
        """The derivatives of a model's predictions at this fit [n,K]; held parameters have none."""
        assert isinstance(model.form, Grouped) and isinstance(self.fit.form, Grouped)
        theta_P, moves_P = np.empty(len(model.theta_P)), np.empty(len(model.theta_P), bool)
        moves_here_P = self.fit.free_P & ~self.fit.bounded_P
        for there_P, here_P in zip(model.form.index_GP, self.fit.form.index_GP, strict=True):
            theta_P[there_P], moves_P[there_P] = self.fit.theta_P[here_P], moves_here_P[here_P]
        surface = Surface(model.form, self.fit.runs.x, self.fit.objective.space)
        jac_nP = surface.evaluate(theta_P[None])[1][0].T[:, moves_P]
        return self.mean_Cn @ (jac_nP * self.scale_n[:, None])

    def draw(
        self, basis_nK: np.ndarray, weight_G: np.ndarray, draws: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Studies without a difference between groups [B,n], around the weighted fit.

        Normal noise with each group's spread, corrected for the fitted parameters; or, if the
        points of a run differ in their inputs, residuals scaled up for the parameters, with one
        random sign for each run.
        """
        root_n = np.sqrt(weight_G)[self.code_n]
        weighted_nK = np.linalg.qr(basis_nK * root_n[:, None])[0]
        moment_K = weighted_nK.T @ (root_n * self.residual_n)
        left_n = self.residual_n - weighted_nK @ moment_K / root_n
        # A weighted residual has 1 - leverage of the variance of its error, as in least squares.
        free_n = np.maximum(1 - (weighted_nK**2).sum(1), 1e-9)
        if len(np.unique(self.run_n)) < len(self.run_n):
            sign_BC = rng.choice([-1.0, 1.0], (draws, self.run_n.max() + 1))
            return left_n / np.sqrt(free_n) * sign_BC[:, self.run_n]
        squares_G, free_G = (np.bincount(self.code_n, v, self.groups) for v in (left_n**2, free_n))
        spread_G = np.sqrt(squares_G / free_G)
        return rng.standard_normal((draws, len(left_n))) * spread_G[self.code_n]


def _pulled_in(residual_n: np.ndarray, code_n: np.ndarray) -> np.ndarray:
    """Residuals with outliers of each group pulled in, as a robust objective would."""
    limit_n = np.full(len(residual_n), np.inf)
    for g in np.unique(code_n):
        here = code_n == g
        if here.sum() >= _ENOUGH:
            # The median absolute residual times 1.4826 estimates a normal standard deviation.
            limit_n[here] = _OUTLIER * 1.4826 * np.median(np.abs(residual_n[here]))
    return np.clip(residual_n, -limit_n, limit_n)


def _basis(columns_nK: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the same space."""
    length_K = np.linalg.norm(columns_nK, axis=0)
    columns_nK = columns_nK[:, length_K > 0] / length_K[length_K > 0]
    left_nK, size_K, _ = np.linalg.svd(columns_nK, full_matrices=False)
    return left_nK[:, size_K > _SAME_SPACE * size_K.max(initial=0.0)]


def _cost(
    y_Bn: np.ndarray, basis_nK: np.ndarray, code_n: np.ndarray, weight_BG: np.ndarray
) -> np.ndarray:
    """Weighted sum of squares [B] that a linear model leaves, with one weight for each group."""
    here_Gn = np.arange(weight_BG.shape[1])[:, None] == code_n
    gram_GKK = np.stack([basis_nK[here].T @ basis_nK[here] for here in here_Gn])
    normal_BKK = np.tensordot(weight_BG, gram_GKK, 1)
    weighted_Bn = y_Bn * weight_BG[:, code_n]
    moment_BK = weighted_Bn @ basis_nK
    found_BK = np.linalg.solve(normal_BKK, moment_BK[..., None])[..., 0]
    return (weighted_Bn * y_Bn).sum(1) - (moment_BK * found_BK).sum(1)
