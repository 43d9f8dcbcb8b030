"""Heads of limited rank, trained on a finished run's states: what rank the next token needs.

As in Godey et al. (2024, arXiv 2404.07647), section 6: the logits are `x B A`, with B [D, r] and
A [r, V], and the states x are frozen.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arch_zoo.layers.head import cross_entropy
from train.measures.finished import FinishedRun, features
from train.measures.settings import RankLimited
from train.records import InputError, Row

MEASURE = "rank_limited_head"


def measure(run: FinishedRun, settings: RankLimited) -> list[Row]:
    """The held-out loss with a head of each rank, and with the run's own head (rank null).

    Rows have measure, rank, learning_rate, train_nll (over the last tenth of the steps) and
    value (held-out), in nats per target token.

    Raises:
      InputError: a rank is above the model's width.
    """
    dim = run.record.config["model"]["embed_dim"]
    if max(settings.ranks) > dim:
        raise InputError(f"ranks: {max(settings.ranks)} is above the model's width of {dim}")
    seen = run.seen()
    trained = features(run, (seen.batch(step) for step in range(settings.batches)))
    heldout = features(run, iter(run.heldout()))
    vocab = run.corpus.vocab_size
    built = run.model.merge(run.params)
    own = _mean_nll(lambda x_ND: built.head.logits(x_ND[None], built.embedding)[0], *heldout)
    common = {"measure": MEASURE}
    rows: list[Row] = [
        {**common, "rank": None, "learning_rate": None, "train_nll": None, "value": own}
    ]
    for rank in settings.ranks:
        found = [_train(settings, rank, rate, vocab, *trained) for rate in settings.rates]
        best = int(np.argmin([nll for _, nll in found]))
        (b_DR, a_RV), nll = found[best]
        value = _mean_nll(lambda x_ND, b=b_DR, a=a_RV: x_ND @ b @ a, *heldout)
        rows.append(
            {
                **common,
                "rank": rank,
                "learning_rate": settings.rates[best],
                "train_nll": nll,
                "value": value,
            }
        )
    return rows


def _train(
    settings: RankLimited,
    rank: int,
    rate: float,
    vocab: int,
    x_ND: np.ndarray,
    targets_N: np.ndarray,
) -> tuple[tuple[jax.Array, jax.Array], float]:
    """A head of some rank, and its training loss over the last tenth of the steps."""
    keys = jax.random.split(jax.random.key(settings.seed), 2)
    dim = x_ND.shape[1]
    head = (
        jax.random.normal(keys[0], (dim, rank)) * dim**-0.5,
        jax.random.normal(keys[1], (rank, vocab)) * rank**-0.5,
    )
    optimizer = optax.adamw(optax.linear_schedule(rate, 0.0, settings.steps), weight_decay=0.0)
    state, last = optimizer.init(head), []
    rng, step = np.random.default_rng(settings.seed), functools.partial(_step, optimizer)
    for number in range(settings.steps):
        chosen = rng.integers(len(targets_N), size=settings.positions)
        head, state, nll = step(head, state, x_ND[chosen], targets_N[chosen])
        if number >= settings.steps - max(settings.steps // 10, 1):
            last.append(nll)
    return head, float(jnp.mean(jnp.stack(last)))


@functools.partial(jax.jit, static_argnums=0)
def _step(optimizer: Any, head: Any, state: Any, x_ND: jax.Array, targets_N: jax.Array) -> Any:
    def loss(head: Any) -> jax.Array:
        b_DR, a_RV = head
        return cross_entropy((x_ND @ b_DR @ a_RV)[None], targets_N[None])[0].mean()

    nll, grads = jax.value_and_grad(loss)(head)
    updates, state = optimizer.update(grads, state, head)
    return optax.apply_updates(head, updates), state, nll


def _mean_nll(logits: Any, x_ND: np.ndarray, targets_N: np.ndarray, most: int = 4096) -> float:
    """The mean loss in nats; so many positions at a time."""
    each = jax.jit(lambda x, targets: cross_entropy(logits(x)[None], targets[None])[0][0])
    parts = [
        np.asarray(each(x_ND[start : start + most], targets_N[start : start + most]), np.float64)
        for start in range(0, len(targets_N), most)
    ]
    return float(np.concatenate(parts).mean())
