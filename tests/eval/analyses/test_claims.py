"""The scorecard of claims on studies where each claim is true, is false, or cannot be tested."""

import numpy as np
import pandas as pd
import pytest

from eval.analyses import everything
from eval.analyses.claims import VERDICTS, scorecard
from eval.analyses.question import Question
from eval.data.quantity import PARAMS, Quantities
from eval.report import write
from eval.simulation.simulate import Line, Noise, study
from eval.stats.decision import (
    CANNOT_BE_TOLD,
    CONTRADICTED,
    NOT_TESTED,
    SUPPORTED,
    all_must,
    judge,
    one_enough,
)
from tests.eval.frames import by

NAMES = (
    "transformer",
    "glu",
    "evolved",
    "universal",
    "switch",
    "performer",
    "funnel",
    "albert",
    "mos",
    "lconv",
    "dconv",
    "mixer",
)
CLEAR = Noise(0.005, 0.005, 0.2, 0.2)


def verdicts(rows: pd.DataFrame) -> dict[str, str]:
    return dict(zip(rows["claim"].astype(str) + rows["part"], rows["verdict"], strict=True))


def ladders(lines: dict[str, Line], depth: dict[str, Line] | None = None) -> pd.DataFrame:
    parts = [study(lines, sizes=6, seeds=3, seed=7, noise=CLEAR)]
    for i, (protocol, chosen) in enumerate((("depth", depth or lines), ("width", lines))):
        parts.append(study(chosen, sizes=5, seeds=3, seed=8 + i, noise=CLEAR, protocol=protocol))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def as_claimed() -> pd.DataFrame:
    """A study that is exactly as the paper describes."""
    base = Line(upstream_slope=0.4, downstream_slope=4.0, upstream=-3.4, downstream=48.0)
    lines = dict.fromkeys(NAMES, base) | {
        "transformer": Line(downstream_slope=8.0),
        "performer": Line(upstream_slope=0.25, downstream=40.0, downstream_slope=1.0),
        "funnel": Line(upstream=-3.45, upstream_slope=0.45, downstream=45.0, downstream_slope=4.0),
        "lconv": Line(upstream=-3.3, upstream_slope=0.3, downstream=52.0, downstream_slope=1.0),
        "evolved": Line(upstream=-3.3, upstream_slope=0.35, downstream=53.0, downstream_slope=3.5),
        "mos": Line(upstream=-3.2, upstream_slope=0.3, downstream=55.0, downstream_slope=2.0),
        "albert": Line(downstream_slope=-3.0, upstream_slope=0.4, flops=4.0),
        "mixer": Line(downstream_slope=-2.0, upstream_slope=0.4),
        "universal": Line(upstream_slope=0.4, flops=3.0),
        "switch": Line(upstream_slope=0.45, flops=0.3, downstream_slope=4.0),
    }
    deep = {
        name: Line(line.upstream, line.upstream_slope, line.downstream, line.downstream_slope + 4.0)
        for name, line in lines.items()
    }
    return scorecard(ladders(lines, deep))


def test_what_is_true_is_supported(as_claimed):
    found = verdicts(as_claimed)
    for key in (
        "1a",
        "1b",
        "1c",
        "2a",
        "2b",
        "3a",
        "4b",
        "4c",
        "5a",
        "5b",
        "5c",
        "6a",
        "6b",
        "7a",
        "7b",
        "8a",
        "8b",
        "8c",
        "9a",
    ):
        assert found[key] == SUPPORTED, as_claimed[
            as_claimed["claim"].astype(str) + as_claimed["part"] == key
        ].T
    assert found["9b"] == CONTRADICTED  # the width slopes are far from alike
    assert found["3b"] == found["5e"] == NOT_TESTED  # the sizes have other names


def test_every_row_is_complete(as_claimed):
    assert set(as_claimed["verdict"]) <= set(VERDICTS) and set(as_claimed["claim"]) == set(
        range(1, 10)
    )
    told = as_claimed["verdict"].isin([SUPPORTED, CONTRADICTED])
    assert (
        as_claimed.loc[told, "effect"].notna().all()
        and (as_claimed.loc[told, "would_settle"] == "").all()
    )
    assert (as_claimed.loc[~told, "would_settle"] != "").all()
    assert (as_claimed.loc[as_claimed["verdict"] == NOT_TESTED, "note"] != "").all()
    assert not as_claimed[["claim", "part"]].duplicated().any()


def test_what_is_false_is_contradicted():
    better = Line(upstream=-3.3, upstream_slope=0.7, downstream=53.0, downstream_slope=9.0)
    steep = Line(upstream=-3.3, upstream_slope=0.7, downstream=80.0, downstream_slope=2.0)
    lines = dict.fromkeys(NAMES, better) | {
        "transformer": Line(),
        "lconv": steep,
        "funnel": steep,
        "performer": steep,
    }
    found = verdicts(scorecard(ladders(lines)))
    for key in ("1a", "1b", "3a", "4a", "4b", "4c", "5a", "5c", "6a", "6b", "7a", "7b"):
        assert found[key] == CONTRADICTED, key
    one_best = {name: Line(-3.6, 0.5) for name in NAMES} | {
        "mos": Line(upstream=-3.0, upstream_slope=0.6)
    }
    assert verdicts(scorecard(ladders(one_best)))["2a"] == CONTRADICTED


def test_three_sizes_and_one_seed_support_no_verdict_that_needs_an_interval():
    rows = scorecard(study(dict.fromkeys(NAMES, Line()), sizes=3, seeds=1))
    sampled = rows[rows["claim"] != 8]
    assert set(sampled["verdict"]) == {CANNOT_BE_TOLD, NOT_TESTED} and sampled["p"].isna().all()
    assert sampled["ci_low"].isna().all()


def test_gains_by_name_of_size():
    names = {"size0": "tiny", "size1": "small", "size2": "base", "size3": "large"}
    lines = {"transformer": Line(), "performer": Line(upstream_slope=0.2), "evolved": Line()}
    table = study(lines, sizes=4, seeds=3)
    late = table["size"].isin(["size1", "size2", "size3"]) & (table["architecture"] == "evolved")
    table.loc[late, "downstream_mean"] += 6.0  # all of evolved's extra gain is here
    found = scorecard(table.assign(size=table["size"].map(names)))
    assert verdicts(found)["3b"] == verdicts(found)["5e"] == SUPPORTED
    effect = found.loc[(found["claim"] == 3) & (found["part"] == "b"), "effect"].item()
    assert effect == pytest.approx(-0.34 * 0.6, abs=0.08)


def test_missing_architectures_and_scores_are_not_tested():
    table = study({"transformer": Line(), "mos": Line()}).drop(
        columns=["downstream_mean", "steps_per_second"]
    )
    found = verdicts(scorecard(table))
    assert found["1b"] == found["3a"] == found["6b"] == found["9a"] == NOT_TESTED
    assert found["6a"] in (SUPPORTED, CONTRADICTED, CANNOT_BE_TOLD)
    without = scorecard(table, Question(reference="vanilla"))
    assert set(without.loc[without["hypothesis"].str.contains("vanilla"), "verdict"]) == {
        NOT_TESTED
    }


def test_claims_about_vanilla_are_not_tested_without_it(tmp_path):
    alone = study({"universal": Line(), "albert": Line(upstream=-3.6)})
    for rows in (scorecard(alone), scorecard(alone, Question(reference="universal"))):
        row = rows[(rows["claim"] == 8) & (rows["part"] == "a")].iloc[0]
        assert row["verdict"] == NOT_TESTED and (
            "transformer" in row["note"] or "is the reference" in row["note"]
        )
    alone[alone["architecture"] == "universal"].to_csv(tmp_path / "universal.csv", index=False)
    claims = everything.analyse(write.load(tmp_path / "universal.csv")).results["claims"]
    assert set(claims["verdict"]) == {NOT_TESTED}


def test_one_bent_law_over_two_ranges_supports_no_claim():
    """Vanilla and Performer follow one saturating law, with Performer three sizes higher up.

    Its slope is lower only because of that.
    """
    table = study(
        {"transformer": Line(), "performer": Line(flops=10**1.8)}, sizes=8, seeds=3, noise=CLEAR
    )
    decades = np.log10(table.flops_forward) - 9
    table = table.assign(upstream_nll=table.upstream_nll + 0.02 * decades**2)
    for support, said in (("common", CANNOT_BE_TOLD), ("all", SUPPORTED)):
        found = verdicts(scorecard(table, Question(support=support)))
        assert found["1a"] == found["3a"] == said, support


def test_an_architecture_elsewhere_on_the_axis_is_named():
    far = Line(-6.0, flops=1e4, downstream=20.0)
    lines = {"transformer": Line(), "lconv": Line(upstream_slope=0.3), "glu": Line(), "mos": far}
    rows = by(scorecard(ladders(lines)), "claim", "part")
    assert (
        rows[1, "a"]["verdict"] == CANNOT_BE_TOLD and "no test against mos" in rows[1, "a"]["note"]
    )
    assert (
        rows[9, "c"]["verdict"] == SUPPORTED
        and "without mos, elsewhere on the axis" in rows[9, "c"]["note"]
    )
    assert rows[9, "c"]["effect"] == pytest.approx(-0.24, abs=0.02)


def test_other_claims_do_not_need_vanilla():
    lines = {"albert": Line(downstream_slope=-3.0), "mixer": Line(downstream_slope=4.0)}
    rows = scorecard(study(lines, sizes=6, seeds=3, noise=CLEAR))
    assert verdicts(rows)["7a"] == SUPPORTED and verdicts(rows)["7b"] == CONTRADICTED
    assert verdicts(rows)["2a"] != NOT_TESTED and verdicts(rows)["3a"] == NOT_TESTED


def test_sparsity_is_counted_against_all_parameters_whatever_the_others_count():
    table = study({"transformer": Line(), "switch": Line(flops=0.3)})
    sparse = table["architecture"] == "switch"
    table["params_active"] = table["params_active"].where(~sparse, 0.3 * table["params_active"])
    total, active = (
        scorecard(table, Question(quantities=Quantities(params=PARAMS.of(column))))
        for column in ("params_total", "params_active")
    )
    for rows in (total, active):
        row = rows[(rows["claim"] == 8) & (rows["part"] == "c")].iloc[0]
        assert row["verdict"] == SUPPORTED and row["effect"] == pytest.approx(0.3)


def test_one_size_that_warps_too_little_is_enough_against_a_claim_about_every_size():
    """The counts are exact: there is no p value, and nothing is left that cannot be told."""
    table = study({"transformer": Line(), "universal": Line(flops=3.0)}, sizes=4)
    first = (table["architecture"] == "universal") & (table["size"] == "size0")
    table["flops_forward"] = table["flops_forward"].where(~first, table["flops_forward"] * 1.2 / 3)
    row = by(scorecard(table), "claim", "part")[8, "a"]
    assert row["verdict"] == CONTRADICTED and row["exact"] and np.isnan(row["p"])
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((1.2, 3.0))
    assert row["effect"] == pytest.approx((1.2 * 3**3) ** 0.25)
    assert (
        row["unit"] == "times" and row["note"] == "1.5 times or more at 3 of 4 sizes, not at size0"
    )
    assert not scorecard(table).query("claim != 8")["exact"].any()


def test_every_effect_has_a_unit(as_claimed):
    units = as_claimed["unit"].str.split(" per ").str[0]
    assert set(units) == {"nats", "points of score", "times"}
    slopes = as_claimed["measure"].str.startswith("slope") & (units != "times")
    assert slopes.any()
    assert as_claimed.loc[slopes, "unit"].str.endswith(" per tenfold FLOPs").all()
    halves = scorecard(study({"transformer": Line()}), Question(log_base=2.0))
    assert "nats per factor 2 of FLOPs" in set(halves["unit"])


def test_an_architecture_has_one_name_in_all_claims():
    names = {"transformer": "T5", "performer": "FAVOR+", "mos": "Mix"}
    rows = scorecard(study({"T5": Line()}), Question(reference="T5"), names)
    said = " ".join(
        rows[["text", "hypothesis", "measure", "would_settle"]].to_numpy().ravel()
    ).lower()
    for other in ("vanilla", "transformer", "performer", "mos ", "softmaxes"):
        assert other not in said
    for name in ("t5", "favor+", "mix", "lconv", "evolved"):
        assert name in said


def test_what_would_settle_a_claim_fits_the_cause():
    """More sizes and seeds are no remedy for scores at chance, or for missing ones."""
    table = study(dict.fromkeys(("transformer", "albert", "evolved"), Line()), sizes=4)

    def settles(runs: pd.DataFrame, part: str) -> str:
        return by(scorecard(runs), "claim", "part")[7, part]["would_settle"]

    lost = table.assign(downstream_mean=np.nan, score_at_chance=True)
    row = by(scorecard(lost), "claim", "part")[7, "a"]
    assert row["note"] == "the score of every run is at chance"
    assert row["would_settle"].startswith("scores above chance: train longer or larger models")
    assert "seeds" not in row["would_settle"]
    assert "seeds" in by(scorecard(lost), "claim", "part")[3, "a"]["would_settle"]  # upstream
    low = table["size"] == "size0"
    some = table.assign(downstream_mean=table["downstream_mean"].mask(low), score_at_chance=low)
    assert settles(some, "b").startswith("scores above chance") and "sizes" in settles(some, "b")
    assert settles(table.drop(columns="downstream_mean"), "a").startswith(
        "runs that are fine-tuned"
    )
    assert settles(table, "b").startswith("five or more sizes")


def test_names_can_be_translated():
    table = study({"transformer": Line(), "FAVOR+": Line(upstream_slope=0.2)}, seeds=3)
    assert verdicts(scorecard(table, names={"performer": "FAVOR+"}))["3a"] == SUPPORTED


def test_rules_of_combination():
    assert all_must([0.01, 0.2]) == 0.2 and np.isnan(all_must([0.01, np.nan]))
    assert one_enough([0.01, 0.2, np.nan]) == 0.02 and np.isnan(one_enough([np.nan]))
    assert judge(0.01, 0.99, 0.95) == (SUPPORTED, 0.02) and judge(0.99, 0.01, 0.95) == (
        CONTRADICTED,
        0.02,
    )
    assert (
        judge(0.03, 0.97, 0.95)[0] == CANNOT_BE_TOLD
        and judge(np.nan, np.nan, 0.95)[0] == CANNOT_BE_TOLD
    )
