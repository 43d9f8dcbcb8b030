"""Convolutions that know of segments, and of decoding.

A layer names its taps and never learns whether they come from shifts of a whole sequence or from a buffer of the last
inputs. In a causal context the W taps see the positions -(W-1) .. 0, else -(W//2) .. W-1-W//2. A tap sees zero beyond
its segment, so packed rows equal unpacked ones.
"""

import jax
import jax.numpy as jnp

from arch_zoo.layers.context import Context


def depthwise(x_BLC: jax.Array, weights_WBLH: jax.Array, ctx: Context, cache: jax.Array | None = None):
    """Sums the taps of every channel, each times its weight.

    Args:
      x_BLC: the convolution's input.
      weights_WBLH: one weight for each tap and each of H groups of consecutive channels; B and L are 1 where all
        examples and positions have the same.
      ctx: the stack's context.
      cache: when decoding, the last W-1 inputs [B, W-1, C].

    Returns:
      The sums [B, L, C], accumulated in float32, in the type of `x`; and the next cache.
    """
    width, *_, num_groups = weights_WBLH.shape
    surrounded, cache = _surround(x_BLC, ctx, width, cache)

    def add(total_BLC, tap_and_weight):
        tap, weight_BLH = tap_and_weight
        weight_BLC = jnp.repeat(weight_BLH, x_BLC.shape[2] // num_groups, axis=2)
        return total_BLC + _tap(surrounded, ctx, tap) * weight_BLC, None

    with jax.named_scope("depthwise"):
        # A loop over the taps that keeps none of the shifted inputs: written out, the backward pass is several times
        # slower, and compiling it as well. Decoding has one position and no backward pass.
        add = jax.checkpoint(add, prevent_cse=False)
        taps = (jnp.arange(width), weights_WBLH.astype(jnp.float32))
        total_BLC, _ = jax.lax.scan(add, jnp.zeros(x_BLC.shape), taps, unroll=cache is not None)
    return total_BLC.astype(x_BLC.dtype), cache


def window(x_BLC: jax.Array, ctx: Context, width: int, cache: jax.Array | None = None):
    """What the taps of a dense convolution see, side by side, the earliest first: [B, L, W * C]; and the next cache."""
    surrounded, cache = _surround(x_BLC, ctx, width, cache)
    return jnp.concatenate([_tap(surrounded, ctx, tap) for tap in range(width)], axis=-1), cache


def init_cache(ctx: Context, width: int, channels: int) -> jax.Array:
    """The cache before the first position: W-1 zeros."""
    return jnp.zeros((ctx.memory_BSD.shape[0], width - 1, channels), ctx.memory_BSD.dtype)


def _surround(x_BLC: jax.Array, ctx: Context, width: int, cache: jax.Array | None):
    """The input and its segments with the W-1 positions around them that taps reach; and the next cache."""
    if cache is not None:
        x_BMC = jnp.concatenate([cache, x_BLC], axis=1)
        return (x_BMC, jnp.ones(x_BMC.shape[:2], jnp.int32)), x_BMC[:, 1:]
    before = width - 1 if ctx.causal else width // 2
    margins = ((0, 0), (before, width - 1 - before))
    return (jnp.pad(x_BLC, (*margins, (0, 0))), jnp.pad(ctx.segment_ids_BL, margins)), None


def _tap(surrounded: tuple[jax.Array, jax.Array], ctx: Context, tap: int | jax.Array) -> jax.Array:
    """What one tap sees at every position, zero in another segment; padding, segment 0, sees padding."""
    length = ctx.segment_ids_BL.shape[1]
    x_BLC, segments_BL = (jax.lax.dynamic_slice_in_dim(array, tap, length, axis=1) for array in surrounded)
    return jnp.where((segments_BL == ctx.segment_ids_BL)[..., None], x_BLC, 0)
