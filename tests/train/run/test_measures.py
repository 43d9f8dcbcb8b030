"""What pretraining can be evaluated by besides the held-out loss, against independent computation.

Also limited text, and a stage that ends early.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from eval.data.study import read_study
from tests import tolerances
from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.data import batches
from train.data.batch_shape import BatchShape
from train.data.corpus import open_corpus
from train.records import InputError
from train.run import cell, loop
from train.run.checkpoint import Checkpoints
from train.run.evaluators import representation
from train.run.evaluators.memorisation import Memorisation
from train.run.evaluators.representation import Representation
from train.run.evaluators.separation import Separation
from train.run.parallel import SingleDevice
from train.run.step import make_model
from train.study.config import RunConfig

SHAPE = BatchShape(4, 20, 10)
STAGE = dataclasses.replace(tiny_study.STAGE, eval_batch_size=32, eval_batches=1)
ARCHITECTURES = (
    ("transformer", "encoder_decoder", {}),
    ("llama", "decoder_only", {"tied": False}),
    ("mos", "decoder_only", {"num_components": 3}),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def _model(corpus, name, family, options, **more):
    run = RunConfig(name, "nano", family=family, pretrain=STAGE, finetune=None)
    cfg = arch_zoo.config(
        name, "nano", vocab_size=corpus.vocab_size, family=family, **run.max_lengths, **options,
        **more,
    )  # fmt: skip
    return make_model(cfg, 0)


def _by_metric(rows):
    return {row["metric"]: row["value"] for row in rows}


# --- measures on constructed cases ---


def _cosines(x_ND):
    """The mean cosine over all ordered pairs, pair by pair."""
    pairs = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        for i, a in enumerate(x_ND)
        for j, b in enumerate(x_ND)
        if i != j
    ]
    return np.mean(pairs)


def test_anisotropy_is_the_mean_cosine_over_pairs_of_real_positions():
    rng = np.random.default_rng(0)
    x_BTD = rng.normal(size=(3, 5, 8)) + 0.7
    real_BT = rng.random((3, 5)) < 0.7
    found = representation.anisotropy(jnp.asarray(x_BTD), jnp.asarray(real_BT))
    np.testing.assert_allclose(found, _cosines(x_BTD[real_BT]), atol=tolerances.REORDERED)


def test_anisotropy_is_zero_for_all_directions_and_one_for_one():
    axes_ND = np.concatenate([np.eye(8), -np.eye(8)])[None]
    real_BT = np.ones(axes_ND.shape[:2], bool)
    # Of 16 states each meets its opposite once: the sum of all is 0, so the mean is -1 / 15.
    assert representation.anisotropy(axes_ND, real_BT) == pytest.approx(-1 / 15)
    one_BTD = np.arange(1, 17)[None, :, None] * np.ones(8)
    assert representation.anisotropy(one_BTD, real_BT) == pytest.approx(1, rel=1e-6)


def test_the_spectrum_of_known_singular_values():
    flat = representation.spectrum(np.full(6, 0.3))
    assert flat == pytest.approx({"singular_entropy": 0, "effective_rank": 6, "stable_rank": 6})
    spiked = representation.spectrum([4.0, 1.0, 1.0, 0.0])
    p = np.array([4, 1, 1]) / 6
    entropy = -np.sum(p * np.log(p))
    expected = {
        "singular_entropy": np.log(4) - entropy,
        "effective_rank": np.exp(entropy),
        "stable_rank": 18 / 16,
    }
    assert spiked == pytest.approx(expected)


# --- the evaluators on models ---


@pytest.mark.parametrize(("name", "family", "options"), ARCHITECTURES)
def test_representation_equals_what_numpy_computes_from_the_models_outputs(
    corpus, name, family, options
):
    model, params = _model(corpus, name, family, options)
    found = _by_metric(Representation(corpus, STAGE, 0, model, SingleDevice())(params, final=True))
    shape = STAGE.evaluated(STAGE.text_shape(family))
    (batch,) = batches.heldout(corpus, shape, 1, STAGE.text)
    built, real_BT = model.merge(params), batch["decoder_loss_weights"] > 0

    x_ND = np.asarray(built.hidden(batch)[0])[real_BT]
    assert found["anisotropy"] == pytest.approx(_cosines(x_ND), abs=tolerances.REORDERED)
    depths = [key for key in found if key.startswith("anisotropy_")]
    assert len(depths) == built.cfg.num_decoder_layers

    table = built.embedding.table[...] if name != "llama" else built.head.table[...].T
    for prefix, matrix in (("", table), ("centred_", table - table.mean(axis=0))):
        s = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
        p = s / s.sum()
        entropy = -np.sum(p * np.log(p))
        assert found[prefix + "singular_entropy"] == pytest.approx(
            np.log(len(s)) - entropy, rel=1e-4
        )
        assert found[prefix + "effective_rank"] == pytest.approx(np.exp(entropy), rel=1e-4)
        assert found[prefix + "stable_rank"] == pytest.approx(np.sum(s**2) / s[0] ** 2, rel=1e-4)


def test_a_mixture_of_softmaxes_has_a_rank_that_one_softmax_cannot_have(corpus):
    ranks = {}
    for name, family, options in ARCHITECTURES:
        model, params = _model(corpus, name, family, options)
        rows = Representation(corpus, STAGE, 0, model, SingleDevice())(params, final=True)
        ranks[name] = _by_metric(rows)["log_probability_rank"]
    dim = arch_zoo.config("transformer", "nano", vocab_size=8).embed_dim
    assert ranks["transformer"] == ranks["llama"] == dim
    assert ranks["mos"] > dim + 1


def test_states_are_the_same_where_layers_are_scanned(corpus):
    batch = batches.Pretrain(corpus, "train", SHAPE, 0).batch(0)
    more = {"num_encoder_layers": 2, "num_decoder_layers": 3}
    model, params = _model(corpus, "transformer", "encoder_decoder", {}, **more)
    scanned, _ = _model(corpus, "transformer", "encoder_decoder", {}, scan_layers=True, **more)
    states, again = (each.merge(params).states(batch) for each in (model, scanned))
    assert len(states) == len(again) == 4
    for one, other in zip(states, again, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(states[-1], model.merge(params).hidden(batch)[0])


def test_seen_examples_are_the_first_of_training_and_never_more_than_were_trained_on(corpus):
    model, params = _model(corpus, "transformer", "encoder_decoder", {})
    stage = dataclasses.replace(STAGE, eval_every=2, batch_size=8)  # 16 examples by then
    rows = Memorisation(corpus, stage, 3, model, SingleDevice())(params, final=False)
    first = batches.Pretrain(corpus, "train", BatchShape(16, 24, 12), 3).batch(0)
    nll_BT = model.merge(params).token_nll(first).nll
    expected = (nll_BT * first["decoder_loss_weights"]).sum() / first["decoder_loss_weights"].sum()
    (row,) = rows
    assert (row["metric"], row["n"], row["split"]) == ("seen_nll", 16, "train")
    assert row["value"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("name", "family", "options"), ARCHITECTURES[:2])
def test_separation_is_the_distance_to_the_nearest_training_example(corpus, name, family, options):
    model, params = _model(corpus, name, family, options)
    stage = dataclasses.replace(STAGE, eval_every=1, batch_size=6, eval_batch_size=4)
    stage = dataclasses.replace(stage, eval_batches=3)
    found = Separation(corpus, stage, 3, model, SingleDevice())(params, final=False)
    built, shape = model.merge(params), stage.evaluated(stage.text_shape(family))

    def states(source, steps):
        for batch in map(source.batch, range(steps)):
            x_BTD = np.asarray(built.states(batch)[-1], np.float64)
            for x_TD, weights_T in zip(x_BTD, batch["decoder_loss_weights"], strict=True):
                yield x_TD[np.flatnonzero(weights_T)[-1]]

    # Six examples were trained on by the first evaluation: one batch of four is full.
    seen = list(states(batches.Pretrain(corpus, "train", shape, 3), 1))
    heldout = list(
        states(batches.Pretrain(corpus, "validation", shape, batches.HELDOUT_SEED, STAGE.text), 3)
    )
    apart = lambda x, y: np.sqrt(np.mean((x - y) ** 2))
    within = [min(apart(x, y) for y in seen if y is not x) for x in seen]
    across = [min(apart(x, y) for y in seen) for x in heldout]
    for row, metric, split, nearest in zip(
        found, ("separation", "distance"), ("train", "validation"), (within, across), strict=True
    ):
        assert (row["metric"], row["split"], row["n"]) == (metric, split, len(nearest))
        assert row["value"] == pytest.approx(np.mean(nearest), rel=1e-5)
        error = np.std(nearest, ddof=1) / np.sqrt(len(nearest))
        assert row["stderr"] == pytest.approx(error, rel=1e-4)


def test_a_single_training_example_has_no_separation(corpus):
    model, params = _model(corpus, "llama", "decoder_only", {"tied": False})
    stage = dataclasses.replace(STAGE, eval_every=1, batch_size=1)
    rows = Separation(corpus, stage, 0, model, SingleDevice())(params, final=False)
    assert [row["metric"] for row in rows] == ["distance"]


# --- whole runs ---


def _run(corpus, directory, **changes):
    stage = dataclasses.replace(tiny_study.STAGE, **changes)
    config = dataclasses.replace(tiny_study.run("transformer"), pretrain=stage, finetune=None)
    assert cell.run_cell(config, corpus, directory, quiet=True) == "done"
    return records.read_run(directory)


@pytest.mark.slow
def test_a_run_on_little_text_memorises_it(corpus, tmp_path):
    run = _run(
        corpus, tmp_path, steps=240, eval_every=120, unique_tokens=240, log_every=120,
        checkpoint_every=120, eval_batch_size=8, eval_batches=16,
        measures=("representation", "memorisation", "separation"),
    )  # fmt: skip
    epoch = run.config["accounting"]
    window = epoch["tokens_per_epoch"] // epoch["sequences_per_epoch"]
    assert 240 - window < epoch["tokens_per_epoch"] <= 240 < 10 * window
    last = {
        row["metric"]: row
        for row in run.evals
        if row["step"] == 240 and row["task"] in ("memorisation", "representation", "corpus")
    }
    gap, seen = last["gap"], last["seen_nll"]
    assert gap["value"] == pytest.approx(last["nll"]["value"] - seen["value"])
    assert gap["value"] > 5 * gap["stderr"] > 0
    assert seen["n"] == 8 and {"anisotropy", "singular_entropy"} <= set(last)
    assert last["separation"]["value"] > 0 and last["distance"]["value"] > 0


@pytest.mark.slow
def test_a_stage_without_gain_ends_early_and_keeps_the_best(corpus, tmp_path):
    """Trained on one window of text: the held-out loss soon rises."""
    changes = {"steps": 400, "eval_every": 8, "patience": 3, "unique_tokens": 30}
    run = _run(corpus, tmp_path / "run", log_every=5, checkpoint_every=400, **changes)
    nll = {row["step"]: row["value"] for row in run.evals if row["metric"] == "nll"}
    best, last = min(nll, key=lambda step: (nll[step], step)), max(nll)
    assert last == best + 3 * 8 < 400
    assert run.metrics[-1]["step"] == last and run.status["state"] == "done"
    assert any(row["metric"] == "unigram_nll" for row in run.evals)  # the rows of the last step
    with Checkpoints(tmp_path / "run" / "checkpoints" / "pretrain", read_only=True) as kept:
        assert {best, last} <= set(kept.steps())
    events = records.read_jsonl(tmp_path / "run" / "events.jsonl")
    assert [(row["event"], row["step"]) for row in events] == [("ended early", last)]
    row = read_study(tmp_path).runs.iloc[0]
    window = run.config["accounting"]["tokens_per_epoch"]
    assert (row.steps, row.unique_tokens) == (last, window)
    assert row.flops_train_total == pytest.approx(
        run.config["accounting"]["flops_train_total"] * last / 400
    )


@pytest.mark.slow
@pytest.mark.parametrize("stopped_at", [14, 24])
def test_a_stage_with_patience_that_was_stopped_ends_the_same(corpus, tmp_path, stopped_at):
    """It remembers the best loss and how long it has waited."""
    changes = {"steps": 400, "eval_every": 8, "patience": 3, "unique_tokens": 30}
    whole = _run(corpus, tmp_path / "whole", **changes)
    stage = dataclasses.replace(tiny_study.STAGE, **changes)
    config = dataclasses.replace(tiny_study.run("transformer"), pretrain=stage, finetune=None)
    steps = iter(range(1, 400))
    with pytest.raises(loop.Preempted):
        cell.run_cell(
            config, corpus, tmp_path / "cut", stop=lambda: next(steps) >= stopped_at, quiet=True
        )
    cut = _run(corpus, tmp_path / "cut", **changes)
    assert cut.evals == whole.evals


def test_patience_needs_evaluations():
    with pytest.raises(InputError, match="patience = 3 needs eval_every above 0"):
        dataclasses.replace(tiny_study.STAGE, patience=3, eval_every=0)
    decays = dataclasses.replace(tiny_study.STAGE.optimizer, decay_steps=5)
    with pytest.raises(InputError, match="cannot be used with optimizer.decay_steps = 5"):
        dataclasses.replace(tiny_study.STAGE, patience=3, eval_every=1, optimizer=decays)


@pytest.mark.parametrize("key", ["unique_tokens", "measures"])
def test_only_pretraining_has_them(key):
    value = 100 if key == "unique_tokens" else ("memorisation",)
    stage = dataclasses.replace(tiny_study.STAGE, **{key: value})
    with pytest.raises(InputError, match=f"finetune.{key} = "):
        dataclasses.replace(tiny_study.run("transformer"), finetune=stage)
