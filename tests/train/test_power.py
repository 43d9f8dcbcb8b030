"""The smallest difference that a design finds."""

import numpy as np
import pytest
from scipy import stats

from train.power import detectable


def test_with_many_degrees_of_freedom_it_is_that_of_a_normal_test():
    expected = stats.norm.isf(0.025) + stats.norm.ppf(0.8)
    assert detectable(1e7) == pytest.approx(expected, abs=1e-3)
    stricter = stats.norm.isf(0.005 / 2) + stats.norm.ppf(0.8)
    assert detectable(1e7, tests=10) == pytest.approx(stricter, abs=1e-3)


@pytest.mark.parametrize(("df", "tests", "power"), [(2.0, 11, 0.8), (6.0, 3, 0.9), (20.0, 1, 0.5)])
def test_it_is_found_as_often_as_promised(df, tests, power):
    """In 40,000 draws of a t test whose difference is that large."""
    rng, draws = np.random.default_rng(0), 40_000
    shift = float(detectable(df, tests, 0.95, power))
    t = (rng.standard_normal(draws) + shift) / np.sqrt(rng.chisquare(df, draws) / df)
    critical = stats.t.isf(0.05 / tests / 2, df)
    assert (np.abs(t) > critical).mean() == pytest.approx(power, abs=0.01)


def test_shapes_are_kept_and_no_error_has_no_answer():
    found = detectable(np.array([[2.0, np.nan], [0.0, 5.0]]))
    assert found.shape == (2, 2) and np.isnan(found).tolist() == [[False, True], [True, False]]
