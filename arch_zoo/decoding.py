"""Generation with any architecture: greedy search, sampling and beam search.

Every function reads what the model's `prefill` reads of a batch: the encoder's features, or prompts
for a decoder-only model. It writes at most `max_length` new tokens, with zeros after the
end-of-sequence token, and stops as soon as no row can change.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from arch_zoo.registry import ConfigError
from arch_zoo.skeleton import Batch, Skeleton

PAD, EOS = 0, 1


class Samples(NamedTuple):
    """Ids [B, max_length], and the log-probability that the model gives to each row, [B]."""

    ids: jax.Array
    log_probs: jax.Array


class Beams(NamedTuple):
    """Ids [B, N, max_length], best first, and their scores [B, N] (see `beam`)."""

    ids: jax.Array
    scores: jax.Array


def greedy(model: Skeleton, batch: Batch, max_length: int) -> jax.Array:
    """Picks the most likely token at each step; ids [B, max_length]."""
    return _one_by_one(
        model, batch, max_length, lambda logits_BV, index: jnp.argmax(logits_BV, axis=-1)
    ).ids


def sample(
    model: Skeleton,
    batch: Batch,
    max_length: int,
    key: jax.Array,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Samples:
    """Draws each token from the model's distribution, with a temperature and truncation.

    Args:
      model: any model.
      batch: its inputs.
      max_length: the largest number of tokens of a row.
      key: the random key that tokens are drawn with.
      temperature: divides the logits. Like `top_k` and `top_p` it must be a Python number, not an
        array.
      top_k: draw only from the `top_k` most likely tokens; 0 for all.
      top_p: of these, draw only from the most likely tokens that together reach this probability
        (Holtzman et al., 2020, arXiv 1904.09751).

    Raises:
      ConfigError: a temperature that is not positive, a negative `top_k`, a `top_p` outside (0, 1].
    """
    if temperature <= 0:
        raise ConfigError(
            f"temperature={temperature}: must be above 0; for the likeliest tokens use greedy"
        )
    if top_k < 0 or not 0 < top_p <= 1:
        raise ConfigError(
            f"top_k={top_k}, top_p={top_p}: top_k must be at least 0, top_p above 0 and at most 1"
        )

    def choose(logits_BV, index):
        return jax.random.categorical(
            jax.random.fold_in(key, index), truncate(logits_BV / temperature, top_k, top_p)
        )

    return _one_by_one(model, batch, max_length, choose)


def truncate(logits_BV: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Sets all but the most likely tokens to minus infinity (see `sample`).

    The most likely one always stays.
    """
    if not top_k and top_p == 1:
        return logits_BV
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    probs_BV = jax.nn.softmax(sorted_BV[:, : top_k or None], axis=-1)
    before_BV = jnp.cumsum(probs_BV, axis=-1) - probs_BV
    kept_B1 = jnp.sum(before_BV < top_p, axis=-1, keepdims=True)
    smallest_B1 = jnp.take_along_axis(sorted_BV, kept_B1 - 1, axis=-1)
    return jnp.where(logits_BV < smallest_B1, -jnp.inf, logits_BV)


def _one_by_one(model: Skeleton, batch: Batch, max_length: int, choose: Callable) -> Samples:
    """Generates one token for each row at each step; `choose(logits_BV, index)` picks it."""
    logits_BV, first, cache = model.prefill(batch, max_length)
    batch_size = len(logits_BV)

    def unfinished(state):
        index, _, ended_B, *_ = state
        return (index < max_length) & ~jnp.all(ended_B)

    def add(index, logits_BV, ended_B, samples):
        """The state with a token at `index`, without the cache."""
        ids_BT, log_probs_B = samples
        tokens_B = jnp.where(ended_B, PAD, choose(logits_BV, index).astype(jnp.int32))
        added_B = jnp.take_along_axis(
            jax.nn.log_softmax(logits_BV, axis=-1), tokens_B[:, None], axis=-1
        )[:, 0]
        log_probs_B += jnp.where(ended_B, 0.0, added_B)
        samples = Samples(ids_BT.at[:, index].set(tokens_B), log_probs_B)
        return index + 1, tokens_B, ended_B | (tokens_B == EOS), samples

    def step(state):
        index, tokens_B, ended_B, samples, cache = state
        logits_BV, cache = model.decode_step(tokens_B, first + index - 1, cache)
        return *add(index, logits_BV, ended_B, samples), cache

    ids_BT = jnp.full((batch_size, max_length), PAD, jnp.int32)
    nothing = Samples(ids_BT, jnp.zeros((batch_size,)))
    start = add(jnp.int32(0), logits_BV, jnp.zeros((batch_size,), bool), nothing)
    return jax.lax.while_loop(unfinished, step, (*start, cache))[3]


def beam(
    model: Skeleton, batch: Batch, max_length: int, num_beams: int = 4, length_penalty: float = 0.6
) -> Beams:
    """Beam search as in Mesh TensorFlow.

    Keeps the N best rows that have ended and the N best that have not. A row's score is its
    log-probability divided by `((5 + length) / 6) ** length_penalty` (Wu et al., 2016, arXiv
    1609.08144), where the length includes the end-of-sequence token. Search stops when no
    unfinished row could still beat the worst finished one. If no row has ended after `max_length`
    tokens, the unfinished ones are returned. Beams that were never filled score minus infinity.

    Raises:
      ConfigError: fewer than one beam, or a negative length penalty, for which the stopping rule
        would be wrong.
    """
    if num_beams < 1 or length_penalty < 0:
        raise ConfigError(
            f"num_beams={num_beams}, length_penalty={length_penalty}: must be at least 1 and 0"
        )
    logits_BV, first, cache = model.prefill(batch, max_length)
    batch_size = len(logits_BV)

    def penalty(length):
        return ((5.0 + length) / 6.0) ** length_penalty

    def unfinished(state):
        index, going, ended, _ = state
        could_be_B = going.scores[:, 0] / penalty(max_length)
        return (index < max_length) & jnp.any(could_be_B > ended.scores.min(axis=1))

    def add(index, logits, going, ended, cache):
        """The state with a token at `index` of every beam."""
        log_probs_BNV = jax.nn.log_softmax(logits, axis=-1).reshape(batch_size, num_beams, -1)
        # At most half of 2N continuations end (one of each beam), so at least N are unfinished.
        candidates, parents = _continue(going, log_probs_BNV, index, 2 * num_beams)
        ends = candidates.ids[:, :, index] == EOS
        finished = Beams(
            candidates.ids, jnp.where(ends, candidates.scores / penalty(index + 1), -jnp.inf)
        )
        ended, _ = _best(
            jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), ended, finished), num_beams
        )
        going, chosen = _best(
            candidates._replace(scores=jnp.where(ends, -jnp.inf, candidates.scores)), num_beams
        )
        parents = jnp.take_along_axis(parents, chosen, axis=1)
        rows = (jnp.arange(batch_size)[:, None] * num_beams + parents).reshape(-1)
        return index + 1, going, ended, jax.tree.map(lambda leaf: leaf[rows], cache)

    def step(state):
        index, going, ended, cache = state
        tokens_BN = going.ids[:, :, index - 1]
        logits, cache = model.decode_step(tokens_BN.reshape(-1), first + index - 1, cache)
        return add(index, logits, going, ended, cache)

    ids = jnp.full((batch_size, num_beams, max_length), PAD, jnp.int32)
    nothing = jnp.full((batch_size, num_beams), -jnp.inf)
    logits, cache = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, num_beams, axis=0), (logits_BV, cache)
    )
    one = Beams(ids, nothing.at[:, 0].set(0.0))
    start = add(jnp.int32(0), logits, one, Beams(ids, nothing), cache)
    _, going, ended, _ = jax.lax.while_loop(unfinished, step, start)
    some_ended = jnp.any(jnp.isfinite(ended.scores), axis=1)
    scores = jnp.where(some_ended[:, None], ended.scores, going.scores / penalty(max_length))
    return Beams(jnp.where(some_ended[:, None, None], ended.ids, going.ids), scores)


def _continue(
    beams: Beams, log_probs_BNV: jax.Array, index: jax.Array, count: int
) -> tuple[Beams, jax.Array]:
    """The best `count` continuations by one token at `index`, and their beams [B, count]."""
    vocab_size = log_probs_BNV.shape[-1]
    totals = (beams.scores[..., None] + log_probs_BNV).reshape(len(log_probs_BNV), -1)
    scores, chosen = jax.lax.top_k(totals, count)
    parents, tokens = chosen // vocab_size, chosen % vocab_size
    ids = jnp.take_along_axis(beams.ids, parents[..., None], axis=1).at[:, :, index].set(tokens)
    return Beams(ids, scores), parents


def _best(beams: Beams, count: int) -> tuple[Beams, jax.Array]:
    """The best `count` of `beams`, and their former places."""
    scores, chosen = jax.lax.top_k(beams.scores, count)
    return Beams(jnp.take_along_axis(beams.ids, chosen[..., None], axis=1), scores), chosen
