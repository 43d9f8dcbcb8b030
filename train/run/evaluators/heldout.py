"""Upstream evaluation: the held-out loss of pretraining, with its standard error."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from train.data import batches
from train.data.corpus import Corpus
from train.records import EXAMPLES, Row
from train.run.losses import sequence_sums
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig


class Heldout:
    """The held-out loss of pretraining: call it with parameters for its rows.

    It is compiled when it is first called.
    """

    def __init__(
        self, corpus: Corpus, stage: StageConfig, seed: int, model: Model, strategy: Strategy
    ):
        """Reads the held-out set, which is the same for every cell of a study."""
        self._nll = strategy.compile_evaluation(make_nll(model))
        self._shape = stage.text_shape(model.family)
        shape = stage.evaluated(self._shape)
        self._heldout = batches.heldout(corpus, shape, stage.eval_batches, stage.text)
        self._corpus, self._stage, self._seed = corpus, stage, seed

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        """The rows; the last ones have the baseline that ignores context and every sequence."""
        sums = sums_of(self._nll, params, self._corpus, self._heldout)
        rows = upstream(sums)
        if not final:
            return rows
        names = ("nll", "weight", "bytes")
        examples = [dict(zip(names, map(float, one), strict=True)) for one in sums.T]
        train = batches.Pretrain(self._corpus, "train", self._shape, self._seed, self._stage.text)
        return [rows[0] | {EXAMPLES: examples}, *rows[1:], unigram(train, self._heldout)]


def make_nll(model: Model) -> Callable[..., Any]:
    """A function (params, batch) -> sums of nll and of weights for each sequence, both [B]."""

    def nll(
        params: dict[str, jax.Array], batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return sequence_sums(model.merge(params).token_nll(batch), batch)

    return nll


def sums_of(
    nll: Callable[..., Any], params: Any, corpus: Corpus, heldout: Iterable[batches.HostBatch]
) -> np.ndarray:
    """Nats, weights (target tokens) and bytes of every sequence, [3, N]; empty rows are left out.

    Args:
      nll: compiled from `make_nll`.
      params: the parameters of the model.
      corpus: the corpus that the batches come from.
      heldout: from `batches.heldout`.
    """
    sums = [(*nll(params, batch), batches.target_bytes(corpus, batch)) for batch in heldout]
    sums_3N = np.array(
        [
            np.concatenate([np.asarray(x, np.float64) for x in part])
            for part in zip(*sums, strict=True)
        ]
    )
    return sums_3N[:, sums_3N[1] > 0]


def upstream(sums_3N: np.ndarray) -> list[Row]:
    """The held-out loss with its standard error over sequences (a ratio of sums).

    Args:
      sums_3N: from `sums_of`.

    Returns:
      Rows for `nll` (nats per target token), `perplexity` (its exponential), and `bits_per_byte`:
      the same loss per UTF-8 byte of the text that the targets hide, which vocabularies can be
      compared by; all of its bytes count, also those of characters that the vocabulary lacks.
    """
    losses_N, weights_N, bytes_N = sums_3N
    token, token_error = _ratio(losses_N, weights_N)
    byte, byte_error = _ratio(losses_N / math.log(2), bytes_N)
    found = {
        "nll": (token, token_error),
        "perplexity": (math.exp(min(token, 700.0)), math.exp(min(token, 700.0)) * token_error),
        "bits_per_byte": (byte, byte_error),
    }
    common = {"task": "corpus", "split": "validation"}
    return [
        {**common, "metric": k, "value": v, "n": len(losses_N), "stderr": e}
        for k, (v, e) in found.items()
    ]


def _ratio(x_N: np.ndarray, y_N: np.ndarray) -> tuple[float, float]:
    """Sum of x by sum of y, and its standard error over the N pairs."""
    n, total = len(x_N), y_N.sum()
    if not total:
        return math.nan, math.nan
    value = x_N.sum() / total
    spread = math.sqrt(np.sum((x_N - value * y_N) ** 2) * n / (n - 1)) if n > 1 else math.nan
    return float(value), float(spread / total)


def unigram(train: batches.Pretrain, heldout: Sequence[batches.HostBatch]) -> Row:
    """The loss of the unigram distribution on the same targets: a model that ignores context."""
    value = batches.unigram_nll(train, heldout)
    return {
        "task": "corpus",
        "split": "validation",
        "metric": "unigram_nll",
        "value": value,
        "n": None,
        "stderr": None,
    }
