"""The held-out loss on rows of unequal length, recomputed in NumPy, and what is chosen by it."""

import dataclasses
import json
import math
import shutil
import types

import numpy as np
import pytest

import arch_zoo
from tests.arch_zoo import models
from tests.train.tiny_corpus import write_corpus
from train import records
from train.data import batches
from train.data.batch_shape import BatchShape, TextOptions
from train.data.corpus import Corpus, open_corpus
from train.records import InputError
from train.run import evaluators
from train.run.evaluators import heldout as heldout_loss
from train.run.evaluators import tasks
from train.run.parallel import SingleDevice
from train.run.step import make_model
from train.study.config import StageConfig

LENGTHS = [6, 1, 0, 5, 4, 6, 2, 3]  # of the targets in a batch; one row is empty
STAGE = StageConfig(
    batch_size=8, input_length=24, target_length=12, eval_batch_size=8, eval_batches=2
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The tiny corpus with two copies of its task: one with free text, one for training only."""
    path = write_corpus(tmp_path_factory.mktemp("corpus"))
    index = json.loads((path / "corpus.json").read_text())
    about = index["tasks"]["python_subject"]
    index["tasks"]["free_text"] = about | {"labels": []}
    index["tasks"]["for_training"] = about | {"examples": {"train": about["examples"]["train"]}}
    for name in ("free_text", "for_training"):
        shutil.copytree(path / "tasks" / "python_subject", path / "tasks" / name)
    (path / "corpus.json").write_text(json.dumps(index))
    return open_corpus(path)


@pytest.fixture(scope="module")
def model(corpus):
    return make_model(arch_zoo.config("transformer", "nano-NL1", vocab_size=corpus.vocab_size), 0)


@pytest.fixture(scope="module")
def ragged(corpus):
    """Two held-out batches whose rows end early, each at its own length."""
    cut = np.arange(12) < np.array(LENGTHS)[:, None]
    names = ("decoder_target_tokens", "decoder_loss_weights")
    whole = batches.heldout(corpus, BatchShape(8, 24, 12), 2)
    assert len(whole) == 2 and all(
        (batch["decoder_loss_weights"].sum(1) == max(LENGTHS)).all() for batch in whole
    )
    return [batch | {name: batch[name] * cut for name in names} for batch in whole]


def plain(rows):
    """Rows as they go to evals.jsonl, without the values of every example."""
    return [{k: v for k, v in row.items() if k != records.EXAMPLES} for row in rows]


def _losses(model, params, batch) -> np.ndarray:
    """Nats of every target token, [B, T] in float64, from the logits."""
    logits = np.asarray(models.forward(model.merge(params), batch).logits, np.float64)
    log_p = logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))
    return -np.take_along_axis(log_p, np.asarray(batch["decoder_target_tokens"])[..., None], -1)[
        ..., 0
    ]


def test_upstream_is_a_mean_over_tokens_with_an_error_over_sequences(corpus, model, ragged):
    model, params = model
    nll = models.jit(heldout_loss.make_nll(model))
    rows = heldout_loss.upstream(heldout_loss.sums_of(nll, params, corpus, ragged))
    losses = np.concatenate([_losses(model, params, batch) for batch in ragged])
    weights = np.concatenate([batch["decoder_loss_weights"] for batch in ragged])
    per_piece = corpus.vocabulary.bytes_per_piece[
        np.concatenate([batch["decoder_target_tokens"] for batch in ragged])
    ]
    there = weights.sum(1) > 0
    sums, tokens = (losses * weights).sum(1)[there], weights.sum(1)[there]
    text = (per_piece * weights).sum(1)[there]
    n = 2 * (len(LENGTHS) - 1)
    assert there.sum() == n and tokens.sum() == 2 * sum(LENGTHS)

    def linearised(x, y):
        """The standard error of sum(x) / sum(y): that of the mean of (x - ratio * y) / mean(y)."""
        return np.std((x - x.sum() / y.sum() * y) / y.mean(), ddof=1) / math.sqrt(n)

    nll = sums.sum() / tokens.sum()
    assert abs(nll - np.mean(sums / tokens)) > 1e-3, "or a mean of rows' means could pass for it"
    expected = {
        "nll": (nll, linearised(sums, tokens)),
        "perplexity": (math.exp(nll), math.exp(nll) * linearised(sums, tokens)),
        "bits_per_byte": (
            sums.sum() / math.log(2) / text.sum(),
            linearised(sums / math.log(2), text),
        ),
    }
    assert {row["metric"] for row in rows} == set(expected)
    for row in rows:
        value, stderr = expected[row["metric"]]
        assert (row["task"], row["split"], row["n"]) == ("corpus", "validation", n)
        assert row["value"] == pytest.approx(value, rel=1e-5), row["metric"]
        assert row["stderr"] == pytest.approx(stderr, rel=1e-4), row["metric"]


def test_one_sequence_has_no_error_and_none_has_no_loss(corpus):
    def given(sums, weights):
        rows = [np.asarray(sums), np.asarray(weights)]
        empty = {
            name: np.zeros((len(sums), 1), np.int32)
            for name in ("decoder_target_tokens", "decoder_loss_weights")
        }
        found = heldout_loss.sums_of(lambda *_: rows, None, corpus, [empty])
        return {row["metric"]: row for row in heldout_loss.upstream(found)}

    (one, none) = given([6.0, 0.0], [3.0, 0.0])["nll"], given([0.0], [0.0])["nll"]
    assert (one["value"], one["n"]) == (2.0, 1) and math.isnan(one["stderr"])
    assert math.isnan(none["value"]) and none["n"] == 0
    assert given([1e6, 1e6], [1.0, 1.0])["perplexity"]["value"] == math.exp(700)


@pytest.mark.parametrize("objective", ["span_corruption", "causal_lm"])
def test_the_unigram_loss_is_that_of_the_training_targets_frequencies(corpus, objective):
    """With and without sentinels, which are the last pieces of the vocabulary."""
    heldout = batches.heldout(corpus, BatchShape(8, 24, 12), 2, text=TextOptions(objective))
    train = batches.Pretrain(
        corpus, "train", BatchShape(8, 24, 12), seed=5, text=TextOptions(objective)
    )
    counts = np.ones(corpus.vocab_size)  # every piece once more than seen
    for step in range(64):
        for token in train.batch(step)["decoder_target_tokens"].ravel():
            counts[token] += token > 0
    targets = np.concatenate([batch["decoder_target_tokens"].ravel() for batch in heldout])
    expected = np.mean(np.log(counts.sum()) - np.log(counts[targets[targets > 0]]))
    row = heldout_loss.unigram(train, heldout)
    assert row["value"] == pytest.approx(expected, rel=1e-9)
    assert (row["metric"], row["n"], row["stderr"]) == ("unigram_nll", None, None)


def test_ranking_answers_with_the_most_likely_label(corpus, model):
    """For every example, by the summed losses of its labels, computed one by one from logits."""
    model, params = model
    nll, about = models.jit(heldout_loss.make_nll(model)), corpus.tasks["python_subject"]
    answers = tasks.predict(nll, params, corpus, "python_subject", STAGE, ranked=True)
    rows = tasks.downstream(about, "python_subject", *answers, prefix=tasks.RANKED)
    labels, right = corpus.tasks["python_subject"].labels, []
    for part in batches.ranking(corpus, "python_subject", BatchShape(8, 24, 12)):
        nll_B = (_losses(model, params, part.batch) * part.batch["decoder_loss_weights"]).sum(1)
        for example, reference in enumerate(part.references):
            best = np.argmin(nll_B[example * len(labels) :][: len(labels)])
            right.append(labels[best] == reference["target"])
    assert len(right) == 40 and 0 < np.mean(right) < 1
    assert [row["metric"] for row in rows] == ["rank_accuracy", "rank_score"]
    for row in rows:
        assert (row["value"], row["n"]) == (pytest.approx(100 * np.mean(right)), 40)


def test_pretraining_ends_with_the_baseline_that_ignores_context(corpus, model):
    model, params = model
    evaluator = heldout_loss.Heldout(corpus, STAGE, 5, model, SingleDevice())
    rows = evaluator(params, final=False)
    assert [row["metric"] for row in rows] == ["nll", "perplexity", "bits_per_byte"]
    heldout = batches.heldout(corpus, BatchShape(8, 24, 12), 2)
    losses = [(_losses(model, params, b) * b["decoder_loss_weights"]).sum() for b in heldout]
    tokens = sum(batch["decoder_loss_weights"].sum() for batch in heldout)
    assert rows[0]["value"] == pytest.approx(sum(losses) / tokens, rel=1e-5)
    last = plain(evaluator(params, final=True))
    train = batches.Pretrain(corpus, "train", BatchShape(8, 24, 12), 5)
    assert last == [*rows, heldout_loss.unigram(train, heldout)]


@pytest.mark.slow
def test_every_task_with_validation_examples_is_scored_as_the_stage_asks(corpus, model):
    """Free text is always decoded; the headline score is the decoded one if there is one."""
    model, params = model
    decoded, ranked = ["accuracy", "score"], ["rank_accuracy", "rank_score"]
    expected = {"decode": decoded, "rank": [*ranked, "score"], "both": [*decoded, *ranked]}
    for scoring, metrics in expected.items():
        stage = dataclasses.replace(STAGE, scoring=scoring, eval_examples=12)
        evaluator = tasks.Tasks(corpus, stage, 0, model, SingleDevice())
        assert evaluator.tasks == ("python_subject", "free_text")
        rows = plain(evaluator(params, final=True))
        found = {
            task: [row["metric"] for row in rows if row["task"] == task] for task in evaluator.tasks
        }
        ends = ["majority_class"]
        assert found == {"python_subject": metrics + ends, "free_text": decoded + ends}
        assert all(row["n"] == 12 and row["split"] == "validation" for row in rows)
        assert [row["value"] for row in rows if row["metric"] == "majority_class"] == [30.0, 30.0]
        if scoring == "rank":
            assert rows[1] | {"metric": "score"} == rows[2]
        assert evaluator(params, final=False) == [
            row for row in rows if row["metric"] != "majority_class"
        ]


def test_the_headline_of_ranking_is_the_mean_of_a_tasks_metrics(corpus, model):
    """It is not just one of them: accuracy and F1 of the same answers differ."""
    model, params = model
    task = {**corpus.index["tasks"]["python_subject"], "metrics": ["accuracy", "macro_f1"]}
    two = Corpus(corpus.path, {**corpus.index, "tasks": {"python_subject": task}})
    stage = dataclasses.replace(STAGE, scoring="rank")
    rows = tasks.Tasks(two, stage, 0, model, SingleDevice())(params, final=True)
    names = ["rank_accuracy", "rank_macro_f1", "rank_score", "score", "majority_class"]
    assert [row["metric"] for row in rows] == names
    accuracy, f1, ranked, headline, majority = (row["value"] for row in rows)
    assert accuracy != f1 and ranked == headline == pytest.approx((accuracy + f1) / 2)
    assert majority == 30.0 and rows[-1]["n"] == 40 and rows[-1]["stderr"] is None
    assert all((row["task"], row["split"]) == ("python_subject", "validation") for row in rows)


@pytest.mark.parametrize(("decode_length", "decoded"), [(0, 12), (5, 5)])
def test_the_requested_number_of_tokens_is_decoded(corpus, model, decode_length, decoded):
    """By default as many tokens as targets have."""
    model, params = model
    shapes = []

    class Recording(SingleDevice):
        def compile_evaluation(self, function):
            compiled = super().compile_evaluation(function)

            def run(*args):
                shapes.append(np.shape(out := compiled(*args)))
                return out

            return run

    stage = dataclasses.replace(
        STAGE, tasks=("free_text",), decode_length=decode_length, eval_examples=8
    )
    tasks.Tasks(corpus, stage, 0, model, Recording())(params, final=False)
    assert shapes == [(8, decoded)]


@pytest.mark.parametrize("scoring", ["decode", "rank", "both"])
def test_where_no_task_has_validation_examples_nothing_is_scored(corpus, model, scoring):
    stage = dataclasses.replace(STAGE, tasks=("for_training",), scoring=scoring)
    evaluator = tasks.Tasks(corpus, stage, 0, model[0], SingleDevice())
    assert evaluator.tasks == () and evaluator(model[1], final=True) == []


def test_a_task_of_one_label_is_ranked_as_well(corpus):
    task = {**corpus.index["tasks"]["python_subject"], "labels": ["cat"]}
    alone = Corpus(corpus.path, {**corpus.index, "tasks": {"python_subject": task}})
    sizes = [
        len(part.references)
        for part in batches.ranking(alone, "python_subject", BatchShape(8, 24, 12), limit=9)
    ]
    assert sizes == [8, 1]  # each example is one row


@pytest.mark.parametrize("scoring", ["rank", "both"])
def test_labels_that_fit_no_batch_cannot_be_ranked(corpus, model, scoring):
    small = dataclasses.replace(STAGE, eval_batch_size=3)
    with pytest.raises(InputError, match="eval_batch_size = 3 is too small to rank 4 labels"):
        tasks.Tasks(
            corpus, dataclasses.replace(small, scoring=scoring), 0, model[0], SingleDevice()
        )
    for stage in (small, dataclasses.replace(small, scoring=scoring, eval_batch_size=4)):
        tasks.Tasks(corpus, stage, 0, model[0], SingleDevice())


def test_a_decoded_answer_counts_where_it_is_the_target(corpus):
    """If every other answer is right, the score is half.

    The empty rows of a batch are not counted.
    """
    stage, number = dataclasses.replace(STAGE, eval_examples=10), iter(range(100))

    def decode(_, batch):
        targets = np.array(batch["decoder_target_tokens"])
        wrong = [row for row in range(len(targets)) if next(number) % 2]
        targets[wrong] = 0
        return targets

    answers = tasks.predict(decode, None, corpus, "free_text", stage)
    rows = tasks.downstream(corpus.tasks["free_text"], "free_text", *answers)
    assert [(row["metric"], row["value"], row["n"]) for row in rows] == [
        ("accuracy", 50.0, 10),
        ("score", 50.0, 10),
    ]


def test_what_checkpoints_are_kept_by_and_which_was_the_best():
    def row(metric, value, step=0, task="boolq", stage="finetune"):
        common = {"task": task, "split": "validation", "n": 9, "stderr": 1.0, "stage": stage}
        return {**common, "metric": metric, "value": value, "step": step}

    rows = [
        row("nll", 2.5, task="corpus"),
        row("accuracy", 7.0),
        row("score", 50.0),
        row("score", math.nan, task="wic"),
    ]
    assert evaluators.kept_by(rows) == {"nll": 2.5, "boolq": 50.0}
    history = [
        row("score", 60.0, step=1),
        row("score", 70.0, step=2),
        row("score", 70.0, step=3),  # the newest of equal scores
        row("score", 65.0, step=4),
        row("accuracy", 99.0, step=5),
        row("score", None, step=6),
        row("score", 99.0, step=7, stage="pretrain"),
    ]
    (best,) = tasks.best(history, "finetune")
    assert (best["value"], best["best_step"], best["metric"]) == (70.0, 3, "best_score")
    assert best["evaluations"] == 4 and best["n"] == 9 and best["stderr"] == 1.0
    two = [*history, row("score", 1.0, step=4, task="wic")]
    assert [(b["task"], b["evaluations"]) for b in tasks.best(two, "finetune")] == [
        ("boolq", 4),
        ("wic", 1),
    ]
    assert tasks.best([row("score", None)], "finetune") == []


def test_a_final_evaluation_keeps_every_example(corpus, model, tmp_path):
    """Their means are the rows' values, so two runs can be compared example by example."""
    (model, params), stage = model, dataclasses.replace(STAGE, eval_examples=20)
    writer = records.RunWriter(tmp_path)
    evaluator = heldout_loss.Heldout(corpus, STAGE, 5, model, SingleDevice())
    rows = evaluator(params, final=True)
    writer.examples(rows)
    kept = records.read_jsonl(tmp_path / "heldout" / "corpus.jsonl")
    nll, weight = (np.array([row[name] for row in kept]) for name in ("nll", "weight"))
    assert len(kept) == rows[0]["n"] and rows[0]["metric"] == "nll"
    assert nll.sum() / weight.sum() == pytest.approx(rows[0]["value"], rel=1e-12)
    residual = nll - rows[0]["value"] * weight
    error = np.sqrt((residual**2).sum() * len(kept) / (len(kept) - 1)) / weight.sum()
    assert error == pytest.approx(rows[0]["stderr"], rel=1e-9)
    assert not any(records.EXAMPLES in row for row in evaluator(params, final=False))

    scored = tasks.Tasks(corpus, stage, 0, model, SingleDevice())(params, final=True)
    writer.examples(scored)
    heads = {row["task"]: row for row in scored if row["metric"] == "score"}
    for task, row in heads.items():
        each = records.read_jsonl(tmp_path / "heldout" / f"{task}.jsonl")
        assert len(each) == row["n"]
        assert np.mean([one["score"] for one in each]) == pytest.approx(row["value"])
    silent = records.RunWriter(tmp_path / "other", silent=True)
    silent.examples(rows)
    assert not (tmp_path / "other").exists()


def test_a_score_that_is_no_mean_of_examples_keeps_none():
    about = types.SimpleNamespace(metrics=("matthews",), labels=("no", "yes"))
    answers = ["yes", "no", "yes", "yes"], [{"target": t} for t in ("yes", "no", "no", "yes")]
    value = tasks.downstream(about, "cola", *answers)[-1]["value"]
    assert 0 < value < 100 and tasks._examples(about, value, *answers) == {}
