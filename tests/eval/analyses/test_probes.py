"""The analysis of probes, from simulated records."""

import numpy as np
import pandas as pd
import pytest

from eval.analyses import probes as analysis
from eval.analyses.probes import MEAN, Probes, spearman_interval
from eval.analyses.question import Question
from eval.data.study import EVAL_COLUMNS, RECIPE_COLUMNS, Study

RATES = (0.001, 0.003, 0.01)


def _study(scores, seeds=3, peak=0.003, by_size=None) -> Study:
    """Runs whose score at the best rate is given by (architecture, probe), with seed noise of 1.

    The validation accuracy follows the score, except at the highest rate: there the test is better,
    which nobody may choose by.
    """
    runs, recipes, evals = [], [], []
    for (architecture, probe), value in scores.items():
        for rate in RATES:
            for seed in range(seeds):
                run_id = f"{architecture}-{probe}-{rate}-{seed}"
                runs.append((run_id, architecture, "nano", seed, 100.0))
                recipes.append((run_id, 8.0, rate, 0.0, 0.0, "", probe))
                valid = value + seed - 1 - (0 if rate == peak else 20)
                test = value + seed - 1 + (30 if rate == max(RATES) else 0)
                told = [("validation", "accuracy", valid), ("test", "accuracy", test)]
                told += [("test", "chance", 25.0), ("test", "seen", 2.0)]
                told += [("test", f"accuracy_{n}", test - n) for n in by_size or ()]
                for split, metric, found in told:
                    evals.append((run_id, "pretrain", probe, split, metric, 9, found, 50, 1.0))
    keys = ["run_id", "architecture", "size", "seed", "state_size"]
    empty = pd.DataFrame()
    return Study(
        "probes",
        pd.DataFrame(runs, columns=keys),
        pd.DataFrame(evals, columns=list(EVAL_COLUMNS)),
        *(empty, empty, empty),
        recipes=pd.DataFrame(recipes, columns=list(RECIPE_COLUMNS)),
    )


def test_the_score_is_that_of_the_test_at_the_best_rate_of_the_validation():
    table = Probes(_study({("glu", "mqar"): 60.0, ("mos", "mqar"): 70.0})).table()
    assert table["architecture"].tolist() == ["mos", "glu"]
    assert table["score"].tolist() == [70.0, 60.0] and table["seeds"].tolist() == [3, 3]
    half = 4.302653 / np.sqrt(3)  # t with 2 degrees of freedom, spread 1
    np.testing.assert_allclose(table["ci_high"] - table["score"], half, rtol=1e-6)
    assert set(table["learning_rate"]) == {0.003} and not table["at_edge"].any()
    assert set(table["chance"]) == {25.0} and set(table["seen"]) == {2.0}
    assert set(table["examples"]) == {50.0} and set(table["rates"]) == {3}


def test_a_best_rate_at_the_edge_is_marked_and_one_seed_has_no_interval():
    table = Probes(_study({("glu", "mqar"): 60.0}, seeds=1, peak=0.001)).table()
    assert table["at_edge"].tolist() == [True]
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)


def test_intervals_end_at_0_and_100():
    table = Probes(_study({("glu", "mqar"): 99.5, ("mos", "mqar"): 0.2})).table()
    assert table["ci_high"].max() == 100.0 and table["ci_low"].min() == 0.0


def test_curves_are_by_size_and_by_the_setting_that_varies():
    scores = {("glu", f"mqar, ids 32, pairs {n}"): 90.0 - n for n in (2, 4, 8)}
    curves = Probes(_study(scores, by_size=(10, 20))).curves()
    by_size = curves[curves["x_name"] == "size"]
    assert by_size[by_size["task"] == "mqar, ids 32, pairs 4"]["score"].tolist() == [76.0, 66.0]
    by_pairs = curves[curves["x_name"] == "pairs"]
    assert by_pairs["task"].unique().tolist() == ["mqar"]
    assert by_pairs[["x", "score"]].to_numpy().tolist() == [[2, 88], [4, 86], [8, 82]]


def test_a_study_of_text_has_no_probes():
    study = _study({("glu", ""): 60.0})
    assert Probes(study).table().empty and Probes(study).curves().empty


NAMES = ("albert", "glu", "llama", "mos", "performer", "transformer", "universal")


def _relation(monkeypatch, slopes, values):
    scaling = {"slope": pd.Series(dict(zip(NAMES, slopes, strict=True)))}
    monkeypatch.setattr(analysis, "_scaling", lambda other, question: scaling)
    scores = {
        (name, probe): own[i] for probe, own in values.items() for i, name in enumerate(NAMES)
    }
    study = _study(scores)
    return Probes(study).relation(None, Question()).set_index("probe")


def test_the_relation_is_the_rank_correlation_with_its_exact_p(monkeypatch):
    slopes = [1, 2, 3, 4, 5, 6, 7]
    values = {"parity": [10, 30, 20, 40, 50, 60, 70], "copy": [50.0] * 7}
    found = _relation(monkeypatch, slopes, values)
    row = found.loc["parity"]
    # One neighbouring pair is in the other order, so the squared differences of ranks add up to 2.
    assert row["spearman"] == pytest.approx(1 - 6 * 2 / (7 * 48)) and row["architectures"] == 7
    # Of 5,040 orders the given one and six others add up to 2 or less; both tails.
    assert row["p"] == pytest.approx(2 * 7 / 5040)
    assert row["ci_low"] < row["spearman"] < row["ci_high"] < 1
    assert found.loc["copy", "note"] == "all values are equal" and np.isnan(found.loc["copy", "p"])
    assert MEAN in found.index and (found["p_holm"].dropna() >= found["p"].dropna()).all()


def test_ties_have_the_p_of_their_own_orders(monkeypatch):
    """Two of four are best in both: of 24 orders 4 agree as much, and 4 disagree as much."""
    slopes = [1, 1, 2, 2, np.nan, np.nan, np.nan]
    found = _relation(monkeypatch, slopes, {"parity": [10, 10, 20, 20, 1, 2, 3]})
    assert found.loc["parity", "spearman"] == pytest.approx(1.0)
    assert found.loc["parity", "p"] == pytest.approx(8 / 24)


def test_many_architectures_are_tested_by_random_orders():
    x = np.arange(10.0)
    drawn = analysis._orders(x, seed=0)
    assert drawn.shape == (20_000, 10) and (drawn[0] == x).all()
    assert (np.sort(drawn, axis=1) == x).all() and len(np.unique(drawn, axis=0)) > 19_000


def test_the_mean_over_settings_has_the_interval_of_the_seeds_means():
    scores = {("glu", f"mqar, pairs {n}"): 90.0 - n for n in (2, 4, 8)}
    scores |= {("mos", "mqar, pairs 2"): 50.0, ("glu", "parity"): 40.0}
    table = Probes(_study(scores)).by_task()
    assert table["task"].tolist() == ["mqar"] and table["architecture"].tolist() == ["glu"]
    (row,) = table.to_dict("records")
    assert row["score"] == pytest.approx((88 + 86 + 82) / 3) and row["settings"] == 3
    # Every setting has the same noise of the seeds, so their means have it too.
    assert row["ci_high"] - row["score"] == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)
    assert row["seeds"] == 3
    assert Probes(_study({("glu", "parity"): 40.0})).by_task().empty


def test_few_architectures_in_common_have_no_interval(monkeypatch):
    slopes = [1, 2, 3, 4, np.nan, np.nan, np.nan]
    found = _relation(monkeypatch, slopes, {"parity": [10, 30, 20, 40, 50, 60, 70]})
    row = found.loc["parity"]
    assert row["architectures"] == 4 and np.isnan(row["ci_low"]) and "not enough" in row["note"]


@pytest.mark.parametrize(("n", "rho"), [(6, 0.0), (8, 0.5), (12, 0.7)])
def test_the_interval_of_a_rank_correlation_covers(n, rho):
    """Of normal pairs; the rank correlation that is estimated is 6 / pi asin(rho / 2)."""
    rng = np.random.default_rng(n)
    truth, inside = 6 / np.pi * np.arcsin(rho / 2), []
    for _ in range(2000):
        x = rng.normal(size=n)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=n)
        ranks = np.argsort(np.argsort([x, y], axis=1), axis=1)
        value = np.corrcoef(ranks)[0, 1]
        low, high = spearman_interval(value, n, 0.95)
        inside.append(np.isnan(low) or low <= truth <= high)
    assert 0.92 < np.mean(inside) < 0.98
