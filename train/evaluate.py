"""Upstream and downstream evaluation: rows for evals.jsonl, each with its n and standard error."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from arch_zoo import decoding
from train.config import StageConfig
from train.data import batches
from train.data.corpus import Corpus
from train.losses import sequence_sums
from train.records import Row
from train.step import Model
from train.tasks import scoring


def make_nll(model: Model) -> Callable[..., Any]:
    """A function (params, batch) -> sums of nll and of weights for each sequence, both [B]."""

    def nll(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return sequence_sums(model.merge(params).token_nll(batch), batch)

    return nll


def make_decode(model: Model, max_length: int) -> Callable[..., Any]:
    """A function (params, batch) -> greedily decoded ids [B, max_length]."""

    def decode(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        return decoding.greedy(model.merge(params), batch, max_length)

    return decode


def upstream(nll: Callable[..., Any], params: Any, heldout: Iterable[batches.Batch]) -> Row:
    """The held-out loss in nats per target token, with its standard error over sequences (a ratio of sums)."""
    sums = [nll(params, batch) for batch in heldout]
    losses_N = np.concatenate([np.asarray(loss, np.float64) for loss, _ in sums])
    weights_N = np.concatenate([np.asarray(weight, np.float64) for _, weight in sums])
    value = losses_N.sum() / weights_N.sum()
    n = len(losses_N)
    spread = math.sqrt(np.sum((losses_N - value * weights_N) ** 2) * n / (n - 1)) if n > 1 else math.nan
    return {
        "task": "corpus",
        "split": "validation",
        "metric": "nll",
        "value": float(value),
        "n": n,
        "stderr": spread / weights_N.sum(),
    }


def unigram(corpus: Corpus, stage: StageConfig, seed: int, heldout: Sequence[batches.Batch]) -> Row:
    """The loss of the unigram distribution on the same held-out targets: what a model that ignores context gets."""
    lengths = (stage.input_length, stage.target_length)
    train = batches.Pretrain(corpus, "train", stage.batch_size, *lengths, seed)
    value = batches.unigram_nll(train, heldout)
    return {"task": "corpus", "split": "validation", "metric": "unigram_nll", "value": value, "n": None, "stderr": None}


def downstream(
    decode: Callable[..., Any], params: Any, corpus: Corpus, task: str, stage: StageConfig, split: str = "validation"
) -> list[Row]:
    """Scores one task by greedy decoding; every value is in percent.

    Returns:
      A row for each of the task's metrics, for `score` (their mean, the headline) and for `majority_class` (the score
      of always giving the most frequent answer).
    """
    predictions: list[str] = []
    references: list[Any] = []
    lengths = (stage.input_length, stage.target_length)
    limit = stage.eval_examples or None
    for part in batches.evaluation(corpus, task, stage.eval_batch_size, *lengths, split=split, limit=limit):
        ids = np.asarray(decode(params, part.batch))
        predictions += [corpus.decode(row) for row in ids[: len(part.references)]]
        references += part.references
    about = corpus.tasks[task]
    scores = scoring.score(about.metrics, predictions, references, about.labels)
    common = {"task": task, "split": split}
    rows = [{**common, "metric": k, "value": s.value, "n": s.n, "stderr": s.stderr} for k, s in scores.items()]
    majority = {"metric": "majority_class", "value": about.majority_class, "n": len(references), "stderr": None}
    return [*rows, {**common, **majority}]
