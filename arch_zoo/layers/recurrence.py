"""What recurrent mixers share: a matrix as the state, chunks of a sequence, and both directions.

A recurrent mixer keeps a matrix [K, V] for each head. Each position changes it with its key and
value, and reads it with its query. A whole sequence is computed in chunks: inside a chunk, pairs of
positions are compared directly, and only the states between chunks are computed one after the
other. The kernels are `layers/decayed_attention.py` and `layers/delta_rule.py`.

Heads come in G groups of R; the heads of a group share queries and keys. A packed row starts anew
with every segment, and padding (segment 0) changes nothing. All sums are in float32.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from arch_zoo.layers.context import Context

_POSITIONS = 3  # the axis of L in all arrays of `Sequences`


class Sequences(NamedTuple):
    """What a kernel reads of whole sequences or of one position.

    Attributes:
      query_BG1LK: queries.
      key_BG1LK: keys.
      value_BGRLV: values.
      log_decay_BGRLJ: the logarithm of what is kept of the state from the position before to this
        one: J = 1 for a whole head, J = K for each row of its matrix.
      segment_ids_B11L1: the segments.
      rate_BGRL1: how much of an error the delta rule corrects; None for decayed attention.
    """

    query_BG1LK: jax.Array
    key_BG1LK: jax.Array
    value_BGRLV: jax.Array
    log_decay_BGRLJ: jax.Array
    segment_ids_B11L1: jax.Array
    rate_BGRL1: Any = None

    def cleaned(self, least_log_decay: float) -> "Sequences":
        """The same in float32, where padding adds nothing and no decay is below the least."""
        real_B11L1 = self.segment_ids_B11L1 != 0
        sequences = jax.tree.map(
            lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), self
        )._replace(segment_ids_B11L1=self.segment_ids_B11L1)
        log_decay = jnp.maximum(sequences.log_decay_BGRLJ, least_log_decay)
        return sequences._replace(
            key_BG1LK=jnp.where(real_B11L1, sequences.key_BG1LK, 0),
            log_decay_BGRLJ=jnp.where(real_B11L1, log_decay, 0),
        )


class MatrixState(NamedTuple):
    """What is kept of the positions so far.

    Attributes:
      memory_BGRKV: a matrix for each head.
      segment_B: the segment it belongs to; 0 before the first position.
    """

    memory_BGRKV: jax.Array
    segment_B: jax.Array


Kernel = Callable[[Sequences, MatrixState], tuple[jax.Array, MatrixState]]
"""From sequences and the state before them to the outputs [B, G, R, L, V] and the next state."""


def empty_state(
    batch_size: int, groups: int, heads: int, key_dim: int, value_dim: int
) -> MatrixState:
    """The state before the first position, for groups of so many heads."""
    shape = (batch_size, groups, heads, key_dim, value_dim)
    return MatrixState(jnp.zeros(shape, jnp.float32), jnp.zeros(batch_size, jnp.int32))


def empty_like(sequences: Sequences) -> MatrixState:
    """The state before the first position of these sequences."""
    batch_size, groups, heads, _, value_dim = sequences.value_BGRLV.shape
    key_dim = sequences.key_BG1LK.shape[-1]
    memory, segment_B = empty_state(batch_size, groups, heads, key_dim, value_dim)
    dtype = jnp.promote_types(sequences.value_BGRLV.dtype, jnp.float32)
    return MatrixState(memory.astype(dtype), segment_B)


def by_head(
    ctx: Context,
    heads: tuple[int, int],
    query_BLX: jax.Array,
    key_BLX: jax.Array,
    value_BLX: jax.Array,
    log_decay_BLX: jax.Array,
    rate_BLH: jax.Array | None = None,
) -> Sequences:
    """Cuts projections into `heads`: G groups, and R heads of each.

    The log decay has one entry for each head, or one for each row of each head's matrix.
    """
    groups, each = heads
    return Sequences(
        _cut(query_BLX, groups, 1),
        _cut(key_BLX, groups, 1),
        _cut(value_BLX, groups, each),
        _cut(log_decay_BLX, groups, each),
        ctx.segment_ids_BL[:, None, None, :, None],
        None if rate_BLH is None else _cut(rate_BLH, groups, each),
    )


def _cut(x_BLX: jax.Array, groups: int, heads: int) -> jax.Array:
    x_BLGRX = x_BLX.reshape(*x_BLX.shape[:2], groups, heads, -1)
    return jnp.moveaxis(x_BLGRX, 1, _POSITIONS)


def joined(y_BGRLV: jax.Array, norm: Callable[[jax.Array], jax.Array] | None = None) -> jax.Array:
    """The heads side by side, [B, L, GRV], each of them normalised by `norm`."""
    batch_size, groups, heads, *shape = y_BGRLV.shape
    # XLA's CPU compiler is slow at a norm of five axes.
    y_BHLV = y_BGRLV.reshape(batch_size, groups * heads, *shape)
    if norm is not None:
        y_BHLV = norm(y_BHLV)
    return jnp.moveaxis(y_BHLV, 2, 1).reshape(batch_size, shape[0], -1)


def mix(
    kernel: Kernel, sequences: Sequences, ctx: Context, state: MatrixState | None = None
) -> tuple[jax.Array, MatrixState | None]:
    """Runs a kernel from left to right on a causal side, else in both directions.

    Where positions may look ahead, the second half of the groups reads from right to left; with one
    group, the second half of its heads does. `state` is that before the sequences, where they are
    prompts or a decoded position.

    Returns:
      The outputs [B, G, R, L, V], and the next state where one was given.
    """
    if ctx.causal:
        y_BGRLV, after = kernel(sequences, empty_like(sequences) if state is None else state)
        return y_BGRLV, None if state is None else after
    heads = 1 if sequences.value_BGRLV.shape[1] > 1 else 2  # the axis of groups, or of their heads
    first, second = _halves(sequences, heads)
    second = reverse(second)
    ahead, _ = kernel(first, empty_like(first))
    back, _ = kernel(second, empty_like(second))
    return jnp.concatenate([ahead, reverse(back)], axis=heads), None


def scan_positions(
    step: Callable[[MatrixState, Sequences], tuple[MatrixState, jax.Array]],
    sequences: Sequences,
    state: MatrixState,
) -> tuple[jax.Array, MatrixState]:
    """Runs a kernel's recurrent form, one position after the other.

    `step` takes arrays without the axis of positions and returns outputs [B, G, R, V]. The state
    that it is given is empty where a segment begins.
    """

    def run(state: MatrixState, at: Sequences) -> tuple[MatrixState, jax.Array]:
        segment_B = at.segment_ids_B11L1[:, 0, 0, 0]
        starts_B = (segment_B != 0) & (segment_B != state.segment_B)
        memory = jnp.where(starts_B[:, None, None, None, None], 0.0, state.memory_BGRKV)
        return step(MatrixState(memory, jnp.where(segment_B == 0, state.segment_B, segment_B)), at)

    by_position = jax.tree.map(lambda x: jnp.moveaxis(x, _POSITIONS, 0), sequences)
    state, y_LBGRV = jax.lax.scan(run, state, by_position)
    return jnp.moveaxis(y_LBGRV, 0, _POSITIONS), state


class Meeting(NamedTuple):
    """Which positions meet, in N chunks of C positions.

    Attributes:
      pairs_B11NCC: True where a position sees another one of its chunk: an earlier one of its
        segment, or itself.
      reads_B11NC1: True where a position reads the state before its chunk.
      writes_B11NC1: True where a position is in the state after its chunk.
      kept_B11N11: True where the state before a chunk is in the state after it.
      segment_B: the segment of the last state.
    """

    pairs_B11NCC: jax.Array
    reads_B11NC1: jax.Array
    writes_B11NC1: jax.Array
    kept_B11N11: jax.Array
    segment_B: jax.Array


def meeting(segment_ids_B11NC1: jax.Array, before_B: jax.Array) -> Meeting:
    """Finds who meets whom, given the segment of the state before the first chunk."""
    segments_BNC = segment_ids_B11NC1[:, 0, 0, ..., 0]
    rows, chunks, size = segments_BNC.shape
    segments_BL = segments_BNC.reshape(rows, -1)
    # The last token up to the end of each chunk; padding after it changes nothing.
    places_BL = jnp.where(segments_BL != 0, jnp.arange(chunks * size), -1)
    last_BN = jax.lax.cummax(places_BL, axis=1)[:, size - 1 :: size]
    found_BN = jnp.take_along_axis(segments_BL, jnp.maximum(last_BN, 0), axis=1)
    after_BN = jnp.where(last_BN < 0, before_B[:, None], found_BN)
    carried_BN = jnp.concatenate([before_B[:, None], after_BN[:, :-1]], axis=1)
    here = segments_BNC[:, None, None, ..., None]
    return Meeting(
        jnp.tril(here == jnp.swapaxes(here, -1, -2)),
        here == carried_BN[:, None, None, :, None, None],
        here == after_BN[:, None, None, :, None, None],
        (carried_BN == after_BN)[:, None, None, :, None, None],
        after_BN[:, -1],
    )


def split(sequences: Sequences, longest: int) -> Sequences:
    """Cuts L positions into N chunks of C: [B, G, R, N, C, .].

    Chunks are as equal as possible and at most `longest`. Padding fills the last one.
    """
    length = sequences.value_BGRLV.shape[_POSITIONS]
    chunks = -(-length // longest)
    size = -(-length // chunks)
    margin = ((0, 0),) * _POSITIONS + ((0, chunks * size - length), (0, 0))
    return jax.tree.map(
        lambda x: jnp.pad(x, margin).reshape(*x.shape[:_POSITIONS], chunks, size, x.shape[-1]),
        sequences,
    )


def join(y_BGRNCV: jax.Array, length: int) -> jax.Array:
    """The inverse of `split` for outputs: [B, G, R, L, V]."""
    y_BGRLV = y_BGRNCV.reshape(*y_BGRNCV.shape[:_POSITIONS], -1, y_BGRNCV.shape[-1])
    return y_BGRLV[:, :, :, :length]


@jax.custom_vjp
def times(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x * y`, of which either may be broadcast, with a faster gradient on a CPU.

    The gradient of what is broadcast is a sum of products. XLA would compute both in one loop, 25
    times as slow as a product and then a sum by a matrix product with ones.
    """
    return x * y


def _times_forward(x, y):
    return x * y, (x, y)


def _times_backward(operands, grad):
    x, y = operands
    return summed_to(grad * y, x.shape), summed_to(grad * x, y.shape)


times.defvjp(_times_forward, _times_backward)


@jax.custom_vjp
def differences(x_XC1: jax.Array) -> jax.Array:
    """`x[i] - x[j]` of all pairs [..., C, C], with a faster gradient on a CPU; see `times`."""
    return x_XC1 - jnp.swapaxes(x_XC1, -1, -2)


def _differences_forward(x_XC1):
    return differences(x_XC1), None


def _differences_backward(_, grad_XCC):
    shape = (*grad_XCC.shape[:-1], 1)
    columns_XC1 = jnp.swapaxes(summed_to(grad_XCC, (*shape[:-2], 1, shape[-2])), -1, -2)
    return (summed_to(grad_XCC, shape) - columns_XC1,)


differences.defvjp(_differences_forward, _differences_backward)


def summed_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sums the axes that are 1 in `shape`, by matrix products with ones."""
    for axis, (size, wanted) in enumerate(zip(x.shape, shape, strict=True)):
        if wanted == 1 < size:
            x_ASZ = x.reshape(math.prod(x.shape[:axis]), size, -1)
            if x_ASZ.shape[2] == 1:
                # Without an axis A of the ones, or XLA would make it a sum of products again.
                total_AZ = x_ASZ[..., 0] @ jnp.ones(size, x.dtype)
            else:
                total_AZ = jnp.einsum("AS,ASZ->AZ", jnp.ones(x_ASZ.shape[:2], x.dtype), x_ASZ)
            x = total_AZ.reshape(*x.shape[:axis], 1, *x.shape[axis + 1 :])
    return x


def running_sum(x_XC1: jax.Array) -> jax.Array:
    """The sums up to each position, [..., C, 1].

    On a CPU, XLA would repeat the last step of `cumsum` for each pair of positions that reads it.
    """
    x_X1C = jnp.swapaxes(x_XC1, -1, -2)
    earlier_CC = jnp.tril(jnp.ones((x_X1C.shape[-1],) * 2, bool))
    return jnp.sum(jnp.where(earlier_CC, x_X1C, 0), axis=-1, keepdims=True)


def reverse(tree):
    """Sequences, or outputs, from the last position to the first."""
    return jax.tree.map(lambda x: jnp.flip(x, _POSITIONS), tree)


def _halves(sequences: Sequences, axis: int) -> tuple[Sequences, Sequences]:
    """Splits the groups (axis 1) or heads (axis 2); what all share stays with both."""
    middle = (sequences.value_BGRLV.shape[axis] + 1) // 2

    def part(which: slice) -> Sequences:
        return jax.tree.map(
            lambda x: x if x.shape[axis] == 1 else x[(slice(None),) * axis + (which,)], sequences
        )

    return part(slice(None, middle)), part(slice(middle, None))
