"""Comparisons and crossings, against statsmodels and against each other.

Also the answers for studies with too few data.
"""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.multitest import multipletests

from eval.analyses import crossovers
from eval.analyses.comparison import Comparison
from eval.analyses.question import Question
from eval.data.cells import RunTable
from eval.data.quantity import FLOPS, LOSS, PARAMS, SCORE, Quantities
from eval.simulation.simulate import Line, Noise, study
from eval.stats.decision import holm
from eval.stats.regression import fit
from tests.eval.analyses.test_slopes import clark, needs_clark
from tests.eval.answers import COMPARISONS
from tests.eval.frames import by
from train.records import InputError

QUIET = Noise(0.0, 0.0, 0.0, 0.0)
CROSSING = {"transformer": Line(), "other": Line(upstream=-3.4, upstream_slope=0.46)}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    lines = {
        "transformer": Line(),
        "like": Line(upstream=-3.6),
        "flat": Line(upstream_slope=0.3, flops=1.3),
    }
    return study(lines, sizes=5, seeds=3, seed=4)


def ancova(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Size means and the three designs, for statsmodels."""
    rows = table.assign(x=np.log10(table.flops_forward), y=-table.upstream_nll)
    cells = rows.groupby(["architecture", "size"])[["x", "y"]].mean().reset_index()
    dummies = pd.get_dummies(cells.architecture).to_numpy(float)
    x = cells.x.to_numpy()
    return (
        cells.y.to_numpy(),
        sm.add_constant(x),
        np.column_stack([dummies, x]),
        np.column_stack([dummies, dummies * x[:, None]]),
    )


def test_nested_f_tests_agree_with_statsmodels(table):
    y, common, parallel, separate = ancova(table)
    rows = Comparison(table).equal_slopes().set_index("test")
    fits = {
        name: sm.OLS(y, x).fit()
        for name, x in (("common", common), ("parallel", parallel), ("separate", separate))
    }
    for test, small, large in (
        ("slopes", "parallel", "separate"),
        ("levels", "common", "parallel"),
        ("lines", "common", "separate"),
    ):
        f, p, df = fits[large].compare_f_test(fits[small])
        row = rows.loc[test]
        np.testing.assert_allclose((row["f"], row["p"], row["df_num"]), (f, p, df), rtol=1e-6)
    assert rows.loc["slopes", "common_slope"] == pytest.approx(fits["parallel"].params[-1])


def test_equal_slopes_with_own_noise_is_chi_squared_where_the_noise_is_known():
    lines = {
        "transformer": Line(),
        "glu": Line(upstream_slope=0.57, noise=2.0),
        "mos": Line(upstream_slope=0.5),
    }
    table = study(lines, sizes=60, seeds=1, step=0.05)
    fits = fit(RunTable(table).cells(Question().axes).along_x()).slope_estimates()
    weight = 1 / fits.se**2
    scatter = (weight * (fits.value - (weight * fits.value).sum() / weight.sum()) ** 2).sum()
    rows = Comparison(table, Question(permutations=20_000)).equal_slopes()
    assert rows["p_separate"][0] == pytest.approx(stats.chi2.sf(scatter, 2), abs=0.02)
    assert rows["p_separate"][1:].isna().all()
    assert np.isnan(
        Comparison(study(lines, sizes=3)).equal_slopes()["p_separate"][0]
    )  # too few degrees of freedom for a variance of its own


def test_pooled_contrast_agrees_with_statsmodels(table):
    y, _, _, separate = ancova(table)
    fit = sm.OLS(y, separate).fit()
    row = (
        Comparison(table, Question(variance="pooled"))
        .contrasts()
        .set_index("architecture")
        .loc["flat"]
    )
    weights = np.array([0, 0, 0, 1.0, 0, -1.0])  # flat, like, transformer: levels, then slopes
    test = fit.t_test(weights)
    ours = row[["difference", "se", "df", "p", "ci_low", "ci_high"]].astype(float)
    theirs = [
        test.effect.item(),
        test.sd.item(),
        fit.df_resid,
        test.pvalue.item(),
        *test.conf_int().ravel(),
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_separate_contrast_is_welch(table):
    """The slopes of two lines are compared like two means with separate variances.

    The reference is SciPy's Welch test on the same figures.
    """
    row = by(Comparison(table).contrasts(), "architecture")["flat"]
    (one, _, _, _, error_one), (two, _, _, _, error_two) = (
        line_of(table, name) for name in ("flat", "transformer")
    )
    variance = error_one**2 + error_two**2
    df = variance**2 / (error_one**4 / 3 + error_two**4 / 3)
    assert row["df"] == pytest.approx(df)
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(one - two) / np.sqrt(variance), df))


def line_of(table: pd.DataFrame, name: str) -> tuple[float, ...]:
    """SciPy's slope, intercept, r, p and standard error."""
    rows = table[table.architecture == name]
    cells = (
        rows.assign(x=np.log10(rows.flops_forward), y=-rows.upstream_nll)
        .groupby("size")[["x", "y"]]
        .mean()
    )
    return tuple(stats.linregress(cells.x, cells.y))


def test_holm_agrees_with_statsmodels_and_leaves_out_nan():
    p = np.array([0.04, 0.001, np.nan, 0.03, 0.5])
    known = np.isfinite(p)
    _, theirs, *_ = multipletests(p[known], method="holm")
    assert holm(p)[known] == pytest.approx(theirs)
    assert np.isnan(holm(p)[2])


def test_verdicts_find_the_flat_one_only(table):
    rows = Comparison(table).contrasts().set_index("architecture")
    assert rows["verdict"].to_dict() == {"flat": "scales worse", "like": "not told apart"}
    loglog = by(Comparison(table, Question(link="loglog")).contrasts(), "architecture")["flat"]
    assert loglog["verdict"] == "scales worse" and loglog["difference"] > 0


def bent(shift: int, sizes: int = 8) -> pd.DataFrame:
    """Two architectures on one bent law; the ladder of the second starts `shift` sizes higher."""
    table = study(
        {"transformer": Line(), "late": Line(flops=10 ** (0.6 * shift))},
        sizes=sizes,
        seeds=3,
        seed=2,
    )
    decades = np.log10(table.flops_forward) - 9
    bend = 0.03 * decades**2 - 0.02 * decades
    return table.assign(
        upstream_nll=table.upstream_nll + bend, downstream_mean=table.downstream_mean - 15 * bend
    )


@pytest.mark.parametrize("y", ["U", "D"])
def test_one_bent_law_over_two_ranges_is_one_law(y):
    table = bent(3)
    assert (
        Comparison(table, Question(y=Quantities()[y], support="all")).contrasts()["verdict"].item()
        == "scales worse"
    )
    row = Comparison(table, Question(y=Quantities()[y])).contrasts().iloc[0]
    assert row["verdict"] == "not told apart" and row["n_sizes"] == row["n_sizes_reference"] == 5
    assert row["range_low"] == pytest.approx(10**10.8) and row["range_high"] == pytest.approx(
        10**13.2
    )
    assert "3 sizes outside the range" in row["note"] and np.isnan(row["p_permutation"])
    alike = by(Comparison(table, Question(y=Quantities()[y])).equal_slopes(), "test")["slopes"]
    assert (
        alike["n"] == 10
        and alike["p"] > 0.05
        and alike["p_permutation"] > 0.05
        and alike["p_separate"] > 0.05
    )
    assert "6 sizes outside the range" in alike["note"] and alike["range_low"] == row["range_low"]
    apart = by(
        Comparison(table, Question(y=Quantities()[y], support="all")).equal_slopes(), "test"
    )["slopes"]
    assert apart["n"] == 16 and apart["p"] < 0.01
    ratios = [
        Comparison(table, Question(support=s)).equivalence()["ratio"].item()
        for s in ("common", "all")
    ]
    assert abs(ratios[0] - 1) < abs(ratios[1] - 1) / 2


def test_an_architecture_elsewhere_does_not_spoil_the_test_of_all():
    """MoS, whose head is expensive, shares no range with the others.

    The others are compared without it.
    """
    lines = {
        "transformer": Line(),
        "glu": Line(flops=1.1),
        "mos": Line(flops=1e4),
        "dear": Line(flops=10**0.6),
    }
    rows = by(Comparison(study(lines, sizes=5)).equal_slopes(), "test")["slopes"]
    assert (rows["architectures"], rows["n"]) == (
        3,
        12,
    )  # of 5 sizes each, four are in the common range
    assert "left out: does not cover the range that is compared (mos)" in rows["note"]
    assert "3 sizes outside the range that these architectures cover" in rows["note"]
    apart = study({"transformer": Line(), "mos": Line(flops=1e4)}, sizes=5)
    assert "fewer than two" in Comparison(apart).equal_slopes()["note"][0]


def test_too_little_in_common_is_not_tested():
    rows = Comparison(bent(5)).contrasts()
    assert (
        rows["verdict"].item() == "not tested"
        and "3 sizes: not enough points" in rows["note"].item()
    )
    assert Comparison(bent(9)).contrasts()["difference"].isna().all()
    with pytest.raises(InputError, match="support = 'most' is not one of"):
        Comparison(bent(1), Question(support="most")).contrasts()


def test_ladders_that_are_shifted_by_less_than_half_a_size_are_compared_whole(table):
    """This is the usual case: nothing is left out, so nothing changes."""
    whole, all_sizes = (
        Comparison(table, Question(support=s)).contrasts() for s in ("common", "all")
    )
    pd.testing.assert_frame_equal(whole, all_sizes)
    assert (whole["n_sizes"] == 5).all()


@pytest.mark.parametrize("variance", ["separate", "pooled"])
def test_a_comparison_leaves_the_others_alone(variance):
    """A third architecture elsewhere on the axis does not change what is said about two others."""
    two = {"transformer": Line(), "glu": Line(upstream_slope=0.5)}
    table = study(two | {"far": Line(flops=10**1.8)}, sizes=7, seeds=2)
    rows = by(Comparison(table, Question(variance=variance)).contrasts(), "architecture")
    assert rows["glu"]["n_sizes"] == 7 and rows["far"]["n_sizes"] == 4
    alone = (
        Comparison(table[table.architecture != "far"], Question(variance="separate"))
        .contrasts()
        .iloc[0]
    )
    assert rows["glu"]["difference"] == pytest.approx(alone["difference"])
    if variance == "separate":
        assert rows["glu"]["p_permutation"] == alone["p_permutation"]  # far is left out


def test_downstream_on_upstream_in_logarithms_is_better_the_steeper_down():
    """Less loss and a higher score: the best slope of the logarithms is the most negative one."""
    lines = {
        "transformer": Line(),
        "gains": Line(downstream_slope=12.0),
        "loses": Line(downstream_slope=1.0),
    }
    table = study(lines, sizes=7, seeds=3, noise=Noise(0.001, 0.001, 0.1, 0.1))
    for link in ("semilog", "loglog"):
        rows = by(
            Comparison(table, Question(x=LOSS, y=SCORE, link=link)).contrasts(), "architecture"
        )
        assert {name: row["verdict"] for name, row in rows.items()} == {
            "gains": "scales better",
            "loses": "scales worse",
        }
        assert rows["gains"]["higher_is_better"] == (link == "semilog")


def test_equivalence_needs_evidence_not_its_absence(table):
    rows = Comparison(table).equivalence(margin=0.25).set_index("architecture")
    assert rows["equivalent"].to_dict() == {"flat": False, "like": True}
    few = Comparison(table[table["size"].isin(["size0", "size1"])]).equivalence(margin=0.25)
    assert not few["equivalent"].any() and few["p"].isna().all()


def test_equivalence_is_two_one_sided_tests(table):
    """Against SciPy's lines: is the slope below 1.25 times and above .75 times the reference's?

    With Welch's degrees of freedom.
    """
    rows = by(Comparison(table).equivalence(margin=0.25), "architecture")
    base, _, _, _, base_error = line_of(table, "transformer")
    for name in ("like", "flat"):
        own, _, _, _, error = line_of(table, name)
        one_sided = []
        for bound, sign in ((1.25, 1), (0.75, -1)):
            parts = np.array([error**2, (bound * base_error) ** 2])
            df = parts.sum() ** 2 / (parts**2 / 3).sum()
            one_sided.append(stats.t.cdf(sign * (own - bound * base) / np.sqrt(parts.sum()), df))
        row = rows[name]
        assert row["p"] == pytest.approx(max(one_sided), rel=1e-6)
        assert [row[key] for key in ("slope", "slope_reference", "ratio")] == pytest.approx(
            [own, base, own / base]
        )
    corrected = holm([rows["like"]["p"], rows["flat"]["p"]])
    assert [rows["like"]["p_holm"], rows["flat"]["p_holm"]] == pytest.approx(corrected)


@pytest.mark.parametrize("link", ["semilog", "loglog"])
@pytest.mark.parametrize("level", [0.95, 0.8])
@pytest.mark.parametrize("name", ["like", "flat"])
def test_the_interval_of_the_ratio_is_that_of_the_equivalence_test(table, name, level, link):
    """For a margin that just reaches the far end of the interval, p is one minus the level."""
    options = {"variance": "pooled", "level": level, "link": link}
    row = by(Comparison(table, Question(**options)).equivalence(), "architecture")[name]
    assert (row["slope_reference"] > 0) == (link == "semilog")
    margin = max(row["ratio_high"] - 1, 1 - row["ratio_low"])
    just = by(Comparison(table, Question(**options)).equivalence(margin=margin), "architecture")[
        name
    ]
    assert just["p"] == pytest.approx(1 - level, rel=1e-6)
    alone = table[table.architecture.isin([name, "transformer"])]  # nothing to correct for
    verdicts = [
        Comparison(alone, Question(**options | {"variance": "separate"})).equivalence(margin=m)
        for m in (0.01, 0.99)
    ]
    assert [rows["equivalent"].item() for rows in verdicts] == [False, True]


@pytest.mark.parametrize("margin", [0.0, 1.0, 1.5, -0.1])
def test_a_margin_is_a_share(table, margin):
    with pytest.raises(InputError, match="margin"):
        Comparison(table).equivalence(margin=margin)


@pytest.mark.parametrize("better", ["other", "transformer"])
def test_a_level_difference_agrees_with_statsmodels(better):
    """At both ends and the middle of the common range, for lines with one variance."""
    lines = {
        "transformer": Line(),
        "other": Line(upstream=-3.2 if better == "other" else -3.8, flops=2.0),
    }
    table = study(lines, sizes=5, seeds=3, seed=4)
    rows = Comparison(table, Question(variance="pooled", level=0.9)).levels()
    y, _, _, separate = ancova(table)
    fit = sm.OLS(y, separate).fit()  # levels of other and transformer, then their slopes
    log_flops = np.log10(table.flops_forward)
    low = log_flops[table.architecture == "other"].min()
    high = log_flops[table.architecture == "transformer"].max()
    assert rows["position"].tolist() == ["low", "middle", "high"] and rows["inside"].all()
    for (_, row), x in zip(rows.iterrows(), (low, (low + high) / 2, high), strict=True):
        test = fit.t_test(np.array([1.0, -1.0, x, -x]))
        assert row["budget"] == pytest.approx(10**x)
        ours = row[["difference", "se", "df", "p", "ci_low", "ci_high"]].astype(float)
        theirs = [
            test.effect.item(),
            test.sd.item(),
            fit.df_resid,
            test.pvalue.item(),
            *test.conf_int(0.1).ravel(),
        ]
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
        assert row["p_holm"] == row["p"] < 0.1 and row["verdict"] == (
            "better" if better == "other" else "worse"
        )


@pytest.mark.parametrize(("upstream", "verdict"), [(-3.2, "better"), (-3.8, "worse")])
def test_less_is_better_in_the_logarithm_of_a_loss(upstream, verdict):
    """The link changes the sign of a difference, but not the verdict."""
    table = study(
        {"transformer": Line(), "other": Line(upstream=upstream)}, sizes=5, seeds=3, seed=4
    )
    for link in ("semilog", "loglog"):
        rows = Comparison(table, Question(link=link)).levels()
        assert (rows["verdict"] == verdict).all()
        assert ((rows["difference"] > 0) == ((verdict == "better") == (link == "semilog"))).all()
        assert (rows["higher_is_better"] == (link == "semilog")).all()


def test_levels_on_a_measured_axis_are_in_its_unit():
    """Downstream on upstream: budgets are losses in nats, the worst first, not powers of ten."""
    table = study({"transformer": Line(), "other": Line(downstream=52.0)}, noise=QUIET)
    rows = Comparison(table, Question(x=LOSS, y=SCORE)).levels()
    loss = table.groupby("size")["upstream_nll"].mean()
    ends = [loss.max(), (loss.max() + loss.min()) / 2, loss.min()]
    assert rows["budget"].tolist() == pytest.approx(ends)
    assert rows["difference"].tolist() == pytest.approx([2.0] * 3)
    given = Comparison(table, Question(x=LOSS, y=SCORE)).levels(at=[ends[1], ends[2] - 1])
    assert given["inside"].tolist() == [True, False] and given["budget"].tolist() == [
        ends[1],
        ends[2] - 1,
    ]
    # In logarithms a steeper downward slope is better, and a higher score is still better.
    logarithms = {"x": LOSS, "y": SCORE, "link": "loglog"}
    assert Comparison(table, Question(**logarithms)).levels()["higher_is_better"].all()
    assert not Comparison(table, Question(**logarithms)).contrasts()["higher_is_better"].any()


def test_ranges_that_touch_have_a_point_in_common():
    table = study(CROSSING, noise=QUIET)
    reference = table.architecture == "transformer"
    kept = table[np.where(reference, table["size"] <= "size2", table["size"] >= "size2")]
    rows = Comparison(kept).levels()
    assert rows["inside"].all() and rows["budget"].nunique() == 1
    assert rows["difference"].notna().all()


def test_levels_and_multipliers_are_those_of_noise_free_lines():
    table = study(CROSSING, noise=QUIET)
    level = Comparison(table).levels().iloc[2]
    decades = np.log10(level["budget"]) - 9
    assert level["difference"] == pytest.approx(0.1 - 0.08 * decades)
    row = Comparison(table).multipliers().iloc[2]
    assert row["multiplier"] == pytest.approx(10 ** (-(0.1 - 0.08 * decades) / 0.46))
    given = Comparison(table).levels(at=[1e9, 1e15])
    assert given["inside"].tolist() == [True, False] and "extrapolated" in given["note"][1]


def test_the_ends_of_a_multiplier_are_where_the_t_test_is_just_significant():
    """At the end of the interval, the two are just not significantly different.

    Compared are the reference at a budget and the other architecture at that many times the budget,
    by statsmodels.
    """
    table = study(
        {"transformer": Line(), "other": Line(upstream=-3.7, flops=2.0)}, sizes=5, seeds=3, seed=4
    )
    rows = Comparison(table, Question(variance="pooled", level=0.9)).multipliers()
    y, _, _, separate = ancova(table)
    fit = sm.OLS(y, separate).fit()  # levels of other and transformer, then their slopes
    own = np.log10(table.flops_forward[table.architecture == "other"])
    assert (
        rows["position"].tolist() == ["low", "middle", "high"]
        and (rows["interval"] == "bounded").all()
    )
    for _, row in rows.iterrows():
        at = np.log10(row["budget"])

        def better_by(multiplier: float, at=at):
            return fit.t_test(np.array([-1.0, 1.0, -(at + np.log10(multiplier)), at]))

        assert better_by(row["multiplier"]).effect.item() == pytest.approx(0, abs=1e-8)
        for end in ("ci_low", "ci_high"):
            assert better_by(row[end]).pvalue.item() == pytest.approx(0.1, rel=1e-6)
        assert row["ci_low"] < row["multiplier"] < row["ci_high"]
        assert row["inside"] == (own.min() <= at + np.log10(row["multiplier"]) <= own.max())
    assert rows["inside"].tolist() == [True, True, False]


def test_without_a_significant_slope_a_multiplier_has_no_bound():
    """The other's slope may be zero, so every multiplier is possible."""
    lines = {"transformer": Line(), "other": Line(upstream_slope=0.02, noise=3.0)}
    row = Comparison(study(lines, sizes=4, seeds=2, seed=3)).multipliers().iloc[1]
    assert row["interval"] == "unbounded" and (row["ci_low"], row["ci_high"]) == (0, np.inf)
    far = study({"transformer": Line(), "other": Line(upstream=-6.9, flops=1e6)})
    nowhere = Comparison(far).multipliers()
    assert (nowhere["interval"] == "none").all() and nowhere["multiplier"].isna().all()
    assert (nowhere["note"] == "no range that both cover").all() and not nowhere["inside"].any()


def test_multipliers_of_power_laws_are_those_of_their_coefficients():
    """In loglog a falling loss is a falling line.

    With an exponent of .1, 10 % more loss costs 1.1^10 times the FLOPs.
    """
    table = study({"transformer": Line(), "other": Line()}, noise=QUIET)
    level = np.where(table.architecture == "other", 4.4, 4.0)
    table["upstream_nll"] = (
        level * (table.flops_forward / 1e9) ** -0.1 * (1 + 1e-9 * np.arange(len(table)))
    )
    rows = Comparison(table, Question(link="loglog")).multipliers()
    assert rows["multiplier"].to_numpy() == pytest.approx(1.1**10, rel=1e-5)


def test_multiplier_refuses_an_architecture_that_does_not_improve():
    table = study({"transformer": Line(), "other": Line(downstream_slope=-3.0)})
    rows = Comparison(table, Question(y=SCORE)).multipliers()
    assert rows["multiplier"].isna().all() and rows["note"].str.contains("does not rise").all()


def test_missing_common_support_is_reported():
    table = study({"transformer": Line(), "other": Line(upstream=-6.9, downstream=0.0, flops=1e6)})
    rows = Comparison(table).levels()
    assert rows["difference"].isna().all() and (rows["note"] == "no range that both cover").all()
    assert (rows["verdict"] == "not tested").all()


def test_crossing_of_noise_free_lines():
    row = Comparison(study(CROSSING, noise=QUIET)).crossovers().iloc[0]
    assert row["crossing"] == pytest.approx(10**10.25)
    assert (row["better_below"], row["better_above"]) == ("other", "transformer")
    assert (row["position"], row["interval"]) == ("inside", "bounded")
    assert row["method"] == "Fieller, t, one residual variance of the size means"


@pytest.mark.parametrize(
    ("at", "reversed_axis", "position"),
    [
        (1.0, False, "inside"),
        (2.0, False, "inside"),
        (0.9, False, "extrapolated below"),
        (2.1, False, "extrapolated above"),
        (0.9, True, "extrapolated above"),
        (2.1, True, "extrapolated below"),
        (np.inf, False, "none"),
    ],
)
def test_the_ends_of_the_range_belong_to_it(at, reversed_axis, position):
    assert crossovers._position(at, 1.0, 2.0, reversed_axis) == position


def test_crossing_far_away_is_marked():
    lines = {"transformer": Line(), "other": Line(upstream=-3.2, upstream_slope=0.46)}
    assert (
        Comparison(study(lines, noise=QUIET)).crossovers().iloc[0]["position"]
        == "extrapolated above"
    )


def test_a_crossing_of_lines_without_a_common_range_is_nowhere():
    table = study({"transformer": Line(), "far": Line(upstream_slope=0.3, flops=1e6)}, sizes=5)
    row = Comparison(table).crossovers().iloc[0]
    assert np.isfinite(row["crossing"]) and (row["position"], row["note"]) == (
        "none",
        "no range that both cover",
    )
    assert row[["range_low", "range_high", "probability_inside"]].isna().all()


def test_parallel_lines_give_no_bounded_interval():
    table = study({"transformer": Line(), "other": Line(upstream=-3.45)}, seed=5)
    row = Comparison(table).crossovers().iloc[0]
    assert (
        row["p_slopes"] > 0.05
        and row["interval"] in ("outside", "unbounded")
        and "anywhere" in row["note"]
    )
    if row["interval"] == "unbounded":
        assert (row["ci_low"], row["ci_high"]) == (0, np.inf)


def test_fieller_set_is_what_the_t_test_does_not_reject():
    """The interval ends at budgets where the level difference is just significant."""
    table = study(CROSSING, sizes=6, seeds=3, seed=6)
    row = Comparison(table, Question(variance="pooled")).crossovers().iloc[0]
    assert row["interval"] == "bounded"
    at = Comparison(table, Question(variance="pooled")).levels(at=[row["ci_low"], row["ci_high"]])
    np.testing.assert_allclose(at["p"], 0.05, rtol=1e-6)


def test_all_pairs():
    table = study({name: Line() for name in "abcd"})
    assert len(Comparison(table, Question(reference=None)).crossovers()) == 6


@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("contrasts", {}),
        ("equivalence", {"margin": 0.1}),
        ("levels", {"at": None}),
        ("multipliers", {"at": None}),
    ],
)
def test_what_is_compared_by_default(table, method, own):
    told = Question(
        x=FLOPS,
        y=LOSS,
        link="semilog",
        log_base=10.0,
        reference="transformer",
        protocol=None,
        errors="size",
        variance="separate",
        support="common",
        level=0.95,
        draws=2000,
        permutations=2000,
        seed=0,
    )
    asked = getattr(Comparison(table, told), method)(**own)
    pd.testing.assert_frame_equal(getattr(Comparison(table), method)(), asked)


@pytest.mark.parametrize(("column", "value"), [("flops_forward", 0.0), ("downstream_mean", 500.0)])
def test_values_that_cannot_be_are_refused_on_both_axes(table, column, value):
    wrong = table.assign(**{column: table[column].where(table.index != 7, value)})
    with pytest.raises(InputError, match=f"row 8: {column} is"):
        Comparison(wrong, Question(y=SCORE))


@pytest.mark.parametrize("link", ["semilog", "loglog"])
@pytest.mark.parametrize(("x", "y"), [("F", "U"), ("F", "D"), ("U", "D")])
def test_slopes_and_levels_say_which_direction_is_better(table, x, y, link):
    """A lower logarithm of a loss is better; so is a steeper fall of it, or of a score on it."""
    options = {"x": Quantities()[x], "y": Quantities()[y], "link": link}
    slope_is_better_higher = link == "semilog" or (x, y) == ("F", "D")
    for name in ("contrasts", "equivalence"):
        rows = COMPARISONS[name](table, **options)
        assert set(rows["higher_is_better"]) == {slope_is_better_higher}
    level_is_better_higher = link == "semilog" or y == "D"
    levels = Comparison(table, Question(**options)).levels()
    assert set(levels["higher_is_better"]) == {level_is_better_higher}


def test_both_ends_of_the_common_range_are_inside_it(table):
    """They are passed as they were found: for one architecture and the reference, not for all."""
    alone = table[table.architecture != "like"]
    low, _, high = Comparison(alone, Question(x=LOSS, y=SCORE)).levels()["budget"]
    at = [low, high, np.nextafter(low, np.inf), np.nextafter(high, -np.inf)]  # losses fall
    rows = Comparison(alone, Question(x=LOSS, y=SCORE)).levels(at=at)
    assert rows["inside"].tolist() == [True, True, False, False]


def test_a_reference_that_is_not_there_is_refused(table):
    with pytest.raises(
        InputError, match="reference 'mos' is not among the architectures: flat, like, transformer"
    ):
        Comparison(table, Question(reference="mos")).contrasts()


def test_any_architecture_can_be_the_reference(table):
    """If the roles are swapped, a difference changes sign, and every row names the reference."""
    rows = by(Comparison(table, Question(reference="flat")).contrasts(), "architecture")
    assert list(rows) == ["like", "transformer"] and {
        row["reference"] for row in rows.values()
    } == {"flat"}
    forth, back = rows["transformer"], by(Comparison(table).contrasts(), "architecture")["flat"]
    for key, other, sign in (
        ("difference", "difference", -1),
        ("ci_low", "ci_high", -1),
        ("p", "p", 1),
        ("slope", "slope_reference", 1),
        ("n_sizes", "n_sizes_reference", 1),
    ):
        assert forth[key] == pytest.approx(sign * back[other])
    assert (forth["verdict"], back["verdict"]) == ("scales better", "scales worse")


@pytest.mark.parametrize("at", [None, [3e9, 1e10]])
def test_levels_are_corrected_over_the_architectures_at_one_place(table, at):
    """They are not corrected over the budgets, although each of two budgets has its own tests."""
    rows = Comparison(table).levels(at=at)
    places = ["position", "budget"] if at else ["position"]
    assert len(rows) == 2 * (len(at) if at else 3)
    for _, same in rows.groupby(places):
        assert same["architecture"].tolist() == ["flat", "like"]
        assert same["p_holm"].tolist() == pytest.approx(multipletests(same["p"], method="holm")[1])
    said = [
        ("better" if row["difference"] > 0 else "worse")
        if row["p_holm"] < 0.05
        else "not told apart"
        for _, row in rows.iterrows()
    ]
    assert rows["verdict"].tolist() == said and (at or len(set(said)) > 1)


@pytest.mark.parametrize("method", ["levels", "multipliers"])
def test_budgets_that_are_given_keep_their_order_and_unit(table, method):
    rows = getattr(Comparison(table, Question(x=PARAMS)), method)(at=[2e6, 1.5e6, 1e12])
    assert rows["budget"].tolist() == pytest.approx([2e6, 1.5e6, 1e12] * 2)
    assert (rows["position"] == "given").all() and rows["architecture"].tolist() == ["flat"] * 3 + [
        "like"
    ] * 3
    assert ["extrapolated" in note for note in rows["note"]] == [False, False, True] * 2


def test_the_range_of_a_measured_axis_is_in_its_unit(table):
    """Losses are in nats and FLOPs are no logarithms; the lower end comes first."""
    means = table.groupby(["architecture", "size"])[["upstream_nll", "flops_forward"]].mean()
    for x in (LOSS, FLOPS):
        rows = by(Comparison(table, Question(x=x, y=SCORE)).contrasts(), "architecture")
        for name, row in rows.items():
            own, base = (
                means.loc[architecture, x.column] for architecture in (name, "transformer")
            )
            assert row["range_low"] == pytest.approx(max(own.min(), base.min()))
            assert row["range_high"] == pytest.approx(min(own.max(), base.max()))


def test_the_method_column_covers_both_architectures(table):
    eight, one = (
        study({"transformer": Line(), "other": Line()}, sizes=8),
        "t, one residual variance of the size means",
    )
    few = eight[(eight.architecture == "transformer") | (eight["size"] > "size2")]
    methods = {
        sizes: Comparison(runs, Question(support="all")).contrasts()["method"].item()
        for sizes, runs in (
            ("eight", eight),
            ("five", few),
            ("three", few[(few.architecture == "transformer") | (few["size"] > "size4")]),
        )
    }
    assert methods == {
        "eight": "t, HC3 of the size means",
        "five": f"{one} and t, HC3 of the size means",
        "three": "none",
    }
    assert (
        set(Comparison(table).levels()["method"])
        == set(Comparison(table).multipliers()["method"])
        == {one}
    )


def test_a_quality_that_stays_the_same_has_no_multiplier():
    table = study({"transformer": Line(), "other": Line()}, sizes=5)
    table.loc[table.architecture == "other", "upstream_nll"] = 2.0
    rows = Comparison(table).multipliers()
    assert rows["multiplier"].isna().all() and (rows["interval"] == "none").all()
    assert rows[["ci_low", "ci_high"]].isna().all(axis=None) and not rows["inside"].any()
    assert (rows["note"] == "its quality does not rise with the budget: no multiplier").all()


FRONT = "architecture reference alpha link x_axis y_axis higher_is_better"


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        (
            "contrasts",
            "n_sizes n_sizes_reference slope slope_reference difference se df ci_low ci_high p "
            "p_holm detectable p_permutation range_low range_high verdict method note",
        ),
        (
            "equivalence",
            "margin slope slope_reference ratio ratio_low ratio_high interval p p_holm equivalent "
            "range_low range_high method note",
        ),
        (
            "levels",
            "position budget inside difference se df ci_low ci_high p p_holm detectable verdict "
            "method note",
        ),
        (
            "multipliers",
            "position budget inside multiplier ci_low ci_high interval method note",
        ),
    ],
)
def test_the_columns_are_those_that_are_promised(table, name, columns):
    rows = COMPARISONS[name](table, link="loglog")
    assert " ".join(rows.columns) == f"{FRONT} {columns}"
    assert set(rows["reference"]) == {"transformer"} and set(rows["alpha"]) == {"F,U"}
    assert set(rows["x_axis"]) == {"log10 flops_forward"} and set(rows["link"]) == {"loglog"}
    assert set(rows["y_axis"]) == {"log10 upstream_nll"}


def test_one_protocol_is_compared(table):
    """The plain protocol, unless another one is requested."""
    steep = study(
        {"transformer": Line(), "flat": Line(upstream_slope=0.9)}, protocol="depth", seed=5
    )
    both = pd.concat([table, steep], ignore_index=True)
    for function in COMPARISONS.values():
        pd.testing.assert_frame_equal(function(both), function(table))
        pd.testing.assert_frame_equal(function(both, protocol="depth"), function(steep))


def test_one_architecture_has_nothing_to_compare():
    table = study({"transformer": Line()})
    assert Comparison(table).contrasts().empty and Comparison(table).levels().empty
    assert "fewer than two" in Comparison(table).equal_slopes()["note"][0]


@needs_clark
def test_clark_equality_of_slopes_is_the_published_test():
    row = Comparison(clark(), Question(link="loglog", support="all")).equal_slopes().iloc[0]
    assert (row["df_num"], row["df_den"]) == (3, 15)
    assert row["f"] == pytest.approx(5.17, abs=5e-3) and row["p"] == pytest.approx(0.012, abs=5e-4)
