"""T5's relative position bias: one learned number for each bucket of distances and each head."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from arch_zoo.layers import parameters
from arch_zoo.layers.context import Context


def buckets(
    distances: np.ndarray, num_buckets: int = 32, max_distance: int = 128, *, causal: bool
) -> np.ndarray:
    """The bucket of each distance `key position - query position` (Raffel et al., 2020).

    Half of the buckets hold one distance each; the widths of the others grow logarithmically up to
    `max_distance`. If attention is not `causal`, each sign of the distance has one half of all
    buckets. If it is, all later positions share the bucket of distance zero.
    """
    past = -distances
    offset = 0
    if causal:
        past = np.maximum(past, 0)
    else:
        num_buckets //= 2
        offset = np.where(past < 0, num_buckets, 0)
        past = np.abs(past)
    exact = num_buckets // 2
    # In float32 as in T5, since rounding decides where the boundaries of buckets are.
    ratio = np.log(np.maximum(past, 1).astype(np.float32) / exact) / np.float32(
        np.log(max_distance / exact)
    )
    far = exact + (ratio * (num_buckets - exact)).astype(np.int32)
    return offset + np.where(past < exact, past, np.minimum(far, num_buckets - 1))


class RelativeBias(nnx.Module):
    """One table [buckets, H] for a stack, shared by its layers.

    Within a segment the distance of two positions is the distance of their indices, and attention
    never crosses segments. So packed rows, too, need only one bias [1, H, L, L].
    """

    def __init__(
        self,
        num_heads: int,
        key: jax.Array,
        num_buckets: int = 32,
        max_distance: int = 128,
        *,
        causal: bool,
    ):
        """Draws the table; `causal` if no position ever sees a later one."""
        self.causal = causal
        self.table = parameters.glorot_uniform(key, (num_buckets, num_heads), ("relpos", "heads"))
        self.max_distance = max_distance

    def __call__(self, x_BLD: jax.Array, ctx: Context) -> tuple[jax.Array, Context]:
        """Leaves `x` alone and adds its bias to the context."""
        length = x_BLD.shape[1] if ctx.index is None else ctx.max_length
        num_buckets, num_heads = self.table.shape
        distances = np.arange(1 - length, length)
        # Look up [2L - 1, H] values instead of [L, L, H]: the backward pass of a lookup is a slow
        # scatter.
        by_distance_HR = self.table[
            buckets(distances, num_buckets, self.max_distance, causal=self.causal)
        ].T
        if ctx.index is not None:
            row_HL = jax.lax.dynamic_slice_in_dim(
                by_distance_HR, length - 1 - ctx.index, length, axis=1
            )
            bias = row_HL[None, :, None, :]
        else:
            bias = _toeplitz(by_distance_HR)[None]
        return x_BLD, dataclasses.replace(ctx, biases=ctx.biases | {num_heads: bias})


def _toeplitz(by_distance_HR: jax.Array) -> jax.Array:
    """Spreads values of the distances 1-L ..

    L-1 over [H, L, L], so that entry (t, s) is the value of s - t. This needs no gather: cut a
    sequence of period 2L into rows of width 2L - 1, and each row is shifted by one.
    """
    num_heads, width = by_distance_HR.shape
    length = (width + 1) // 2
    padded = jnp.pad(by_distance_HR, ((0, 0), (0, 1)))
    rows = jnp.tile(padded, (1, length))[:, : length * width].reshape(num_heads, length, width)
    return rows[:, :, length - 1 :]
