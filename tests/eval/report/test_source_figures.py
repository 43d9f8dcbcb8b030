"""The figures of the sources: which a study has, and that they show its numbers."""

import numpy as np
import pytest
from scipy import stats

from eval.analyses.everything import analyse
from eval.report import source_figures
from eval.report.page import render
from eval.simulation import sources as simulated

DESIGNS = {
    "source_shape": simulated.shapes,
    "source_batch": simulated.batches,
    "source_saturation": simulated.saturation,
    "source_rank": simulated.finished,
}


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.slow
def test_a_study_has_the_figure_of_its_design(name):
    drawn = source_figures.draw(analyse(DESIGNS[name]()))
    assert list(drawn) == [name]
    panels = next(one for one in source_figures.FIGURES if one.name == name).panels
    axes = drawn[name].figure.axes
    assert len(axes) == len(panels)
    assert all(a.has_data() and a.get_xlabel() and a.get_ylabel() for a in axes)


@pytest.fixture(scope="module")
def mixed():
    return analyse(simulated.mixtures(seed=3))


def test_mixtures_are_shown_with_the_intervals_of_their_seeds(mixed):
    (axes,) = source_figures.draw(mixed)["source_mixture"].figure.axes
    runs = mixed.study.runs.merge(mixed.study.recipes, on="run_id")
    cells = runs.groupby(["mixture", "size"])["upstream_nll"].agg(["mean", "var"])
    half = stats.t.ppf(0.975, len(cells)) * np.sqrt(cells["var"].mean() / 2)
    points = {bars.get_label(): bars.lines for bars in axes.containers}
    assert list(points) == sorted(runs["mixture"].unique())
    for mixture, (marker, _, bars) in points.items():
        x, y = (float(v[0]) for v in marker.get_data())
        assert x == pytest.approx(cells["mean"][mixture, "size0"])
        assert y == pytest.approx(cells["mean"][mixture, "size1"])
        for line in bars:
            (ends,) = line.get_segments()
            assert np.ptp(ends, axis=0).max() == pytest.approx(2 * half)


def test_the_page_shows_them(mixed):
    page = render(mixed)
    assert page.count('<img src="data:image/png;base64,') == 1
    assert source_figures.draw(mixed)["source_mixture"].caption in page


def test_a_line_of_a_size_is_its_lowest_losses():
    study = simulated.data_size(seed=1)
    drawn = source_figures.draw(analyse(study))
    assert list(drawn) == ["source_data"]
    panel = drawn["source_data"].figure.axes[0]
    best = study.histories[study.histories["task"] == "corpus"].groupby("run_id")["value"].min()
    runs = study.runs.assign(best=study.runs["run_id"].map(best))
    means = runs.groupby(["params_non_embedding", "unique_tokens"])["best"].mean()
    for bars, (_, own) in zip(panel.containers, means.groupby(level=0), strict=True):
        x, y = np.asarray(bars.lines[0].get_data(), float)
        np.testing.assert_allclose(x, own.index.get_level_values(1).astype(float))
        np.testing.assert_allclose(y, own.astype(float))
