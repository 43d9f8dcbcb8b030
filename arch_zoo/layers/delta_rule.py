"""The gated delta rule: before it adds a key's value, the state forgets what it had for that key.

`S <- exp(g) S`, `S <- S + k (beta (v - S^T k))^T`, `y = S^T q` (Yang et al., 2024, arXiv
2412.06464; without decay Schlag et al., 2021, arXiv 2102.11174). With `beta` in [0, 2] and keys of
unit length, each step multiplies the state by a matrix with no eigenvalue beyond 1.

Inside a chunk, what a position adds depends on what all earlier positions of the chunk add: a lower
triangular system, one for each head and chunk (Yang et al., 2024, arXiv 2406.06484).
"""

import jax
import jax.numpy as jnp

from arch_zoo.layers import recurrence
from arch_zoo.layers.decayed_attention import LEAST_OF_HEAD, head_weights
from arch_zoo.layers.recurrence import MatrixState, Sequences, times

_CHUNK = 64


def attend(sequences: Sequences, state: MatrixState) -> tuple[jax.Array, MatrixState]:
    """The outputs [B, G, R, L, V] and the next state; see `recurrence.Kernel`.

    It is not the formula where a log decay is below `LEAST_OF_HEAD`.
    """
    form = recurrent if sequences.value_BGRLV.shape[3] == 1 else chunked
    return form(sequences, state)


def recurrent(sequences: Sequences, state: MatrixState) -> tuple[jax.Array, MatrixState]:
    """One position after the other."""

    def step(state: MatrixState, at: Sequences) -> tuple[MatrixState, jax.Array]:
        query_BGK, key_BGK = at.query_BG1LK[:, :, 0], at.key_BG1LK[:, :, 0]
        memory = state.memory_BGRKV * jnp.exp(at.log_decay_BGRLJ)[..., None]
        with jax.named_scope("products"):
            known_BGRV = jnp.einsum("BGK,BGRKV->BGRV", key_BGK, memory)
            added_BGRV = (at.value_BGRLV - known_BGRV) * at.rate_BGRL1
            memory += jnp.einsum("BGK,BGRV->BGRKV", key_BGK, added_BGRV)
            y_BGRV = jnp.einsum("BGK,BGRKV->BGRV", query_BGK, memory)
        return state._replace(memory_BGRKV=memory), y_BGRV

    return recurrence.scan_positions(step, sequences.cleaned(LEAST_OF_HEAD), state)


def chunked(sequences: Sequences, state: MatrixState) -> tuple[jax.Array, MatrixState]:
    """Chunk by chunk; the same values."""
    length = sequences.value_BGRLV.shape[3]
    chunks = recurrence.split(sequences.cleaned(LEAST_OF_HEAD), _CHUNK)
    query, key, value = chunks.query_BG1LK[:, :, 0], chunks.key_BG1LK[:, :, 0], chunks.value_BGRLV
    meets = recurrence.meeting(chunks.segment_ids_B11L1, state.segment_B)
    total_BGRNC1 = recurrence.running_sum(chunks.log_decay_BGRLJ)
    weights_BGRNCC, reads_BGRNC1, to_end_BGRNC1, kept_BGRN11 = head_weights(total_BGRNC1, meets)
    with jax.named_scope("products"):
        alike_BGNCC = jnp.einsum("BGNCK,BGNSK->BGNCS", key, key)
        asked_BGNCC = jnp.einsum("BGNCK,BGNSK->BGNCS", query, key)
    system_BGRNCC = times(times(alike_BGNCC[:, :, None], weights_BGRNCC), chunks.rate_BGRL1)
    # What would be added if the state before the chunk were zero, and how that state changes it.
    read_BGRNCK = times(key[:, :, None], reads_BGRNC1)
    sides_BGRNCX = times(jnp.concatenate([value, read_BGRNCK], axis=-1), chunks.rate_BGRL1)
    solved_BGRNCX = solve(jnp.tril(system_BGRNCC, -1), sides_BGRNCX)
    alone_BGRNCV, known_BGRNCK = jnp.split(solved_BGRNCX, [value.shape[-1]], axis=-1)

    def step(memory, chunk):
        alone_BGRCV, known_BGRCK, key_BGCK, to_end_BGRC1, kept_BGR11 = chunk
        with jax.named_scope("products"):
            added_BGRCV = alone_BGRCV - jnp.einsum("BGRCK,BGRKV->BGRCV", known_BGRCK, memory)
            entered = jnp.einsum("BGCK,BGRCV->BGRKV", key_BGCK, times(added_BGRCV, to_end_BGRC1))
        return times(memory, kept_BGR11) + entered, (memory, added_BGRCV)

    by_chunk = (
        *(jnp.moveaxis(x, 3, 0) for x in (alone_BGRNCV, known_BGRNCK)),
        jnp.moveaxis(key, 2, 0),
        *(jnp.moveaxis(x, 3, 0) for x in (to_end_BGRNC1, kept_BGRN11)),
    )
    memory, (before_NBGRKV, added_NBGRCV) = jax.lax.scan(step, state.memory_BGRKV, by_chunk)
    with jax.named_scope("products"):
        before_BGRNCV = jnp.einsum("BGNCK,NBGRKV->BGRNCV", query, before_NBGRKV)
        inside_BGRNCV = jnp.einsum(
            "BGRNCS,NBGRSV->BGRNCV", times(asked_BGNCC[:, :, None], weights_BGRNCC), added_NBGRCV
        )
        y_BGRNCV = times(before_BGRNCV, reads_BGRNC1) + inside_BGRNCV
    return recurrence.join(y_BGRNCV, length), MatrixState(memory, meets.segment_B)


@jax.custom_vjp
def solve(lower: jax.Array, sides: jax.Array) -> jax.Array:
    """The solution x of `(I + lower) x = sides`, for strictly lower triangular [..., C, C].

    The inverse is put together from those of halves of halves. That takes matrix products only, and
    is as accurate as substitution; a sum of powers of `lower` would overflow where keys are alike.
    """
    with jax.named_scope("products"):
        return _inverse(lower) @ sides


def _solve_forward(lower, sides):
    with jax.named_scope("products"):
        inverse = _inverse(lower)
        solved = inverse @ sides
    return solved, (inverse, solved)


def _solve_backward(kept, grad):
    inverse, solved = kept
    grad_sides = jnp.swapaxes(inverse, -1, -2) @ grad
    return -jnp.tril(grad_sides @ jnp.swapaxes(solved, -1, -2), -1), grad_sides


solve.defvjp(_solve_forward, _solve_backward)


def _inverse(lower: jax.Array) -> jax.Array:
    """The inverse of `I + lower`, [..., C, C]."""
    size = lower.shape[-1]
    full = 1 << (size - 1).bit_length()
    margin = ((0, 0),) * (lower.ndim - 2) + ((0, full - size),) * 2
    lower = jnp.pad(lower, margin)
    inverses = jnp.ones((*lower.shape[:-1], 1, 1), lower.dtype)  # of the blocks on the diagonal
    for block in (1 << level for level in range(full.bit_length() - 1)):
        first, second = inverses[..., 0::2, :, :], inverses[..., 1::2, :, :]
        corner = -second @ (_below_diagonal(lower, block) @ first)
        above = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        inverses = jnp.concatenate([above, jnp.concatenate([corner, second], axis=-1)], axis=-2)
    return inverses[..., 0, :size, :size]


def _below_diagonal(matrix: jax.Array, block: int) -> jax.Array:
    """Of every second block on the diagonal the block below it, [..., C / 2 block, block, block].

    From one to the next is the same distance in memory, so they are cut out of the flat matrix.
    """
    size, pair = matrix.shape[-1], 2 * block
    count = size // pair
    flat = matrix.reshape(*matrix.shape[:-2], size * size)
    flat = jnp.pad(flat, ((0, 0),) * (flat.ndim - 1) + ((0, pair * count),))
    rows = flat.reshape(*flat.shape[:-1], count, -1)[..., : pair * size]
    return rows.reshape(*rows.shape[:-1], pair, size)[..., block:, :block]
