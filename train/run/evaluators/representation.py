"""Measures of the hidden states and of the output matrix: anisotropy, spectrum, ranks.

They are those by which Godey et al. (2024, arXiv 2404.07647) find the softmax bottleneck in small
language models.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from train.data import batches
from train.data.corpus import Corpus
from train.records import Row
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig

_SPARE = 64  # contexts beyond D + 1, so that the rank can show itself
_NOISE = 1e-5  # singular values below this share of the largest are rounding errors of float32


class Representation:
    """Measures of the last stack and of the head: call it with parameters for its rows.

    They are taken on the targets of the first held-out batch, the same for every run of a study.
    Rows, all of task `representation`:
      anisotropy_1, anisotropy_2, ...: of the residual stream after each depth (`anisotropy`);
      anisotropy: of what the head reads;
      singular_entropy, effective_rank, stable_rank: of the head's matrix [D, V];
      centred_singular_entropy, centred_effective_rank, centred_stable_rank: the same after the mean
        over the vocabulary is taken off, which is a direction that changes no probability;
      log_probability_rank: the numerical rank of the log-probabilities of D + 65 contexts, each
        with its mean taken off. One softmax has at most D. Only after the last step, and only where
        there are so many contexts and more tokens than that.
    """

    def __init__(
        self, corpus: Corpus, stage: StageConfig, seed: int, model: Model, strategy: Strategy
    ):
        """Reads the batch; nothing of this depends on the seed."""
        shape = stage.evaluated(stage.text_shape(model.family))
        (self._batch,) = batches.heldout(corpus, shape, 1, stage.text)
        self._measure = strategy.compile_evaluation(make_measures(model))
        self._log_probabilities = strategy.compile_evaluation(make_log_probabilities(model))

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        """The rows; the last ones have the rank of the log-probabilities, too."""
        *states, last, gram_DD, centred_DD = map(np.asarray, self._measure(params, self._batch))
        values = {f"anisotropy_{depth}": float(x) for depth, x in enumerate(states, start=1)}
        values["anisotropy"] = float(last)
        values |= spectrum(_singular_values(gram_DD))
        centred = spectrum(_singular_values(centred_DD))
        values |= {f"centred_{name}": value for name, value in centred.items()}
        if final and (rank := self._rank(params, len(gram_DD))) is not None:
            values["log_probability_rank"] = float(rank)
        n = int((self._batch["decoder_loss_weights"] > 0).sum())
        common = {"task": "representation", "split": "validation", "n": n, "stderr": None}
        return [{**common, "metric": name, "value": value} for name, value in values.items()]

    def _rank(self, params: Any, dim: int) -> int | None:
        contexts = dim + 1 + _SPARE
        weights_BT = self._batch["decoder_loss_weights"]
        rows = np.flatnonzero(np.cumsum((weights_BT > 0).sum(axis=1)) >= contexts)
        if not len(rows):
            return None
        few = {name: values[: rows[0] + 1] for name, values in self._batch.items()}
        log_p_BTV = np.asarray(self._log_probabilities(params, few))
        log_p_NV = log_p_BTV[few["decoder_loss_weights"] > 0][:contexts]
        return log_probability_rank(log_p_NV) if log_p_NV.shape[1] > contexts else None


def make_measures(model: Model) -> Callable[..., Any]:
    """A function (params, batch) -> anisotropy of every state, and two Gram matrices [D, D].

    They are those of the head's matrix, as it is and with its mean over the vocabulary taken off.
    """

    def measure(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> list[jax.Array]:
        built = model.merge(params)
        real_BT = batch["decoder_loss_weights"] > 0
        matrix_DV = built.head_matrix()
        centred_DV = matrix_DV - matrix_DV.mean(axis=1, keepdims=True)
        grams = [jnp.matmul(w, w.T, precision="highest") for w in (matrix_DV, centred_DV)]
        return [*(anisotropy(x_BTD, real_BT) for x_BTD in built.states(batch)), *grams]

    return measure


def make_log_probabilities(model: Model) -> Callable[..., Any]:
    """A function (params, batch) -> log-probabilities [B, T, V] of the next token."""

    def log_probabilities(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        return jax.nn.log_softmax(model.merge(params)(batch).logits)

    return log_probabilities


def anisotropy(x_BTD: jax.Array, real_BT: jax.Array) -> jax.Array:
    """The mean cosine between two states [B, T, D], over all pairs of real positions.

    0 if the directions are spread evenly, 1 if all are the same.
    """
    x_BTD = x_BTD.astype(jnp.float32)
    length_BT1 = jnp.linalg.norm(x_BTD, axis=-1, keepdims=True)
    unit_BTD = jnp.where(real_BT[..., None], x_BTD / jnp.maximum(length_BT1, 1e-30), 0)
    n = real_BT.sum().astype(jnp.float32)
    return (jnp.sum(unit_BTD.sum(axis=(0, 1)) ** 2) - n) / (n * n - n)


def spectrum(values_R: npt.ArrayLike) -> dict[str, float]:
    """Measures of a matrix from its r singular values, of which p is each one's share of the sum.

    Returns:
      singular_entropy: the Kullback-Leibler divergence of p from uniform, log r - H(p), in nats; 0
        if all are equal.
      effective_rank: exp H(p) (Roy and Vetterli, 2007).
      stable_rank: the squared Frobenius norm over the squared spectral norm.
    """
    values_R = np.asarray(values_R, np.float64)
    p_R = values_R / values_R.sum()
    entropy = -float(np.sum(p_R[p_R > 0] * np.log(p_R[p_R > 0])))
    return {
        "singular_entropy": math.log(len(values_R)) - entropy,
        "effective_rank": math.exp(entropy),
        "stable_rank": float(np.sum(values_R**2) / np.max(values_R) ** 2),
    }


def _singular_values(gram_DD: np.ndarray) -> np.ndarray:
    """The square roots of a Gram matrix's eigenvalues."""
    return np.sqrt(np.maximum(np.linalg.eigvalsh(np.asarray(gram_DD, np.float64)), 0))


def log_probability_rank(log_p_NV: np.ndarray) -> int:
    """The numerical rank of log-probabilities in float32, with the mean of every row taken off."""
    centred_NV = log_p_NV - log_p_NV.mean(axis=1, keepdims=True, dtype=np.float64)
    values = np.linalg.svd(centred_NV, compute_uv=False)
    return int(np.sum(values > _NOISE * values[0]))
