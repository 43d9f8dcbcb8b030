import numpy as np
import pytest

from eval.laws import forms
from eval.laws.example_points import TRUTH, exact, inputs
from eval.laws.fitting.fit import fit
from eval.laws.fitting.objective import Objective


def test_every_form_has_a_known_surface():
    assert set(TRUTH) == set(forms.FORMS)


@pytest.mark.parametrize("name", forms.FORMS)
def test_noise_free_surface_is_recovered_to_six_digits(name):
    form, runs = forms.get(name), exact(name)
    found = fit(form, runs, Objective("l2", space=form.space))
    for symbol, truth in TRUTH[name].items():
        assert found.params[symbol] == pytest.approx(truth, rel=1e-6), (
            symbol,
            found.params,
            found.agreed,
        )


@pytest.mark.parametrize("name", forms.FORMS)
def test_gradient_and_curvature_are_the_derivatives(name):
    form = forms.get(name)
    x = {key: np.log(values) for key, values in inputs(name).items()}
    theta_SP = form.search(TRUTH[name])[None] + 0.01 * np.array([[0.0], [1.0]])
    lower_P, upper_P = form.bounds()
    theta_SP = np.clip(theta_SP, lower_P + 1e-3, upper_P - 1e-3)
    values_Sn, jac_SPn = form.evaluate(theta_SP, x)
    weight_Sn = np.sin(np.arange(values_Sn.size)).reshape(values_Sn.shape)
    hess_SPP = form.curvature(theta_SP, x, weight_Sn)
    for p in range(theta_SP.shape[1]):
        step = 1e-6 * np.eye(theta_SP.shape[1])[p]
        (up, jac_up), (down, jac_down) = (
            form.evaluate(theta_SP + step, x),
            form.evaluate(theta_SP - step, x),
        )
        np.testing.assert_allclose(jac_SPn[:, p], (up - down) / 2e-6, rtol=1e-5, atol=1e-8)
        numeric = ((jac_up - jac_down) / 2e-6 * weight_Sn[:, None]).sum(-1)
        np.testing.assert_allclose(
            hess_SPP[:, p], numeric, rtol=1e-3, atol=1e-4 * np.abs(hess_SPP).max() + 1e-6
        )


@pytest.mark.parametrize("name", forms.FORMS)
def test_search_undoes_publish(name):
    form = forms.get(name)
    theta_P = form.search(TRUTH[name])
    published = dict(zip(form.symbols, form.publish(theta_P), strict=True))
    assert published == pytest.approx(TRUTH[name], rel=1e-12)
    lower_P, upper_P = form.bounds()
    assert (lower_P < theta_P).all() and (theta_P < upper_P).all()


@pytest.mark.parametrize("name", forms.FORMS)
def test_starts_are_inside_the_bounds_and_finite(name):
    form, runs = forms.get(name), exact(name)
    start_SP = form.starts(runs.x, runs.y)
    assert np.isfinite(form.evaluate(start_SP, runs.x)[0]).all()
