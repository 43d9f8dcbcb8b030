"""A corpus of uniform random tokens, and the bits that a model memorises of it."""

import dataclasses
import math

import numpy as np
import pytest

from tests.train import tiny_study
from train import records
from train.data import batches
from train.data.batch_shape import BatchShape, TextOptions
from train.data.corpus import open_corpus
from train.data.prepare import prepare
from train.data.prepare_config import NEVER_DRAWN, PrepareConfig
from train.records import InputError
from train.run import cell
from train.run.evaluators.heldout import make_nll
from train.run.evaluators.memorisation import Memorisation
from train.run.parallel import SingleDevice
from train.run.step import make_model
from train.study import declare
from train.study.config import OptimizerConfig, RunConfig

ROWS, LENGTH = 24, 16


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    out = tmp_path_factory.mktemp("random")
    return prepare(
        PrepareConfig(out=str(out), source="random", max_tokens=4096), say=lambda line: None
    )


def test_the_corpus_is_uniform_and_the_same_each_time(corpus, tmp_path):
    again = prepare(PrepareConfig(out=str(tmp_path), source="random", max_tokens=4096))
    assert again.fingerprint == corpus.fingerprint and open_corpus(tmp_path).tasks == {}
    (tokens,) = corpus.tokens("train")
    assert (len(tokens), tokens.min(), tokens.max()) == (4096, NEVER_DRAWN, NEVER_DRAWN + 63)
    counts = np.bincount(tokens)[NEVER_DRAWN:]
    assert np.sum((counts - 64) ** 2 / 64) < 63 + 5 * math.sqrt(2 * 63)  # chi squared
    assert (corpus.vocab_size, len(corpus.tasks)) == declare.PREPARED["random"]
    assert corpus.vocabulary.encode([corpus.decode(tokens[:40])]) == [tokens[:40].tolist()]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tasks": ("glue",)}, "tasks = ['glue']: random tokens have no tasks"),
        ({"vocab_size": 4}, "vocab_size = 4: random tokens need 5 to"),
        ({"vocabulary": "x.model"}, "vocabulary = 'x.model': random tokens have their own"),
    ],
)
def test_what_random_tokens_cannot_have(settings, said):
    with pytest.raises(InputError) as error:
        PrepareConfig(source="random", **settings)
    assert said in str(error.value)


def _config(**changes):
    stage = dataclasses.replace(
        tiny_study.STAGE, objective="causal_lm", target_length=LENGTH, batch_size=ROWS,
        eval_batch_size=ROWS, eval_batches=1, unique_tokens=ROWS * LENGTH, z_loss=0.0,
        measures=("memorisation",), **changes,
    )  # fmt: skip
    size = "nano-NL1-DM16-FF64-NH2-KV8"
    return RunConfig("transformer", size, family="decoder_only", pretrain=stage, finetune=None)


def test_memorised_bits_are_those_of_the_text_less_those_that_the_model_needs(corpus):
    config = _config()
    model, params = make_model(declare.model(config, corpus.vocab_size), 0)
    evaluate = Memorisation(corpus, config.pretrain, 0, model, SingleDevice())
    rows = {row["metric"]: row["value"] for row in evaluate(params, final=True)}
    shape = BatchShape(ROWS, 0, LENGTH, "decoder_only")
    source = batches.Pretrain(corpus, "train", shape, 0, TextOptions("causal_lm"), ROWS * LENGTH)
    sums_B, weights_B = make_nll(model)(params, source.batch(0))
    assert weights_B.sum() == ROWS * LENGTH
    bits = ROWS * LENGTH * 6 - float(sums_B.sum()) / math.log(2)
    assert rows["memorised_bits"] == pytest.approx(bits, abs=0.01)
    # With fewer rows than an epoch has, the rest would be missing.
    few = dataclasses.replace(config.pretrain, eval_batch_size=ROWS // 2)
    rows = Memorisation(corpus, few, 0, model, SingleDevice())(params, final=True)
    assert "memorised_bits" not in {row["metric"] for row in rows}


@pytest.mark.slow
def test_a_model_memorises_what_nobody_could_learn(corpus, tmp_path):
    optimizer = OptimizerConfig(
        name="adamw", learning_rate=0.02, schedule="linear", warmup_steps=10
    )
    config = _config(steps=600, eval_every=0, optimizer=optimizer)
    assert cell.run_cell(config, corpus, tmp_path, quiet=True) == "done"
    run = records.read_run(tmp_path)
    last = {row["metric"]: row["value"] for row in run.evals}
    assert last["nll"] > math.log(64) > 4 * last["seen_nll"]
    assert 0.8 * ROWS * LENGTH * 6 < last["memorised_bits"] <= ROWS * LENGTH * 6
