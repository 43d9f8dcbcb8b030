"""How far apart the states of training examples are, and how close held-out ones come to them.

Niu et al. (2024, arXiv 2405.08707) describe a model as a memory in which each training example is a
stored pattern: what is well separated can be recalled.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import distance

from train.data import batches
from train.data.corpus import Corpus
from train.records import Row
from train.run.evaluators.memorisation import seen_examples
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig


class Separation:
    """Distances between the last states of examples: call it with parameters for its rows.

    The state of an example is what the head reads at its last target.
    """

    def __init__(
        self, corpus: Corpus, stage: StageConfig, seed: int, model: Model, strategy: Strategy
    ):
        """Reads the first examples of training and the held-out ones."""
        shape = stage.evaluated(stage.text_shape(model.family))
        self._heldout = batches.heldout(corpus, shape, stage.eval_batches, stage.text)
        self._seen, _ = seen_examples(corpus, stage, seed, model)
        self._states = strategy.compile_evaluation(make_last_states(model))

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        """Rows with the mean distance to the nearest training example, and its standard error.

        `separation` is that of the training examples, each to another one (a single one has none);
        `distance` is that of the held-out examples. Both are Euclidean distances over the square
        root of the width.
        """
        seen_ND, heldout_MD = (self._of(params, part) for part in (self._seen, self._heldout))
        within_NN, across_MN = (distance.cdist(x, seen_ND) for x in (seen_ND, heldout_MD))
        np.fill_diagonal(within_NN, np.inf)
        width = np.sqrt(seen_ND.shape[1])
        rows = []
        for metric, split, nearest in (
            ("separation", "train", within_NN.min(axis=1) / width),
            ("distance", "validation", across_MN.min(axis=1) / width),
        ):
            n = len(nearest)
            if not np.isfinite(nearest).all():  # a single training example has no other one
                continue
            error = float(nearest.std(ddof=1) / np.sqrt(n)) if n > 1 else None
            about = {"value": float(nearest.mean()), "n": n, "stderr": error}
            rows.append({"task": "memorisation", "split": split, "metric": metric, **about})
        return rows

    def _of(self, params: Any, examples: Sequence[batches.HostBatch]) -> np.ndarray:
        found = [np.asarray(self._states(params, batch), np.float64) for batch in examples]
        real = [(batch["decoder_loss_weights"] > 0).any(axis=1) for batch in examples]
        return np.concatenate([x[kept] for x, kept in zip(found, real, strict=True)])


def make_last_states(model: Model) -> Callable[..., Any]:
    """A function (params, batch) -> what the head reads at each example's last target, [B, D]."""

    def last_states(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        x_BTD, _ = model.merge(params).hidden(batch)
        real_BT = batch["decoder_loss_weights"] > 0
        last_B = real_BT.shape[1] - 1 - jnp.argmax(real_BT[:, ::-1], axis=1)
        return jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)[:, 0].astype(jnp.float32)

    return last_states
