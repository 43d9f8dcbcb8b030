import itertools

import numpy as np
import pytest
from scipy.optimize import least_squares, minimize

from eval.laws import forms
from eval.laws.example_points import TRUTH, exact
from eval.laws.fitting import projection
from eval.laws.fitting.fit import fit
from eval.laws.fitting.objective import Objective
from eval.laws.law_table import points

CHINCHILLA = forms.Chinchilla()
OBJECTIVES = [Objective("huber"), Objective("l1"), Objective("l2"), Objective("l2", space="raw")]


def noisy(name="chinchilla", noise=0.01, seed=0):
    runs = exact(name)
    y = runs.y * np.exp(noise * np.random.default_rng(seed).standard_t(4, len(runs.y)))
    return points(y, **{key: np.exp(values) for key, values in runs.x.items()})


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: f"{o.name}-{o.space}")
def test_no_neighbour_is_better_and_nelder_mead_finds_nothing_better(objective):
    runs = noisy()
    found = fit(CHINCHILLA, runs, objective)

    def total(theta_P):
        values = CHINCHILLA.evaluate(theta_P[None], runs.x)[0][0]
        residual = np.log(runs.y) - values if objective.space == "log" else runs.y - np.exp(values)
        return objective.rho(residual).sum()

    assert total(found.theta_P) == pytest.approx(found.value, rel=1e-12)
    again = minimize(
        total,
        found.theta_P,
        method="Nelder-Mead",
        options={"maxiter": 4000, "xatol": 1e-10, "fatol": 0},
    )
    assert again.fun >= found.value * (1 - 1e-7)
    assert found.agreed > 0.9


def test_least_squares_equals_scipy():
    runs = noisy()
    found = fit(CHINCHILLA, runs, Objective("l2"))

    def residual(theta_P):
        return np.log(runs.y) - CHINCHILLA.evaluate(theta_P[None], runs.x)[0][0]

    theirs = least_squares(
        residual, found.theta_P + 0.01, x_scale="jac", xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    np.testing.assert_allclose(theirs.x, found.theta_P, rtol=1e-5)


def test_the_sum_is_minimised_so_scaling_the_weights_changes_nothing():
    runs = noisy()
    once = fit(CHINCHILLA, runs)
    light = fit(CHINCHILLA, points(runs.y, N=np.exp(runs.x["N"]), D=np.exp(runs.x["D"])))
    object.__setattr__(light.runs, "weight", light.runs.weight / len(runs.y))
    mean = fit(CHINCHILLA, light.runs)
    assert mean.params == pytest.approx(once.params, rel=1e-6)
    assert mean.value == pytest.approx(once.value / len(runs.y), rel=1e-9)


def test_a_single_outlier_moves_huber_less_than_least_squares():
    runs = exact("chinchilla")
    y = runs.y.copy()
    y[0] *= 1.5
    spoiled = points(y, N=np.exp(runs.x["N"]), D=np.exp(runs.x["D"]))
    off = [
        abs(fit(CHINCHILLA, spoiled, o).params["alpha"] - 0.34)
        for o in (Objective("huber"), Objective("l2"))
    ]
    assert off[0] < 3e-4 < 10 * off[0] < off[1]


@pytest.mark.parametrize("name", ["chinchilla", "offset", "overtrained", "power", "kaplan_n"])
def test_variable_projection_agrees_with_newton_on_raw_least_squares(name):
    runs = noisy(name)
    newton = fit(forms.get(name), runs, Objective("l2", space="raw"))
    projected = projection.variable_projection(forms.get(name), runs)
    assert projected.value == pytest.approx(newton.value, rel=1e-9)
    assert projected.params == pytest.approx(newton.params, rel=1e-5)


def test_hoffmann_starts_are_the_published_4500():
    starts = CHINCHILLA.hoffmann_starts()
    assert starts.shape == (4500, 5)
    grid = itertools.product(
        range(0, 30, 5), range(0, 30, 5), (-1, -0.5, 0, 0.5, 1), *[(0, 0.5, 1, 1.5, 2)] * 2
    )
    assert {tuple(row) for row in starts} == {tuple(map(float, row)) for row in grid}


def test_fixed_parameters_stay_and_the_rest_is_fitted():
    found = fit(
        CHINCHILLA, exact("chinchilla"), fixed={"E": TRUTH["chinchilla"]["E"], "beta": 0.28}
    )
    assert found.params == pytest.approx(TRUTH["chinchilla"], rel=1e-6)
    assert found.free_P.tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("name", forms.FORMS)
def test_every_form_takes_both_spaces(name):
    form, runs = forms.get(name), exact(name)
    for space in ("log", "raw"):
        found = fit(form, runs, Objective("l2", space=space))
        assert found.value < 1e-12


def test_well_determined_data_bring_no_warning():
    assert fit(CHINCHILLA, noisy(noise=0.003)).warnings == ()


def law(n, d, noise=0.003, seed=0, **changed):
    n, d = (np.asarray(v, float).ravel() for v in np.broadcast_arrays(n, d))
    truth = {**TRUTH["chinchilla"], **changed}
    y = CHINCHILLA.predict(truth, N=n, D=d)
    return points(y * np.exp(noise * np.random.default_rng(seed).standard_normal(len(y))), N=n, D=d)


def warned(runs, words, form=CHINCHILLA):
    lines = fit(form, runs).warnings
    assert any(words in line for line in lines), lines


def test_a_missing_floor_is_reported():
    n, d = np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 6))
    warned(law(n, d, E=1e-5, noise=0.0), "E is at zero")


def test_one_decade_of_parameters_is_reported():
    n, d = np.meshgrid(np.geomspace(1e8, 1e9, 6), np.geomspace(1e9, 1e12, 6))
    warned(law(n, d), "N spans 1.00 decades")


def test_two_sizes_are_reported():
    warned(law([[1e8], [1e10]], np.geomspace(1e9, 1e12, 6)), "N takes 2 values")


def test_parameters_that_move_as_one_are_named():
    """A floor and a coefficient over little more than a decade.

    Neither is determined, only their combined effect.
    """
    offset, x = forms.get("offset"), np.geomspace(1e8, 2e9, 12)
    y = offset.predict(TRUTH["offset"], x=x) * np.exp(
        1e-4 * np.random.default_rng(0).standard_normal(12)
    )
    warned(points(y, x=x), "E and alpha are nearly interchangeable (correlation", form=offset)


def test_tokens_tied_to_parameters_are_reported():
    n = np.geomspace(1e7, 1e10, 20)
    warned(law(n, 20 * n), "D is tied to N")


def test_too_few_points_are_reported():
    warned(law(np.geomspace(1e7, 1e10, 5), np.geomspace(1e12, 1e9, 5)), "5 points for 5 parameters")


def test_noise_that_hides_an_exponent_is_reported():
    n, d = np.meshgrid(np.geomspace(1e9, 3e10, 4), np.geomspace(1e11, 1e12, 4))
    warned(law(n, d, noise=0.1), "open")
