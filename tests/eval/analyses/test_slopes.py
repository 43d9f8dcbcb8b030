"""Slopes against SciPy, statsmodels and published figures; intervals and notes for few sizes."""

import pathlib
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from eval.analyses.protocols import Protocols
from eval.analyses.question import Question
from eval.analyses.slopes import PAIRS, Slopes, deming, deming_interval
from eval.simulation.simulate import Line, Noise, study
from tests.eval.frames import by
from train.records import InputError

CLARK = pathlib.Path(__file__).parents[4] / "shared" / "data" / "clark_routing" / "curves.csv.gz"
needs_clark = pytest.mark.skipif(
    not CLARK.exists(), reason="the Clark routing table is not beside the project"
)


def clark(experts: int = 64) -> pd.DataFrame:
    """Last steps of the runs with 64 experts and of the dense runs, under the store's names."""
    runs = pd.read_csv(CLARK)
    runs = runs[(runs.routing_frequency == 0.5) & (runs.k == 1) & (runs.seed == 42)]
    runs = runs[(runs.router_type == "Dense") | (runs.num_experts == experts)]
    runs = runs.loc[runs.groupby("hyper_id")["step"].idxmax()]
    return runs.rename(
        columns={
            "router_type": "architecture",
            "model_size_label": "size",
            "flops_per_step": "flops_forward",
            "total_parameter_count": "params_total",
            "loss_validation": "upstream_nll",
        }
    )


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    lines = {"transformer": Line(), "flat": Line(upstream_slope=0.3), "noisy": Line(noise=4.0)}
    return study(lines, sizes=6, seeds=3, seed=1)


def means(table: pd.DataFrame, name: str) -> pd.DataFrame:
    rows = table[table.architecture == name].assign(
        x=lambda t: np.log10(t.flops_forward), y=lambda t: -t.upstream_nll
    )
    return rows.groupby("size")[["x", "y", "downstream_mean"]].mean()


def test_agrees_with_scipy_and_statsmodels(table):
    for name, row in by(
        Slopes(table).table(pairs=("FU",), links=("semilog",)), "architecture"
    ).items():
        cells = means(table, name)
        line: Any = stats.linregress(cells.x, cells.y)
        theirs = {
            "slope": line.slope,
            "intercept": line.intercept,
            "r2": line.rvalue**2,
            "p": line.pvalue,
            "se": line.stderr,
        }
        assert {k: row[k] for k in theirs} == pytest.approx(theirs, rel=1e-8)
        ols = sm.OLS(cells.y, sm.add_constant(cells.x)).fit()
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(
            tuple(ols.conf_int().loc["x"]), rel=1e-8
        )
        assert row["se_hc3"] == pytest.approx(ols.HC3_se["x"], rel=1e-8)


def test_eight_sizes_use_hc3_and_agree_with_statsmodels():
    table = study({"a": Line()}, sizes=8, seeds=1)
    row = Slopes(table).table(pairs=("FU",), links=("semilog",)).iloc[0]
    cells = means(table, "a")
    robust = sm.OLS(cells.y, sm.add_constant(cells.x)).fit(cov_type="HC3", use_t=True)
    np.testing.assert_allclose(
        row[["ci_low", "ci_high"]].astype(float), robust.conf_int().loc["x"], rtol=1e-8
    )
    assert "HC3" in row["method"]


def test_pooled_seed_errors_agree_with_weighted_formula():
    """With errors of seeds, the variance of the slope is sum w_k^2 s^2 / S_k; s^2 is pooled."""
    table = study({"a": Line()}, sizes=3, seeds=4, seed=2)
    row = Slopes(table, Question(errors="seed")).table(pairs=("FU",), links=("semilog",)).iloc[0]
    x = np.log10(table.flops_forward)
    ols = sm.OLS(
        -table.upstream_nll, pd.get_dummies(table["size"]).astype(float)
    ).fit()  # cell means
    assert row["df"] == ols.df_resid
    dx = x - x.mean()
    np.testing.assert_allclose(row["se"], np.sqrt(ols.mse_resid / (dx**2).sum()), rtol=1e-8)
    assert row["ci_low"] == row["seed_low"]


def test_the_seeds_of_a_measured_x_count_too():
    """A seed moves its cell along the line too.

    The random quantity is therefore the distance from the line, y - slope x.
    """
    noise = Noise(upstream_size=0.0, upstream_seed=0.1, downstream_size=0.0, downstream_seed=0.5)
    table = study({"a": Line()}, sizes=4, seeds=5, seed=3, noise=noise)
    row = Slopes(table, Question(errors="seed")).table(pairs=("UD",), links=("semilog",)).iloc[0]
    x = -table.upstream_nll.groupby(table["size"]).transform("mean")
    around = table.downstream_mean + row["slope"] * table.upstream_nll
    ols: Any = sm.OLS(around, pd.get_dummies(table["size"]).astype(float)).fit()
    dx = x - x.mean()
    np.testing.assert_allclose(row["se"], np.sqrt(ols.mse_resid / (dx**2).sum()), rtol=1e-8)
    only_y: Any = sm.OLS(table.downstream_mean, pd.get_dummies(table["size"]).astype(float)).fit()
    assert ols.mse_resid > 1.5 * only_y.mse_resid


def test_a_variance_for_all_lines_is_that_of_all_residuals(table):
    row = by(
        Slopes(table, Question(variance="pooled")).table(pairs=("FU",), links=("semilog",)),
        "architecture",
    )["noisy"]
    variances = []
    for name in ("transformer", "flat", "noisy"):
        cells = means(table, name)
        variances.append(sm.OLS(cells.y, sm.add_constant(cells.x)).fit().mse_resid)
    sxx = ((cells.x - cells.x.mean()) ** 2).sum()
    assert row["se"] == pytest.approx(np.sqrt(np.mean(variances) / sxx)) and row["df"] == 12


def test_robust_slopes_agree_with_scipy(table):
    row = (
        Slopes(table)
        .table(pairs=("UD",), links=("semilog",))
        .set_index("architecture")
        .loc["transformer"]
    )
    cells = means(table, "transformer")
    sen = stats.theilslopes(cells.downstream_mean, cells.y)
    ours = row[["theil_sen", "theil_sen_low", "theil_sen_high"]].astype(float)
    np.testing.assert_allclose(ours, np.array(sen)[[0, 2, 3]])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # SciPy removes it in 1.19; it is used only as a reference here
        from scipy import odr
    ratio = row["deming_ratio"]
    data = odr.RealData(cells.y, cells.downstream_mean, sx=1.0, sy=np.sqrt(ratio))
    fitted = odr.ODR(data, odr.unilinear, beta0=[row["slope"], 0.0]).run()
    np.testing.assert_allclose(row["deming"], fitted.beta[0], rtol=1e-5)


def test_deming_undoes_the_attenuation_that_least_squares_suffers():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2000, 20))
    x, y = (
        truth + 0.5 * rng.normal(size=truth.shape),
        3 * truth + 0.5 * rng.normal(size=truth.shape),
    )
    least_squares = np.median(
        [np.polyfit(a, b, 1)[0] for a, b in zip(x[:300], y[:300], strict=True)]
    )
    assert least_squares < 2.6
    assert abs(np.median(deming(x, y, 1.0)) - 3) < 0.02


def orthogonal(x: np.ndarray, y: np.ndarray, ratio: float) -> float:
    """Deming's slope, as the main direction of the points after y is scaled to an equal error."""
    points = np.column_stack([x - x.mean(), (y - y.mean()) / np.sqrt(ratio)])
    along = np.linalg.svd(points)[2][0]
    return along[1] / along[0] * np.sqrt(ratio)


def test_demings_interval_is_linnets_jackknife():
    x, y = np.array([1.0, 2.1, 2.9, 4.2, 5.0, 6.3]), np.array([2.2, 3.9, 6.4, 7.8, 10.5, 12.1])
    whole = orthogonal(x, y, 4.0)
    pseudo = [6 * whole - 5 * orthogonal(np.delete(x, i), np.delete(y, i), 4.0) for i in range(6)]
    half = stats.t.ppf(0.95, 4) * np.std(pseudo, ddof=1) / np.sqrt(6)
    assert deming_interval(x, y, 4.0, 0.9) == pytest.approx((whole, whole - half, whole + half))
    five, low, high = deming_interval(x[:5], y[:5], 4.0, 0.9)
    assert low < five < high
    assert np.isnan(deming_interval(x[:4], y[:4], 4.0, 0.9)[1:]).all()


def test_the_noise_of_x_is_that_of_its_seeds(table):
    """The ratio of error variances within sizes, and the reliability of x."""
    rows = Slopes(table).table(pairs=("UD",), links=("semilog",)).set_index("architecture")
    for name in ("transformer", "noisy"):
        runs = table[table.architecture == name].groupby("size")
        x, y = runs["upstream_nll"], runs["downstream_mean"]
        within_x, within_y = x.var(ddof=1).mean(), y.var(ddof=1).mean()
        row = rows.loc[name]
        assert row["deming_ratio"] == pytest.approx(within_y / within_x)
        assert row["reliability"] == pytest.approx(1 - within_x / 3 / x.mean().var(ddof=1))
        low, high = deming_interval(
            -x.mean().to_numpy(), y.mean().to_numpy(), row["deming_ratio"], 0.95
        )[1:]
        assert row[["deming_low", "deming_high"]].tolist() == pytest.approx([low, high])
        assert ("is seed noise" in row["note"]) == (row["reliability"] < 0.9)
    one_seed = Slopes(table[table.seed == 0]).table(pairs=("UD",), links=("semilog",))
    assert (
        one_seed["note"].str.contains("one seed per size").all() and one_seed["deming"].isna().all()
    )
    assert one_seed["theil_sen_low"].notna().all()
    few = Slopes(table[table["size"] < "size4"]).table(pairs=("UD",), links=("semilog",))
    assert few["note"].str.contains("4 sizes: no interval for Theil-Sen and Deming").all()
    assert few[["theil_sen", "deming"]].notna().all(axis=None) and few[
        ["theil_sen_low", "deming_low"]
    ].isna().all(axis=None)
    assert Slopes(table).table(pairs=("FD",))["theil_sen"].isna().all(), "of a measured x alone"
    several = Slopes(table).table()
    assert several.index.tolist() == list(range(len(several))), "rows are numbered through"


def test_the_noise_of_x_from_unequal_numbers_of_seeds(table):
    """Variances within sizes are pooled by their degrees of freedom.

    The mean of n seeds has an nth of the noise.
    """
    table = table[
        (table.architecture == "noisy") & ~((table["size"] == "size1") & (table.seed > 0))
    ]
    table = table[~((table["size"] == "size4") & (table.seed == 2))]
    row = Slopes(table).table(pairs=("UD",), links=("semilog",)).iloc[0]
    runs = table.groupby("size")
    free = (runs.size() - 1).sum()
    xx, yy = (
        (table[name] - runs[name].transform("mean")) ** 2
        for name in ("upstream_nll", "downstream_mean")
    )
    assert free == 9
    assert row["deming_ratio"] == pytest.approx(yy.sum() / xx.sum())
    noise = xx.sum() / free * (1 / runs.size()).mean()
    assert row["reliability"] == pytest.approx(1 - noise / runs["upstream_nll"].mean().var(ddof=1))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_demings_slope_is_in_the_units_of_its_axes(table, scale):
    """It does not depend on the unit: scores as fractions, or losses of many nats."""
    plain = Slopes(table).table(pairs=("UD",), links=("semilog",))
    small = table.assign(
        downstream_mean=table.downstream_mean * 0.01, upstream_nll=table.upstream_nll * scale
    )
    rows = Slopes(small).table(pairs=("UD",), links=("semilog",))
    for name in (
        "deming",
        "deming_low",
        "deming_high",
        "theil_sen",
        "theil_sen_low",
        "theil_sen_high",
        "slope",
    ):
        np.testing.assert_allclose(rows[name], plain[name] * 0.01 / scale, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(rows["reliability"], plain["reliability"], rtol=1e-6)


@pytest.mark.parametrize("quiet", ["upstream_nll", "downstream_mean"])
def test_without_noise_on_one_axis_there_is_no_deming_slope(quiet):
    """If seeds agree to the last digit, they do not determine the ratio of the errors."""
    table = study({"a": Line()}, sizes=6, seeds=2)
    table[quiet] = 2.0 + table["size"].str[-1].astype(int) * (
        0.25 if quiet == "downstream_mean" else -0.25
    )
    row = Slopes(table).table(pairs=("UD",), links=("semilog",)).iloc[0]
    assert row[["deming", "deming_low", "deming_high", "deming_ratio", "reliability"]].isna().all()
    assert row[["theil_sen", "theil_sen_low", "theil_sen_high"]].notna().all()
    assert row["note"] == "one seed per size: the noise of x is unknown, no Deming slope"


@pytest.mark.parametrize(("spread", "weak"), [(0.5, False), (0.515625, True)])
def test_nine_tenths_of_reliability_are_enough(spread, weak):
    """Losses of 5 to 9 have a variance of 2.5; two seeds half a nat from their mean add .25."""
    table = study({"a": Line()}, sizes=5, seeds=2)
    size, seed = table["size"].str[-1].astype(int), table["seed"]
    table["upstream_nll"] = 9.0 - size + np.where(seed == 0, spread, -spread)
    row = Slopes(table).table(pairs=("UD",), links=("semilog",)).iloc[0]
    assert row["reliability"] == 1 - spread**2 / 2.5
    words = "11% of the variance of x is seed noise: least squares is biased to 0"
    assert row["note"] == (words if weak else "")


def test_an_x_that_is_all_noise_has_no_reliability():
    """The means of the sizes lie closer together than those of equal sizes would."""
    table = study({"a": Line()}, sizes=5, seeds=3)
    table["upstream_nll"] = (
        2.0 - 0.01 * table["size"].str[-1].astype(int) + 0.5 * (table["seed"] - 1)
    )
    row = Slopes(table).table(pairs=("UD",), links=("semilog",)).iloc[0]
    assert row["reliability"] == 0
    assert row["note"] == "100% of the variance of x is seed noise: least squares is biased to 0"


@pytest.mark.parametrize(
    ("sizes", "seeds", "words"),
    [
        (2, 1, "2 sizes: not enough points for an interval"),
        (3, 2, "3 sizes: not enough points for an interval"),
        (4, 2, "4 sizes: no interval for Theil-Sen and Deming slopes"),
        (5, 2, ""),
    ],
)
def test_how_many_sizes_a_measured_x_needs(sizes, seeds, words):
    """Two points determine a slope, three a robust slope, and five an interval of it."""
    row = (
        Slopes(study({"a": Line()}, sizes=sizes, seeds=seeds))
        .table(pairs=("UD",), links=("semilog",))
        .iloc[0]
    )
    assert row["note"] == words
    assert row[["theil_sen", "deming"]].notna().all() == (sizes > 2)
    assert row[["theil_sen_low", "theil_sen_high", "deming_low", "deming_high"]].notna().all() == (
        sizes > 4
    )


def test_three_sizes_of_one_seed_each_lack_both():
    row = (
        Slopes(study({"a": Line()}, sizes=3, seeds=1))
        .table(pairs=("UD",), links=("semilog",))
        .iloc[0]
    )
    no_line = "3 sizes: not enough points for an interval"
    assert (
        row["note"] == f"{no_line}; one seed per size: the noise of x is unknown, no Deming slope"
    )


def test_a_measured_x_that_is_the_same_or_has_no_logarithm_has_no_robust_slope():
    same = study({"a": Line()}, sizes=5, seeds=2).assign(upstream_nll=2.0)
    lost = study({"a": Line()}, sizes=5, seeds=2)
    lost.loc[0, "downstream_mean"] = -3.0
    for table, link, words in ((same, "semilog", "same x"), (lost, "loglog", "no logarithm")):
        row = Slopes(table).table(pairs=("UD",), links=(link,)).iloc[0]
        assert words in row["note"]
        assert (
            row[["theil_sen", "theil_sen_low", "deming", "deming_low", "reliability"]].isna().all()
        )


def test_an_architecture_without_runs_that_are_complete_keeps_its_row(table):
    lost = table.assign(upstream_nll=table.upstream_nll.where(table.architecture != "flat"))
    rows = by(Slopes(lost).table(pairs=("FU",), links=("semilog",)), "architecture")
    row = rows["flat"]
    assert (row["n_sizes"], row["n_runs"], row["runs_missing"]) == (0, 0, 18)
    assert np.isnan([row[name] for name in ("x_min", "x_max", "slope", "intercept", "r2")]).all()
    assert (rows["noisy"]["n_runs"], rows["noisy"]["runs_missing"]) == (18, 0)


def test_every_interval_has_the_requested_level(table):
    row = (
        Slopes(table, Question(level=0.8))
        .table(pairs=("UD",), links=("semilog",))
        .set_index("architecture")
        .loc["noisy"]
    )
    cells = means(table, "noisy")
    _, _, low, high = stats.theilslopes(cells.downstream_mean, cells.y, 0.8)
    assert (row["theil_sen_low"], row["theil_sen_high"]) == pytest.approx((low, high))
    wanted = deming_interval(
        cells.y.to_numpy(), cells.downstream_mean.to_numpy(), row["deming_ratio"], 0.8
    )
    assert (row["deming"], row["deming_low"], row["deming_high"]) == pytest.approx(wanted)
    assert row["ci_high"] - row["slope"] == pytest.approx(stats.t.ppf(0.9, 4) * row["se"])
    seeds_alone = (
        Slopes(table, Question(level=0.8, errors="seed"))
        .table(pairs=("UD",), links=("semilog",))
        .set_index("architecture")
    )
    for end in ("low", "high"):
        assert seeds_alone.loc["noisy", f"ci_{end}"] == row[f"seed_{end}"]


def test_what_is_fitted_by_default(table):
    question = Question(log_base=10.0, errors="size", variance="separate", level=0.95)
    links = ("semilog", "loglog")
    told = Slopes(table, question).table(pairs=PAIRS, links=links)
    pd.testing.assert_frame_equal(Slopes(table).table(), told)
    assert list(dict.fromkeys(told["alpha"])) == ["F,U", "F,D", "U,D", "P,U", "P,D"]


def test_the_columns_are_those_that_are_promised(table):
    rows = Slopes(table).table(pairs=("UD",), links=("loglog", "semilog"))
    assert " ".join(rows.columns) == (
        "architecture alpha link x_axis y_axis higher_is_better n_sizes n_runs runs_missing x_min "
        "x_max slope intercept r2 se df ci_low ci_high p method se_hc3 seed_low seed_high "
        "theil_sen theil_sen_low theil_sen_high deming deming_low deming_high deming_ratio "
        "reliability note"
    )
    assert rows["link"].tolist() == ["loglog"] * 3 + ["semilog"] * 3
    assert set(rows["alpha"]) == {"U,D"} and rows["architecture"].tolist()[:3] == [
        "flat",
        "noisy",
        "transformer",
    ]
    last = rows.iloc[-1]
    assert (last["x_axis"], last["y_axis"]) == ("-upstream_nll (nats)", "downstream_mean (percent)")


def test_protocols_are_kept_separate(table):
    """The plain protocol, unless another one is requested; or each one separately."""
    depth = study({"transformer": Line(upstream_slope=0.9)}, protocol="depth", seed=5)
    both = pd.concat([table, depth], ignore_index=True)
    plain, other = Slopes(table).table(pairs=("FU",)), Slopes(depth).table(pairs=("FU",))
    pd.testing.assert_frame_equal(Slopes(both).table(pairs=("FU",)), plain)
    pd.testing.assert_frame_equal(
        Slopes(both, Question(protocol="depth")).table(pairs=("FU",)), other
    )
    rows = by(
        Protocols(both).table(pairs=("FU",)),
        "architecture",
        "protocol",
        "link",
    )
    assert len(rows) == 2 * 4
    assert rows["transformer", "depth", "semilog"]["slope"] == pytest.approx(other["slope"][0])
    assert rows["transformer", "", "semilog"]["slope"] == pytest.approx(
        by(plain, "architecture", "link")["transformer", "semilog"]["slope"]
    )


def test_only_the_columns_of_the_pairs_are_needed(table):
    rows = Slopes(table.drop(columns="downstream_mean")).table(pairs=("FU", "PU"))
    assert set(rows["alpha"]) == {"F,U", "P,U"}
    with pytest.raises(InputError, match="'downstream_mean' is missing"):
        Slopes(table.drop(columns="downstream_mean")).table(pairs=("FU", "PD"))


@pytest.mark.parametrize(
    ("pair", "higher"), [("FU", (True, False)), ("UD", (True, False)), ("FD", (True, True))]
)
def test_which_slopes_are_better(table, pair, higher):
    """Quality grows with FLOPs. In logarithms a loss falls, and a score falls with it."""
    rows = by(Slopes(table).table(pairs=(pair,)), "link", "architecture")
    assert tuple(rows[link, "flat"]["higher_is_better"] for link in ("semilog", "loglog")) == higher


def test_what_a_line_was_fitted_to(table):
    rows = Slopes(table).table(pairs=("FU",), links=("semilog",)).set_index("architecture")
    assert all(
        np.issubdtype(rows[name].dtype, np.integer)
        for name in ("n_sizes", "n_runs", "runs_missing")
    )
    cells = means(table, "flat")
    fitted = stats.linregress(cells.x, cells.y)
    row = rows.loc["flat"]
    ours = row[
        ["slope", "intercept", "r2", "x_min", "x_max", "n_sizes", "n_runs", "runs_missing"]
    ].astype(float)
    theirs = [
        fitted.slope,
        fitted.intercept,
        fitted.rvalue**2,
        cells.x.min(),
        cells.x.max(),
        6,
        18,
        0,
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "words"), [(1, "1 size: no slope"), (2, "2 sizes: not"), (3, "3 sizes: not")]
)
def test_few_sizes_are_answered_in_words(sizes, words):
    row = Slopes(study({"a": Line()}, sizes=sizes, seeds=2)).table(pairs=("FU",)).iloc[0]
    assert (
        words in row["note"] and np.isnan(row[["se", "ci_low", "ci_high", "p"]].astype(float)).all()
    )
    assert np.isnan(row["slope"]) == (sizes == 1)
    assert np.isnan(row["seed_low"]) == (
        sizes == 1
    )  # two sizes with two seeds do determine the slope between them


def test_one_size_covers_its_own_place():
    row = Slopes(study({"a": Line()}, sizes=1)).table(pairs=("FU",), links=("semilog",)).iloc[0]
    assert (row["x_min"], row["x_max"]) == pytest.approx((9.0, 9.0)) and (
        row["n_sizes"],
        row["n_runs"],
    ) == (1, 3)


def test_equal_flops_have_no_slope():
    table = study({"a": Line()}, sizes=4, seeds=2).assign(flops_forward=1e9)
    row = Slopes(table).table(pairs=("FU",)).iloc[0]
    assert np.isnan(row["slope"]) and "same x" in row["note"]


def test_a_value_without_logarithm_blanks_the_loglog_line_only(table):
    table = table.copy()
    table.loc[0, "downstream_mean"] = -3.0  # a Matthews correlation may be negative
    rows = by(Slopes(table).table(pairs=("FD",)), "link", "architecture")
    hit = rows.pop(("loglog", "transformer"))
    assert np.isnan(hit["slope"]) and "no logarithm" in hit["note"]
    assert all(np.isfinite(row["slope"]) for row in rows.values())


def test_missing_values_are_counted(table):
    table = table.copy()
    table.loc[table["size"] == "size5", "upstream_nll"] = np.nan
    rows = Slopes(table).table(pairs=("FU",), links=("semilog",))
    assert (rows["n_sizes"] == 5).all() and (rows["runs_missing"] == 3).all()
    assert rows["note"].str.contains("3 runs lack a value").all()


def test_seeds_do_not_count_as_points():
    """Ten copies of one seed's noise change nothing: only the number of sizes counts."""
    one = study({"a": Line()}, sizes=5, seeds=1, seed=3)
    many = pd.concat(
        [one.assign(seed=s, run_id=one.run_id + f"-{s}") for s in range(10)], ignore_index=True
    )
    a, b = (Slopes(t).table(pairs=("FU",), links=("semilog",)).iloc[0] for t in (one, many))
    for column in ("slope", "se", "df"):
        assert a[column] == pytest.approx(b[column], rel=1e-9)


def test_base_and_convention_are_named_and_scale_the_slope(table):
    ten = Slopes(table).table(pairs=("FU",))
    natural = Slopes(table, Question(log_base=np.e)).table(pairs=("FU",))
    semilog, loglog = ten["link"] == "semilog", ten["link"] == "loglog"
    np.testing.assert_allclose(natural.slope[semilog] * np.log(10), ten.slope[semilog])
    np.testing.assert_allclose(natural.slope[loglog], ten.slope[loglog])  # the same for every base
    assert set(ten.x_axis) == {"log10 flops_forward"} and set(natural.x_axis) == {
        "ln flops_forward"
    }
    scaled = Slopes(table.assign(flops_forward=table.flops_forward * 3)).table(pairs=("FU",))
    np.testing.assert_allclose(scaled[["slope", "ci_low"]], ten[["slope", "ci_low"]])


def test_odd_names_pass_through():
    names = ["<script>alert(1)</script>", "50% & more_\\alpha{}", "ünïcode 🙂"]
    rows = Slopes(study({name: Line() for name in names})).table(pairs=("FU",), links=("semilog",))
    assert set(rows.architecture) == set(names)


def test_noise_free_lines_are_recovered_exactly():
    quiet = Noise(0.0, 0.0, 0.0, 0.0)
    rows = Slopes(study({"a": Line()}, noise=quiet)).table(links=("semilog",)).set_index("alpha")
    np.testing.assert_allclose(rows.loc[["F,U", "F,D"], "slope"], [0.54, 6.0], rtol=1e-9)


@needs_clark
def test_clark_routing_slopes_are_the_published_ones():
    rows = Slopes(clark()).table(pairs=("FU",), links=("loglog",)).set_index("architecture")
    published = {"Dense": -0.0951, "Hash": -0.0799, "RL-R": -0.0773, "S-Base": -0.0810}
    for name, slope in published.items():
        assert rows.loc[name, "slope"] == pytest.approx(slope, abs=5e-5)


@needs_clark
def test_clark_dense_law_in_parameters_is_the_published_one():
    rows = Slopes(clark()).table(pairs=("PU",), links=("loglog",)).set_index("architecture")
    row = rows.loc["Dense"]
    assert (row["n_sizes"], row["intercept"], row["slope"]) == (
        5,
        pytest.approx(1.0652, abs=5e-5),
        pytest.approx(-0.0785, abs=5e-5),
    )


def test_both_errors_of_a_slope_are_told_where_they_differ_by_more_than_half():
    """One end of the ladder is far off its line, which HC3 takes for larger noise there."""
    table = study({"transformer": Line()}, sizes=7, seeds=1, noise=Noise(0.001, 0.001, 0.1, 0.1))
    plain = Slopes(table).table(pairs=("FU",), links=("semilog",)).iloc[0]
    off = table["upstream_nll"].where(table["size"] != "size6", table["upstream_nll"] + 0.3)
    row = Slopes(table.assign(upstream_nll=off)).table(pairs=("FU",), links=("semilog",)).iloc[0]
    assert row["se_hc3"] > 1.5 * row["se"]
    assert f"{row['se']:.2g} (t), {row['se_hc3']:.2g} (HC3)" in row["note"]
    assert ("HC3" in plain["note"]) == (not 1 / 1.5 <= plain["se_hc3"] / plain["se"] <= 1.5)
