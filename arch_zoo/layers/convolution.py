"""Depthwise convolutions that know of segments, and of decoding.

A layer asks `window` for its taps and never learns whether they came from shifts of a whole sequence or from a buffer
of the last inputs.
"""

import jax
import jax.numpy as jnp

from arch_zoo.layers.context import Context


def window(x_BLC: jax.Array, ctx: Context, width: int, cache: jax.Array | None = None):
    """What each tap of a convolution sees.

    In a causal context the taps are the positions -(W-1) .. 0, else -(W//2) .. W-1-W//2. A tap sees zero beyond its
    segment and at padding, so packed rows equal unpacked ones.

    Args:
      x_BLC: the convolution's input, of any channels.
      ctx: the stack's context.
      width: W, the number of taps.
      cache: when decoding, the last W-1 inputs [B, W-1, C].

    Returns:
      The W taps, a list of [B, L, C], earliest position first; and the next cache.
    """
    if cache is not None:
        buffer_BWC = jnp.concatenate([cache, x_BLC], axis=1)
        return [buffer_BWC[:, tap : tap + 1] for tap in range(width)], buffer_BWC[:, 1:]
    before = width - 1 if ctx.causal else width // 2
    margins = ((0, 0), (before, width - 1 - before))
    length = x_BLC.shape[1]
    x_BLC = jnp.pad(x_BLC * ctx.real_BL1, (*margins, (0, 0)))
    segments_BL = jnp.pad(ctx.segment_ids_BL, margins)
    here_BL = ctx.segment_ids_BL
    taps = []
    for tap in range(width):
        same_BL1 = (segments_BL[:, tap : tap + length] == here_BL)[..., None]
        taps.append(jnp.where(same_BL1, x_BLC[:, tap : tap + length], 0.0))
    return taps, None


def depthwise(taps: list[jax.Array], weights: list[jax.Array]) -> jax.Array:
    """The sum of `weights[tap] * taps[tap]`, weights broadcasting over batch and positions where they are fixed."""
    with jax.named_scope("depthwise"):
        total = taps[0] * weights[0]
        for tap, weight in zip(taps[1:], weights[1:], strict=True):
            total = total + tap * weight
    return total


def init_window(ctx: Context, width: int, channels: int) -> jax.Array:
    """The cache before the first position: W-1 zeros."""
    return jnp.zeros((ctx.memory_BSD.shape[0], width - 1, channels), ctx.memory_BSD.dtype)
