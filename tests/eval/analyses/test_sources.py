"""Studies of known truth: what every claim of the sources is called, and how often wrongly."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.analyses.claims import VERDICTS
from eval.analyses.sources import inference, measured
from eval.analyses.sources.claim import Source
from eval.analyses.sources.scorecard import COLUMNS, SOURCES, scorecard
from eval.data.study import Study, read_study
from eval.laws import forms
from eval.simulation import sources as simulated
from eval.simulation.sources import Truth
from eval.stats.decision import CANNOT_BE_TOLD, CONTRADICTED, NOT_TESTED, SUPPORTED
from tests.eval import run_directories

MUCH = (3e5, 3e6, 3e7, 3e8, 3e9)  # different tokens with which size alone limits the loss
LARGE = (2e6, 2e7, 2e8, 2e9, 2e10)  # parameters with which data alone limit it
CLAIMS = {c.number + c.part: c for source in SOURCES for c in source.claims}


def finding(name: str, study: Study) -> dict:
    """The row of one claim about a study of one architecture."""
    (row,) = scorecard(study, sources=[Source("one", (CLAIMS[name],))]).to_dict("records")
    return row


def text(seed: int = 0, sizes=simulated.SIZES, texts=simulated.TEXTS, **truth: float) -> Study:
    return simulated.data_size(Truth(**truth), sizes=sizes, texts=texts, seed=seed)


def product(a: float, b: float, together: float = 0.0) -> Callable[[float, float], float]:
    """A loss that is a power of N and of D, whose exponents may depend on each other."""

    def loss(n: float, d: float) -> float:
        x, y = np.log(n / 1e5), np.log(d / 1e7)
        return float(3 * np.exp(-a * x - b * y + together * x * y))

    return loss


def floored(share: float) -> Callable[[float, float], float]:
    """Kaplan's L(N, D) above a floor that is this share of the lowest loss."""
    law = forms.get("kaplan_nd")
    values = {"N_c": 2e11, "D_c": 5e9, "alpha_N": 0.076, "alpha_D": 0.103}
    at = lambda n, d: float(law.predict(values, N=n, D=d)[0])
    floor = at(simulated.SIZES[-1], 1e8) * share / (1 - share)
    return lambda n, d: at(n, d) + floor


def chinchilla(alpha: float, beta: float, floor: float = 1.7) -> Callable[[float, float], float]:
    """Hoffmann's law, both of whose terms are half a nat in the middle of the sizes and tokens."""
    law = forms.get("chinchilla")
    values = {"A": 0.5 * 1e5**alpha, "B": 0.5 * 1e7**beta, "E": floor}
    values |= {"alpha": alpha, "beta": beta}
    return lambda n, d: float(law.predict(values, N=n, D=d)[0])


def budgets(alpha: float, beta: float, noise: float = 0.0003, seed: int = 0, **more) -> Study:
    """Twelve sizes at five budgets of compute."""
    tokens = lambda n: tuple(c / (6 * n) for c in 1e12 * 4.0 ** np.arange(5))
    sizes = tuple(np.geomspace(1e4, 3e6, 12))
    law = chinchilla(alpha, beta)
    return simulated.lengths(law, tokens, sizes, seed=seed, noise=noise, **more)


def long(**truth: float) -> Study:
    return simulated.saturation(**truth)


TRUTHS = {
    "K1a": (
        lambda: text(texts=MUCH, noise=0.003),
        lambda: text(texts=MUCH, noise=0.003, alpha_n=0.15),
        lambda: text(texts=MUCH, noise=0.2),
    ),
    "K1b": (
        lambda: text(sizes=LARGE, noise=0.003, alpha_d=0.095),
        lambda: text(sizes=LARGE, noise=0.003, alpha_d=0.2),
        lambda: text(sizes=LARGE, noise=0.2, alpha_d=0.095),
    ),
    "K1c": (
        lambda: simulated.lengths(product(0.05, 0.05)),
        lambda: simulated.lengths(product(0.1, 0.1)),
        lambda: simulated.lengths(product(0.05, 0.05), noise=0.2),
    ),
    "K1d": (
        lambda: simulated.lengths(floored(0.0), noise=0.001),
        lambda: simulated.lengths(floored(0.5), noise=0.001),
        lambda: simulated.lengths(floored(0.2), noise=0.02),
    ),
    "K2": tuple(lambda s=s: simulated.shapes(s) for s in (0.3, 3.0, 1.0)),
    "K3": (
        simulated.shapes,
        lambda: simulated.shapes(0.1, doubling=0.3, embedding=True),
        lambda: simulated.shapes(doubling=0.01, noise=0.05),
    ),
    "K4a": (
        text,
        lambda: simulated.lengths(product(0.1, 0.1, together=0.01)),
        lambda: simulated.lengths(product(0.1, 0.1)),
    ),
    "K4b": (text, lambda: text(alpha_n=0.04, noise=0.002), lambda: text(noise=0.1)),
    "K5": (text, lambda: text(slower=1.0), lambda: text(alpha_n=1e-4)),
    "K6": (text, lambda: text(stop=0.3), lambda: text(stop=1.2, noise=0.1)),
    "K7a": (
        lambda: budgets(0.3, 0.6, evaluated=True),
        lambda: budgets(0.6, 0.3, evaluated=True),
        lambda: budgets(0.45, 0.45, noise=0.02, evaluated=True),
    ),
    "K7b": (
        lambda: budgets(0.3, 0.6),
        lambda: budgets(0.6, 0.3),
        lambda: budgets(0.45, 0.45, noise=0.01),
    ),
    "K7c": (
        lambda: simulated.lengths(chinchilla(0.3, 0.6)),
        lambda: simulated.lengths(chinchilla(0.6, 0.3)),
        lambda: simulated.lengths(chinchilla(0.4, 0.4), noise=0.02),
    ),
    "K8a": (
        simulated.batches,
        lambda: simulated.batches(critical=-300.0),
        lambda: simulated.batches(noise=0.8),
    ),
    "K8b": (
        simulated.batches,
        lambda: simulated.batches(exponent=-1.0),
        lambda: simulated.batches(exponent=0.0, noise=0.3),
    ),
    "H1a": (
        lambda: simulated.lengths(chinchilla(0.34, 0.28)),
        lambda: simulated.lengths(chinchilla(0.7, 0.28)),
        lambda: simulated.lengths(chinchilla(0.34, 0.28), noise=0.02),
    ),
    "H1b": (
        lambda: simulated.lengths(chinchilla(0.34, 0.28)),
        lambda: simulated.lengths(chinchilla(0.34, 0.7)),
        lambda: simulated.lengths(chinchilla(0.34, 0.28), noise=0.02),
    ),
    "H1c": (
        lambda: simulated.lengths(chinchilla(0.34, 0.28)),
        lambda: simulated.lengths(chinchilla(0.34, 0.28, floor=0.01)),
        lambda: simulated.lengths(chinchilla(0.34, 0.28), noise=0.05),
    ),
    "H2a": (
        lambda: budgets(0.4, 0.4, evaluated=True),
        lambda: budgets(0.3, 0.9, evaluated=True),
        lambda: budgets(0.4, 0.4, noise=0.03, evaluated=True),
    ),
    "H2b": (
        lambda: budgets(0.4, 0.4),
        lambda: budgets(0.9, 0.3),
        lambda: budgets(0.4, 0.4, noise=0.1),
    ),
    "H2c": (
        lambda: simulated.lengths(chinchilla(0.3, 0.3)),
        lambda: simulated.lengths(chinchilla(0.3, 0.9)),
        lambda: simulated.lengths(chinchilla(0.4, 0.4), noise=0.02),
    ),
    "H3": tuple(lambda s=s: simulated.tasks((5.0, s, 5.0)) for s in (-5.0, 4.0, 0.0)),
    "H4": (
        lambda: simulated.repeated(3.0),
        lambda: simulated.repeated(100.0),
        lambda: simulated.repeated(45.0, noise=0.03),
    ),
    "H5": tuple(lambda a=a: simulated.mixtures(a) for a in (1.0, -1.0, 0.0)),
    "N1a": (lambda: text(overfit=0.5), lambda: text(overfit=0.0), lambda: text(noise=0.2)),
    "N1b": (lambda: text(worse=0.5), text, lambda: text(worse=0.3, noise=0.2)),
    "N2a": (
        lambda: text(overfit=0.0, gap=1.0, length=0.5),
        lambda: text(overfit=0.5, gap=3.0, gap_n=0.1, gap_d=0.1),
        lambda: text(overfit=0.0, gap=0.8, gap_d=0.1, tilt=0.0),
    ),
    "N2b": (
        lambda: text(gap=0.3, gap_d=0.0),
        lambda: text(gap=0.3, gap_n=0.5, gap_d=0.0, overfit=2.0, alpha_n=0.001),
        lambda: text(gap=0.3, gap_d=0.0, overfit=0.0, alpha_n=0.001),
    ),
    "N3": (
        lambda: text(gap=0.6, gap_n=0.0, gap_d=0.0),
        lambda: text(gap=2.5, gap_n=0.0, gap_d=0.0),
        text,
    ),
    "N4": (text, lambda: text(gap_d=0.3), lambda: text(noise=0.5)),
    "G1a": (long, lambda: long(rise=-0.1), lambda: long(rise=0.0, learns=1e-6)),
    "G1b": (long, lambda: long(rise=-0.1), lambda: long(rise=0.0)),
    **{
        name: (
            lambda: long(noise=0.001, excess=0.1),
            lambda: long(noise=0.001, excess=-0.1, rise=-0.1),
            lambda: long(rise=0.0, excess=0.0),
        )
        for name in ("G1c", "G1d")
    },
    "G2a": (long, lambda: long(spike=-0.3), lambda: long(spike=0.0)),
    "G2b": (
        lambda: long(learns=20.0, noise=0.03),
        lambda: long(learns=20.0, noise=0.03, late=-1.5),
        lambda: long(noise=0.1),
    ),
    "G3": (long, lambda: long(spike=-0.3), lambda: long(spike=0.0)),
    "G4": tuple(lambda c=c: simulated.finished(c) for c in (0.05, -0.05, 0.0)),
    "G5": (
        simulated.finished,
        lambda: simulated.finished(error=0.1),
        lambda: simulated.finished(widest=256),
    ),
    "G6a": (
        simulated.recipes,
        lambda: simulated.recipes(own=-1.0, driven=0.0),
        lambda: simulated.recipes(driven=0.0),
    ),
    "G6b": (
        lambda: simulated.recipes(runs=360),
        lambda: simulated.recipes(own=2.0),
        lambda: simulated.recipes(own=0.3),
    ),
}
"""Studies in which each claim is true, false, and neither for sure."""


def test_every_claim_has_studies_in_which_it_is_true_and_false():
    assert list(TRUTHS) == list(CLAIMS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case", "verdict"),
    [
        (name, case, verdict)
        for name in TRUTHS
        for case, verdict in enumerate((SUPPORTED, CONTRADICTED, CANNOT_BE_TOLD))
    ],
)
def test_a_claim_is_called_what_it_is(name, case, verdict):
    row = finding(name, TRUTHS[name][case]())
    assert row["verdict"] == verdict, row
    assert bool(row["would_settle"]) == (verdict == CANNOT_BE_TOLD)
    if verdict != CANNOT_BE_TOLD:
        assert row["ci_low"] <= row["effect"] <= row["ci_high"]


def test_a_floor_that_is_known_well_has_a_narrow_interval():
    """Narrower than the distance of the shares at which its law is fitted again."""
    row = finding("H1c", budgets(0.4, 0.4, noise=0.0003))
    assert row["ci_low"] < row["effect"] < row["ci_high"] < row["ci_low"] + 0.01
    law = finding("H1c", budgets(0.4, 0.4, noise=0.003))
    wide, narrow = (one["ci_high"] - one["ci_low"] for one in (law, row))
    assert wide == pytest.approx(10 * narrow, rel=0.5)


def test_a_course_ends_where_the_rate_begins_to_fall():
    """There the loss falls by itself, however it went before."""
    study = long()
    assert finding("G1a", study)["verdict"] == SUPPORTED
    last = study.histories["step"] == study.histories["step"].max()
    loss = study.histories["metric"] == "nll"
    fallen = study.histories["value"].where(~(last & loss), 1.0)
    study = dataclasses.replace(study, histories=study.histories.assign(value=fallen))
    assert finding("G1a", study)["verdict"] != SUPPORTED
    decay = study.recipes.assign(decay_steps=10.0)
    assert finding("G1a", dataclasses.replace(study, recipes=decay))["verdict"] == SUPPORTED


NULLS: tuple[tuple[str, Callable[[int], Study], int], ...] = (
    # Equivalence is tested at the edge of its range, a sign at 0: there, every verdict is wrong.
    ("K1a", lambda seed: text(seed, texts=MUCH, alpha_n=0.095, tilt=0.0), 200),
    ("K1b", lambda seed: text(seed, sizes=LARGE, alpha_d=0.095 * 1.25, tilt=0.0), 200),
    ("K1c", lambda seed: simulated.lengths(product(0.0625, 0.0625), seed=seed), 200),
    ("K1d", lambda seed: simulated.lengths(floored(0.25), noise=0.005, seed=seed), 40),
    ("K2", lambda seed: simulated.shapes(1.0, doubling=0.3, seed=seed), 200),
    ("K3", lambda seed: simulated.shapes(doubling=0.0, noise=0.05, seed=seed), 200),
    ("K4a", lambda seed: simulated.lengths(product(0.1, 0.1), seed=seed), 200),
    ("K4b", lambda seed: text(seed, alpha_n=0.74 * 1.25 * 0.103, tilt=0.0), 200),
    # Size changes nothing but what is memorised.
    (
        "K5 N1a N1b N2b",
        lambda seed: text(seed, gap=0.3, gap_d=0.0, overfit=0.0, alpha_n=1e-6),
        200,
    ),
    ("K6", lambda seed: text(seed, stop=1.0, tilt=0.0, overfit=1.0, wobble=0.0), 200),
    ("K7a", lambda seed: budgets(0.45, 0.45, 0.003, seed, evaluated=True), 40),
    ("K7b", lambda seed: budgets(0.45, 0.45, 0.003, seed), 200),
    ("K7c", lambda seed: simulated.lengths(chinchilla(0.4, 0.4), seed=seed), 200),
    ("K8a", lambda seed: simulated.batches(critical=0.0, seed=seed), 200),
    ("K8b", lambda seed: simulated.batches(exponent=0.0, seed=seed), 200),
    ("H1a H1b", lambda seed: simulated.lengths(chinchilla(0.425, 0.35), seed=seed), 200),
    # The terms of size and data are .534 nats at the lowest loss.
    ("H1c", lambda seed: simulated.lengths(chinchilla(0.34, 0.28, 0.178), seed=seed), 40),
    # Without noise approach 1 finds .6021 here: with twelve sizes its envelope is not smooth.
    ("H2a", lambda seed: budgets(0.4, 0.6127, 0.003, seed, evaluated=True), 40),
    ("H2b", lambda seed: budgets(0.4, 0.6, 0.003, seed), 200),
    ("H2c", lambda seed: simulated.lengths(chinchilla(0.4, 0.6), seed=seed), 200),
    ("H3", lambda seed: simulated.tasks((5.0, 0.0, 5.0), seed=seed), 200),
    ("H4", lambda seed: simulated.repeated(31 / np.log(2), seed=seed), 40),
    ("H5", lambda seed: simulated.mixtures(0.0, seed=seed), 200),
    ("N2a", lambda seed: text(seed, overfit=0.0, gap=0.8, gap_d=0.1, tilt=0.0), 200),
    # Without noise the lowest seen loss of any cell is 1.00.
    ("N3", lambda seed: text(seed, gap=1.687, gap_n=0.0, gap_d=0.0), 200),
    ("N4", lambda seed: text(seed, gap_d=1.0), 200),
    ("G1a", lambda seed: long(rise=0.0, learns=1e-6, seed=seed), 200),
    ("G1b G2a G3", lambda seed: long(rise=0.0, spike=0.0, excess=0.0, seed=seed), 200),
    ("G1c G1d", lambda seed: long(rise=0.0, excess=0.0, noise=0.002, seed=seed), 100),
    # Here the two events are .3 decades apart, as far as they are measured.
    ("G2b", lambda seed: long(learns=20.0, noise=0.03, late=0.35, seed=seed), 200),
    ("G4", lambda seed: simulated.finished(0.0, seed=seed), 200),
    ("G6a", lambda seed: simulated.recipes(driven=0.0, seed=seed), 200),
    # A partial correlation of .3.
    ("G6b", lambda seed: simulated.recipes(own=0.3145, seed=seed), 200),
)
"""Claims of which nothing is true for sure, their studies, and how many `benchmarks.source_claims`
simulates; a test takes a tenth of them."""


def verdicts(names: str, study: Study) -> list[str]:
    """The verdicts on several claims about a study of one architecture, in order."""
    one = Source("one", tuple(CLAIMS[name] for name in names.split()))
    return list(scorecard(study, sources=[one])["verdict"])


@pytest.mark.slow
@pytest.mark.parametrize(("names", "study", "count"), NULLS, ids=[names for names, *_ in NULLS])
def test_a_claim_is_seldom_decided_where_nothing_can_be(names, study, count):
    few = count // 10
    found = np.array([verdicts(names, study(seed)) for seed in range(few)])
    assert not (found == NOT_TESTED).any()
    wrong = ((found == SUPPORTED) | (found == CONTRADICTED)).sum(axis=0)
    most = stats.binom.ppf(0.999, few, 0.05)  # of studies in which it is wrong with 5 %
    assert (wrong <= most).all(), dict(zip(names.split(), wrong, strict=True))


@pytest.fixture(scope="module")
def card():
    return scorecard(text())


def test_the_scorecard_has_every_claim_once_in_order(card):
    assert list(card.columns) == list(COLUMNS)
    assert list(card["source"].unique()) == [source.name for source in SOURCES]
    assert list(card["claim"] + card["part"]) == list(CLAIMS)
    assert set(card["verdict"]) <= set(VERDICTS)
    open_ = card["verdict"].isin((CANNOT_BE_TOLD, NOT_TESTED))
    assert (card["would_settle"] != "").equals(open_)
    assert card.loc[card["verdict"] == NOT_TESTED, "note"].ne("").all()


def test_run_directories_give_the_same_findings_as_their_table(card, tmp_path):
    """Best losses, courses and gaps come from the files of a run, read once with the rest of it."""
    study = text()
    path = run_directories.write_simulated(tmp_path, study)
    read = scorecard(read_study(path))
    assert list(read["verdict"]) == list(card["verdict"])
    for column in ("effect", "ci_low", "ci_high"):
        np.testing.assert_allclose(read[column], card[column], rtol=1e-3)


def test_several_architectures_are_tested_alone_and_corrected_for_their_number():
    study = text(texts=MUCH, noise=0.003)
    other = study.runs.assign(architecture="other", run_id="other-" + study.runs["run_id"])
    of_it = study.histories.assign(run_id="other-" + study.histories["run_id"])
    recipes = study.recipes.assign(run_id="other-" + study.recipes["run_id"])
    both = dataclasses.replace(
        study,
        runs=_stacked(study.runs, other),
        histories=_stacked(study.histories, of_it),
        recipes=_stacked(study.recipes, recipes),
    )
    one, two = (scorecard(s, sources=[Source("one", (CLAIMS["K4a"],))]) for s in (study, both))
    assert list(two["architecture"]) == ["other", "transformer"]
    assert np.allclose(two["effect"], one["effect"].item())
    assert np.allclose(two["p"], 2 * one["p"].item())


def test_runs_with_another_recipe_take_no_part():
    study = text()
    few = study.runs["size"].eq("size3") & study.runs["seed"].eq(1)
    recipes = study.recipes.assign(batch_size=np.where(few, 99.0, 16.0))
    (m,) = measured.measured(dataclasses.replace(study, recipes=recipes))
    assert set(m.runs["batch_size"]) == {16.0, 99.0} and set(m.usual["batch_size"]) == {16.0}


def test_a_study_without_a_grid_of_data_is_not_tested_and_says_why():
    study = simulated.lengths(product(0.1, 0.1), tokens=(1e7,))
    card = scorecard(study)
    assert set(card["verdict"]) == {NOT_TESTED} and set(card["architecture"]) == {""}
    assert card["would_settle"].str.startswith("study ").all()
    row = card[card["claim"] == "K4"].iloc[0]
    assert "several lengths" in row["note"]


def test_a_study_without_evaluations_during_training_says_so():
    study = text(overfit=0.0)  # the last loss, which is in the table, is the lowest
    bare = dataclasses.replace(study, histories=study.histories.head(0))
    assert "during training" in finding("K5", bare)["note"]
    assert finding("K4b", bare)["verdict"] == finding("K4b", study)["verdict"]


def test_short_runs_on_new_text_are_no_limited_text():
    """Of a budget, large models read little, and none of it twice."""
    (m,) = measured.measured(budgets(0.4, 0.4))
    assert m.runs["U"].max() > 10 * m.runs["U"].min()
    assert not m.lengths.limited and not m.grid.limited
    (m,) = measured.measured(text())
    assert m.limited.limited and m.grid.loss == "best"


def test_levels_are_values_that_differ_by_more_than_a_tenth():
    values = np.array([100.0, 31.0, 104.0, 30.0, 1e4])
    assert measured.same(values).tolist() == [1, 0, 1, 0, 2]


def test_an_equivalence_is_supported_only_by_an_interval_inside_the_range():
    sure = inference.estimate(1.0, 0.01, 10)
    assert inference.inside(sure, (0.9, 1.1), 0.95).verdict == SUPPORTED
    assert inference.inside(sure, (1.1, 1.3), 0.95).verdict == CONTRADICTED
    wide = inference.estimate(1.0, 0.2, 10)
    assert inference.inside(wide, (0.9, 1.1), 0.95).verdict == CANNOT_BE_TOLD


def test_a_linear_model_agrees_with_least_squares():
    rng = np.random.default_rng(0)
    x, level = rng.normal(size=12), np.repeat([0, 1, 2], 4)
    y = 2.0 * x + level + 0.1 * rng.normal(size=12)
    e = inference.slope(x, y, level)
    design = np.column_stack([x, *(level == i for i in range(3))])
    theta, rss, *_ = np.linalg.lstsq(design, y, rcond=None)
    error = np.sqrt(rss[0] / 8 * np.linalg.inv(design.T @ design)[0, 0])
    assert (float(e.value), float(e.se), float(e.df)) == pytest.approx((theta[0], error, 8))


def _stacked(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([one, other], ignore_index=True)
