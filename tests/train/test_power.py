"""The smallest difference that a design finds."""

import numpy as np
import pytest
from scipy import stats

from eval.analyses import verdicts
from eval.analyses.comparison import Comparison
from eval.analyses.question import Question
from eval.simulation import simulate
from train.power import ExpectedNoise, detectable, smallest_slope


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


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "seeds"), [(4, 1), (6, 3)])
def test_a_slope_that_a_plan_calls_findable_is_found_in_four_studies_of_five(sizes, seeds):
    """By the report's own verdict, among twelve architectures; the standard error is 4 %."""
    noise = ExpectedNoise(size=0.02, seed=0.01, slope=0.54)
    names = ["transformer", *(f"other{i:02d}" for i in range(11))]
    decades = [9.0 + 0.6 * k for k in range(sizes)]
    low, high = smallest_slope(dict.fromkeys(names, decades), "transformer", seeds, noise)
    assert low == pytest.approx(high, rel=0.05)  # all have the same sizes
    steep = simulate.Line(upstream_slope=noise.slope * (1 + low))
    lines = dict.fromkeys(names, simulate.Line()) | {"other05": steep}
    asked, found = Question(permutations=0, draws=1), 0
    for seed in range(100):
        runs = simulate.study(lines, sizes=sizes, seeds=seeds, seed=seed)
        verdict = verdicts.of_slopes(Comparison(runs, asked).contrasts(), asked.alpha)
        found += "other05" in verdict.better
    assert 68 <= found <= 92


def test_a_study_that_cannot_compare_slopes_has_no_power():
    three = {"transformer": [9.0, 9.5, 10.0], "glu": [9.0, 9.5, 10.0]}
    assert smallest_slope(three, "transformer", 1) is None
    four = {"transformer": [9.0, 9.5, 10.0, 10.5]}
    assert smallest_slope(four, "transformer", 1) is None
    wide = {name: [8.0, 9.0, 10.0, 11.0] for name in ("transformer", "glu")}
    narrow = {name: [9.0, 9.1, 9.2, 9.3] for name in ("transformer", "glu")}
    assert smallest_slope(wide, "transformer", 1)[0] < smallest_slope(narrow, "transformer", 1)[0]
    one, many = (smallest_slope(wide, "transformer", seeds)[0] for seeds in (1, 9))
    assert many < one
