"""The training loop, in this process: divergence, falling losses, and how a stage may start."""

import dataclasses
import json
import math
import os
import re
import signal

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.data import corpus as corpus_module
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell, loop
from train.run.checkpoint import Checkpoints
from train.run.start import Start

CONFIG = dataclasses.replace(
    tiny_study.run("transformer"),
    finetune=None,
    pretrain=dataclasses.replace(tiny_study.STAGE, eval_every=0),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


class _Poisoned:
    """The real batches, except that some have NaN as weights."""

    def __init__(self, source, poisoned):
        self._source, self._poisoned = source, poisoned

    def batch(self, step, host=0, num_hosts=1):
        batch = dict(self._source.batch(step, host, num_hosts))
        if self._poisoned(step):
            batch["decoder_loss_weights"] = np.full_like(batch["decoder_loss_weights"], np.nan)
        return batch


def _poison(monkeypatch, poisoned):
    real = loop.make_source
    monkeypatch.setattr(loop, "make_source", lambda job: _Poisoned(real(job), poisoned))


def _events(directory):
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_poisoned_batch_is_rolled_back_and_skipped(corpus, tmp_path, monkeypatch):
    _poison(
        monkeypatch, lambda step: step == 6
    )  # the seventh step; the checkpoint before it is that of step 4
    assert cell.run_cell(CONFIG, corpus, tmp_path, quiet=True) == "done"
    run = records.read_run(tmp_path)
    assert [row["step"] for row in run.metrics] == [2, 4, 6, 8, 10, 12]
    assert all(row["loss"] is not None for row in run.metrics)
    (event,) = _events(tmp_path)
    assert (event["step"], event["event"], event["detail"]) == (
        7,
        "rolled back",
        "to step 4; 3 batches are skipped",
    )


@pytest.mark.slow
def test_a_step_that_spoils_the_parameters_is_not_saved(corpus, tmp_path, monkeypatch):
    """The step reports the loss before its update, and a checkpoint is due.

    Rolling back must not end at that checkpoint.
    """
    real_source, real_step = loop.make_source, loop.make_train_step

    class Marked(_Poisoned):
        def batch(self, step, host=0, num_hosts=1):
            batch = dict(self._source.batch(step, host, num_hosts))
            batch["decoder_loss_weights"] = batch["decoder_loss_weights"] * (2 if step == 7 else 1)
            return batch

    def make_step(*arguments):
        step = real_step(*arguments)

        def spoilt(state, batch, learning_rate, seed):
            new, metrics = step(state, batch, learning_rate, seed)
            spoil = jnp.where(jnp.max(batch["decoder_loss_weights"]) > 1, jnp.nan, 1.0)
            params = {name: param * spoil for name, param in new.params.items()}
            return new._replace(params=params), metrics | {
                "parameter_norm": metrics["parameter_norm"] * spoil
            }

        return spoilt

    monkeypatch.setattr(loop, "make_source", lambda job: Marked(real_source(job), None))
    monkeypatch.setattr(loop, "make_train_step", make_step)
    assert cell.run_cell(CONFIG, corpus, tmp_path, quiet=True) == "done"
    (event,) = _events(tmp_path)
    assert (event["step"], event["event"], event["detail"]) == (
        8,
        "rolled back",
        "to step 4; 4 batches are skipped",
    )


@pytest.mark.slow
def test_only_the_same_course_is_resumed(corpus, tmp_path):
    cell.run_cell(CONFIG, corpus, tmp_path / "first", quiet=True)
    checkpoints = tmp_path / "first" / "checkpoints" / "pretrain"
    longer = dataclasses.replace(CONFIG, pretrain=dataclasses.replace(CONFIG.pretrain, steps=14))
    for config, said in (
        (CONFIG, "leaves nothing of 12 steps"),
        (dataclasses.replace(longer, seed=1), "has seed = 0"),
    ):
        with pytest.raises(InputError, match=said):
            cell.run_cell(
                config,
                corpus,
                tmp_path / f"s{config.seed}",
                start_from=Start(resume_from=checkpoints),
                quiet=True,
            )
    assert (
        cell.run_cell(
            longer,
            corpus,
            tmp_path / "third",
            start_from=Start(resume_from=checkpoints),
            quiet=True,
        )
        == "done"
    )
    assert [row["step"] for row in records.read_run(tmp_path / "third").metrics] == [14]


def test_a_loss_that_stays_broken_ends_as_failed_with_the_reason(corpus, tmp_path, monkeypatch):
    _poison(monkeypatch, lambda step: step >= 6)
    with pytest.raises(loop.Diverged):
        cell.run_cell(CONFIG, corpus, tmp_path, quiet=True)
    run = records.read_run(tmp_path)
    assert run.status["state"] == "failed"
    assert "diverged at step 5 after 3 roll-backs" in run.status["error"]
    assert [event["event"] for event in _events(tmp_path)] == [
        "rolled back"
    ] * CONFIG.pretrain.max_rollbacks
    assert [row["step"] for row in run.metrics] == [2, 4]


@pytest.mark.slow
def test_a_loss_that_begins_high_is_no_divergence(corpus, tmp_path):
    """A mixture of softmaxes without scaled contexts.

    Its loss is more than twice that of guessing at the first step.
    """
    config = dataclasses.replace(CONFIG, architecture="mos", size="nano-DM128-KV64")
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    assert not (tmp_path / "events.jsonl").exists()
    with Checkpoints(tmp_path / "checkpoints" / "pretrain", read_only=True) as checkpoints:
        _, meta = checkpoints.restore({})
    guessing = math.log(corpus.vocab_size)
    assert meta["first_loss"] > 2 * guessing
    for loss, known, diverged in (
        (meta["first_loss"], {}, False),
        (math.nan, {}, True),
        (math.inf, {}, True),
        (1.9 * meta["first_loss"], meta, False),
        (2.1 * meta["first_loss"], meta, True),
        (1.9 * guessing, {"first_loss": 1.0}, False),
        (2.1 * guessing, {"first_loss": 1.0}, True),
    ):
        assert (
            loop.has_diverged({"loss": loss, "parameter_norm": 1.0}, known, corpus.vocab_size)
            == diverged
        ), loss


@pytest.mark.slow
def test_a_stage_can_start_from_another_runs_parameters(corpus, tmp_path):
    cell.run_cell(CONFIG, corpus, tmp_path / "first", quiet=True)
    config = dataclasses.replace(CONFIG, seed=1)
    checkpoints = tmp_path / "first" / "checkpoints" / "pretrain"
    cell.run_cell(
        config, corpus, tmp_path / "second", start_from=Start(init_from=checkpoints), quiet=True
    )
    first, second = (records.read_run(tmp_path / name).metrics for name in ("first", "second"))
    assert second[0]["nll"] < first[0]["nll"] - 1  # it starts with what the first run has learnt
    with pytest.raises(InputError, match="init_from: .* is not a directory of checkpoints"):
        cell.run_cell(
            dataclasses.replace(CONFIG, seed=2),
            corpus,
            tmp_path / "third",
            start_from=Start(init_from=tmp_path / "no"),
        )
    with pytest.raises(InputError, match=r"holds no checkpoint; those of this run are in '.*first"):
        cell.run_cell(
            dataclasses.replace(CONFIG, seed=3),
            corpus,
            tmp_path / "fourth",
            start_from=Start(init_from=tmp_path / "first"),
        )


def test_ctrl_c_asks_to_save_and_a_second_one_insists():
    with cell.StopOnSignal() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)


def test_a_machine_without_git_trains_all_the_same(monkeypatch):
    assert re.fullmatch("[0-9a-f]{40}", cell._commit() or "0" * 40)
    monkeypatch.setenv("PATH", "")
    assert cell._commit() is None


def test_text_without_tasks_can_be_pretrained_on_and_not_finetuned(corpus, tmp_path):
    alone = corpus_module.Corpus(corpus.path, {**corpus.index, "tasks": {}})
    config = dataclasses.replace(CONFIG, finetune=tiny_study.STAGE)
    assert cell.run_cell(config, alone, tmp_path, ("pretrain",), quiet=True) == "done"
    with pytest.raises(InputError, match="finetune: .* has no task with validation examples"):
        cell.run_cell(config, alone, tmp_path, quiet=True)


def test_two_trainers_on_one_directory_are_one(corpus, tmp_path):
    with records.lock(tmp_path):
        assert cell.run_cell(CONFIG, corpus, tmp_path, quiet=True) == "locked"
    assert not (tmp_path / "config.json").exists()


@pytest.fixture(scope="module")
def pretrained(corpus, tmp_path_factory):
    directory = tmp_path_factory.mktemp("pretrained")
    cell.run_cell(CONFIG, corpus, directory, quiet=True)
    return directory / "checkpoints" / "pretrain"


def _finetuned(corpus, pretrained, directory, **options):
    stage = dataclasses.replace(tiny_study.STAGE, eval_every=0, **options)
    run = dataclasses.replace(CONFIG, finetune=stage)
    assert (
        cell.run_cell(
            run,
            corpus,
            directory,
            ("finetune",),
            start_from=Start(init_from=pretrained),
            quiet=True,
        )
        == "done"
    )
    return {row["metric"]: row for row in records.read_run(directory).evals}


@pytest.mark.slow
def test_answers_are_ranked_decoded_or_both(corpus, pretrained, tmp_path):
    usual = {"accuracy", "score"}
    ranked = {f"rank_{name}" for name in usual}
    always = {"majority_class", "best_score"}
    found = {
        how: _finetuned(corpus, pretrained, tmp_path / how, scoring=how)
        for how in ("decode", "rank", "both")
    }
    assert set(found["decode"]) == usual | always
    assert set(found["rank"]) == ranked | {"score"} | always
    assert set(found["both"]) == usual | ranked | always
    assert found["rank"]["score"]["value"] == found["both"]["rank_score"]["value"]
    assert found["decode"]["score"]["value"] == found["both"]["score"]["value"]
    assert found["rank"]["score"]["n"] == tiny_study.STAGE.eval_examples
    with pytest.raises(InputError, match="eval_batch_size = 2 is too small to rank 4 labels"):
        _finetuned(corpus, pretrained, tmp_path / "small", scoring="rank", eval_batch_size=2)


def test_unfinished_pretraining_is_not_finetuned(corpus, tmp_path):
    run = dataclasses.replace(CONFIG, finetune=tiny_study.STAGE)
    asked = iter([False, True])
    with pytest.raises(loop.Preempted):
        cell.run_cell(run, corpus, tmp_path, ("pretrain",), stop=lambda: next(asked), quiet=True)
    with pytest.raises(
        InputError, match="pretraining has reached step 2 of 12; finish it, or give --init-from"
    ):
        cell.run_cell(run, corpus, tmp_path, ("finetune",), quiet=True)


def test_examples_that_a_model_cannot_tell_apart_are_not_packed(corpus, tmp_path):
    stage = dataclasses.replace(tiny_study.STAGE, pack=True)
    run = dataclasses.replace(tiny_study.run("mixer"), finetune=stage)
    with pytest.raises(
        InputError, match="finetune.pack: mixer cannot tell examples of one row apart"
    ):
        cell.run_cell(
            run, corpus, tmp_path, ("finetune",), start_from=Start(init_from=tmp_path), quiet=True
        )


@pytest.mark.slow
def test_a_packed_mixture_with_a_cap_is_finetuned(corpus, pretrained, tmp_path):
    found = _finetuned(
        corpus, pretrained, tmp_path, pack=True, cap=100, input_length=48, target_length=24
    )
    assert found["score"]["n"] == tiny_study.STAGE.eval_examples
    assert (
        records.read_run(tmp_path).metrics[-1]["target_tokens"] > 8 * 3
    )  # eight rows of one example have 2 or 3


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["prefix_lm", "causal_lm"])
def test_other_objectives_train_on_the_same_shards(corpus, tmp_path, objective):
    config = dataclasses.replace(
        CONFIG, pretrain=dataclasses.replace(CONFIG.pretrain, objective=objective)
    )
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    run = records.read_run(tmp_path)
    assert run.metrics[-1]["nll"] < run.metrics[0]["nll"]
    assert {row["metric"] for row in run.evals} == {
        "nll",
        "perplexity",
        "bits_per_byte",
        "unigram_nll",
    }
