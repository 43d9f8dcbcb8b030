"""Linear attention with decay: `S_t = exp(g_t) S_(t-1) + k_t v_t^T`, `y_t = S_t^T q_t`.

The log decay `g` is one number for each head (RetNet, Mamba-2) or for each row of a head's matrix
(GLA). With G = cumsum(g) inside a chunk, an earlier position s reaches t with the weight
`exp(G_t - G_s)`. For one decay per head these weights are formed for each pair. For one decay per
row, queries are multiplied by `exp(G_t)` and keys by `exp(-G_s)`, so chunks must be short.
`layers/favor.py` is the case without decay, with a denominator.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from arch_zoo.layers import recurrence
from arch_zoo.layers.recurrence import MatrixState, Meeting, Sequences

# A log decay below this counts as this. exp(-20) is 2e-9: nothing that float32 sums could show. It
# keeps differences of sums exact enough, and a log decay of minus infinity from giving nan.
LEAST_OF_HEAD = -20.0
# With a decay for each row, exp of a chunk's sum and its inverse must be finite in float32.
LEAST_OF_ROW = -5.0
_CHUNK, _CHUNK_OF_ROWS = 64, 16
# About exp(40): brings both factors of such a weight, exp(-80) to 1 and 1 to exp(80), closer to 1.
# A power of two rounds nothing. A factor that depended on the chunk's decays would do so, and the
# rounding of a position would depend on later ones.
_BALANCE = 2.0**58


def attend(sequences: Sequences, state: MatrixState) -> tuple[jax.Array, MatrixState]:
    """The outputs [B, G, R, L, V] and the next state; see `recurrence.Kernel`.

    A decay for each row needs groups of one head. It is not the formula where a log decay is below
    `LEAST_OF_HEAD` or `LEAST_OF_ROW`.
    """
    form = recurrent if sequences.value_BGRLV.shape[3] == 1 else chunked
    return form(sequences, state)


def recurrent(sequences: Sequences, state: MatrixState) -> tuple[jax.Array, MatrixState]:
    """One position after the other."""

    def step(state: MatrixState, at: Sequences) -> tuple[MatrixState, jax.Array]:
        kept_BGRJ1 = jnp.exp(at.log_decay_BGRLJ)[..., None]
        with jax.named_scope("products"):
            added = jnp.einsum("BGK,BGRV->BGRKV", at.key_BG1LK[:, :, 0], at.value_BGRLV)
            memory = state.memory_BGRKV * kept_BGRJ1 + added
            y_BGRV = jnp.einsum("BGK,BGRKV->BGRV", at.query_BG1LK[:, :, 0], memory)
        return state._replace(memory_BGRKV=memory), y_BGRV

    return recurrence.scan_positions(step, _cleaned(sequences), state)


def chunked(sequences: Sequences, state: MatrixState) -> tuple[jax.Array, MatrixState]:
    """Chunk by chunk; the same values."""
    length = sequences.value_BGRLV.shape[3]
    rows = _has_rows(sequences)
    chunks = recurrence.split(_cleaned(sequences), _CHUNK_OF_ROWS if rows else _CHUNK)
    meets = recurrence.meeting(chunks.segment_ids_B11L1, state.segment_B)
    inside = (_inside_by_row if rows else _inside)(chunks, meets)
    with jax.named_scope("products"):
        added = jnp.einsum("BGNCK,BGNCRV->BGNKRV", inside.key_BGNCK, inside.value_BGNCRV)

    def step(memory_BGKRV, chunk):
        kept, added = chunk
        return recurrence.times(memory_BGKRV, kept) + added, memory_BGKRV

    by_chunk = tuple(jnp.moveaxis(x, 2, 0) for x in (inside.kept_BGNJR1, added))
    memory, before = jax.lax.scan(step, jnp.moveaxis(state.memory_BGRKV, 2, 3), by_chunk)
    with jax.named_scope("products"):
        read = jnp.einsum("BGNCK,NBGKRV->BGNCRV", inside.query_BGNCK, before)
    y_BGNCRV = inside.output_BGNCRV + recurrence.times(read, inside.weight_BGNCR1)
    y_BGRNCV = jnp.moveaxis(y_BGNCRV, 4, 2)
    after = MatrixState(jnp.moveaxis(memory, 3, 2), meets.segment_B)
    return recurrence.join(y_BGRNCV, length), after


class _Inside(NamedTuple):
    """What happens inside chunks, and how they meet the states before and after them.

    The heads of a group are side by side, so that one product serves all of them.

    Attributes:
      output_BGNCRV: the sum over the positions of the chunk.
      query_BGNCK: reads the state before the chunk.
      weight_BGNCR1: the weight of what is read.
      key_BGNCK: enters the state after the chunk, with the value.
      value_BGNCRV: see the key.
      kept_BGNJR1: what is left of the state before the chunk in the state after it.
    """

    output_BGNCRV: jax.Array
    query_BGNCK: jax.Array
    weight_BGNCR1: jax.Array
    key_BGNCK: jax.Array
    value_BGNCRV: jax.Array
    kept_BGNJR1: jax.Array


def _inside(chunks: Sequences, meets: Meeting) -> _Inside:
    """With one decay for each head.

    Decays are factors of the values and outputs, so that what a group shares stays shared.
    """
    query, key = chunks.query_BG1LK[:, :, 0], chunks.key_BG1LK[:, :, 0]
    total_BGRNC1 = recurrence.running_sum(chunks.log_decay_BGRLJ)
    weights_BGRNCC, *of_states = head_weights(total_BGRNC1, meets)
    weight, to_end, kept, value = (jnp.moveaxis(x, 2, 4) for x in (*of_states, chunks.value_BGRLV))
    with jax.named_scope("products"):
        pairs_BGNCC = jnp.einsum("BGNCK,BGNSK->BGNCS", query, key)
        pairs_BGRNCC = recurrence.times(pairs_BGNCC[:, :, None], weights_BGRNCC)
        output_BGRNCV = jnp.einsum("BGRNCS,BGRNSV->BGRNCV", pairs_BGRNCC, chunks.value_BGRLV)
    output = jnp.moveaxis(output_BGRNCV, 2, 4)
    return _Inside(output, query, weight, key, recurrence.times(value, to_end), kept)


def head_weights(
    total_BGRNC1: jax.Array, meets: Meeting
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Weights from sums of log decays up to each position, one for each head.

    Returns:
      Those of pairs [B, G, R, N, C, C], of the state before the chunk [B, G, R, N, C, 1], of each
      position in the state after it, and of the state before in the state after [B, G, R, N, 1, 1].
    """
    # Masked before the exponential: a later position's weight could overflow.
    of_pairs = recurrence.differences(total_BGRNC1)
    last_BGRN11 = total_BGRNC1[..., -1:, :]
    return (
        _exp_where(meets.pairs_B11NCC, of_pairs),
        _exp_where(meets.reads_B11NC1, total_BGRNC1),
        _exp_where(meets.writes_B11NC1, last_BGRN11 - total_BGRNC1),
        _exp_where(meets.kept_B11N11, last_BGRN11),
    )


def _inside_by_row(chunks: Sequences, meets: Meeting) -> _Inside:
    """With a decay for each row, which scales queries and keys."""
    query, key = chunks.query_BG1LK[:, :, 0], chunks.key_BG1LK[:, :, 0]
    total_BGNCK = jnp.cumsum(chunks.log_decay_BGRLJ[:, :, 0], axis=3)
    last_BGN1K = total_BGNCK[..., -1:, :]
    pairs, reads, writes, kept = (mask[:, :, 0] for mask in meets[:4])
    with jax.named_scope("products"):
        pairs_BGNCC = jnp.einsum(
            "BGNCK,BGNSK->BGNCS",
            query * (jnp.exp(total_BGNCK) * _BALANCE),
            key * (jnp.exp(-total_BGNCK) / _BALANCE),
        )
        pairs_BGNCC = jnp.where(pairs, pairs_BGNCC, 0)
        output_BGRNCV = jnp.einsum("BGNCS,BGRNSV->BGRNCV", pairs_BGNCC, chunks.value_BGRLV)
    return _Inside(
        jnp.moveaxis(output_BGRNCV, 2, 4),
        query * _exp_where(reads, total_BGNCK),
        jnp.ones((1,) * 6),
        key * _exp_where(writes, last_BGN1K - total_BGNCK),
        jnp.moveaxis(chunks.value_BGRLV, 2, 4),
        jnp.swapaxes(_exp_where(kept, last_BGN1K), -1, -2)[..., None],
    )


def _exp_where(mask: jax.Array, x: jax.Array) -> jax.Array:
    """`exp(x)` where the mask is true, else 0, with a gradient that is finite everywhere."""
    return jnp.exp(jnp.where(mask, x, -jnp.inf))


def _has_rows(sequences: Sequences) -> bool:
    return sequences.log_decay_BGRLJ.shape[-1] > 1


def _cleaned(sequences: Sequences) -> Sequences:
    return sequences.cleaned(LEAST_OF_ROW if _has_rows(sequences) else LEAST_OF_HEAD)
