"""Runs that kept the value of every held-out example are compared example by example."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from eval.analyses import everything
from eval.analyses.paired import Paired, PairedErrors
from eval.analyses.pareto import Frontier
from eval.analyses.question import Question
from eval.analyses.rank import Ranking
from eval.analyses.settings import Settings
from eval.data import examples
from eval.data.cells import RunTable
from eval.data.examples import PairedExamples
from eval.data.quantity import LOSS, SCORE
from eval.data.study import BITS_PER_BYTE, read_study
from eval.report import page
from tests.eval import run_directories
from train import records
from train.records import InputError

COUNT = 200


def keep_examples(study: Path) -> dict[str, np.ndarray]:
    """Adds values of every sequence to the runs: hard ones are hard for all; nats by run."""
    weight = np.random.default_rng(0).integers(5, 20, COUNT).astype(float)
    hard = np.random.default_rng(1).normal(0.0, 1.0, COUNT)
    found = {}
    for number, path in enumerate(sorted(path for path in study.iterdir() if path.is_dir())):
        evals = records.read_jsonl(path / "evals.jsonl")
        (nll,) = [row["value"] for row in evals if row["metric"] == "nll" and row["step"] == 100]
        own = np.random.default_rng([2, number]).normal(0.0, 0.05, COUNT)
        total = (nll + hard + own) * weight
        total += (nll - total.sum() / weight.sum()) * weight
        size = run_directories.BYTES_PER_TOKEN * weight
        rows = [
            {"nll": t, "weight": w, "bytes": b} for t, w, b in zip(total, weight, size, strict=True)
        ]
        records.RunWriter(path).examples([{"task": "corpus", "examples": rows}])
        found[path.name] = total / weight
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    made = run_directories.write_study(tmp_path_factory.mktemp("kept"), seeds=1)
    keep_examples(made)
    return made


def test_a_difference_is_that_of_pairs():
    rng = np.random.default_rng(0)
    hard, weight = rng.normal(50, 20, 40), np.ones(40)
    pair = PairedExamples(np.stack([hard, hard + 1 + 0.1 * rng.normal(size=40)]), weight)
    value, error = pair.difference(1, 0)
    paired = stats.ttest_rel(pair.total[1], pair.total[0])
    assert value == pytest.approx(np.mean(pair.total[1] - pair.total[0]))
    assert value / error == pytest.approx(paired.statistic)
    assert error < 0.01 * np.std(hard)


def test_examples_are_drawn_again_together():
    """Draws of two models move up and down together, and so hardly change their difference."""
    rng = np.random.default_rng(0)
    hard, weight = rng.normal(3.0, 1.0, 300), rng.integers(5, 20, 300).astype(float)
    both = PairedExamples(np.stack([hard * weight, (hard + 0.1) * weight]), weight)
    drawn = both.redrawn(2000, 0)
    single = PairedExamples(np.stack([hard * weight, 0 * weight]), weight).difference(0, 1)[1]
    assert drawn.mean(0) == pytest.approx(both.values, abs=4 * single / np.sqrt(2000))
    assert drawn.std(0) == pytest.approx(np.full(2, single), rel=0.08)
    assert np.ptp(drawn[:, 1] - drawn[:, 0]) < 1e-9


def test_runs_with_other_examples_are_left_out(study):
    paths = {path.name: path for path in study.iterdir()}
    names, found = examples.read(paths, "corpus")
    assert names == list(paths) and found.total.shape == (len(paths), COUNT)
    assert examples.read(paths, "python_match") is None
    assert examples.read({}, "corpus") is None


def test_a_damaged_file_is_named(study, tmp_path):
    run = tmp_path / "run" / records.HELDOUT
    run.mkdir(parents=True)
    (run / "corpus.jsonl").write_text(json.dumps({"nll": 1.0}) + "\n")
    with pytest.raises(InputError, match="corpus.jsonl: row 1 .*weight"):
        examples.read({"run": run.parent}, "corpus")
    (run / "corpus.jsonl").write_text(json.dumps({"nll": None, "weight": 1.0}) + "\n")
    with pytest.raises(InputError, match="corpus.jsonl"):
        examples.read({"run": run.parent}, "corpus")


def test_the_paired_table_has_the_differences_of_the_records_and_small_errors(study):
    read = read_study(study)
    rows = Paired(read, Question(reference="albert", y=LOSS)).differences()
    loss = read.runs.set_index(["architecture", "size"]).upstream_nll
    assert len(rows) == 9 and (rows["n_examples"] == COUNT).all()
    for row in rows.to_dict("records"):
        expected = loss["albert", row["size"]] - loss[row["architecture"], row["size"]]
        assert row["difference"] == pytest.approx(expected)  # higher is better
        assert 0.05 / np.sqrt(COUNT) < row["se"] < 0.02  # of one model it is 0.07
        assert "one seed" in row["note"] and row["p"] <= row["p_holm"]
    assert Paired(read, Question(reference="albert", y=SCORE)).differences().empty
    assert Paired(read.runs, Question(reference="albert")).differences().empty


def test_the_same_errors_stand_by_cell_in_the_unit_of_each_quality(study):
    """Of the loss, and of the loss per byte; of no score, because no run kept a task's examples."""
    read = read_study(study)
    rows = Paired(read, Question(reference="albert", y=LOSS)).differences()
    found = everything.analyse(read, Settings(reference="albert")).paired_errors
    loss, in_bytes = found.table["upstream_nll"], found.table[BITS_PER_BYTE]
    for row in rows.to_dict("records"):
        cell = (row["architecture"], row["size"], "")
        assert loss[cell] == pytest.approx(row["se"])
        assert in_bytes[cell] == pytest.approx(0.4 * row["se"])
    assert loss["albert"].isna().all() and len(loss) == len(rows) + 3
    assert not found.known("downstream_mean") and found.known("upstream_nll")


def test_examples_of_another_checkpoint_than_the_one_that_is_shown_give_no_error(tmp_path):
    made = run_directories.write_study(tmp_path, ("glu", "transformer"), ("nano", "micro"))
    keep_examples(made)
    assert PairedErrors.of(RunTable(read_study(made)), "transformer", [LOSS]).known("upstream_nll")
    runs = read_study(made).runs
    runs.loc[0, "upstream_nll"] -= 0.1
    moved = RunTable(read_study(made)).take(runs)
    assert not PairedErrors.of(moved, "transformer", [LOSS]).known("upstream_nll")


def test_with_one_seed_frontiers_and_ranks_draw_the_examples_again(study, small):
    cells = Frontier(read_study(study), Question(reference="albert", draws=200)).frontier()
    assert cells["probability_on_frontier"].between(0, 1).all()
    assert cells["note"].str.contains("only the held-out examples are drawn again").all()
    best = Ranking(read_study(study), Question(reference="albert", draws=200)).probability_best(3)
    assert best.groupby("budget")["probability_best"].sum().to_numpy() == pytest.approx(np.ones(3))
    plain = Frontier(read_study(study).runs, Question(reference="albert", draws=50)).frontier()
    assert plain["probability_on_frontier"].isna().all()  # a table has no examples


@pytest.mark.slow
def test_the_page_compares_models_example_by_example_if_the_runs_kept_them(study, small):
    said = "on the same held-out examples"
    assert said in page.render(everything.analyse(read_study(study)))
    assert said not in page.render(everything.analyse(read_study(small)))
