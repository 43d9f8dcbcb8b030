"""Measures of finished runs and of corpora, against independent computation."""

import collections
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import tiny_study
from tests.train.tiny_corpus import write_corpus
from train import records
from train.__main__ import main
from train.data.corpus import open_corpus
from train.data.text.vocabulary import EOS_ID
from train.measures import context_rank, extraction, finished, rank_limited
from train.measures.settings import ContextRank, Extraction, RankLimited
from train.records import InputError
from train.run import cell
from train.study.config import OptimizerConfig, RunConfig

LENGTH = 24


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@pytest.fixture(scope="module")
def memorised(corpus, tmp_path_factory):
    """A language model that knows eight rows by heart."""
    stage = dataclasses.replace(
        tiny_study.STAGE, objective="causal_lm", target_length=LENGTH, steps=250, eval_every=0,
        log_every=250, checkpoint_every=250, unique_tokens=8 * LENGTH,
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=0.01, schedule="linear", warmup_steps=10
        ),
    )  # fmt: skip
    config = RunConfig(
        "transformer", "nano-NL1", family="decoder_only", pretrain=stage, finetune=None
    )
    directory = tmp_path_factory.mktemp("run")
    assert cell.run_cell(config, corpus, directory, quiet=True) == "done"
    return finished.open_finished(directory, corpus)


# --- W-error ---


def test_w_error_is_what_the_singular_values_of_the_frequencies_leave():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 5, 4000)
    matrix_CV = context_rank.frequencies(tokens, 2, 5)
    counts = collections.defaultdict(lambda: np.zeros(5))
    for a, b, following in zip(tokens, tokens[1:], tokens[2:], strict=False):
        counts[a, b][following] += 1
    expected_CV = np.array([row / row.sum() for _, row in sorted(counts.items())])
    np.testing.assert_allclose(matrix_CV.toarray(), expected_CV, atol=1e-12)
    s = np.linalg.svd(expected_CV, compute_uv=False)
    errors = [np.sqrt((s[d:] ** 2).sum() / (s**2).sum()) for d in (1, 2, 4)]
    np.testing.assert_allclose(context_rank.w_errors(matrix_CV, [1, 2, 4]), errors, atol=1e-9)


def test_large_vocabularies_take_only_the_largest_singular_values(monkeypatch):
    tokens = np.random.default_rng(1).integers(0, 40, 3000)
    matrix_CV = context_rank.frequencies(tokens, 1, 40)
    exact = context_rank.w_errors(matrix_CV, [2, 8])
    monkeypatch.setattr(context_rank, "_DENSE", 0)
    np.testing.assert_allclose(context_rank.w_errors(matrix_CV, [2, 8]), exact, atol=1e-8)


def test_a_text_whose_next_token_is_certain_has_one_singular_value_for_each():
    """Tokens in a circle: the frequencies are a permutation, so d of V dimensions hold d / V."""
    matrix_CV = context_rank.frequencies(np.arange(800) % 8, 3, 8)
    np.testing.assert_allclose(
        context_rank.w_errors(matrix_CV, [2, 6]), [np.sqrt(6 / 8), np.sqrt(2 / 8)], atol=1e-9
    )


def test_a_corpus_is_measured_and_too_short_a_one_refused(corpus, capsys):
    assert main(["context-rank", "--corpus", str(corpus.path), "--dims", "2", "8", "4096"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in rows] == [2, 8]  # 4,096 is above the vocabulary
    assert 1 > rows[0]["value"] > rows[1]["value"] > 0
    with pytest.raises(InputError, match="context = 4: the text has only 3 tokens"):
        context_rank.measure(corpus, ContextRank(max_tokens=3))


@pytest.mark.slow
def test_a_run_keeps_what_was_measured_of_its_corpus(memorised, tmp_path, capsys):
    command = ["context-rank", "--corpus", str(memorised.corpus.path), "--dims", "2"]
    run = memorised.record.path
    assert main([*command, "--run-directory", str(run)]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = [row for row in records.read_run(run).measures if row["measure"] == "context_rank"]
    assert kept == [{"step": 0, **printed}]
    assert main([*command, "--run-directory", str(tmp_path)]) == 2
    assert "is no run: it has no config.json" in capsys.readouterr().err


# --- heads of limited rank ---


def test_a_language_of_some_rank_needs_heads_of_that_rank():
    """A bigram language P = softmax(A B / sqrt R): its entropy is reached at r >= R, not below."""
    vocab, rank, rng = 24, 4, np.random.default_rng(0)
    scale = 4 * rank**-0.5
    logits_VV = scale * rng.normal(size=(vocab, rank)) @ rng.normal(size=(rank, vocab))
    log_p_VV = np.asarray(jax.nn.log_softmax(logits_VV))
    entropy = -np.mean((np.exp(log_p_VV) * log_p_VV).sum(axis=1))
    before_N = rng.integers(0, vocab, 60_000)
    spread_N = rng.gumbel(size=(len(before_N), vocab))
    targets_N = (log_p_VV[before_N] + spread_N).argmax(axis=1).astype(np.int32)
    states_ND = np.eye(vocab, dtype=np.float32)[before_N]
    settings = RankLimited(steps=800)
    found = {}
    for tried in (2, rank, 2 * rank):
        (b_DR, a_RV), _ = rank_limited._train(settings, tried, 0.05, vocab, states_ND, targets_N)
        log_q_VV = jax.nn.log_softmax(b_DR @ a_RV)
        found[tried] = -float(jnp.mean((np.exp(log_p_VV) * log_q_VV).sum(axis=1))) - entropy
    assert found[2] > 0.2
    assert 0 <= found[rank] < 0.03 and 0 <= found[2 * rank] < 0.03


@pytest.mark.slow
def test_heads_of_a_run_and_its_own(memorised):
    rows = rank_limited.measure(memorised, RankLimited(ranks=(2, 16), rates=(0.01,), steps=200))
    own, narrow, wide = rows
    heldout = memorised.heldout()
    built = memorised.model.merge(memorised.params)
    losses, weights = np.sum(
        [
            (
                float((built.token_nll(part).nll * part["decoder_loss_weights"]).sum()),
                part["decoder_loss_weights"].sum(),
            )
            for part in heldout
        ],
        axis=0,
    )
    assert own["rank"] is None and own["value"] == pytest.approx(losses / weights, rel=1e-5)
    assert narrow["train_nll"] > wide["train_nll"]
    with pytest.raises(InputError, match="ranks: 64 is above the model's width of 32"):
        rank_limited.measure(memorised, RankLimited(ranks=(2, 64)))


# --- extraction ---


@pytest.mark.slow
def test_a_model_recites_what_it_has_memorised_and_nothing_else(memorised, capsys):
    command = ["extract", str(memorised.record.path), "--corpus", str(memorised.corpus.path)]
    assert main([*command, "--prompt", "8", "--answer", "16"]) == 0
    train, validation = map(json.loads, capsys.readouterr().out.splitlines())
    assert train["value"] > 2 * validation["value"] and train["value"] > 0.7
    assert train["n"] == 8 and 0 < validation["tokens"] < train["tokens"]
    assert main([*command, "--prompt", "8", "--answer", "15"]) == 0  # in place of the rows before
    kept = records.read_run(memorised.record.path).measures
    kept = [row for row in kept if row["measure"] == "extraction"]
    assert [row["split"] for row in kept] == ["train", "validation"] and kept[0]["step"] == 250
    assert main([*command, "--prompt", "20", "--answer", "16"]) == 2
    assert "prompt = 20 and answer = 16: rows have 24 tokens" in capsys.readouterr().err


@pytest.mark.slow
def test_an_answer_counts_where_it_is_the_rows_own(memorised, monkeypatch):
    """Decoding by hand, one argmax after the other."""
    settings = Extraction(prompt=4, answer=3, batches=1)
    (train, _) = extraction.measure(memorised, settings)
    batch = memorised.seen().batch(0)
    tokens_BT = np.array(batch["decoder_target_tokens"])
    built, answered_BT = memorised.model.merge(memorised.params), tokens_BT.copy()
    for place in range(4, 7):
        inputs_BT = np.pad(answered_BT[:, :-1], ((0, 0), (1, 0)))
        logits = built({**batch, "decoder_input_tokens": inputs_BT}).logits
        answered_BT[:, place] = np.asarray(logits[:, place].argmax(-1))
    ends_BT = (tokens_BT == EOS_ID)[:, 4:7]
    asked_BT = np.cumsum(ends_BT, axis=1) - ends_BT == 0  # up to the end of the document
    right_BT = (answered_BT == tokens_BT)[:, 4:7]
    assert train["value"] == (right_BT | ~asked_BT).all(axis=1).mean()
    assert train["tokens"] == right_BT[asked_BT].mean()


# --- runs that cannot be measured ---


@pytest.mark.slow
def test_what_is_no_finished_run_of_this_corpus_is_one_line(memorised, tmp_path, capsys):
    other = write_corpus(tmp_path / "other", vocab_size=295)
    run = str(memorised.record.path)
    for arguments, said in (
        ([str(tmp_path), "--corpus", str(other)], "is no run: it has no config.json"),
        ([run, "--corpus", str(other)], "was trained on the corpus"),
    ):
        assert main(["extract", *arguments]) == 2
        assert said in capsys.readouterr().err
