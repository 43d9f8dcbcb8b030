"""The score of a probe: the share of right answers, in all and by size."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from arch_zoo.layers.head import cross_entropy
from train.data import probe_batches
from train.data.corpus import Corpus
from train.probes.probe import Rows
from train.records import Row
from train.run.evaluators.heldout import upstream
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig


class ProbeScore:
    """The score of a probe: call it with parameters for its rows.

    On the validation set, which is made like the training set: `nll` and `perplexity` of every
    answer that the loss is taken of, and `accuracy`. On the test set: `accuracy`, `accuracy_SIZE`
    for each size of the examples if they have several, `chance`, and `seen`, the number of examples
    that are also in the training set. Accuracies are in percent of all scored answers (a micro
    average), or of the examples of an exact probe; the answer is the most likely one of those that
    the probe allows.
    """

    def __init__(
        self, corpus: Corpus, stage: StageConfig, seed: int, model: Model, strategy: Strategy
    ):
        """Makes the examples; nothing of this depends on the seed."""
        self._probe = stage.made_probe()
        self._measure = strategy.compile_evaluation(make_measure(model, self._probe.answers))
        self._sets = {
            split: probe_batches.scored_set(self._probe, split) for split in ("validation", "test")
        }
        self._batch_size = stage.eval_batch_size
        most = [int((rows.labels > 0).sum(axis=1).max()) for rows, _ in self._sets.values()]
        self._most = max(most)

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        """The rows."""
        found = []
        for split, (rows, seen) in self._sets.items():
            sums_2N, right_N, answers_N = self._measured(params, rows)
            about = {"task": self._probe.name, "split": split}
            if split == "validation":
                nll, perplexity, _ = upstream(np.stack([*sums_2N, np.ones_like(sums_2N[0])]))
                found += [nll | about, perplexity | about]
            found.append({**about, "metric": "accuracy", **_share(right_N, answers_N)})
            if split == "test":
                found += self._by_size(about, rows.size, right_N, answers_N)
                facts = {"chance": self._probe.chance, "seen": float(seen)}
                found += [
                    {**about, "metric": metric, "value": value, "n": len(right_N), "stderr": None}
                    for metric, value in facts.items()
                ]
        return found

    def _measured(self, params: Any, rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each example: sums of nll and weights [2, N], right answers and answers [N]."""
        losses, rights = [], []
        for first in range(0, len(rows.tokens), self._batch_size):
            part = [x[first : first + self._batch_size] for x in rows[:3]]
            real, missing = len(part[0]), self._batch_size - len(part[0])
            tokens, labels, scored = (np.pad(x, ((0, missing), (0, 0))) for x in part)
            batch = {
                "decoder_input_tokens": tokens,
                "decoder_target_tokens": labels,
                "decoder_loss_weights": (labels > 0).astype(np.float32),
                "decoder_target_positions": probe_batches.positions(labels > 0, self._most),
                "scored": scored,
            }
            nll_B, weight_B, right_B = map(np.asarray, self._measure(params, batch))
            losses.append(np.stack([nll_B, weight_B])[:, :real])
            rights.append(right_B[:real])
        right_N, answers_N = np.concatenate(rights), rows.scored.sum(axis=1)
        if self._probe.exact:
            right_N, answers_N = (right_N == answers_N).astype(int), np.ones_like(answers_N)
        return np.concatenate(losses, axis=1).astype(np.float64), right_N, answers_N

    def _by_size(
        self, about: Row, size_N: np.ndarray | None, right_N: np.ndarray, answers_N: np.ndarray
    ) -> list[Row]:
        if size_N is None:
            return []
        return [
            {
                **about,
                "metric": f"accuracy_{size}",
                **_share(right_N[size_N == size], answers_N[size_N == size]),
            }
            for size in np.unique(size_N).tolist()
        ]


def make_measure(model: Model, answers: range) -> Callable[..., Any]:
    """A function (params, batch) -> sums of nll and of weights, and right answers, all [B]."""

    def measure(
        params: dict[str, jax.Array], batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        at_BN = batch["decoder_target_positions"]
        logits_BNV = model.merge(params).logits_at(batch, at_BN)
        targets_BN, weights_BN, scored_BN = (
            jnp.take_along_axis(batch[name], at_BN, axis=1, mode="fill", fill_value=0)
            for name in ("decoder_target_tokens", "decoder_loss_weights", "scored")
        )
        guess_BN = answers.start + logits_BNV[..., answers.start : answers.stop].argmax(-1)
        right_BN = (guess_BN == targets_BN) & (scored_BN > 0)
        nll_BN, _ = cross_entropy(logits_BNV, targets_BN)
        return (nll_BN * weights_BN).sum(-1), weights_BN.sum(-1), right_BN.sum(-1)

    return measure


def _share(right_N: np.ndarray, answers_N: np.ndarray) -> Row:
    """The share of right answers in percent, with its standard error over examples."""
    n, total = len(right_N), answers_N.sum()
    value = right_N.sum() / total
    spread = math.sqrt(np.sum((right_N - value * answers_N) ** 2) * n / max(n - 1, 1)) / total
    return {"value": 100 * float(value), "n": n, "stderr": 100 * float(spread)}
