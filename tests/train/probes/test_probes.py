"""Probes in training: batches, scores against an independent computation, settings, whole runs."""

import dataclasses
import json

import numpy as np
import pytest

from configs import presets
from tests import tolerances
from train import probes
from train.data import probe_batches
from train.data.batch_shape import BatchShape
from train.data.probe_batches import ProbeExamples, corpus_of, open_for
from train.probes.probe import FRESH, TEST, TRAIN
from train.records import InputError, read_jsonl
from train.run import cell, losses, seeds
from train.run.evaluators.probe import ProbeScore
from train.run.parallel import SingleDevice
from train.run.step import make_model
from train.study import declare
from train.study.config import RunConfig, StageConfig

SIZE = "nano-NL1-DM16-FF16-NH2-KV8"
SHORT = {
    "mqar": {"row": 16, "pairs": 2, "ids": 32, "train_examples": 50},
    "recall": {"row": 16, "train_examples": 50},
    "noisy_recall": {"row": 16, "train_examples": 50},
    "fuzzy_recall": {"row": 32, "train_examples": 50},
    "selective_copy": {"row": 16, "copied": 4, "train_examples": 50},
    "compression": {"row": 8, "train_examples": 50},
    "memorisation": {"row": 8, "ids": 16, "train_examples": 50},
    "copy": {"longest_trained": 8, "tested": [10]},
    "s5": {"longest_trained": 8, "tested": [10, 12]},
} | {
    task: {"longest_trained": 8, "tested": [10, 12]}
    for task in ("parity", "even_pairs", "cycle", "mod_arithmetic")
}


def _run(task, architecture="transformer", steps=3, **settings) -> RunConfig:
    options = {**SHORT[task], "test_examples": 40, **settings}
    run = presets.cpu_probe(architecture, task, options, SIZE)
    stage = dataclasses.replace(
        run.pretrain, steps=steps, batch_size=8, eval_batch_size=16, log_every=1, checkpoint_every=2
    )
    return dataclasses.replace(run, pretrain=stage)


def test_the_short_settings_are_of_every_probe():
    assert set(SHORT) == set(probes.names())


@pytest.mark.parametrize("task", ["mqar", "parity"])
def test_batches_are_the_examples_and_every_host_has_its_part(task):
    probe = probes.get({"task": task, **SHORT[task]})
    source = ProbeExamples(probe, BatchShape(10, 1, 1), seed=3, steps=20)
    whole = [source.batch(step) for step in range(10)]
    for step, batch in enumerate(whole):
        again = ProbeExamples(probe, BatchShape(10, 1, 1), 3, 20)
        parts = [again.batch(step, host, 2) for host in (0, 1)]
        for name, values in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)
        labels, at = batch["decoder_target_tokens"], batch["decoder_target_positions"]
        weights = batch["decoder_loss_weights"]
        np.testing.assert_array_equal(weights, labels > 0)
        # The head sees exactly the answers.
        assert np.take_along_axis(weights, at, axis=1).sum() == weights.sum()
    read = np.concatenate([batch["decoder_input_tokens"] for batch in whole])
    if probe.train_examples:  # two epochs of 50, in different orders
        every = sorted(map(tuple, probe.examples(TRAIN, np.arange(50)).tokens.tolist()))
        first, second = (sorted(map(tuple, part.tolist())) for part in (read[:50], read[50:]))
        assert first == second == every and (read[:50] != read[50:]).any()
        assert source.num_windows == 50
    else:
        fresh = probe.examples(FRESH + 3, np.arange(100)).tokens
        np.testing.assert_array_equal(read, fresh)
        assert source.num_windows == 200


def test_the_test_counts_what_training_has_seen():
    """With four keys and two pairs, most of the test is in a training set of every example."""
    probe = probes.get({"task": "memorisation", "row": 2, "ids": 9, "train_examples": 40})
    rows, seen = probe_batches.scored_set(probe, "test")
    train = set(map(tuple, probe.examples(TRAIN, np.arange(40)).tokens.tolist()))
    expected = sum(tuple(row) in train for row in rows.tokens.tolist())
    assert len(rows.tokens) == probe.test_examples and 0 < expected == seen
    assert probe_batches.scored_set(probes.get({"task": "parity"}), "test").seen == 0


def _scores(run, params=None, **settings):
    run = dataclasses.replace(run, model={**run.model, **settings})
    corpus = corpus_of(run, open_for([run], "nowhere"))
    model, first = make_model(cell.model_config(run, corpus), run.seed)
    evaluate = ProbeScore(corpus, run.pretrain, run.seed, model, SingleDevice())
    params = first if params is None else params
    return model, params, evaluate(params, final=True)


@pytest.mark.parametrize(
    "task",
    ["copy", *(pytest.param(task, marks=pytest.mark.slow) for task in ("mqar", "s5", "recall"))],
)
def test_scores_are_those_of_all_logits(task):
    run = _run(task)
    probe = probes.get(run.pretrain.probe)
    model, params, rows = _scores(run)
    found = {(row["split"], row["metric"]): row for row in rows}
    whole = probe.examples(TEST, np.arange(40), test=True)
    batch = {
        "decoder_input_tokens": whole.tokens,
        "decoder_target_tokens": whole.labels,
        "decoder_loss_weights": (whole.labels > 0).astype(np.float32),
    }
    logits = np.asarray(model.merge(params)(batch).logits)
    allowed = logits[..., probe.answers.start : probe.answers.stop]
    right = (probe.answers.start + allowed.argmax(-1) == whole.labels) & whole.scored
    if probe.exact:
        right_N, answers_N = right.sum(1) == whole.scored.sum(1), np.ones(40)
    else:
        right_N, answers_N = right.sum(1), whole.scored.sum(1)
    row = found["test", "accuracy"]
    value = right_N.sum() / answers_N.sum()
    assert row["value"] == pytest.approx(100 * value) and row["n"] == 40
    spread = np.sqrt(40 / 39 * ((right_N - value * answers_N) ** 2).sum()) / answers_N.sum()
    assert row["stderr"] == pytest.approx(100 * spread)
    for size in set() if whole.size is None else set(whole.size.tolist()):
        own = whole.size == size
        expected = 100 * right_N[own].sum() / answers_N[own].sum()
        assert found["test", f"accuracy_{size}"]["value"] == pytest.approx(expected)
    assert found["test", "chance"]["value"] == probe.chance

    held = probe.examples(1, np.arange(40))
    batch = probe_batches.batch(held, probe)
    nll, weight = losses.sequence_sums(model.merge(params).token_nll(batch), batch)
    expected = float(np.asarray(nll).sum() / np.asarray(weight).sum())
    assert found["validation", "nll"]["value"] == pytest.approx(expected, rel=tolerances.REORDERED)


@pytest.mark.slow
@pytest.mark.parametrize("task", probes.names())
def test_an_untrained_model_is_at_chance(task):
    """Over initial parameters, whose ids are alike, every answer is as likely as the others.

    The head is not tied to the embedding: a tied one repeats what it has read.
    """
    run = _run(task, "llama", test_examples=200)
    probe = probes.get(run.pretrain.probe)
    corpus = corpus_of(run, open_for([run], "nowhere"))
    config = cell.model_config(run, corpus)
    model, params = make_model(config, 0)
    evaluate = ProbeScore(corpus, run.pretrain, 0, model, SingleDevice())
    values = []
    for seed in range(24):
        rows = evaluate(make_model(config, seed)[1] if seed else params, final=True)
        values += [r["value"] for r in rows if (r["split"], r["metric"]) == ("test", "accuracy")]
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - probe.chance) <= 3.5 * error + 1e-9, (np.mean(values), error)


def test_the_model_has_the_vocabulary_and_the_longest_row_of_the_probe():
    run = _run("copy")
    probe = probes.get(run.pretrain.probe)
    model = declare.model(run, 99)
    assert model.vocab_size == probe.vocab_size == 30
    assert model.max_target_length == probe.longest == 22
    shape = run.shape("pretrain")
    assert (shape.input_length, shape.target_length) == (9, 9)
    assert shape.counted_lengths == {"length": 18, "targets": 9}


def test_flops_are_those_of_the_answers_alone():
    run = _run("mqar")
    corpus = corpus_of(run, open_for([run], "nowhere"))
    account = cell.account(run, cell.model_config(run, corpus))
    assert account["flops_by_part"]["head"] == 2 * 16 * corpus.vocab_size * 2
    assert account["flops_train_total"] == account["flops_train"] * 8 * 3


@pytest.mark.slow
def test_a_run_is_trained_scored_and_resumed_bit_for_bit(tmp_path):
    run = _run("mqar", steps=4)
    corpus = open_for([run], tmp_path / "nowhere")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert cell.run_cell(run, corpus, whole, quiet=True) == "done"
    stops = iter([False, False, True, True, True])
    with pytest.raises(Exception, match="at step"):
        cell.run_cell(run, corpus, parts, stop=lambda: next(stops), quiet=True)
    cell.run_cell(run, corpus, parts, quiet=True)
    one, two = (read_jsonl(path / "evals.jsonl") for path in (whole, parts))
    assert one == two and {row["task"] for row in one} == {"mqar"}
    config = json.loads((whole / "config.json").read_text())
    assert config["data"]["name"] == "probe mqar"
    assert config["accounting"]["sequences_per_epoch"] == 50


@pytest.mark.slow
def test_seeds_of_a_probe_are_trained_together(tmp_path):
    runs = [dataclasses.replace(_run("parity"), seed=seed) for seed in (0, 1)]
    corpus = open_for(runs, tmp_path)
    assert seeds.run_seeds(runs, corpus, tmp_path / "together", quiet=True) == ["done", "done"]
    cell.run_cell(runs[1], corpus, tmp_path / "alone", quiet=True)
    together, alone = (
        read_jsonl(path / "evals.jsonl")
        for path in (tmp_path / "together" / runs[1].run_id, tmp_path / "alone")
    )
    for one, other in zip(together, alone, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=tolerances.REORDERED)


BAD = [
    ({"task": "mqr"}, "probe.task = 'mqr' is not one of compression, copy"),
    ({}, "probe.task = None"),
    ({"task": ["a"]}, "probe.task = ['a'] is not one of"),
    ({"task": "mqar", "pair": 4}, "mqar has no setting 'pair'; known: train_examples"),
    ({"task": "mqar", "pairs": 0}, "pairs = 0 must be at least 1"),
    ({"task": "mqar", "row": 15}, "row = 15: must be even, and at least 4"),
    ({"task": "mqar", "row": 64, "pairs": 16, "ids": 8}, "pairs = 16: there are only 3 keys"),
    ({"task": "recall", "noise": 0.5}, "noise_ids = 0: noise needs at least one"),
    ({"task": "copy", "tested": [10]}, "tested = (10,): lengths must be above"),
    ({"task": "copy", "shortest": 30}, "shortest = 30: must be at most longest_trained = 20"),
    ({"task": "s5", "group": "S6"}, "group = 'S6' is not one of S5, A5, Z60"),
    ({"task": "selective_copy", "row": 33}, "row = 33: must be above 2 * copied + 1 = 33"),
    ({"task": "fuzzy_recall", "ids": 6}, "key_size = 3: there are only 2 tokens"),
    ({"task": "memorisation", "row": 7}, "row = 7: must be even"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError) as error:
        probes.get(settings)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "encoder_decoder"}, "needs family = decoder_only"),
        ({"finetune": StageConfig()}, "needs family = decoder_only and finetune = null"),
    ],
)
def test_a_probe_is_for_decoder_only_models_without_finetuning(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(_run("parity"), **changes)


def test_settings_of_text_are_refused():
    for name, value in (("unique_tokens", 10), ("measures", ("memorisation",))):
        with pytest.raises(InputError, match=f"{name} = .* pretraining on a probe has no text"):
            StageConfig(probe={"task": "parity"}, **{name: value})


def test_a_run_on_text_needs_a_corpus_also_beside_probes(tmp_path):
    text = presets.cpu_text("transformer", "nano")
    with pytest.raises(InputError, match="not a directory"):
        open_for([_run("parity"), text], tmp_path / "nowhere")


def test_every_probe_says_what_it_is():
    for name in probes.names():
        kind = type(probes.get({"task": name}))
        assert kind.name == name and "arXiv" in kind.paper and "hance" in (kind.__doc__ or "")
        documented = "".join(base.__doc__ or "" for base in kind.__mro__)
        for field in dataclasses.fields(kind):
            assert f"{field.name}:" in documented, (name, field.name)


@pytest.mark.slow
@pytest.mark.parametrize("negative", [True, False])
def test_only_negative_eigenvalues_learn_parity(negative, tmp_path):
    """Gated DeltaNet with beta in [0, 2] does on longer strings too, with [0, 1] it does not."""
    run = presets.cpu_probe(
        "gated_deltanet",
        "parity",
        {"longest_trained": 20, "tested": [24, 32, 48], "test_examples": 300},
    )
    run = dataclasses.replace(run, model={"negative": negative})
    run = declare.with_settings(run, {"pretrain.steps": 250, "pretrain.batch_size": 64})
    cell.run_cell(run, open_for([run], tmp_path), tmp_path / "run", quiet=True)
    rows = read_jsonl(tmp_path / "run" / "evals.jsonl")
    (score,) = (r["value"] for r in rows if (r["split"], r["metric"]) == ("test", "accuracy"))
    assert score > 90 if negative else score < 60
