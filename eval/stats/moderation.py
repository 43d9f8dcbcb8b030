"""Variances of several lines, shrunken towards each other (empirical Bayes).

With four sizes a line leaves two degrees of freedom, so its own residual variance says little. If
the lines are about equally noisy, they say something about each other: their true variances are
taken as draws from one scaled inverse chi-square distribution, which is estimated from all of them
(Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression", as
in limma's `squeezeVar`).
"""

import numpy as np
from scipy import special


def prior(variance: np.ndarray, df: np.ndarray) -> tuple[float, float]:
    """The distribution of the true variances, from the moments of the logarithms.

    Args:
      variance: variances of the lines, [G], above 0.
      df: their degrees of freedom, [G].

    Returns:
      The middle of the distribution, and its degrees of freedom: by how many observations it
      outweighs a line's own. Infinite if the variances differ by no more than chance would make
      them.
    """
    half = df / 2
    logs = np.log(variance) - special.digamma(half) + np.log(half)
    spread = np.var(logs, ddof=1) - np.mean(special.polygamma(1, half))
    if not spread > 0:
        return float(np.exp(logs.mean())), np.inf
    half_prior = _inverse_trigamma(float(spread))
    middle = np.exp(logs.mean() + special.digamma(half_prior) - np.log(half_prior))
    return float(middle), 2 * half_prior


def moderated(variance: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shrunken variances and their degrees of freedom, [G] each.

    Lines without degrees of freedom take the prior's variance. If fewer than two lines have any,
    there is nothing to learn from and the variances are returned as they are.

    Args:
      variance: variances of the lines, [G]; NaN where there is none.
      df: their degrees of freedom, [G]; 0 where there is none.
    """
    known = (df > 0) & (variance > 0)
    if known.sum() < 2:
        return variance, df
    middle, weight = prior(variance[known], df[known])
    # No more is known than all lines together say.
    total = np.minimum(df + weight, df[known].sum())
    if np.isinf(weight):
        return np.full(len(df), middle), total
    own = np.where(df > 0, np.nan_to_num(variance) * df, 0.0)
    return (weight * middle + own) / (weight + df), total


def _inverse_trigamma(value: float) -> float:
    """Solves trigamma(x) = value by Newton's method for 1 / trigamma, which is nearly linear."""
    x = 0.5 + 1 / value
    for _ in range(100):
        now = float(special.polygamma(1, x))
        step = now * (1 - now / value) / float(special.polygamma(2, x))
        x += step
        if -step < 1e-10 * x:
            break
    return x
