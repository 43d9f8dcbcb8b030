"""Decoder-only models against encoder-decoders, on studies with known differences."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from eval.analyses import claims
from eval.analyses.comparison import Comparison
from eval.analyses.families import Families
from eval.analyses.question import Question
from eval.data.quantity import PARAMS, SCORE
from eval.simulation.simulate import Line, Noise, study
from eval.stats.decision import holm

NAMES = ("glu", "lconv", "performer", "transformer")
Lines = Mapping[str, Line]
PLAIN = {name: Line() for name in NAMES}


def simulated(lines: Lines, alone: Lines, twins: Lines | None = None, seed=0) -> pd.DataFrame:
    """Encoder-decoders on `lines`, decoder-only models on `alone`, on `twins` under `params`."""
    parts = [study(lines, sizes=5, seeds=2, seed=3 * seed).assign(family="encoder_decoder")]
    for i, (protocol, own) in enumerate((("", alone), ("params", twins or {})), start=1):
        if own:
            table = study(own, sizes=5, seeds=2, protocol=protocol, seed=3 * seed + i)
            table["run_id"] = "alone-" + table["run_id"]
            parts.append(table.assign(family="decoder_only"))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """At 1e9 FLOPs lconv is .3 nats better alone; performer gains .2 nats more per tenfold."""
    alone = PLAIN | {"lconv": Line(upstream=-3.2), "performer": Line(upstream_slope=0.74)}
    worse = {name: Line(upstream=-3.9) for name in NAMES}
    return simulated(PLAIN, alone, worse, seed=1)


@pytest.fixture(scope="module")
def found(table) -> pd.DataFrame:
    return Families(table).differences().set_index(["architecture", "measure"])


def test_known_differences_are_found_with_their_sign_and_size(found):
    better = found.loc["lconv", "level"]
    assert better.verdict == "better" and better.p_holm < 0.001
    assert better.ci_low < -0.3 < better.ci_high < 0
    steeper = found.loc["performer", "slope"]
    assert steeper.verdict == "scales better"
    assert steeper.ci_low < -0.2 < steeper.ci_high < 0
    same = found.loc[["glu", "transformer"]]
    assert (same.verdict == "not told apart").all() and (same.detectable > 0).all()
    assert not found.higher_is_better.any() and set(found.y_axis) == {"upstream_nll (nats)"}


def test_each_row_is_the_comparison_of_two_groups(table, found):
    rows = table[(table.protocol == "") & (table.architecture == "glu")]
    one = Comparison(rows.assign(architecture=rows.family), Question(reference="encoder_decoder"))
    slope, level = one.contrasts().iloc[0], one.levels().iloc[1]
    for measure, direct in (("slope", slope), ("level", level)):
        ours = found.loc["glu", measure]
        assert ours.difference == pytest.approx(-direct.difference)
        assert (ours.ci_low, ours.ci_high) == pytest.approx((-direct.ci_high, -direct.ci_low))
        assert ours.p == pytest.approx(direct.p) and ours.df == pytest.approx(direct.df)
    for measure in ("slope", "level"):
        same = found.xs(measure, level="measure")
        np.testing.assert_allclose(same.p_holm, holm(same.p))


def test_equal_parameters_are_the_twins_of_their_protocol(table):
    rows = Families(table, Question(x=PARAMS.of("params_non_embedding"))).differences("params")
    levels = rows[rows.measure == "level"]
    assert set(levels.alpha) == {"P,U"} and (levels.verdict == "worse").all()
    assert levels.difference.to_numpy() == pytest.approx(np.full(4, 0.4), abs=0.06)


def test_a_score_has_its_own_sign(table):
    rows = Families(table, Question(y=SCORE)).differences()
    assert rows.higher_is_better.all() and set(rows.y_axis) == {"downstream_mean (percent)"}
    better = table.assign(
        downstream_mean=table.downstream_mean + 20.0 * (table.family == "decoder_only")
    )
    levels = Families(better, Question(y=SCORE)).differences().query("measure == 'level'")
    assert (levels.verdict == "better").all() and (levels.difference > 15).all()


def test_the_multiplier_says_what_the_loss_costs(table):
    rows = Families(table).multipliers().set_index("architecture")
    row = rows.loc["lconv"]
    assert row.ci_low < 10 ** (-0.3 / 0.54) < row.ci_high < 1
    assert set(rows.position) == {"middle"} and list(rows.index) == list(NAMES)


def test_only_architectures_with_both_families_are_compared(table):
    fewer = table[(table.architecture != "glu") | (table.family == "decoder_only")]
    assert set(Families(fewer).differences().architecture) == set(NAMES) - {"glu"}
    one = table[table.family == "encoder_decoder"]
    for runs in (one, one.drop(columns="family")):
        for empty in (Families(runs).differences(), Families(runs).multipliers()):
            assert empty.empty and "architecture" in empty


def test_with_few_sizes_nothing_is_tested(table):
    few = table[table["size"].isin(["size0", "size1", "size2"])]
    rows = Families(few).differences()
    assert (rows.verdict == "not tested").all() and rows.difference.notna().all()


def test_without_a_difference_one_is_found_in_5_percent_of_studies():
    wrong = {"slope": 0, "level": 0}
    for seed in range(60):
        rows = Families(simulated(PLAIN, PLAIN, seed=seed)).differences()
        for measure, own in rows.groupby("measure"):
            wrong[str(measure)] += bool((own.verdict != "not told apart").any())
    assert max(wrong.values()) <= 7, wrong  # 3 are expected; more than 7 in 1 % of repetitions


def test_claims_are_tested_on_encoder_decoders_alone(table):
    one = table[table.family == "encoder_decoder"]
    pd.testing.assert_frame_equal(claims.scorecard(table), claims.scorecard(one))
    alone = claims.scorecard(table[(table.family == "decoder_only") & (table.protocol == "")])
    assert set(alone.verdict) == {"not tested"}
    assert alone.note.str.contains("about encoder-decoders").all()


def test_the_noise_of_one_family_does_not_touch_another_architecture(table):
    noisy = study({"llama": Line(noise=9.0)}, sizes=5, seeds=2, noise=Noise(), seed=9)
    noisy = [
        noisy.assign(family=family, run_id=family + noisy.run_id)
        for family in ("encoder_decoder", "decoder_only")
    ]
    more = Families(pd.concat([table, *noisy], ignore_index=True)).differences()
    ours = more[more.architecture == "glu"].reset_index(drop=True)
    before = Families(table).differences().query("architecture == 'glu'").reset_index(drop=True)
    columns = ["difference", "se", "df", "p"]
    pd.testing.assert_frame_equal(ours[columns], before[columns])
