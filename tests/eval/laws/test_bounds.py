"""Laws with parameters at a bound of their search.

The answer is "not determined", never an error or a guess.
"""

import dataclasses
import json
import math
import warnings

import numpy as np
import pandas as pd
import pytest

from eval.__main__ import main
from eval.laws import allocation, at, example_points, forms, kaplan_implications, next_run
from eval.laws.fitting import fit, uncertainty

ND = sorted(name for name, form in forms.FORMS.items() if {"N", "D"} <= set(form.inputs))
BUDGETS = [1e19, 1e21, 1e23]


def at_bound(name: str, symbol: str, side: int) -> fit.Fit:
    """The example of a form, as if `symbol` had ended on its lower (0) or upper (1) bound."""
    form = forms.get(name)
    law = fit.fit(
        form, example_points.exact(name), start_SP=form.search(example_points.TRUTH[name])[None]
    )
    theta_P = law.theta_P.copy()
    p = form.symbols.index(symbol)
    theta_P[p] = (law.lower_P, law.upper_P)[side][p]
    return dataclasses.replace(law, theta_P=theta_P)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("name", "symbol"), [(name, symbol) for name in ND for symbol in forms.get(name).symbols]
)
def test_what_follows_from_a_law_is_defined_at_every_bound(name, symbol, side):
    law = at_bound(name, symbol, side)
    assert symbol in law.at_bounds
    draws = uncertainty.Draws(law, np.stack([law.theta_P] * 3), "cluster", 30, 0.0, 1.0)
    unknown = allocation.undetermined(law)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = allocation.allocate(draws, BUDGETS)
        times = allocation.multiplier(draws, draws, [3.0])
        place = at.place("C=1e21", law, 6.0)
        said = at.outside("C=1e21", place, law)
        ranked = next_run.rank(
            law, next_run.quantity(law, "optimum@C=1e21"), law.runs.x, np.ones(len(law.runs.y))
        )
        kaplan_implications.implications(name, law.params, {"N": 1e9, "D": 1e10}, 3.0)
    numbers = [
        found.exponents["a"],
        *found.optima["N"],
        *found.off["compute"],
        *times["multiplier"],
        *place["N"],
    ]
    if unknown:
        assert np.isnan(numbers).all() and ranked["shrink"].isna().all()
        for lines in (found.warnings, said, list(times["note"]), allocation.outside_grid(law, 6.0)):
            assert symbol in lines[0] and "not determined" in lines[0]
    else:
        assert symbol == law.form.floor_symbol and np.isfinite(numbers[0])


@pytest.mark.parametrize("symbol", ["alpha", "beta", "A", "B"])
def test_a_draw_at_a_bound_widens_the_interval_of_a_law_that_is_determined(symbol):
    runs = example_points.exact("chinchilla")
    form = forms.get("chinchilla")
    law = fit.fit(form, runs, start_SP=form.search(example_points.TRUTH["chinchilla"])[None])
    theta_BP = np.stack([law.theta_P] * 50)
    theta_BP[:5, law.form.symbols.index(symbol)] = law.lower_P[law.form.symbols.index(symbol)]
    draws = uncertainty.Draws(law, theta_BP, "cluster", 56, 0.0, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = allocation.allocate(draws, BUDGETS)
    assert found.exponents["a"] == pytest.approx(0.28 / 0.62, abs=1e-3)
    low, high = found.exponents["a_interval"]
    assert 0 <= low <= 0.28 / 0.62 + 1e-3 and 0.28 / 0.62 - 1e-3 <= high <= 1
    if symbol == "alpha":
        assert high == pytest.approx(1)  # beta / (0 + beta)
    if symbol == "beta":
        assert low == pytest.approx(0)
    assert np.isfinite(found.optima.drop(columns="extrapolated").to_numpy()).all()


def test_the_closed_form_is_not_determined_at_zero():
    published = {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28}
    assert allocation.chinchilla_exponents(published)["a"] == pytest.approx(0.28 / 0.62)
    for symbol in ("alpha", "beta", "A", "B"):
        found = allocation.chinchilla_exponents(published | {symbol: 0.0})
        assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize("tied", ["constant", "no effect"])
def test_every_verb_answers_on_data_that_cannot_determine_the_law(tmp_path, capsys, tied):
    """D never varies, or has no effect.

    Whatever the fit finds for beta and B, no verb may fail or claim an optimum.
    """
    N, D = (v.ravel() for v in np.meshgrid(np.geomspace(1e7, 3e9, 6), np.geomspace(1e9, 1e11, 4)))
    frame = pd.DataFrame({"N": N, "D": np.full_like(D, 1e10) if tied == "constant" else D})
    frame["loss"] = 1.8 + 400 * N**-0.34 * np.exp(
        0.002 * np.random.default_rng(0).standard_normal(len(N))
    )
    path = tmp_path / "runs.csv"
    frame.to_csv(path, index=False)
    common = [str(path), "--bootstrap", "30", "--format", "json"]
    for arguments in (
        ["fit"],
        ["allocate", "--budget", "1e20"],
        ["predict", "--at", "C=1e20"],
        ["next", "--quantity", "optimum@C=1e20"],
    ):
        verb, *rest = arguments
        assert main([verb, *common, *rest]) == 0
        found = json.loads(capsys.readouterr().out)
        at_zero = [w for w in found["warnings"] if "not determined" in w]
        if verb == "allocate":
            assert (found["a"] is None) == bool(at_zero)
        if verb == "fit":
            assert (found["allocation_exponents"]["a"] is None) == bool(at_zero)
