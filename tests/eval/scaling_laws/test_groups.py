import numpy as np
import pytest

from eval.scaling_laws import allocation, chain, design, forms, groups, isoflop, uncertainty
from eval.scaling_laws.examples import TRUTH
from eval.scaling_laws.fit import fit
from eval.scaling_laws.objective import LEAST_SQUARES, Objective
from eval.scaling_laws.table import points
from train.records import InputError

CHINCHILLA, L2 = forms.get("chinchilla"), Objective("l2")
BASE = TRUTH["chinchilla"]
N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 3e9, 6), np.geomspace(1e9, 1e11, 5)))


def two(changed=None, noise=0.003, seed=0):
    y = np.concatenate([CHINCHILLA.predict(p, N=N, D=D) for p in (BASE, {**BASE, **(changed or {})})])
    y *= np.exp(noise * np.random.default_rng(seed).standard_normal(len(y)))
    return points(y, group=np.repeat(["vanilla", "other"], len(N)), N=np.tile(N, 2), D=np.tile(D, 2))


@pytest.mark.parametrize("name, shared", groups.sharings(CHINCHILLA).items())
def test_grouped_gradient_and_curvature_are_the_derivatives(name, shared):
    form = groups.Grouped(CHINCHILLA, ["a", "b"], shared)
    x = {"N": np.log(np.tile(N, 2)), "D": np.log(np.tile(D, 2)), "group": np.repeat([0.0, 1.0], len(N))}
    theta = np.zeros(len(form.parameters))
    for index_P in form.index_GP:
        theta[index_P] = CHINCHILLA.search(BASE)
    jac = form.evaluate(theta[None], x)[1]
    weight = np.cos(np.arange(2.0 * len(N)))[None]
    curvature = form.curvature(theta[None], x, weight)[0]
    for p in range(len(theta)):
        step = 1e-6 * np.eye(len(theta))[p]
        up, down = form.evaluate((theta + step)[None], x), form.evaluate((theta - step)[None], x)
        np.testing.assert_allclose(jac[0, p], (up[0] - down[0])[0] / 2e-6, atol=1e-7)
        np.testing.assert_allclose(curvature[p], ((up[1] - down[1])[0] / 2e-6 * weight).sum(-1), atol=1e-4)


def test_separate_models_are_the_groups_own_fits_and_pooled_is_one_fit():
    runs = two({"alpha": 0.31})
    separate = groups.fit_groups(CHINCHILLA, runs, frozenset(), L2)
    for label in ("vanilla", "other"):
        own = fit(CHINCHILLA, runs.take(runs.group == label), L2)
        assert {s: separate.params[f"{s}[{label}]"] for s in own.params} == pytest.approx(own.params, rel=1e-5)
    pooled = groups.fit_groups(CHINCHILLA, runs, frozenset(CHINCHILLA.symbols), L2)
    assert pooled.value == pytest.approx(fit(CHINCHILLA, runs, L2).value, rel=1e-9)


def test_larger_models_never_fit_worse():
    found = groups.compare(CHINCHILLA, two({"alpha": 0.33}), L2, draws=0)
    for row in found.tests.to_dict("records"):
        assert found.fits[row["larger"]].value <= found.fits[row["smaller"]].value * (1 + 1e-9)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({}, "no sign that the groups differ"),
        ({"A": 480.0}, "in their coefficients"),
        ({"alpha": 0.31}, "exponents (p"),
    ],
    ids=["same", "coefficient", "exponent"],
)
def test_verdict_tells_exponents_from_coefficients(changed, words):
    assert words in groups.compare(CHINCHILLA, two(changed), L2, draws=99).verdict


def test_one_group_is_an_error():
    with pytest.raises(InputError, match="one value only"):
        groups.fit_groups(CHINCHILLA, points(np.ones(3), N=N[:3], D=D[:3]), frozenset())


def draws_of(label, runs, count=200):
    return uncertainty.bootstrap(fit(CHINCHILLA, runs.take(runs.group == label), L2), count)


def test_multiplier_finds_a_law_that_needs_half_the_compute():
    """A and B scaled by 2^-alpha/2 and 2^-beta/2 reach each loss with N and D smaller by sqrt 2 each.

    Ten studies, whose 95 % intervals may miss a few times (over 150 studies they cover 95 to 98 %).
    """
    half = {"A": BASE["A"] * 2 ** (-BASE["alpha"] / 2), "B": BASE["B"] * 2 ** (-BASE["beta"] / 2)}
    found, inside = [], []
    for seed in range(10):
        runs = two(noise=0.001, seed=seed, changed=half)
        table = allocation.multiplier(draws_of("other", runs, 100), draws_of("vanilla", runs, 100), [1.0, 2.4, 2.8])
        assert table["note"][0] == "a law's floor lies above this loss" and np.isnan(table["multiplier"][0])
        found.append(table["multiplier"][1:])
        inside.append((table["lower"][1:] < 2) & (table["upper"][1:] > 2))
    np.testing.assert_allclose(np.mean(found, axis=0), 2, rtol=0.02)
    assert np.mean(inside) >= 0.8


def test_allocation_has_intervals_costs_and_says_when_it_extrapolates():
    found = allocation.allocate(draws_of("vanilla", two()), [1e18, 1e24])
    best = allocation.chinchilla_exponents(BASE)
    assert found.exponents["a"] == pytest.approx(best["a"], abs=0.03)
    truth = best["G"] * (np.array([1e18, 1e24]) / 6) ** best["a"]
    assert ((found.optima["N_lower"] < truth) & (truth < found.optima["N_upper"])).all()
    assert found.optima["extrapolated"].tolist() == [False, True] and len(found.warnings) == 1
    assert (found.off["excess"] > 0).all() and (found.off["compute"] < 1).all()
    one = found.off.iloc[0]
    law = draws_of("vanilla", two()).fit
    assert one["loss"] == pytest.approx(law.predict({"N": np.log([one["N"]]), "D": np.log([one["D"]])})[0])


def test_allocation_needs_n_and_d():
    law = fit(forms.get("power"), points(N**-0.1, x=N), L2)
    with pytest.raises(InputError, match="does not predict loss from N and D"):
        allocation.check(law.form)


def isoflop_table(noise):
    budgets, factors = np.geomspace(1e18, 1e21, 5), np.geomspace(0.3, 3, 7)
    best = allocation.chinchilla_exponents(BASE)
    flops, factor = (v.ravel() for v in np.meshgrid(budgets, factors))
    n = factor * best["G"] * (flops / 6) ** best["a"]
    y = CHINCHILLA.predict(BASE, N=n, D=flops / 6 / n)
    return n, flops, y * np.exp(noise * np.random.default_rng(0).standard_normal(len(y)))


@pytest.mark.parametrize("method", ["quadratic", "akima"])
def test_isoflops_find_the_exponent(method):
    line = isoflop.isoflop(*isoflop_table(3e-4), method=method, draws=200)
    assert line.a == pytest.approx(allocation.chinchilla_exponents(BASE)["a"], abs=0.02)
    assert line.a_interval[0] < line.a < line.a_interval[1] and len(line.budgets) == 5


def test_a_profile_without_interior_minimum_is_left_out():
    n, flops, y = isoflop_table(0.0)
    keep = ~((flops < 2e18) & (n > np.median(n[flops < 2e18])))
    line = isoflop.isoflop(n[keep], flops[keep], y[keep], draws=50)
    assert (line.budgets["note"] != "").tolist() == [True, False, False, False, False]
    with pytest.raises(InputError, match="two are needed"):
        isoflop.isoflop(n[:5], flops[:5], y[:5])


def test_envelope_of_training_curves_finds_the_exponent():
    sizes, tokens = np.geomspace(1e7, 1e10, 24), np.geomspace(1e8, 1e13, 120)
    n, d = (v.ravel() for v in np.meshgrid(sizes, tokens, indexing="ij"))
    run = np.repeat(np.arange(24), 120)
    line = isoflop.envelope(n, 6 * n * d, CHINCHILLA.predict(BASE, N=n, D=d), run, draws=50)
    assert line.a == pytest.approx(allocation.chinchilla_exponents(BASE)["a"], abs=0.03)
    assert (line.budgets["note"] != "").any()  # the ends, where the envelope is the study's edge


def test_chains_recover_both_laws_and_predict_through_the_loss():
    loss = CHINCHILLA.predict(BASE, N=N, D=D)
    sigmoid = forms.get("downstream_sigmoid")
    truth = TRUTH["downstream_sigmoid"]
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(N))
    score = sigmoid.predict(truth, L=loss) + noise
    first, second = points(loss * np.exp(noise / 5), N=N, D=D), points(score, N=N, D=D, L=loss * np.exp(noise / 5))
    x = {"N": np.log([5e9]), "D": np.log([2e11])}
    expected = sigmoid.predict(truth, L=CHINCHILLA.predict(BASE, N=5e9, D=2e11))[0]
    for through in ("measured", "predicted"):
        both = chain.chain(CHINCHILLA, sigmoid, first, second, through, L2, LEAST_SQUARES)
        row = chain.predict(both, x, draws=200).iloc[0]
        assert row["lower"] < expected < row["upper"], through
        assert row["prediction"] == pytest.approx(expected, abs=0.05)


def test_next_run_is_ranked_by_what_refitting_shows():
    """The promised standard error is the one that the design with the new run really has."""
    runs = two(noise=0.003)
    runs = runs.take(runs.group == "vanilla")
    law = fit(CHINCHILLA, runs, L2)
    value = design.quantity(law, "alpha")
    x = {"N": np.log([3e10, 1e8]), "D": np.log([1e12, 1e10])}
    table = design.rank(law, value, x, 6 * np.exp(x["N"] + x["D"]))
    assert table["shrink_per_flop"].is_monotonic_decreasing
    assert (table["sd_after"] < table["sd_now"]).all()
    wide = table[table["N"] > 1e9].iloc[0]
    y = CHINCHILLA.values(law.theta_P[None], x)[0][:1]
    both = {k: np.append(np.exp(runs.x[k]), np.exp(x[k][0])) for k in ("N", "D")}
    more = fit(CHINCHILLA, points(np.append(runs.y, y), **both), L2)
    p = CHINCHILLA.symbols.index("alpha")
    ratio = np.sqrt(more.covariance()[p, p]) / more.sigma / (np.sqrt(law.covariance()[p, p]) / law.sigma)
    assert ratio == pytest.approx(wide["sd_after"] / wide["sd_now"], rel=0.02)


@pytest.mark.parametrize("text", ["gamma", "loss@N=1e9", "optimum@N=1", "loss@N=x,D=1", ""])
def test_unknown_quantities_are_named(text):
    law = fit(CHINCHILLA, two().take(np.arange(30)), L2)
    with pytest.raises(InputError, match="quantity"):
        design.quantity(law, text)
