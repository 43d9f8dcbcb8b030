import io

import numpy as np
import pytest

from eval.laws import forms
from eval.laws.diagnostics import law_page
from eval.laws.example_points import TRUTH, exact
from eval.report.law_figures import draw
from eval.stats.resampling import Resampling
from tests.eval.laws.test_groups import two


def test_a_page_holds_every_piece():
    page = law_page(two().take(np.arange(30)), forms.get("chinchilla"), resampling=Resampling(50))
    assert page.parameters["symbol"].tolist() == list(TRUTH["chinchilla"])
    assert (page.parameters["lower"] < page.parameters["upper"]).all()
    np.testing.assert_allclose(
        page.points["loss"], page.points["prediction"] * np.exp(page.points["residual"])
    )
    assert (
        page.curves["series"].nunique() > 3 and (page.curves["lower"] <= page.curves["upper"]).all()
    )
    assert page.isoflops["flops"].nunique() == 5
    assert page.landscape["objective"].is_monotonic_increasing and len(page.landscape) == 96
    assert page.checklist["answer"].str.len().gt(0).all() and set(page.checklist["part"]) >= {
        "form",
        "fit",
        "training",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["power", "chinchilla", "downstream_exp", "data_constrained", "routed"]
)
def test_figures_are_drawn_for_every_kind_of_form(name):
    page = law_page(exact(name), forms.get(name), resampling=Resampling(20))
    figure = draw(page)
    assert len(figure.axes) == (4 if name == "chinchilla" else 3)
    figure.savefig(io.BytesIO(), format="png")


def test_a_warning_is_on_the_figure():
    runs = two().take(np.arange(5))
    assert (
        "WARNING"
        in draw(law_page(runs, forms.get("chinchilla"), resampling=Resampling(20))).get_suptitle()
    )
