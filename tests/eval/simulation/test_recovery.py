"""A short version of `benchmarks/coverage.py`.

Intervals cover the truth, tests hold their level, and large tables finish in time.
"""

import time

import pytest

from eval.analyses.comparison import Comparison
from eval.analyses.pareto import Frontier
from eval.analyses.question import Question
from eval.analyses.rank import Ranking
from eval.analyses.slopes import Slopes
from eval.simulation import recovery
from eval.simulation.simulate import Line, study
from tests.eval.answers import ANSWERS


@pytest.mark.parametrize(
    ("sizes", "seeds"), [(4, 1), (5, 3), pytest.param(7, 5, marks=pytest.mark.slow)]
)
def test_slopes_cover(sizes, seeds):
    """800 studies determine a share of 95 % to within 0.8 %."""
    for what, share, _ in recovery.coverage_of_slopes(sizes, seeds, 800, 1):
        if "Theil" not in what and share == share:
            assert 0.93 <= share <= 0.97, what


def test_three_sizes_get_no_interval():
    shares = {what: share for what, share, _ in recovery.coverage_of_slopes(3, 3, 200, 1)}
    assert shares["interval of α_{F,U}"] != shares["interval of α_{F,U}"]
    assert 0.9 <= shares["interval of α_{F,U} over seeds only"] <= 0.99


@pytest.mark.slow
def test_differences_cover():
    for what, share, nominal in recovery.coverage_of_differences(5, 3, 300, 1):
        if nominal == "95 %":
            assert 0.91 <= share <= 0.985, what


@pytest.mark.slow
def test_architectures_that_scale_alike_are_not_called_different():
    for what, share, nominal in recovery.level_of_tests(5, 2, 200, 1):
        if nominal == "at most 5 %":
            assert share <= 0.05 + 0.035, what  # 2.3 standard errors of 200 studies


@pytest.mark.slow
def test_protocol_differences_cover():
    ((_, share, _),) = recovery.recovery_of_protocols(5, 3, 300, 1)
    assert 0.91 <= share <= 0.985


@pytest.mark.slow
def test_everything_on_the_study_of_the_issue_is_quick_and_repeatable():
    lines = {"transformer": Line()} | {
        f"other{i:02d}": Line(upstream=-3.5 - i / 50) for i in range(11)
    }
    table = study(lines, sizes=7, seeds=5)
    functions = ANSWERS.values()
    started = time.process_time()
    first = [function(table).to_csv() for function in functions]
    assert time.process_time() - started < 20
    assert first == [function(table).to_csv() for function in functions]


@pytest.mark.slow
def test_ten_thousand_runs():
    table = study(
        {f"a{i:03d}": Line(upstream=-3.5 - i / 1000) for i in range(286)}, sizes=7, seeds=5
    )
    assert len(table) == 10_010
    assert len(Slopes(table).table()) == 286 * 10
    assert len(Comparison(table, Question(reference="a000", permutations=100)).contrasts()) == 285
    assert len(Frontier(table, Question(draws=100)).frontier()) == 286 * 7
    assert Frontier(table, Question(draws=20)).hypervolume()["contribution"].ge(0).all()
    assert len(Ranking(table, Question(draws=100)).probability_best())
