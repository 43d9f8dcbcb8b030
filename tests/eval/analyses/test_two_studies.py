"""The comparison of two studies, against differences that were put in by hand."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from eval.__main__ import main
from eval.analyses.two_studies import compare_studies, sentence
from tests.eval.run_directories import write_study
from train import records
from train.records import InputError

RUN = "albert-nano-s0"


@pytest.fixture
def pair(tmp_path):
    """The same study twice: 4 architectures, 3 sizes, 2 seeds."""
    first = write_study(tmp_path / "a", seeds=2)
    second = tmp_path / "b" / first.name
    shutil.copytree(first, second)
    return first, second


def _change(study, run, metric, by, task=None):
    rows = records.read_jsonl(study / run / "evals.jsonl")
    for row in rows:
        if row["metric"] == metric and (task is None or row["task"] == task):
            row["value"] += by
    (study / run / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _overall(found, quantity):
    return found["overall"].set_index("quantity").loc[quantity]


def test_a_copy_differs_in_nothing(pair):
    found = compare_studies(*pair)
    assert found["missing"].empty and found["settings"].empty
    assert (found["overall"]["difference"] == 0).all()
    assert _overall(found, "upstream_nll")["identical"] == 24


def test_a_change_is_found_with_its_interval(pair):
    runs = sorted(path.name for path in pair[1].iterdir())
    rng = np.random.default_rng(0)
    changes = {run: -0.1 + 0.02 * rng.normal() for run in runs}
    for run, change in changes.items():
        _change(pair[1], run, "nll", change)
    found = compare_studies(*pair)
    cells = {}
    for run, change in changes.items():
        cells.setdefault(run.rpartition("-s")[0], []).append(change)
    means = [np.mean(values) for values in cells.values()]
    expected = stats.ttest_1samp(means, 0.0)
    row = _overall(found, "upstream_nll")
    assert (row["n_cells"], row["difference"], row["p"]) == (
        12,
        pytest.approx(np.mean(means)),
        pytest.approx(expected.pvalue),
    )
    interval = expected.confidence_interval(0.95)
    assert (row["ci_low"], row["ci_high"]) == (
        pytest.approx(interval.low),
        pytest.approx(interval.high),
    )
    one = found["cells"].iloc[0]
    assert one["ci_high"] - one["ci_low"] == pytest.approx(
        2 * 1.96 * np.hypot(0.02, 0.02), rel=1e-3
    )
    assert _overall(found, "downstream_mean")["difference"] == 0


def test_missing_failed_and_changed_cells_are_reported(pair):
    shutil.rmtree(pair[1] / RUN)
    records.RunWriter(pair[0] / "albert-micro-s1").status(
        "failed", stage="pretrain", error="Diverged: at step 3"
    )
    changed = records.read_json(pair[1] / "albert-milli-s0" / "config.json")
    changed["pretrain"]["steps"] = 7
    records.write_json(pair[1] / "albert-milli-s0" / "config.json", changed)
    found = compare_studies(*pair)
    told = {
        (row.size, row.seed): (row.first, row.second, row.error)
        for row in found["missing"].itertuples()
    }
    assert told == {
        ("nano", 0): ("done", "absent", ""),
        ("micro", 1): ("failed", "done", "Diverged: at step 3"),
    }
    assert found["settings"].to_dict("records") == [
        {"setting": "pretrain.steps", "first": "100", "second": "7", "runs": 1}
    ]
    notes = found["cells"].set_index(["architecture", "size", "seed"])["note"]
    assert notes["albert", "milli", 0] == "other settings"
    assert notes["albert", "milli", 1] == ""


def test_losses_on_another_corpus_are_not_compared(pair):
    path = pair[1] / RUN / "config.json"
    other = records.read_json(path)
    other["data"]["fingerprint"] = "fedcba9876543210"
    records.write_json(path, other)
    found = compare_studies(*pair)
    row = _overall(found, "upstream_nll")
    assert row["note"] == "1 runs on another corpus are left out"
    assert row["identical"] == 23


def test_the_command_prints_all_of_it(pair, capsys):
    assert main(["compare-studies", *map(str, pair), "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["overall", "cells", "missing", "settings"]
    assert len(printed["cells"]) == 24
    assert main(["compare-studies", str(pair[0]), "nowhere"]) == 2
    assert "runs: 'nowhere' is not a directory" in capsys.readouterr().err


def test_the_command_answers_first_and_counts_what_is_missing(pair, capsys):
    for size in ("nano", "micro", "milli"):
        for seed in (0, 1):
            shutil.rmtree(pair[1] / f"albert-{size}-s{seed}")
    assert main(["compare-studies", *map(str, pair)]) == 0
    out = capsys.readouterr().out
    said = "The second study against the first: upstream it is the same over 9 cells"
    assert out.startswith(said) and "0 settings differ." in out.splitlines()[0]
    missing = [line for line in out[out.index("Missing") :].splitlines() if "albert" in line]
    assert len(missing) == 1 and "\u2502    6 \u2502" in missing[0]


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((-0.3, -0.1), "upstream it is better by 0.2 nats over 9 cells"),
        ((0.1, 0.3), "upstream it is worse by 0.2 nats over 9 cells"),
        ((-0.1, 0.5), "not told apart (difference 0.2 nats, 95% interval -0.1 to 0.5, over 9"),
        ((np.nan, np.nan), "upstream it differs by 0.2 nats over 9 cells, too few for a test"),
    ],
)
def test_the_sentence_follows_the_interval(ends, said):
    row = {"quantity": "upstream_nll", "n_cells": 9, "ci_low": ends[0], "ci_high": ends[1]}
    middle = 0.2 if np.isnan(ends[0]) else sum(ends) / 2
    found = {"overall": pd.DataFrame([row | {"difference": middle}]), "settings": pd.DataFrame()}
    assert said in sentence(found, 0.95)


def test_studies_without_a_common_run_are_refused(tmp_path):
    one = write_study(tmp_path / "a", architectures=("glu",))
    two = write_study(tmp_path / "b", architectures=("mos",))
    with pytest.raises(InputError, match="have no finished run in common"):
        compare_studies(one, two)


def test_scores_are_compared_over_the_tasks_that_both_have(pair):
    for run in pair[1].iterdir():
        _change(pair[1], run.name, "score", 5.0, "python_match")
        path = run / "evals.jsonl"
        path.write_text(path.read_text().replace('"python_package"', '"mood"'))
    row = _overall(compare_studies(*pair), "downstream_mean")
    assert row.note.startswith("only tasks that both have: python_acceptability, ")
    assert "package" not in row.note and "mood" not in row.note
    assert row.difference == pytest.approx(5 / 4)  # one of four common tasks, by 5 points


def test_a_study_without_finished_runs_is_refused_in_one_line(pair, capsys):
    for run in pair[0].iterdir():
        status = json.loads((run / "status.json").read_text())
        (run / "status.json").write_text(json.dumps({**status, "state": "queued"}))
    assert main(["compare-studies", *map(str, pair)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {pair[0]}: no run is finished, so there is nothing to compare"
    )
