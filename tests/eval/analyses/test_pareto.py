"""Frontiers, attainment and hypervolume against moocore and by hand."""

import moocore
import numpy as np
import pandas as pd
import pytest

from eval.analyses.pareto import Frontier
from eval.analyses.question import Question
from eval.data.quantity import Quantities
from eval.simulation.simulate import Line, Noise, study
from tests.eval.answers import FRONTIERS
from train.records import InputError

BY_HAND = pd.DataFrame(
    {  # cost 10, 10, 100, 1000; quality -3, -4, -2, -2.5
        "architecture": ["a", "b", "b", "a"],
        "size": ["s", "s", "m", "l"],
        "seed": 0,
        "flops_forward": [10.0, 10.0, 100.0, 1000.0],
        "upstream_nll": [3.0, 4.0, 2.0, 2.5],
    }
)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lines = {
        f"a{i}": Line(
            upstream=-3.5 + 0.1 * rng.normal(),
            flops=10 ** (0.2 * rng.normal()),
            speed=1 + rng.random(),
        )
        for i in range(6)
    }
    return study(lines, sizes=5, seeds=3)


def test_by_hand():
    rows = Frontier(BY_HAND).frontier().set_index(["architecture", "size"])
    assert rows["on_frontier"].to_dict() == {
        ("a", "s"): True,
        ("b", "s"): False,
        ("b", "m"): True,
        ("a", "l"): False,
    }
    assert rows["quality_gap"].tolist() == pytest.approx([0, 1, 0, 0.5])  # cheapest first
    assert rows.loc[("a", "l"), "cost_multiplier"] == pytest.approx(10)
    assert (
        rows["probability_on_frontier"].isna().all() and rows["note"].str.contains("one seed").all()
    )
    area = Frontier(BY_HAND).hypervolume().set_index("architecture")
    assert (
        area["reference_cost"].to_numpy() == pytest.approx(1000)
        and (area["reference_quality"] == -4).all()
    )
    assert area.loc["all", "hypervolume"] == pytest.approx(
        1 * 1 + 1 * 2
    )  # the area: a decade at +1 and a decade at +2
    assert area.loc["a", "contribution"] == pytest.approx(1) and area.loc[
        "b", "contribution"
    ] == pytest.approx(1)
    gap = Frontier(BY_HAND).gaps().set_index("architecture")
    assert gap.loc["b", "quality_gap"] == pytest.approx(
        (1 - 1) / 2
    )  # 1 behind at a cost of 10, 1 ahead at 100
    assert gap.loc["b", "cells_cost"] == 1 and gap.loc["b", "cost_multiplier"] == pytest.approx(1)


@pytest.mark.parametrize("cost", ["F", "P", "S"])
@pytest.mark.parametrize("y", ["U", "D"])
def test_agrees_with_moocore(table, cost, y):
    x = Quantities()[cost]
    found = Frontier(table, Question(x=x, y=Quantities()[y], draws=10))
    rows = found.frontier()
    points = np.column_stack(
        [np.log10(rows["cost"]) * (-1 if cost == "S" else 1), -rows["quality"]]
    )
    np.testing.assert_array_equal(
        rows["on_frontier"], moocore.is_nondominated(points, keep_weakly=True)
    )
    assert ((rows["quality_gap"] == 0) & (rows["cost_multiplier"] < 1 + 1e-9)).equals(
        rows["on_frontier"]
    )
    area = found.hypervolume()
    corner = [
        np.log10(area["reference_cost"][0]) * (-1 if cost == "S" else 1),
        -area["reference_quality"][0],
    ]
    assert area["hypervolume"][0] == pytest.approx(moocore.hypervolume(points, corner))
    for row in area.iloc[1:].itertuples():
        own = (rows["architecture"] == row.architecture).to_numpy()
        assert row.hypervolume == pytest.approx(moocore.hypervolume(points[own], corner))
        rest = moocore.hypervolume(points[~own], corner)
        assert row.contribution == pytest.approx(area["hypervolume"][0] - rest, abs=1e-12)
    assert rows["cost_axis"][0] == x.column


def test_what_decoding_keeps_is_a_cost_like_others():
    """A frontier against state is that against FLOPs of the same numbers."""
    state = BY_HAND.rename(columns={"flops_forward": "state_size"})
    quantities = Quantities()
    asked = Question(x=quantities.state, y=quantities.loss)
    rows, expected = Frontier(state, asked).frontier(), Frontier(BY_HAND).frontier()
    differs = [column for column in expected if not rows[column].equals(expected[column])]
    assert differs == ["cost_axis"]


def test_attainment_of_one_repetition_is_its_frontier():
    surface = Frontier(BY_HAND).attainment(levels=(0.5,))
    np.testing.assert_allclose(surface[["cost", "quality"]], [[10, -3], [100, -2]])


def test_attainment_is_nested_and_bounded_by_the_repetitions(table):
    surface = Frontier(table).attainment()
    assert (surface["repetitions"] == 3).all()
    for _, rows in surface.groupby("level"):
        assert rows["quality"].is_monotonic_increasing
    best = surface.groupby("level")["quality"].max()
    assert best.is_monotonic_decreasing and best[0.05] == pytest.approx(
        -table["upstream_nll"].min()
    )


def test_membership_follows_the_noise(table):
    """A cell far ahead is certainly on the frontier; two equal cells share it."""
    lines = {"ahead": Line(upstream=-3.0), "one": Line(flops=1.0), "two": Line(flops=1.0)}
    rows = Frontier(study(lines, sizes=3, seeds=5, noise=Noise(0, 0.02, 0, 0.5))).frontier()
    ahead = rows["architecture"] == "ahead"
    assert (rows["probability_on_frontier"][ahead] == 1).all() and not rows["on_frontier"][
        ~ahead
    ].any()
    equal = study({"one": Line(), "two": Line()}, sizes=3, seeds=5, noise=Noise(0, 0.02, 0, 0.5))
    by_size = (
        Frontier(equal).frontier().groupby("size")["probability_on_frontier"].agg(["sum", "max"])
    )
    assert by_size["sum"].to_numpy() == pytest.approx(1) and (by_size["max"] < 1).all()


def test_same_seed_same_bytes(table):
    for function in FRONTIERS.values():
        assert function(table, draws=50).to_csv() == function(table, draws=50).to_csv()
    one, two = (
        Frontier(table, Question(draws=50, seed=s)).frontier()["probability_on_frontier"]
        for s in (0, 1)
    )
    assert not one.equals(two)


def test_bad_reference_and_empty_table_are_refused(table):
    with pytest.raises(InputError, match="positive cost"):
        Frontier(table).hypervolume(reference=(-1.0, 0.0))
    with pytest.raises(InputError, match="no run has both"):
        Frontier(table.assign(upstream_nll=np.nan)).frontier()
