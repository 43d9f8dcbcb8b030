"""Rankings against SciPy; probabilities and discordance on studies with a known answer."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.analyses.question import Question
from eval.analyses.rank import Ranking
from eval.data.cells import RunTable
from eval.data.quantity import FLOPS, LOSS
from eval.simulation.simulate import Line, Noise, study
from eval.stats.bootstrap import resample
from tests.eval.answers import RANKINGS
from tests.eval.frames import by


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    lines = {
        f"a{i}": Line(
            upstream=-3.5 + 0.1 * rng.normal(),
            upstream_slope=0.5 + 0.05 * rng.normal(),
            downstream=50 + 3 * rng.normal(),
            flops=10 ** (0.05 * rng.normal()),
        )
        for i in range(8)
    }
    return study(lines, sizes=4, seeds=3)


def grid(table: pd.DataFrame, column: str) -> pd.DataFrame:
    return table.pivot_table(index="architecture", columns="size", values=column)


def spearman(a, b) -> tuple[float, float]:
    """SciPy's estimate and p value."""
    found: Any = stats.spearmanr(a, b)
    return found.statistic, found.pvalue


def test_tau_agrees_with_scipy(table):
    quality = grid(table, "upstream_nll")
    rows = Ranking(table).stability()
    for (a, b), row in by(rows[rows["statistic"] == "tau"], "size_a", "size_b").items():
        assert (row["value"], row["p"]) == pytest.approx(
            tuple(stats.kendalltau(quality[a], quality[b]))
        )
    assert len(rows) == 6 + 1


def test_w_is_a_mean_of_spearman_correlations(table):
    quality = grid(table, "upstream_nll")
    pairs = [
        spearman(quality[a], quality[b])[0] for a, b in itertools.combinations(quality.columns, 2)
    ]
    w = Ranking(table).stability().iloc[-1]
    assert w["value"] == pytest.approx(
        (np.mean(pairs) * 3 + 1) / 4
    )  # W = ((k - 1) mean rho + 1) / k
    friedman, _ = stats.friedmanchisquare(*quality.to_numpy())
    assert w["value"] == pytest.approx(friedman / (4 * 7))


def test_best_at_a_budget_by_hand():
    lines = {"small": Line(upstream=-3.3, upstream_slope=0.4), "large": Line()}
    rows = Ranking(study(lines, noise=Noise(0, 1e-6, 0, 1e-6))).probability_best(
        budgets=[1e9, 1e11, 1e20]
    )
    best = rows[rows["rank"] == 1].set_index("budget")
    assert best["architecture"].tolist() == ["small", "large"]  # no cell is as cheap as 1e20
    assert (best["probability_best"] == 1).all() and (best["candidates"] == 2).all()
    assert best["quality"].iloc[1] == pytest.approx(
        -3.5 + 0.54 * 2, abs=1e-4
    )  # interpolated between two sizes


def test_equal_architectures_share_the_first_place():
    rows = Ranking(
        study({"a": Line(), "b": Line()}, seeds=5, noise=Noise(0, 0.02, 0, 0.5))
    ).probability_best()
    shares = rows.groupby("budget")["probability_best"].sum()
    assert (
        shares.to_numpy() == pytest.approx(1)
        and rows["probability_best"].between(0.001, 0.999).any()
    )


def test_one_seed_gives_no_probability(table):
    one = table[table["seed"] == 0]
    for rows, column in (
        (Ranking(one).probability_best(), "probability_best"),
        (Ranking(one).discordant_pairs(), "probability_discordant"),
    ):
        assert rows[column].isna().all() and rows["note"].str.contains("one seed").all()
    assert Ranking(one).stability()["ci_low"].isna().all()


def test_correlations_agree_with_scipy(table):
    cells = table.groupby(["architecture", "size"])[
        ["upstream_nll", "downstream_mean", "flops_forward"]
    ].mean()
    up, down, cost = -cells["upstream_nll"], cells["downstream_mean"], cells["flops_forward"]
    rows = by(
        Ranking(table, Question(draws=200, permutations=200)).agreement(),
        "scope",
        "group",
        "method",
    )
    assert rows["overall", "", "spearman"]["estimate"] == pytest.approx(spearman(up, down)[0])
    kendall = rows["overall", "", "kendall"]
    assert kendall["estimate"] == pytest.approx(stats.kendalltau(up, down)[0])
    for method in ("spearman", "kendall"):
        overall = rows["overall", "", method]
        assert np.isnan(overall["p"]) and "cells are not independent" in overall["note"]
    ud, uc, dc = (spearman(a, b)[0] for a, b in ((up, down), (up, cost), (down, cost)))
    partial = (ud - uc * dc) / np.sqrt((1 - uc**2) * (1 - dc**2))
    assert rows["given log F", "", "spearman"]["estimate"] == pytest.approx(partial)
    one = cells.xs("size2", level="size")
    estimate, p = spearman(-one["upstream_nll"], one["downstream_mean"])
    within = rows["within size", "size2", "spearman"]
    assert within["estimate"] == pytest.approx(estimate) and within["p"] == pytest.approx(
        p, abs=0.12
    )
    assert within["ci_low"] <= within["estimate"] <= within["ci_high"]  # eight cells: just enough
    assert np.isnan(rows["within architecture", "a0", "spearman"]["ci_low"])


def test_partial_correlation_sees_through_scale():
    """Upstream and downstream both rise with FLOPs, but are otherwise unrelated."""
    rng = np.random.default_rng(2)
    lines = {
        f"a{i:02d}": Line(upstream=-3.5 + 0.2 * rng.normal(), downstream=50 + 4 * rng.normal())
        for i in range(30)
    }
    found = Ranking(
        study(lines, sizes=4, seeds=1), Question(draws=200, permutations=500)
    ).agreement()
    rows = by(found[found["method"] == "spearman"], "scope", "group")
    assert rows["overall", ""]["estimate"] > 0.6
    assert abs(rows["given log F", ""]["estimate"]) < 0.35 and rows["given log F", ""]["p"] > 0.05


def test_agreement_given_scale_is_tested_by_permuting_whole_architectures():
    """Cells of an architecture lie above or below the others together: four are not four facts.

    Of 60 studies whose upstream and downstream have nothing to do with each other, permutations of
    single cells call some 20 related at the level of 5 %.
    """
    rng, false = np.random.default_rng(1), 0
    for _ in range(60):
        lines = {
            f"a{i}": Line(upstream=-3.5 + 0.2 * rng.normal(), downstream=50 + 4 * rng.normal())
            for i in range(8)
        }
        table = study(lines, sizes=4, seeds=1, seed=int(rng.integers(1e6)))
        found = Ranking(table, Question(draws=2, permutations=199)).agreement()
        false += found[found["scope"] == "given log F"]["p"].item() < 0.05
    assert false <= 7  # more has a probability of 1 % at the level of 5 %


def test_agreement_given_scale_of_few_architectures_is_not_tested():
    lines = {f"a{i}": Line(upstream=-3.5 + 0.1 * i, downstream=50 + i) for i in range(4)}
    found = Ranking(study(lines, sizes=4, seeds=1), Question(draws=2, permutations=99)).agreement()
    row = found[found["scope"] == "given log F"].iloc[0]
    assert np.isnan(row["p"]) and "fewer than 5 architectures" in row["note"]


def test_discordant_pair_by_hand():
    best = Line(-2.5, downstream=70.0)
    lines = {"up": Line(-3.0, downstream=40.0), "down": Line(-3.6, downstream=60.0), "best": best}
    rows = Ranking(study(lines, sizes=1, seeds=3, noise=Noise(0, 0.01, 0, 0.1))).discordant_pairs()
    pair = rows[(rows["architecture_a"] == "up") & (rows["architecture_b"] == "down")].iloc[0]
    assert pair["upstream_difference"] == pytest.approx(0.6, abs=0.05)
    assert (
        pair["downstream_difference"] == pytest.approx(-20, abs=1)
        and pair["probability_discordant"] == 1
    )
    assert (rows["n_pairs"] == 3).all() and not (rows["architecture_a"] == "down").any()


def test_redrawn_means_have_the_spread_of_means():
    """With two seeds, the variance of a bootstrapped cell mean is half the noise, not a quarter."""
    table = study(
        {f"a{i}": Line() for i in range(40)}, sizes=5, seeds=2, noise=Noise(0, 0.01, 0, 0.5)
    )
    axes = [quantity.axis() for quantity in (LOSS, FLOPS)]
    drawn = resample(RunTable(table).cells(axes), 1, 2000, 0)
    spread = drawn.draws[:, :, 0].var(0).mean()
    assert spread == pytest.approx(0.01**2 / 2, rel=0.15)


def test_same_seed_same_bytes(table):
    for function in RANKINGS.values():
        assert function(table, draws=50).to_csv() == function(table, draws=50).to_csv()
