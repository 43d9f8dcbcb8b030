"""Every answer is in the unit of its column, for all pairs of quantities and both links."""

import itertools

import numpy as np
import pandas as pd
import pytest

from eval.analyses.comparison import Comparison
from eval.analyses.question import Question
from eval.data.quantity import FLOPS, LOSS, PARAMS, SCORE, SPEED, Quantity

PAIRS = [
    pair
    for pair in itertools.product((FLOPS, PARAMS, SPEED, LOSS, SCORE), (LOSS, SCORE))
    if pair[0] != pair[1]
]
# Where positions on an axis lie, and the unit that a position has. They are written out here rather
# than taken from the code.
PLACES = {"cost": (1.0, 2.0), "loss": (-4.0, -2.0), "score": (20.0, 60.0)}
LOGS = {"cost": (1.0, 2.0), "loss": (0.2, 0.6), "score": (1.2, 1.8)}


def unit(quantity: Quantity, link: str, position: float) -> float:
    if quantity.kind == "cost" or link == "loglog":
        return 10.0**position
    return -position if quantity.kind == "loss" else position


def places(quantity: Quantity, link: str) -> tuple[float, float]:
    return (LOGS if link == "loglog" else PLACES)[quantity.kind]


def two_lines(x: Quantity, y: Quantity, link: str) -> tuple[pd.DataFrame, dict[str, float]]:
    """Two exact lines that cross a third of the way along x, and their positions on the axes."""
    low, high = places(x, link)
    bottom, top = places(y, link)
    crossing, level = low + (high - low) / 3, (bottom + top) / 2
    slope = (top - bottom) / (high - low) / 4
    slopes = {"transformer": slope, "other": 0.5 * slope}
    rows = []
    for name, own in slopes.items():
        for k, position in enumerate(np.linspace(low, high, 5)):
            at = {x: position, y: level + own * (position - crossing)}
            row = {"architecture": name, "size": f"size{k}"}
            rows.append(row | {q.column: unit(q, link, p) for q, p in at.items()})
    facts = {"low": low, "high": high, "crossing": crossing}
    return pd.DataFrame(rows), facts | slopes


@pytest.mark.parametrize("link", ["semilog", "loglog"])
@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_crossings_budgets_and_ranges_are_in_the_unit_of_x(x, y, link):
    table, facts = two_lines(x, y, link)
    asked = Comparison(table, Question(x=x, y=y, link=link, permutations=0, draws=10))
    ends = sorted(unit(x, link, facts[end]) for end in ("low", "high"))

    crossing = asked.crossovers().iloc[0]
    assert crossing["crossing"] == pytest.approx(unit(x, link, facts["crossing"]))
    assert [crossing["range_low"], crossing["range_high"]] == pytest.approx(ends)
    assert crossing["position"] == "inside"

    contrast = asked.contrasts().iloc[0]
    assert [contrast["range_low"], contrast["range_high"]] == pytest.approx(ends)
    tested = asked.equal_slopes().iloc[0]
    assert [tested["range_low"], tested["range_high"]] == pytest.approx(ends)

    middle = (facts["low"] + facts["high"]) / 2
    budgets = [unit(x, link, place) for place in (facts["low"], middle, facts["high"])]
    levels = asked.levels()
    assert levels["budget"].tolist() == pytest.approx(budgets)
    wanted = [
        (facts["other"] - facts["transformer"]) * (place - facts["crossing"])
        for place in (facts["low"], middle, facts["high"])
    ]
    assert levels["difference"].tolist() == pytest.approx(wanted)
    given = asked.levels(at=budgets)
    assert given["difference"].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("link", ["semilog", "loglog"])
@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_who_is_ahead_below_and_above_a_crossing(x, y, link):
    """Below and above refer to the column: more FLOPs, or a higher loss."""
    table, facts = two_lines(x, y, link)
    row = Comparison(table, Question(x=x, y=y, link=link)).crossovers().iloc[0]
    for end in ("low", "high"):
        rows = table.groupby("architecture").nth(0 if end == "low" else -1)
        values = rows.set_index("architecture")[y.column]
        best = values.idxmin() if y.kind == "loss" else values.idxmax()
        below = unit(x, link, facts[end]) < unit(x, link, facts["crossing"])
        assert row["better_below" if below else "better_above"] == best


@pytest.mark.parametrize("link", ["semilog", "loglog"])
@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_a_multiplier_is_a_ratio_of_values_of_x(x, y, link):
    """The x at which the other reaches the reference's quality at a budget, over that budget."""
    table, facts = two_lines(x, y, link)
    rows = Comparison(table, Question(x=x, y=y, link=link)).multipliers()
    for place, row in zip(
        (facts["low"], facts["high"]), rows.iloc[[0, 2]].itertuples(), strict=True
    ):
        reached = (
            facts["crossing"] + (place - facts["crossing"]) * 2
        )  # half the slope: twice as far
        budget, needed = (unit(x, link, at) for at in (place, reached))
        better = (y.kind != "loss" or link == "semilog") == (x.kind != "loss" or link == "semilog")
        if not better:  # the slope has the wrong sign for "more x, better y"
            assert np.isnan(row.multiplier) and "does not rise" in row.note
            continue
        assert row.budget == pytest.approx(budget)
        assert row.multiplier == pytest.approx(max(needed, 0.0) / budget)


@pytest.mark.parametrize("link", ["semilog", "loglog"])
@pytest.mark.parametrize("x", [FLOPS, LOSS])
def test_the_ends_of_intervals_are_in_order_around_their_estimate(x, link):
    table, _ = two_lines(x, SCORE, link)
    noise = np.random.default_rng(0).normal(1, 0.004, len(table))
    noisy = table.assign(**{SCORE.column: table[SCORE.column] * noise})
    asked = Comparison(noisy, Question(x=x, y=SCORE, link=link))
    for row in asked.multipliers().itertuples():
        assert row.interval != "bounded" or row.ci_low < row.multiplier < row.ci_high
    row = asked.crossovers().iloc[0]
    assert row["interval"] == "bounded" and row["ci_low"] < row["crossing"] < row["ci_high"]
    assert row["bootstrap_low"] < row["crossing"] < row["bootstrap_high"]
