"""A report on both families: what it says first, what it draws, and what one family leaves out."""

import re

import pytest

from eval.analyses import everything
from eval.data.study import read_study
from eval.report import figures, page, style, summary
from eval.report.page import sections
from eval.report.summary import Pair
from tests.eval import run_directories

GAINS = {"lconv": (0.3, 0.0), "transformer": (0.0, 0.0)}


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> everything.Analysis:
    """Two architectures; alone, lconv is .3 nats better and transformer is the same."""
    path = run_directories.write_families(
        tmp_path_factory.mktemp("runs"), GAINS, run_directories.LADDER[:4], 2
    )
    return everything.analyse(read_study(path))


def test_the_sentence_starts_with_what_is_significant(both):
    (upstream,) = [
        s for s in summary.sentences(both) if s.startswith("Decoder-only") and "ups" in s
    ]
    found = upstream.split("after correction for 2 comparisons, ")[1]
    assert re.match(r"lower loss for lconv \(by 0\.\d+ nats, 0\.\d+ times the FLOPs", found)
    assert "no difference of slope is found" in found
    assert "1 architecture is not told apart in level: with" in found
    assert "2 architectures are not told apart in slope: with" in found


def test_the_scope_counts_architectures_once_and_claims_say_whose_they_are(both):
    said = summary.sentences(both)
    assert "2 architectures as encoder-decoders and 2 as decoder-only models" in said[0]
    (claims,) = [line for line in said if "claims (and parts) of the paper" in line]
    assert "tested on encoder-decoders alone" in claims
    assert both.reference == "transformer"


def test_the_section_leads_with_what_is_significant_and_names_the_rest(both):
    said = summary.families_in_short(both, ("F,D", "F,U", "P,U"))
    assert said.startswith(
        "Decoder-only models, after correction: upstream at equal FLOPs, lower loss for lconv (by"
    )
    assert ". Upstream at equal parameters outside the embedding, lower loss for lconv" in said
    assert said.endswith("No difference is found downstream at equal FLOPs.")


def test_without_a_row_or_a_test_the_sentence_says_so(both):
    table, times = both.results["families"], both.results["family_multipliers"]
    assert summary.of_families(Pair("F,U"), table.head(0), times) == ""
    untested = table.assign(verdict="not tested")
    said = summary.of_families(Pair("F,U"), untested, times)
    assert said.endswith("no architecture has enough sizes in both families for a test.")


def test_the_page_has_the_section_the_term_and_every_row(both):
    html = page.render(both)
    assert '<section id="families">' in html and "<dt>family</dt>" in html
    assert (
        html.index('id="comparison"') < html.index('id="families"') < html.index("Crossovers</h2>")
    )
    section = next(s for s in sections.sections(both) if s.anchor == "families")
    assert section.intro.startswith("Decoder-only models, after correction: upstream at equal")
    rows, times = section.grids
    # Two measures of two architectures, upstream and downstream, on FLOPs and on parameters.
    assert len(rows.rows) == 16 and len(times.rows) == 8


def test_the_figure_has_a_panel_for_each_architecture_with_dashes_for_decoder_only(both):
    figure = figures.draw_more(both)["families"]
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["lconv", "transformer"]
    for panel in figure.axes:
        lines = [line for line in panel.lines if len(line.get_xdata()) > 20]
        assert [line.get_linestyle() for line in lines] == ["-", "--"]


def test_a_decoder_only_model_looks_like_its_architecture_but_open():
    look = style.looks(["lconv", "lconv (decoder-only)", "mine", "mine (decoder-only)"])
    for name in ("lconv", "mine"):
        full, alone = look[name], look[f"{name} (decoder-only)"]
        assert (full.color, full.marker) == (alone.color, alone.marker)
        assert full.filled and not alone.filled and alone.linestyle == "--"
    assert look["lconv"].color != look["mine"].color


def test_one_family_has_no_section_no_sentence_and_no_figure(small):
    one = everything.analyse(read_study(small))
    assert one.results["families"].empty and "architecture" in one.results["families"]
    assert "families" not in [section.anchor for section in sections.sections(one)]
    assert not any("ecoder-only" in sentence for sentence in summary.sentences(one))
    assert not {"families"} & set(figures.draw_more(one))
    runs = next(s for s in sections.sections(one) if s.anchor == "runs")
    assert "Family" not in [column.label for column in runs.grids[0].columns]
