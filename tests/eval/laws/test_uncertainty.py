import dataclasses

import numpy as np
import pytest
import statsmodels.api as sm

from eval.laws import choice, forms
from eval.laws.example_points import TRUTH, exact
from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import fit
from eval.laws.fitting.objective import Objective
from eval.laws.law_table import points
from eval.stats.resampling import Resampling
from train.records import InputError

POWER, OFFSET, CHINCHILLA = forms.get("power"), forms.get("offset"), forms.get("chinchilla")
L2 = Objective("l2")


def power_runs(noise=0.02, seed=0, n=24, cluster=None):
    x = np.geomspace(1e6, 1e10, n)
    y = POWER.predict(TRUTH["power"], x=x) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(n)
    )
    return points(y, cluster=cluster, x=x)


def test_profile_of_a_straight_line_is_students_interval():
    runs = power_runs()
    law = fit(POWER, runs, L2)
    line = sm.OLS(np.log(runs.y), sm.add_constant(-runs.x["x"])).fit()
    assert uncertainty.profile_interval(law, "alpha") == pytest.approx(
        tuple(line.conf_int()[1]), rel=2e-3
    )


def test_bootstrap_of_a_straight_line_is_close_to_students_interval():
    law = fit(POWER, power_runs(), L2)
    exact = np.array(uncertainty.profile_interval(law, "alpha"))
    for kind in ("cluster", "wild"):
        low, high = uncertainty.bootstrap(law, 1000, kind=kind).intervals()["alpha"]
        assert np.ptp([low, high]) == pytest.approx(np.ptp(exact), rel=0.35), kind
        assert low < law.params["alpha"] < high


def test_checkpoints_of_one_run_do_not_narrow_the_interval():
    once = power_runs(n=12)
    five = points(
        np.repeat(once.y, 5),
        cluster=np.repeat(np.arange(12), 5),
        x=np.repeat(np.exp(once.x["x"]), 5),
    )
    apart = points(np.repeat(once.y, 5), x=np.repeat(np.exp(once.x["x"]), 5))
    widths = [
        np.ptp(uncertainty.bootstrap(fit(POWER, r, L2), 500, kind="cluster").intervals()["alpha"])
        for r in (once, five, apart)
    ]
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)  # same clusters and same draws
    assert widths[2] < 0.7 * widths[0]


def test_refits_on_a_bound_are_reported():
    x = np.geomspace(1e6, 1e9, 20)  # without a floor, half of the refits find none
    y = POWER.predict(TRUTH["power"], x=x) * np.exp(
        0.01 * np.random.default_rng(3).standard_normal(20)
    )
    drawn = uncertainty.bootstrap(fit(OFFSET, points(y, x=x), L2), 200)
    assert any("end on a bound" in line for line in drawn.warnings)
    assert uncertainty.bootstrap(fit(POWER, points(y, x=x), L2), 200).warnings == ()


def test_a_parameter_at_its_bound_has_no_interval():
    """Refits there show how far the search may go; an interval from them held any truth or none."""
    x = np.geomspace(1e6, 1e9, 20)
    y = POWER.predict(TRUTH["power"], x=x) * np.exp(0.003 * np.sin(np.arange(20)))
    law = fit(OFFSET, points(y * (1 - 2e-11 * x), x=x), L2)  # bends down: no floor
    assert law.at_bounds == ("E",) == law.without_interval
    spans = uncertainty.bootstrap(law, 100).intervals()
    assert np.isnan(spans["E"]).all() and np.isfinite(spans["alpha"]).all()


def test_what_is_computed_from_a_bounded_parameter_has_no_interval():
    form = forms.get("kaplan_n")  # N_c is computed from A and alpha_N
    law = fit(form, exact("kaplan_n"), L2)
    theta_P = law.theta_P.copy()
    theta_P[form.symbols.index("alpha_N")] = law.upper_P[form.symbols.index("alpha_N")]
    assert set(dataclasses.replace(law, theta_P=theta_P).without_interval) == {"N_c", "alpha_N"}


@pytest.mark.parametrize("kind", ["cluster", "normal"])
def test_refits_that_did_not_converge_widen_an_interval(kind):
    """Half of them count as beyond each end; none of them narrows it."""
    law = fit(POWER, power_runs(n=2000), L2)
    theta_BP = np.tile(law.theta_P, (10_001, 1))
    values_B = np.linspace(0.0, 1.0, 10_001)  # quantiles are what they are called
    sure = uncertainty.Draws(law, theta_BP, kind, 2000, 0.0, 0.0)
    doubtful = dataclasses.replace(sure, failed=0.03)
    lost = dataclasses.replace(sure, failed=0.9)
    tail = {"cluster": uncertainty.expanded_tail(0.95, 2000, 1998), "normal": 0.158655}[kind]
    reach = {"cluster": 1.0, "normal": 1.9611}[kind]  # Student's t with 1998 degrees of freedom

    def ends(beyond):
        half = reach * (0.5 - beyond)
        return max(0.5 - half, 0.0) if kind == "normal" else beyond, 0.5 + half

    assert sure.interval(values_B) == pytest.approx(ends(tail), abs=1e-3)
    assert doubtful.interval(values_B) == pytest.approx(ends((tail - 0.015) / 0.97), abs=1e-3)
    assert lost.interval(values_B) == pytest.approx(ends(0.0), abs=1e-3)
    assert any("half of them count as beyond each end" in line for line in lost.warnings)


def test_few_runs_take_normal_noise_and_students_interval():
    assert uncertainty.bootstrap(fit(POWER, power_runs(n=12), L2), 50).kind == "cluster"
    for n in (4, 7):
        law = fit(POWER, power_runs(n=n), L2)
        drawn = uncertainty.bootstrap(law, 2000)
        assert drawn.kind == "normal"
        exact, found = uncertainty.profile_interval(law, "alpha"), drawn.intervals()["alpha"]
        assert np.ptp(found) == pytest.approx(np.ptp(exact), rel=0.1), n


def test_few_runs_with_checkpoints_are_resampled_whole_and_reported():
    runs = power_runs(n=12, cluster=np.repeat(np.arange(2), 6))
    drawn = uncertainty.bootstrap(fit(POWER, runs, L2), 50)
    assert drawn.kind == "wild" and any(
        "2 runs for 2 parameters" in line for line in drawn.warnings
    )
    runs = power_runs(n=12, cluster=np.repeat(np.arange(4), 3))
    assert uncertainty.bootstrap(fit(POWER, runs, L2), 50).warnings == ()


def test_few_cells_with_seeds_are_as_sure_as_their_means():
    """Five cells with three seeds determine the line as well as their means do, not better."""
    rng, x = np.random.default_rng(0), np.geomspace(1e6, 1e10, 5)
    noise = np.repeat(0.02 * rng.standard_normal(5), 3) + 0.005 * rng.standard_normal(15)
    y = POWER.predict(TRUTH["power"], x=np.repeat(x, 3)) * np.exp(noise)
    cells = points(y, cluster=np.repeat(np.arange(5), 3), x=np.repeat(x, 3))
    means = points(np.exp(np.log(y).reshape(5, 3).mean(1)), x=x)
    drawn = [uncertainty.bootstrap(fit(POWER, runs, L2), 2000) for runs in (cells, means)]
    assert [d.kind for d in drawn] == ["normal", "normal"]
    assert np.ptp(drawn[0].intervals()["alpha"]) == pytest.approx(
        np.ptp(drawn[1].intervals()["alpha"]), rel=0.1
    )
    at = {"x": np.log([1e8])}
    run = [
        (t["run_upper"] - t["run_lower"])[0] for t in (uncertainty.predict(d, at) for d in drawn)
    ]
    assert 1.0 < run[0] / run[1] < 1.3  # a single run has the noise of its seed too


@pytest.mark.parametrize(
    "objective", [L2, Objective("huber"), Objective("l1")], ids=lambda o: o.name
)
def test_a_common_factor_on_the_weights_changes_nothing(objective):
    x, rng = np.geomspace(1e6, 1e10, 24), np.random.default_rng(0)
    weight = rng.uniform(0.5, 4, 24)
    y = POWER.predict(TRUTH["power"], x=x) * np.exp(
        0.02 / np.sqrt(weight) * rng.standard_normal(24)
    )
    found = []
    for factor in (1.0, 1e-4, 37.0):
        law = fit(POWER, points(y, weight=factor * weight, x=x), objective)
        drawn = uncertainty.bootstrap(law, 50)
        few = uncertainty.bootstrap(law, 50, kind="normal")
        numbers = [
            law.value,
            law.sigma,
            uncertainty.loss_of_fit_unit(law),
            *choice.criteria(law).values(),
        ]
        numbers += [
            *uncertainty.profile_interval(law, "alpha"),
            *drawn.intervals()["alpha"],
            *few.intervals()["alpha"],
        ]
        found.append([*numbers, *uncertainty.predict(drawn, {"x": np.log([1e9])}).iloc[0]])
    np.testing.assert_allclose(found[1:], [found[0]] * 2, rtol=1e-6)


def test_weighted_inference_is_that_of_weighted_least_squares():
    x, rng = np.geomspace(1e6, 1e10, 12), np.random.default_rng(0)
    weight = rng.uniform(0.2, 5, 12)
    y = POWER.predict(TRUTH["power"], x=x) * np.exp(
        0.02 / np.sqrt(weight) * rng.standard_normal(12)
    )
    law = fit(POWER, points(y, weight=weight, x=x), L2)
    line = sm.WLS(np.log(y), sm.add_constant(-np.log(x)), weights=weight).fit()
    assert uncertainty.profile_interval(law, "alpha") == pytest.approx(
        tuple(line.conf_int()[1]), rel=2e-3
    )
    assert np.sqrt(law.covariance()[1, 1]) == pytest.approx(line.bse[1])
    assert choice.criteria(law)["log_likelihood"] == pytest.approx(line.llf)
    normal = uncertainty.bootstrap(law, 4000, kind="normal").theta_BP[:, 1].std()
    assert normal == pytest.approx(line.bse[1], rel=0.05)


def test_profile_counts_no_checkpoint_as_a_run():
    law = fit(POWER, power_runs(n=12, cluster=np.repeat(np.arange(4), 3)), L2)
    with pytest.raises(InputError, match="12 rows are 4 independent runs"):
        uncertainty.profile(law, "alpha")


@pytest.mark.parametrize(
    "name, symbol",
    [("downstream_sigmoid", "a"), ("routed", "E_max"), ("kaplan_n", "N_c"), ("overtrained", "b")],
)
def test_a_symbol_without_a_coordinate_of_its_own_is_neither_profiled_nor_fixed(name, symbol):
    form, runs = forms.get(name), exact(name)
    y = runs.y * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(runs.y)))
    runs = points(y, **{key: np.exp(v) for key, v in runs.x.items()})
    law = fit(form, runs, Objective("l2", space=form.space))
    with pytest.raises(InputError, match="computed from several"):
        uncertainty.profile(law, symbol)
    with pytest.raises(InputError, match=f"{symbol} of {name} depends on"):
        fit(form, runs, fixed={symbol: law.params[symbol]})
    others = [s for s in form.symbols if form.behind(s, law.theta_P).sum() == 1]
    assert all(
        low < law.params[s] < high
        for s in others
        for low, high in [uncertainty.profile_interval(law, s)]
    )


def test_an_interval_keeps_the_sign_of_its_draws():
    law = fit(OFFSET, power_runs(n=6, noise=0.05), L2)
    low, high = uncertainty.bootstrap(law, 200).intervals()["E"]
    assert 0 <= low < high


def test_same_seed_same_draws():
    law = fit(POWER, power_runs(), L2)
    one, again, other = (uncertainty.bootstrap(law, 50, seed=s).theta_BP for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_no_residual_no_interval():
    with pytest.raises(InputError, match="leave no residual"):
        uncertainty.bootstrap(fit(POWER, power_runs(n=2), L2))


def test_profile_reaches_the_bound_where_the_floor_is_open():
    x = np.geomspace(1e6, 1e10, 14)
    y = POWER.predict(TRUTH["power"], x=x) * np.exp(
        0.02 * np.random.default_rng(0).standard_normal(14)
    )
    law = fit(OFFSET, points(y, x=x), L2)
    low, high = uncertainty.profile_interval(law, "alpha")
    assert low < 0.1 < high


def test_prediction_intervals_widen_outwards_and_hold_the_noise():
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6)))
    y = CHINCHILLA.predict(TRUTH["chinchilla"], N=n, D=d) * np.exp(
        0.01 * np.random.default_rng(0).standard_normal(36)
    )
    drawn = uncertainty.bootstrap(fit(CHINCHILLA, points(y, N=n, D=d), L2), 400)
    x = {"N": np.log([1e8, 1e12]), "D": np.log([1e10, 1e14])}
    table = uncertainty.predict(drawn, x)
    curve, run = table["upper"] - table["lower"], table["run_upper"] - table["run_lower"]
    assert curve[1] > 1.5 * curve[0] and (run > curve).all()
    assert run[0] / table["prediction"][0] == pytest.approx(2 * 1.96 * 0.01, rel=0.4)
    nats = 0.2  # in nats, whatever the space of the fit
    wider = uncertainty.predict(drawn, x, seed_sd=nats)
    both = np.hypot(nats, 0.01 * wider["prediction"][0])
    assert (wider["run_upper"] - wider["run_lower"])[0] == pytest.approx(2 * 1.96 * both, rel=0.15)


def test_seed_noise_is_the_pooled_spread_between_repeats():
    x = np.repeat(np.geomspace(1e6, 1e9, 5), 40)
    noise = 0.03 * np.random.default_rng(0).standard_normal(200)
    law = fit(POWER, points(POWER.predict(TRUTH["power"], x=x) * np.exp(noise), x=x), L2)
    assert uncertainty.seed_noise(law) == pytest.approx(0.03, rel=0.1)
    assert np.isnan(uncertainty.seed_noise(fit(POWER, power_runs(), L2)))


def test_bca_agrees_with_percentiles_on_a_symmetric_problem():
    drawn = uncertainty.bootstrap(fit(POWER, power_runs(n=60), L2), 1000)
    low, high = uncertainty.bca(drawn, lambda theta: theta[:, 1])
    assert (low, high) == pytest.approx(drawn.intervals()["alpha"], abs=3e-4)


def test_bca_is_refused_where_runs_are_too_few_to_resample():
    drawn = uncertainty.bootstrap(fit(POWER, power_runs(n=6), L2), 50)
    with pytest.raises(InputError, match="these 6 runs were drawn otherwise"):
        uncertainty.bca(drawn, lambda theta: theta[:, 1])


def test_criteria_are_those_of_the_normal_line():
    runs = power_runs()
    law = fit(POWER, runs, L2)
    theirs = sm.OLS(np.log(runs.y), sm.add_constant(runs.x["x"])).fit()
    assert choice.criteria(law)["bic"] == pytest.approx(
        theirs.bic + np.log(24), rel=1e-9
    )  # these criteria do not count the scale as a parameter


def test_criteria_prefer_the_law_that_made_the_data():
    x = np.geomspace(1e6, 1e10, 30)
    y = OFFSET.predict(TRUTH["offset"], x=x) * np.exp(
        0.003 * np.random.default_rng(0).standard_normal(30)
    )
    table = choice.compare([POWER, OFFSET], points(y, x=x), L2, resampling=Resampling(50))
    assert table["form"][0] == "offset"
    assert table["aicc"][0] < table["aicc"][1] and table["rmsle"][0] < table["rmsle"][1]


def test_forms_are_backtested_on_the_same_cuts_and_the_first_as_it_was_fixed():
    """A law with two parameters can be tested from four runs on, one with nine only from eleven.

    Their tests then have other, larger runs.
    """
    x = np.geomspace(1e5, 1e11, 16)
    y = OFFSET.predict(TRUTH["offset"], x=x) * np.exp(
        0.003 * np.random.default_rng(0).standard_normal(16)
    )
    runs = points(y, x=x)
    alone = choice.backtest(POWER, runs, L2, resampling=Resampling(20))
    both = choice.compare([OFFSET, POWER, forms.get("bnsl")], runs, L2, resampling=Resampling(20))
    assert set(both["cuts"]) == {len(alone[alone["fitted"] >= 8])} and both["cuts"][0] < len(alone)
    row = both[both["form"] == "power"].iloc[0]
    assert row["rmsle"] == pytest.approx(alone[alone["fitted"] >= 8]["rmsle"].mean())
    held = choice.compare(
        [OFFSET, POWER], runs, L2, fixed={"alpha": 0.1, "E": 0.5}, resampling=Resampling(20)
    ).set_index("form")
    law = fit(OFFSET, runs, L2, fixed={"alpha": 0.1, "E": 0.5})
    assert (
        held.loc["offset", "objective"] == pytest.approx(law.value)
        and held.loc["offset", "parameters"] == 2
    )
    assert held.loc["offset", "rmsle"] > both.set_index("form").loc["offset", "rmsle"]


def test_backtest_leaves_the_largest_out_and_sees_the_bias():
    x = np.geomspace(1e5, 1e11, 8).repeat(3)
    y = OFFSET.predict(TRUTH["offset"], x=x) * np.exp(
        0.001 * np.random.default_rng(0).standard_normal(24)
    )
    runs = points(y, x=x)
    table = choice.backtest(POWER, runs, L2, resampling=Resampling(50))
    assert (np.diff(table["fitted"]) > 0).all() and table["fitted"].iloc[-1] == 21
    assert table["bias"].iloc[-1] < -0.01  # a pure power law falls below the floor
    assert abs(choice.backtest(OFFSET, runs, L2, resampling=Resampling(50))["bias"].iloc[-1]) < 5e-3


@pytest.mark.parametrize(
    "objective", [L2, pytest.param(Objective("huber"), marks=pytest.mark.slow)], ids=["l2", "huber"]
)
def test_intervals_cover_what_they_claim(objective):
    """Sixty data sets of 30 runs.

    `benchmarks/scaling_law_coverage.py` does this for thousands of data sets and every form.
    """
    n, d = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 3e9, 6), np.geomspace(1e9, 1e12, 5)))
    truth, rng = CHINCHILLA.predict(TRUTH["chinchilla"], N=n, D=d), np.random.default_rng(0)
    inside = []
    for _ in range(60):
        law = fit(
            CHINCHILLA, points(truth * np.exp(0.005 * rng.standard_normal(30)), N=n, D=d), objective
        )
        spans = uncertainty.bootstrap(law, 200).intervals(0.9)
        inside += [
            spans[s][0] <= TRUTH["chinchilla"][s] <= spans[s][1] for s in ("E", "alpha", "beta")
        ]
    assert 0.82 <= np.mean(inside) <= 0.98


def test_a_law_that_backtests_badly_widens_its_extrapolations():
    """A straight line through a bent law, whose intervals hold few of the larger runs."""
    x = np.geomspace(1e17, 1e21, 16)
    y = OFFSET.predict({"A": 300.0, "alpha": 0.12, "E": 1.8}, x=x)
    y = y * np.exp(1e-4 * np.random.default_rng(0).standard_normal(16))
    runs = points(y, x=x)
    past = choice.calibrate(fit(POWER, runs, L2), Resampling(100))
    held = round(past.coverage * past.points)
    assert past.coverage < 0.5 and past.factor > 1.5
    assert f"95 % intervals held {held} of {past.points} runs" in past.warnings[0]
    assert past.points == choice.backtest(POWER, runs, L2)["predicted"].sum()
    row = {"prediction": 2.0, "lower": 1.9, "upper": 2.2, "run_lower": 1.0, "run_upper": 4.0}
    wide = dataclasses.replace(past, factor=2.0)
    assert wide.widened(row, "log")["run_upper"] == pytest.approx(8.0)
    assert wide.widened(row, "log")["lower"] == pytest.approx(1.9**2 / 2)
    assert wide.widened(row, "raw")["lower"] == pytest.approx(1.8)
    # The factor is the one that would have held the runs.
    law = fit(POWER, runs.take(np.arange(15)), L2)
    before = choice.calibrate(law, Resampling(100))
    ahead = uncertainty.predict(uncertainty.bootstrap(law, 100), {"x": np.log(x[-1:])}).iloc[0]
    ends = before.widened(dict(ahead), "log")
    assert not ahead["run_lower"] <= y[-1] <= ahead["run_upper"]
    assert ends["run_lower"] <= y[-1] <= ends["run_upper"]


def test_a_law_that_backtests_well_keeps_its_intervals():
    past = [choice.calibrate(fit(POWER, power_runs(seed=s), L2), Resampling(100)) for s in range(6)]
    assert np.mean([one.coverage for one in past]) >= 0.85
    for one in past:
        assert (one.factor == 1) == (one.coverage >= 0.95) == (one.warnings == [])
        assert one.factor < 3


def test_too_few_sizes_have_no_backtest():
    past = choice.calibrate(fit(POWER, power_runs(n=4), L2), Resampling(50))
    assert (past.cuts, past.factor) == (0, 1.0) and "too few sizes" in past.warnings[0]
