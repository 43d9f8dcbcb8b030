"""The studies of the claims of other sources: what each declares."""

import collections

import pytest

import arch_zoo
from train.study import declare
from train.study.directory import load

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


def test_less_text_is_read_at_most_sixteen_times_and_tested_twice_an_epoch():
    for cell in load("data_size").cells:
        stage, step = cell.pretrain, declare.tokens_per_step(cell)
        half = stage.unique_tokens / step / 2
        assert cell.protocol == f"unique{stage.unique_tokens}"
        assert stage.eval_every == pytest.approx(half, abs=0.5)
        assert stage.steps <= min(16.5 * 2 * half, 5000) and stage.patience == 6


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
