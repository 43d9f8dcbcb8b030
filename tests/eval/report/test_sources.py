"""The claims of the other sources as they are shown: in a table, in a sentence, or in one line."""

import pandas as pd
import pytest

from eval.analyses.sources.claim import Source
from eval.analyses.sources.scorecard import SOURCES, scorecard
from eval.report import summary, tables
from eval.report.grid import markdown
from eval.report.page import sections
from eval.simulation import sources as simulated
from eval.stats.decision import CANNOT_BE_TOLD, NOT_TESTED


@pytest.fixture(scope="module")
def card() -> pd.DataFrame:
    return scorecard(simulated.tasks((5.0, 4.0, -0.5)))


def test_a_source_that_is_tested_shows_all_of_its_claims_and_others_are_one_line(card):
    tested = card[card["verdict"] != NOT_TESTED]
    assert list(tested["claim"]) == ["H3"]
    shown = tables.sources_grid(card)
    assert [row.cells[1].text for row in shown.rows] == ["H3", "H4", "H5"]
    assert [row.cells[0].text for row in shown.rows] == ["a survey of scaling laws", "", ""]
    left = next(note for note in shown.notes if note.startswith("Not tested at all"))
    for source in SOURCES:
        assert (source.name in left) == (source.name != "a survey of scaling laws")
    assert "Godey et al. 2024 saturation" in left


def test_an_open_claim_names_the_study_that_would_settle_it(card):
    shown = tables.sources_grid(card)
    heads = [column.label for column in shown.columns]
    place = heads.index("What would settle it")
    open_ = card[card["verdict"].isin((CANNOT_BE_TOLD, NOT_TESTED))]
    of_it = open_[open_["source"] == "a survey of scaling laws"]
    texts = [row.cells[place].text for row in shown.rows if row.cells[place].text]
    assert texts == list(of_it["would_settle"]) and all(t.startswith("study ") for t in texts)


def test_several_architectures_have_a_column(card):
    two = pd.concat([card.assign(architecture=name) for name in ("glu", "transformer")])
    shown = tables.sources_grid(two.sort_values(["source", "claim"], kind="stable"))
    assert {row.architecture for row in shown.rows} == {"glu", "transformer"}
    assert "corrected for their number" in shown.notes[0]


def test_an_ordinary_study_gets_one_line(analysis):
    """Four encoder-decoders of equal training at four sizes: their tasks are all that is tested."""
    (part,) = (p for p in sections.sections(analysis) if p.anchor == "sources")
    claims = analysis.results["sources"]
    tested = claims[claims["verdict"] != NOT_TESTED]
    assert set(tested["claim"]) == {"H3"} and len(part.grids[0].rows) == len(tested) + 2
    nothing = scorecard(simulated.lengths(lambda n, d: 3.0, tokens=(1e7,)))
    shown = tables.sources_grid(nothing)
    assert not shown.rows and len(shown.notes) == 1
    assert "Studies that would: of Kaplan et al. 2020 kaplan, data_size, shape" in shown.notes[0]
    assert "kaplan" in markdown(shown)


def test_the_summary_counts_only_what_was_tested(analysis):
    claims = analysis.results["sources"]
    (said,) = (s for s in summary.sentences(analysis) if "survey of scaling laws" in s)
    assert said.startswith(f"Of {(claims['verdict'] != NOT_TESTED).sum()} claims (and parts) of ")


def test_every_claim_names_its_study_and_what_more_it_would_need():
    claims = [claim for source in SOURCES for claim in source.claims]
    assert len({claim.number for claim in claims}) == 23
    assert all(claim.study and claim.more and claim.measure for claim in claims)
    assert isinstance(SOURCES[0], Source)
