"""Variances that are shrunken towards each other."""

import numpy as np
import pytest
from scipy import special

from eval.stats.moderation import moderated, prior


def drawn(lines: int, df: float, middle: float, weight: float) -> np.ndarray:
    """Variances of lines whose true variances are scaled inverse chi-square."""
    rng = np.random.default_rng(0)
    true = middle * weight / rng.chisquare(weight, lines)
    return true * rng.chisquare(df, lines) / df


@pytest.mark.parametrize(("middle", "weight"), [(0.3, 5.0), (2e-4, 12.0)])
def test_the_distribution_of_the_variances_is_found(middle, weight):
    found = prior(drawn(200_000, 3.0, middle, weight), np.full(200_000, 3.0))
    assert found == pytest.approx((middle, weight), rel=0.03)


def test_the_moments_are_those_of_the_logarithms():
    variance, df = np.array([0.5, 1.0, 8.0, 20.0]), np.array([2.0, 2.0, 3.0, 4.0])
    middle, weight = prior(variance, df)
    logs = np.log(variance) - special.digamma(df / 2) + np.log(df / 2)
    expected = np.mean(special.polygamma(1, df / 2)) + special.polygamma(1, weight / 2)
    assert np.var(logs, ddof=1) == pytest.approx(expected)
    assert np.log(middle) == pytest.approx(
        logs.mean() + special.digamma(weight / 2) - np.log(weight / 2)
    )


def test_variances_and_degrees_of_freedom_are_weighted_means_and_sums():
    variance, df = np.array([0.1, 1.0, 30.0, np.nan]), np.array([4.0, 4.0, 4.0, 0.0])
    middle, weight = prior(variance[:3], df[:3])
    assert np.isfinite(weight)
    found, total = moderated(variance, df)
    assert found[:3] == pytest.approx((weight * middle + 4 * variance[:3]) / (weight + 4))
    assert found[3] == pytest.approx(middle) and total[3] == pytest.approx(weight)
    assert total[:3] == pytest.approx(np.full(3, min(4 + weight, 12)))


def test_variances_as_alike_as_chance_makes_them_become_one():
    found, total = moderated(np.array([1.0, 1.1, 0.9, 1.0]), np.full(4, 2.0))
    assert np.ptp(found) == 0 and total.tolist() == [8.0] * 4  # no more than all lines say


def test_one_line_has_nothing_to_learn_from():
    found, total = moderated(np.array([2.0, np.nan]), np.array([2.0, 0.0]))
    assert found[0] == 2.0 and total.tolist() == [2.0, 0.0]
