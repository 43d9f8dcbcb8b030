"""`benchmarks.study_page`: the page about a study, from its records."""

import json
import sys

from benchmarks import study_page
from eval.simulation import sources as simulated
from tests.eval import run_directories


def test_the_page_has_the_time_the_figures_and_the_tested_claims(tmp_path, monkeypatch):
    study = simulated.data_size(texts=simulated.TEXTS[:4], sizes=simulated.SIZES[:3], seeds=1)
    path = run_directories.write_simulated(tmp_path, study)
    for i, run in enumerate(study.runs["run_id"]):
        attempt = {"started": 1e9 + 30.0 * i, "seconds": 60.0}
        (path / run / "attempts.jsonl").write_text(json.dumps(attempt) + "\n")
    monkeypatch.setattr(sys, "argv", ["", str(path), "--out", str(tmp_path / "docs")])
    study_page.main()
    page = (tmp_path / "docs" / "simulated.md").read_text()
    # Twelve runs, each a minute long and begun half a minute after the one before.
    assert "12 runs in 6 minutes (12 minutes of runs, side by side) on 2001-09-09" in page
    assert "![Loss by size and different tokens" in page and "(simulated_data.png)" in page
    assert (tmp_path / "docs" / "simulated_data.png").stat().st_size > 10_000
    assert "| K5 |" in page and "| G1 |" not in page


def test_the_time_of_a_study_leaves_out_when_nothing_ran():
    assert study_page.busy([(0.0, 10.0), (5.0, 12.0), (100.0, 103.0), (101.0, 102.0)]) == 15.0
