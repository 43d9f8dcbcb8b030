"""Linear attention (FAVOR+).

With features of queries and keys, keys can be summed before a query reads them. `out_t = phi(q_t) .
sum_s phi(k_s) v_s / (phi(q_t) . sum_s phi(k_s))`. Every sum carries the logarithm of a scale, which
is that of its largest key. So features as large as exp(K/2) can be added, and a sum over the keys
up to t depends on nothing later; dividing all features by the largest of the sequence would break
that. Everything is in float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_CHUNK = 64
# Logarithm of the scale of an empty sum; minus infinity would give nan when subtracted from itself.
_NOTHING = -1e30


class Features(NamedTuple):
    """Queries, keys and values of sequences.

    Heads come before positions, so that products need no transposition.

    Attributes:
      query_BHLM: features of the queries, up to a factor for each query that cancels in the end.
      key_BHLM: features of the keys, divided by their scales.
      log_scale_BHL: logarithms of the keys' scales.
      value_BHLJ: the values and a one, J = K + 1; their sums are the numerator and the denominator.
      segment_ids_B1L: a query meets keys of its own segment; segments are contiguous, padding (0)
        aside.
    """

    query_BHLM: jax.Array
    key_BHLM: jax.Array
    log_scale_BHL: jax.Array
    value_BHLJ: jax.Array
    segment_ids_B1L: jax.Array


class Sums(NamedTuple):
    """Sums over keys. A sum is `total` [*N, ...] times exp(`log_scale` [*N])."""

    total: jax.Array
    log_scale: jax.Array

    def where(self, mask: jax.Array) -> "Sums":
        """These sums, empty where `mask` is false."""
        return Sums(
            self.total * _align(mask, self.total), jnp.where(mask, self.log_scale, _NOTHING)
        )

    def plus(self, other: "Sums") -> "Sums":
        """These sums plus `other`, at the larger of the two scales."""
        log_scale = jnp.maximum(self.log_scale, other.log_scale)
        mine, theirs = (
            s.total * _align(jnp.exp(s.log_scale - log_scale), s.total) for s in (self, other)
        )
        return Sums(mine + theirs, log_scale)


class FavorState(NamedTuple):
    """What is kept of a prefix.

    The sums over its last segment, [B, H, M, J] and [B, H], and that segment's id.
    """

    sums: Sums
    segment_B1: jax.Array


def relu_features(q_BHLK: jax.Array, k_BHLK: jax.Array, epsilon: float):
    """`relu(u) + epsilon` of queries and keys, and the log of the keys' scale, zero."""
    return (
        jax.nn.relu(q_BHLK) + epsilon,
        jax.nn.relu(k_BHLK) + epsilon,
        jnp.zeros(k_BHLK.shape[:-1]),
    )


def softmax_features(
    q_BHLK: jax.Array, k_BHLK: jax.Array, directions_MK: jax.Array, epsilon: float
):
    """Positive random features whose products estimate exp(q . k) without bias (up to `epsilon`).

    They are `exp(W u - |u|^2 / 2)`. Queries and keys are first rescaled in opposite directions, so
    that T5's initial ones are equally long.
    """
    balance = q_BHLK.shape[-1] ** 0.25
    q_BHLK, k_BHLK = q_BHLK * balance, k_BHLK / balance
    query_BHLM = q_BHLK @ directions_MK.T
    key_BHLM = k_BHLK @ directions_MK.T - jnp.sum(jnp.square(k_BHLK), axis=-1, keepdims=True) / 2
    query_max, key_max = (
        jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True)) for x in (query_BHLM, key_BHLM)
    )
    return (
        jnp.exp(query_BHLM - query_max) + epsilon,
        jnp.exp(key_BHLM - key_max) + epsilon,
        key_max[..., 0],
    )


def draw_directions(key: jax.Array, num_features: int, head_dim: int) -> jax.Array:
    """Random directions [M, K] for `softmax_features`.

    Orthogonal in blocks of K, as long as normal vectors are.
    """
    direction_key, length_key = jax.random.split(key)
    blocks = -(-num_features // head_dim)
    directions = jax.random.orthogonal(direction_key, head_dim, (blocks,)).reshape(-1, head_dim)[
        :num_features
    ]
    lengths = jnp.linalg.norm(
        jax.random.normal(length_key, (num_features, head_dim)), axis=-1, keepdims=True
    )
    return directions * lengths


def empty_state(batch_size: int, num_heads: int, num_features: int, value_dim: int) -> FavorState:
    """The state before the first position, for values of size `value_dim`."""
    total = jnp.zeros((batch_size, num_heads, num_features, value_dim + 1))
    return FavorState(
        Sums(total, jnp.full(total.shape[:2], _NOTHING)), jnp.zeros((batch_size, 1), jnp.int32)
    )


def attend_to_all(features: Features, *, packed: bool) -> jax.Array:
    """Attention of every query to all keys of its segment, [B, H, L, K].

    In a packed row the keys up to a query are summed in one direction and those after it in the
    other.
    """
    if not packed:
        return _ratio(_read(features, _collect(features, features.segment_ids_B1L != 0)))
    before, _ = _prefix_sums(features, _nothing_before(features), strict=False)
    return _ratio(before.plus(_later_keys(features)))


def attend_to_prefix(
    features: Features, state: FavorState, shared_B1L: jax.Array | None = None
) -> tuple[jax.Array, FavorState]:
    """Attention to the keys of the segment up to the query, including `state`.

    Queries where `shared_B1L` is true also meet the later keys of their segment where it is true.

    Returns:
      [B, H, L, K], and the next state.
    """
    sums, next_state = _prefix_sums(features, state, strict=False)
    if shared_B1L is not None:
        shared = features._replace(segment_ids_B1L=features.segment_ids_B1L * shared_B1L)
        sums = sums.plus(_later_keys(shared).where(shared_B1L))
    return _ratio(sums), next_state


def _nothing_before(features: Features) -> FavorState:
    """The state before sequences of these features."""
    batch_size, num_heads, _, num_features = features.key_BHLM.shape
    return empty_state(batch_size, num_heads, num_features, features.value_BHLJ.shape[-1] - 1)


def _later_keys(features: Features) -> Sums:
    """Sums over the keys of the segment after each query."""
    after, _ = _prefix_sums(_reverse(features), _nothing_before(features), strict=True)
    return _reverse(after)


def _prefix_sums(features: Features, state: FavorState, *, strict: bool) -> tuple[Sums, FavorState]:
    """Sums over the keys up to each query (before it, if `strict`), chunk by chunk.

    Inside a chunk, queries are multiplied with keys directly, so that no state is stored for each
    position.
    """
    length = features.segment_ids_B1L.shape[2]
    chunks = -(-length // _CHUNK)
    size = -(-length // chunks)

    def split(x):
        x = jnp.pad(x, ((0, 0), (0, 0), (0, chunks * size - length), *((0, 0),) * (x.ndim - 3)))
        return jnp.moveaxis(x.reshape(*x.shape[:2], chunks, size, *x.shape[3:]), 2, 0)

    def join(x):
        x = jnp.moveaxis(x, 0, 2)
        return x.reshape(*x.shape[:2], chunks * size, *x.shape[4:])[:, :, :length]

    def step(state, chunk):
        return _advance(state, chunk), _meet(chunk, strict=strict).plus(_recall(chunk, state))

    state, sums = jax.lax.scan(step, state, jax.tree.map(split, features))
    return jax.tree.map(join, sums), state


def _meet(chunk: Features, *, strict: bool) -> Sums:
    """The sums that come from keys of the same chunk; quadratic in the chunk's length."""
    segments_B1L = chunk.segment_ids_B1L
    mask_B1TS = jnp.tril(
        segments_B1L[..., :, None] == segments_B1L[..., None, :], -1 if strict else 0
    )
    key_scale_BH1S = chunk.log_scale_BHL[:, :, None]
    log_scale_BHT = jnp.max(jnp.where(mask_B1TS, key_scale_BH1S, _NOTHING), axis=-1)
    # Masked keys may have larger scales than the others; without the minimum they would overflow.
    weights_BHTS = jnp.exp(jnp.minimum(key_scale_BH1S - log_scale_BHT[..., None], 0.0)) * mask_B1TS
    with jax.named_scope("products"):
        products_BHTS = jnp.einsum("BHTM,BHSM->BHTS", chunk.query_BHLM, chunk.key_BHLM)
        return Sums((products_BHTS * weights_BHTS) @ chunk.value_BHLJ, log_scale_BHT)


def _recall(chunk: Features, state: FavorState) -> Sums:
    """The sums that come from keys before the chunk, where they belong to the same segment."""
    return _read(chunk, state.sums).where(chunk.segment_ids_B1L == state.segment_B1[..., None])


def _advance(state: FavorState, chunk: Features) -> FavorState:
    """The state after a chunk, which is that of the last segment in it."""
    segments_BL = chunk.segment_ids_B1L[:, 0]
    last_B1 = jnp.max(
        jnp.where(segments_BL != 0, jnp.arange(segments_BL.shape[1]), -1), axis=1, keepdims=True
    )
    segment_B1 = jnp.where(
        last_B1 < 0, state.segment_B1, jnp.take_along_axis(segments_BL, last_B1, axis=1)
    )
    kept = state.sums.where(segment_B1 == state.segment_B1)
    added = _collect(chunk, ((segments_BL == segment_B1) & (segments_BL != 0))[:, None])
    return FavorState(kept.plus(added), segment_B1)


def _collect(features: Features, which_B1L: jax.Array) -> Sums:
    """The sums over the keys where `which_B1L` is true, [B, H, M, J] and [B, H]."""
    log_scale_BHL = jnp.where(which_B1L, features.log_scale_BHL, _NOTHING)
    log_scale_BH = jnp.max(log_scale_BHL, axis=-1)
    weights_BHL = jnp.exp(log_scale_BHL - log_scale_BH[..., None]) * which_B1L
    with jax.named_scope("products"):
        weighted_BHLJ = features.value_BHLJ * weights_BHL[..., None]
        return Sums(jnp.einsum("BHSM,BHSJ->BHMJ", features.key_BHLM, weighted_BHLJ), log_scale_BH)


def _read(features: Features, sums: Sums) -> Sums:
    """Multiplies queries with sums over keys, [B, H, L, J] and [B, H, L]."""
    with jax.named_scope("products"):
        total_BHLJ = features.query_BHLM @ sums.total
    return Sums(total_BHLJ, jnp.broadcast_to(sums.log_scale[..., None], total_BHLJ.shape[:-1]))


def _ratio(sums: Sums) -> jax.Array:
    """The numerator divided by the denominator; zero where a query has no key."""
    denominator = sums.total[..., -1:]
    return sums.total[..., :-1] / jnp.where(denominator > 0, denominator, 1.0)


def _reverse(tree):
    return jax.tree.map(lambda x: x[:, :, ::-1], tree)


def _align(x: jax.Array, like: jax.Array) -> jax.Array:
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))
