"""The studies of the claims of other sources: what each declares."""

import collections
import dataclasses

import pytest

import arch_zoo
from configs.studies import saturation
from eval.analyses.sources import measured
from eval.analyses.sources.scorecard import scorecard
from eval.data.study import read_study
from tests.train.tiny_corpus import write_corpus
from train.data.corpus import open_corpus
from train.run.cell import run_cell
from train.study import declare
from train.study.directory import load
from train.study.trunks import trunk_of

NAMES = ("kaplan", "data_size", "batch_size", "shape", "capacity", "saturation", "mixture")


@pytest.mark.parametrize("name", NAMES)
def test_every_run_is_a_language_model_on_text_alone(name):
    study = load(name)
    assert {cell.family for cell in study.cells} == {"decoder_only"}
    assert {cell.pretrain.objective for cell in study.cells} == {"causal_lm"}
    assert {cell.finetune for cell in study.cells} == {None}
    assert study.name == name and study.prepare in declare.PREPARED


def test_shapes_have_the_same_parameters_outside_the_tables():
    found = collections.defaultdict(list)
    for cell in load("shape").cells:
        model = declare.model(cell, declare.PYTHON_VOCABULARY)
        found[cell.size.split("-")[0]].append(arch_zoo.count_params(model).non_embedding)
    for counts in found.values():
        assert len(counts) == 26 and max(counts) < 1.01 * min(counts)


def test_less_text_is_read_at_most_sixteen_times_and_tested_twice_an_epoch_or_more():
    for cell in load("data_size").cells:
        stage, step = cell.pretrain, declare.tokens_per_step(cell)
        half = stage.unique_tokens / step / 2
        assert cell.protocol == f"unique{stage.unique_tokens}"
        assert stage.eval_every == pytest.approx(min(half, 150), abs=0.5)
        assert stage.steps <= min(16.5 * 2 * half, 5000)
        waits = stage.patience * stage.eval_every / half / 2  # epochs
        assert waits == pytest.approx(3, abs=0.3)


def test_larger_batches_take_larger_steps_over_as_many_examples():
    by_rows = {
        cell.pretrain.batch_size: cell.pretrain
        for cell in load("batch_size").cells
        if "rate" not in cell.protocol
    }
    assert sorted(by_rows) == [4, 8, 16, 32, 64, 128]
    for rows, stage in by_rows.items():
        assert stage.optimizer.learning_rate == pytest.approx(0.03 * (rows / 16) ** 0.5)
        assert stage.steps * rows >= 37_500


def test_kaplans_runs_share_their_course_until_their_rates_fall():
    cells = load("kaplan").cells
    for cell in cells:
        optimizer = cell.pretrain.optimizer
        assert optimizer.schedule == "constant"
        assert optimizer.decay_steps == cell.pretrain.steps // 5
        trunk = trunk_of(cell, cells)
        assert (trunk is None) == (cell.pretrain.steps == 3200)
        assert trunk is None or (trunk.size, trunk.pretrain.steps) == (cell.size, 3200)
    lengths = {cell.pretrain.steps for cell in cells}
    assert len(cells) == 16 and lengths == {3200, 2400, 1800, 1350}


@pytest.mark.slow
def test_a_short_saturation_records_what_its_claims_need(tmp_path):
    """With a two-thousandth of its tokens, which is too few for the claims themselves."""
    corpus = open_corpus(write_corpus(tmp_path / "corpus"))
    cells = [c for c in saturation.study(1 / 2000).cells if "-DM128-" not in c.size]
    for run in cells[1:4]:
        small = dataclasses.replace(run.pretrain, eval_batches=1, eval_batch_size=16)
        directory = tmp_path / "runs" / run.size
        config = dataclasses.replace(run, pretrain=small)
        assert run_cell(config, corpus, directory, quiet=True) == "done"
    study = read_study(tmp_path / "runs")
    (found,) = measured.measured(study)
    assert set(found.runs["width"]) == {16, 8, 256}
    narrow = found.runs[found.runs["width"] == 8].iloc[0]
    assert narrow["decay_steps"] == narrow["steps"] // 10 > 0
    courses = found.course("heldout", "anisotropy", "entropy", "seen")
    last = courses[narrow["run_id"]]["step"].max()
    assert last == narrow["steps"] - narrow["decay_steps"]
    card = scorecard(study).set_index(["claim", "part"])
    assert "tokens for each parameter" in card.loc[("G1", "a"), "note"]


def test_capacities_are_looked_for_around_what_a_model_can_hold():
    cells = load("capacity").cells
    for cell in cells:
        stage = cell.pretrain
        model = declare.model(cell, declare.RANDOM_VOCABULARY)
        load_of = stage.batch_size * 96 / (3.6 * arch_zoo.count_params(model).total)
        assert cell.protocol.startswith("load")
        assert load_of == pytest.approx(float(cell.protocol[4:].split("-")[0]), rel=0.02)
        assert stage.unique_tokens == stage.batch_size * 16 and not stage.z_loss
    trials = collections.Counter((cell.architecture, cell.size) for cell in cells)
    assert set(trials.values()) == {4} and len(trials) == 13
