"""Several seeds in one program: each must train as if it ran alone."""

import dataclasses

import jax
import numpy as np
import pytest

import arch_zoo
from tests import lowering
from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.__main__ import main
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell, loop, seeds
from train.run.optimizers import make_optimizer
from train.run.step import init_state, make_model, make_train_step
from train.study.config import OptimizerConfig

STAGE = dataclasses.replace(tiny_study.STAGE, steps=8, dropout_rate=0.1, eval_every=4)


def _runs(count, architecture="performer", **changes):
    """Seeds of one cell; the Performer's random features are constants that differ by seed."""
    run = dataclasses.replace(
        tiny_study.run(architecture), **{"pretrain": STAGE, "finetune": STAGE, **changes}
    )
    return [dataclasses.replace(run, seed=seed) for seed in range(count)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def _assert_alike(one, other):
    """Asserts equal records, up to rounding and the clock."""
    assert one.config == other.config
    assert one.status["state"] == other.status["state"] == "done"
    assert one.status["finished"] == other.status["finished"]
    for mine, theirs in ((one.metrics, other.metrics), (one.evals, other.evals)):
        assert [list(row) for row in mine] == [list(row) for row in theirs]
        for row, expected in zip(mine, theirs, strict=True):
            for key in set(row) - records.CLOCK:
                if isinstance(row[key], float) and row.get("stage") == "pretrain":
                    np.testing.assert_allclose(row[key], expected[key], rtol=2e-3, err_msg=key)
                elif not isinstance(row[key], float):
                    assert row[key] == expected[key]


@pytest.mark.slow
def test_each_seed_is_as_if_it_had_run_alone(corpus, tmp_path):
    runs = _runs(3)
    assert seeds.run_seeds(runs, corpus, tmp_path / "together", quiet=True) == ["done"] * 3
    for run in runs[:2]:
        cell.run_cell(run, corpus, tmp_path / "alone" / run.run_id, quiet=True)
        _assert_alike(
            *(records.read_run(tmp_path / name / run.run_id) for name in ("together", "alone"))
        )
    first, second = (
        records.read_run(tmp_path / "together" / run.run_id).metrics for run in runs[:2]
    )
    assert first[0]["loss"] != second[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["muon", "lion"])
def test_seeds_under_another_optimizer(corpus, tmp_path, name):
    optimizer = OptimizerConfig(name=name, learning_rate=0.003, schedule="constant", warmup_steps=2)
    stage = dataclasses.replace(STAGE, optimizer=optimizer, eval_every=0)
    runs = _runs(2, "transformer", pretrain=stage, finetune=None)
    assert seeds.run_seeds(runs, corpus, tmp_path / "together", quiet=True) == ["done"] * 2
    stops = iter([False] * 4 + [True])
    with pytest.raises(loop.Preempted):
        path = tmp_path / "alone" / runs[0].run_id
        cell.run_cell(runs[0], corpus, path, stop=lambda: next(stops), quiet=True)
    cell.run_cell(runs[0], corpus, path, quiet=True)
    cell.run_cell(runs[0], corpus, tmp_path / "whole" / runs[0].run_id, quiet=True)
    whole, cut, together = (
        records.read_run(tmp_path / kind / runs[0].run_id)
        for kind in ("whole", "alone", "together")
    )
    assert cut.evals == whole.evals  # bit for bit
    _assert_alike(together, whole)


@pytest.mark.slow
def test_seeds_stopped_together_continue_together_or_alone(corpus, tmp_path):
    runs = _runs(2, "transformer", finetune=None)
    asked = iter([False, False, True])
    with pytest.raises(loop.Preempted):
        seeds.run_seeds(runs, corpus, tmp_path / "a", stop=lambda: next(asked), quiet=True)
    for run in runs:
        status = records.read_json(tmp_path / "a" / run.run_id / "status.json")
        assert (status["state"], status["error"]) == (
            "preempted",
            f"pretrain at step 3 of {STAGE.steps}",
        )
    assert cell.run_cell(runs[0], corpus, tmp_path / "a" / runs[0].run_id, quiet=True) == "done"
    assert seeds.run_seeds(runs, corpus, tmp_path / "a", quiet=True) == ["done", "done"]
    assert seeds.run_seeds(runs, corpus, tmp_path / "b", quiet=True) == ["done", "done"]
    for run in runs:
        _assert_alike(*(records.read_run(tmp_path / name / run.run_id) for name in ("a", "b")))


@pytest.mark.slow
def test_a_seed_that_diverges_leaves_and_is_rolled_back_alone(corpus, tmp_path, monkeypatch):
    runs = _runs(2, "transformer", finetune=None)
    real = loop.make_source

    class Poisoned:
        def __init__(self, source):
            self._source = source

        def batch(self, step, *part):
            batch = dict(self._source.batch(step, *part))
            if step == 5:
                batch["decoder_loss_weights"] = np.full_like(batch["decoder_loss_weights"], np.nan)
            return batch

    def poisoned(job):
        return Poisoned(real(job)) if job.config.seed == 1 else real(job)

    monkeypatch.setattr(loop, "make_source", poisoned)
    assert seeds.run_seeds(runs, corpus, tmp_path, quiet=True) == ["done", "done"]
    assert not (tmp_path / runs[0].run_id / "events.jsonl").exists()
    events = records.read_jsonl(tmp_path / runs[1].run_id / "events.jsonl")
    assert [event["event"] for event in events] == ["diverged", "resumed", "rolled back"]
    assert [row["step"] for row in records.read_run(tmp_path / runs[1].run_id).metrics] == [
        2,
        4,
        6,
        8,
    ]


@pytest.mark.parametrize(
    "architecture", ["transformer", pytest.param("evolved", marks=pytest.mark.slow)]
)
def test_seeds_go_together_on_a_gpu(architecture, monkeypatch):
    """A single seed uses cuDNN's attention in 16 bits there, whose calls JAX cannot batch."""
    lowering.pretend_a_gpu(monkeypatch)
    size = {"num_encoder_layers": 1, "num_decoder_layers": 1, "vocab_size": 64}
    model, params = make_model(arch_zoo.config(architecture, "nano", dtype="bfloat16", **size), 0)
    optimizer = make_optimizer(STAGE.optimizer, model.axes)
    state, rate = init_state(params, optimizer), np.float32(0.1)
    tokens = {
        name: np.ones((2, 8), np.int32) for name in ("encoder_input_tokens", "decoder_input_tokens")
    }
    batch = tokens | {
        "decoder_target_tokens": np.ones((2, 8), np.int32),
        "decoder_loss_weights": np.ones((2, 8)),
    }
    alone = jax.jit(make_train_step(model, optimizer, STAGE))
    assert (
        min(lowering.calls_of_cudnn(lowering.program(alone, state, batch, rate, np.uint32(0)))) > 0
    )
    states, constants, batches = (
        jax.tree.map(lambda x: np.stack([x, x]), t) for t in (state, model.constants, batch)
    )
    together = seeds.make_seeds_step(model, optimizer, STAGE)
    given = (states, constants, batches, rate, np.arange(2, dtype=np.uint32))
    assert lowering.calls_of_cudnn(lowering.program(together, *given)) == (0, 0)


def test_cells_that_differ_in_more_are_refused(corpus, tmp_path):
    runs = [*_runs(1), *_runs(1, "glu")]
    with pytest.raises(InputError, match="the same but for the seed"):
        seeds.run_seeds(runs, corpus, tmp_path)


def test_seeds_on_the_command_line_are_checked(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "corpus")
    arguments = ["pretrain", "--corpus", str(corpus), "--runs", str(tmp_path / "runs"), "--seeds"]
    assert main([*arguments, "0"]) == 2
    assert main([*arguments, "2", "--init-from", "elsewhere"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in said] == [
        " seeds = 0 must be at least 1 and at most 1024",
        " seeds = 2",
    ]
