"""Sends tokens to experts and back.

With a capacity in training, without dropping any in evaluation. Tokens are moved by gathers in both
passes (`exchange`), not by one-hot products, whose cost per token grows with the group. A token's
place depends only on tokens at earlier positions and on rows before its own, so that a causal model
stays causal to the bit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers.context import Context, observe
from arch_zoo.layers.feed_forward import relu

DROPLESS = "dropless"  # the accounting recognises the function below by this name

_MIN_CAPACITY = 4  # as in Mesh TensorFlow
_BLOCKS_PER_EXPERT = (
    4  # if tokens are spread evenly: blocks are then small enough to waste little on padding
)


@jax.custom_vjp
def exchange(x_MD: jax.Array, source_N: jax.Array, goal_M: jax.Array) -> jax.Array:
    """Row n of the output is row `source_N[n]` of `x`, or zero where `source_N[n]` is M.

    `goal_M` is the inverse map: row m goes to `goal_M[m]`, or nowhere if that is N. It makes the
    backward pass a gather as well.
    """
    return jnp.take(x_MD, source_N, axis=0, mode="fill", fill_value=0)


def _exchange_forward(x_MD, source_N, goal_M):
    return exchange(x_MD, source_N, goal_M), (source_N, goal_M)


def _exchange_backward(places, gradient_ND):
    source_N, goal_M = places
    return exchange(gradient_ND, goal_M, source_N), None, None


exchange.defvjp(_exchange_forward, _exchange_backward)


def inverse(places_N: jax.Array, size: int) -> jax.Array:
    """The token at each of `size` places (N: none), given each token's place (`size`: none)."""
    count = places_N.shape[0]
    return (
        jnp.full((size,), count, jnp.int32)
        .at[places_N]
        .set(jnp.arange(count, dtype=jnp.int32), mode="drop")
    )


def arrivals(expert_GN: jax.Array, real_GN: jax.Array, num_experts: int) -> jax.Array:
    """For each token, how many real tokens before it in its group go to the same expert, [G, N]."""
    wants_GNE = jax.nn.one_hot(expert_GN, num_experts, dtype=jnp.int32) * real_GN[..., None]
    return jnp.sum((jnp.cumsum(wants_GNE, axis=1) - wants_GNE) * wants_GNE, axis=-1)


class Queue(NamedTuple):
    """How tokens compete for the places of the experts.

    Attributes:
      num_experts: all of them, however many devices they are spread over.
      rows: the rows of a group.
      factor: the capacity of an expert for a group, divided by its share under an even load; None
        drops nothing.
    """

    num_experts: int
    rows: int
    factor: float | None


def rows_per_group(batch_size: int, length: int, group_size: int) -> int:
    """Rows of a group: as many as fit `group_size` tokens and divide the batch, at least one."""
    rows = max(1, min(batch_size, group_size // length))
    while batch_size % rows:
        rows -= 1
    return rows


def by_position(x_BL: jax.Array, rows: int) -> jax.Array:
    """Groups of `rows` rows, [G, L * rows], ordered by position first and by row second."""
    return x_BL.reshape(-1, rows, x_BL.shape[1]).swapaxes(1, 2).reshape(x_BL.shape[0] // rows, -1)


def by_row(x_GN: jax.Array, rows: int) -> jax.Array:
    """The inverse of `by_position`, flattened to [B * L]."""
    return x_GN.reshape(x_GN.shape[0], -1, rows).swapaxes(1, 2).reshape(-1)


def capacity(group_size: int, num_experts: int, factor: float) -> int:
    """C, the most tokens that an expert takes from a group."""
    return max(_MIN_CAPACITY, min(group_size, int(group_size * factor / num_experts)))


def limited_places(
    expert_BL, real_BL, rows: int, num_experts: int, limit: int
) -> tuple[jax.Array, int]:
    """Gives each token one of the `limit` places that an expert has for each group.

    First come, first served.

    Returns:
      The places [B * L], indices into [E, G, C] flattened, and the number of places, which stands
      for "no place".
    """
    expert_GN, real_GN = by_position(expert_BL, rows), by_position(real_BL, rows)
    before_GN = arrivals(expert_GN, real_GN, num_experts)
    groups = expert_GN.shape[0]
    size = num_experts * groups * limit
    places_GN = (expert_GN * groups + jnp.arange(groups)[:, None]) * limit + before_GN
    return by_row(jnp.where(real_GN & (before_GN < limit), places_GN, size), rows), size


def to_owners(x_ECD: jax.Array, axis: str | None) -> jax.Array:
    """Sends this device's tokens of every expert to the devices that hold them.

    [E / devices, C * devices, D]. `axis` is the mapped axis that the experts are spread over, or
    None if every device holds all of them.
    """
    return (
        x_ECD
        if axis is None
        else jax.lax.all_to_all(x_ECD, axis, split_axis=0, concat_axis=1, tiled=True)
    )


def from_owners(y_ECD: jax.Array, axis: str | None) -> jax.Array:
    """The inverse of `to_owners`."""
    return (
        y_ECD
        if axis is None
        else jax.lax.all_to_all(y_ECD, axis, split_axis=1, concat_axis=0, tiled=True)
    )


def feed_forward(
    x_BLD: jax.Array,
    expert_BL: jax.Array,
    into: tuple[jax.Array, ...],
    wo_EFD: jax.Array,
    ctx: Context,
    queue: Queue,
) -> tuple[jax.Array, jax.Array]:
    """Every token through the feed-forward layer of its own expert; see `hidden`.

    Args:
      x_BLD: the tokens; B is a multiple of the rows of the context, whose tokens have several
        experts each, in rows of their own.
      expert_BL: the expert of each.
      into: the kernels [E, D, F] of the hidden units; those of this device's experts if the
        context has an `expert_axis`.
      wo_EFD: the kernels of the output, likewise.
      ctx: the stack's context; hidden units are dropped by its key.
      queue: see there. If nothing is dropped and experts are spread over devices, every expert has
        places for a whole group.

    Returns:
      The outputs [B, L, D], zero for tokens that found no place, and which tokens found one.
    """
    num_experts, rows, factor = queue
    real_BL = jnp.repeat(ctx.real_BL1[..., 0], len(x_BLD) // ctx.batch_size, axis=0)
    if factor is None and ctx.expert_axis is None:
        return dropless(x_BLD, expert_BL, real_BL, into, wo_EFD), real_BL
    group_size, dim = rows * x_BLD.shape[1], x_BLD.shape[-1]
    limit = group_size if factor is None else capacity(group_size, num_experts, factor)
    places_N, size = limited_places(expert_BL, real_BL, rows, num_experts, limit)
    tokens = inverse(places_N, size)
    x_ECD = exchange(x_BLD.reshape(-1, dim), tokens, places_N).reshape(num_experts, -1, dim)
    x_ECD = to_owners(x_ECD, ctx.expert_axis)
    hidden_ECF = ctx.dropout(hidden(*(x_ECD @ wi_EDF.astype(x_ECD.dtype) for wi_EDF in into)))
    y_ECD = from_owners(hidden_ECF @ wo_EFD.astype(x_ECD.dtype), ctx.expert_axis)
    y_BLD = exchange(y_ECD.reshape(size, dim), places_N, tokens).reshape(x_BLD.shape)
    return y_BLD, (places_N < size).reshape(real_BL.shape)


def hidden(first: jax.Array, second: jax.Array | None = None) -> jax.Array:
    """The hidden units: `relu(first)`, or `silu(first) * second` where there are two kernels."""
    return relu(first) if second is None else jax.nn.silu(first) * second


def choose(
    scores_BLE: jax.Array, bias_E: nnx.Param | None, each: int
) -> tuple[jax.Array, jax.Array]:
    """The scores and the numbers of the `each` experts that a token uses, [B, L, K] both.

    They are those with the highest scores, to which the bias is added for the choice alone.
    """
    if bias_E is None:
        return jax.lax.top_k(scores_BLE, each)
    _, expert_BLK = jax.lax.top_k(scores_BLE + bias_E[...], each)
    return jnp.take_along_axis(scores_BLE, expert_BLK, axis=-1), expert_BLK


def even_out(bias_E: nnx.Param | None, expert_NL: jax.Array, ctx: Context) -> jax.typing.ArrayLike:
    """A loss that is zero. The biases' gradient says which experts have more than the mean load.

    It is E times the load of an expert less the sum of all loads. The load is the number of real
    tokens that chose the expert. The optimizer uses only the sign of the gradient, so counts of
    micro-batches and devices may be added and scaled like any gradient. Counts are whole numbers,
    so that the gradient is exactly zero at the mean.
    """
    if bias_E is None:
        return 0.0
    num_experts = bias_E.shape[0]
    real_NL1 = jnp.repeat(ctx.real_BL1, len(expert_NL) // ctx.batch_size, axis=0)
    chosen_NLE = jax.nn.one_hot(expert_NL, num_experts, dtype=jnp.int32) * real_NL1
    load_E = jnp.sum(chosen_NLE, axis=(0, 1))
    excess_E = num_experts * load_E - jnp.sum(load_E)
    return jnp.sum((bias_E[...] - jax.lax.stop_gradient(bias_E[...])) * excess_E)


def balance(
    scores_BLE: jax.Array, expert_NL: jax.Array, kept_NL: jax.Array, ctx: Context, rows: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss E * sum_e f_e P_e, averaged over groups of `rows` rows, and diagnostics.

    f_e is the number of a token's experts that are e, P_e the mean score of e. With k experts for
    each token, each a row of its own (N = k B), an even load has a loss of k under a softmax.
    `expert_load` is the load of the fullest expert over the mean load. Like `expert_drop_rate`, the
    share of tokens that found no place, it is averaged over groups, so that neither depends on how
    groups are spread over devices.
    """
    num_experts, each = scores_BLE.shape[-1], len(expert_NL) // len(scores_BLE)
    groups = len(expert_NL) // rows
    real_NL = jnp.repeat(ctx.real_BL1[..., 0], each, axis=0)
    real_GN1 = real_NL.reshape(groups, -1, 1)
    count_G1 = jnp.maximum(jnp.sum(real_GN1, axis=1), 1)

    def mean_GE(x_NLE):
        return jnp.sum(x_NLE.reshape(groups, -1, num_experts) * real_GN1, axis=1) / count_G1

    fraction_GE = mean_GE(jax.nn.one_hot(expert_NL, num_experts))
    score_GE = mean_GE(jnp.repeat(scores_BLE, each, axis=0))
    loss = each * num_experts * jnp.mean(jnp.sum(fraction_GE * score_GE, axis=-1))
    dropped_G1 = jnp.sum((real_NL & ~kept_NL).reshape(real_GN1.shape), axis=1) / count_G1
    load = num_experts * jnp.mean(jnp.max(fraction_GE, axis=-1))
    diagnostics = {"expert_drop_rate": observe(jnp.mean(dropped_G1)), "expert_load": observe(load)}
    return loss, diagnostics


def block_places(expert_BL, real_BL, num_experts: int) -> tuple[jax.Array, jax.Array, int]:
    """Gives every token a place in a block.

    A block belongs to one expert, and an expert takes as many as it needs. A block is assigned when
    its first token arrives, so later tokens do not change the places of earlier ones.

    Returns:
      The places [B * L], indices into [blocks, block size] flattened; each block's expert [blocks];
      the block size.
    """
    expert_N, real_N = (
        by_position(expert_BL, len(expert_BL))[0],
        by_position(real_BL, len(real_BL))[0],
    )
    count = expert_N.shape[0]
    block_size = 8 * max(1, round(count / (8 * _BLOCKS_PER_EXPERT * num_experts)))
    blocks = min(count, count // block_size + num_experts)
    before_N = arrivals(expert_N[None], real_N[None], num_experts)[0]
    opens_N = real_N & (before_N % block_size == 0)
    opened_N = jnp.where(opens_N, jnp.cumsum(opens_N) - 1, blocks)
    nth_N = before_N // block_size
    block_of = jnp.zeros((num_experts, count // block_size + 1), jnp.int32)
    block_of = block_of.at[jnp.where(opens_N, expert_N, num_experts), nth_N].set(
        opened_N, mode="drop"
    )
    expert_of = jnp.zeros((blocks,), jnp.int32).at[opened_N].set(expert_N, mode="drop")
    places_N = block_of[expert_N, nth_N] * block_size + before_N % block_size
    return (
        by_row(jnp.where(real_N, places_N, blocks * block_size)[None], len(expert_BL)),
        expert_of,
        block_size,
    )


@jax.jit
def dropless(
    x_BLD: jax.Array, expert_BL, real_BL, into: tuple[jax.Array, ...], wo_EFD: jax.Array
) -> jax.Array:
    """A feed-forward layer with every token's own expert, zero at padding; [B, L, D].

    `into` holds the kernels [E, D, F] of the hidden units (`hidden`).

    It processes one block of tokens at a time with its expert's kernels, so that neither kernels
    nor tokens have to be copied. Padding inside blocks is not work of the model, so the accounting
    counts this function as a whole.
    """
    places_N, expert_of, block_size = block_places(expert_BL, real_BL, wo_EFD.shape[0])
    tokens = inverse(places_N, len(expert_of) * block_size)
    blocks = exchange(x_BLD.reshape(-1, x_BLD.shape[-1]), tokens, places_N)

    def meet(block):
        x_ND, expert = block
        hidden_NF = hidden(*(x_ND @ wi_EDF[expert].astype(x_ND.dtype) for wi_EDF in into))
        return hidden_NF @ wo_EFD[expert].astype(x_ND.dtype)

    y = jax.lax.map(meet, (blocks.reshape(len(expert_of), block_size, -1), expert_of))
    return exchange(y.reshape(len(tokens), -1), places_N, tokens).reshape(x_BLD.shape)
