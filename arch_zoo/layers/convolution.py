"""Convolutions that respect segments and can decode.

A layer passes the weights of its taps. Whether their inputs are shifts of a whole sequence or a
buffer of the last inputs is decided here. In a causal context the W taps see the positions -(W-1)
.. 0, else -(W//2) .. W-1-W//2. A tap sees zero outside its segment, so packed rows give the same
values as unpacked ones.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers import parameters
from arch_zoo.layers.context import Context

SHORT = 4  # the taps of a short convolution


def short_taps(key: jax.Array, channels: int, axis: str) -> nnx.Param:
    """Draws the weights [SHORT, channels] of a short convolution."""
    return parameters.normal(key, (SHORT, channels), ("width", axis), SHORT**-0.5, fan_in=SHORT)


def depthwise(
    x_BLC: jax.Array, weights_WBLH: jax.Array, ctx: Context, cache: jax.Array | None = None
):
    """For every channel, the weighted sum of the taps.

    Args:
      x_BLC: the convolution's input.
      weights_WBLH: one weight for each tap and each of H groups of consecutive channels. B and L
        are both 1 where all examples and positions share them.
      ctx: the stack's context.
      cache: when decoding, the last W-1 inputs [B, W-1, C], zero where there was padding; empty
        before a prompt.

    Returns:
      The sums [B, L, C], accumulated in float32, in the type of `x`; and the next cache.
    """
    weights_WBLH = weights_WBLH.astype(jnp.float32)
    seen_BLC = None if cache is None else jnp.concatenate([cache, x_BLC * ctx.real_BL1], axis=1)
    with jax.named_scope("depthwise"):
        if seen_BLC is None or ctx.index is None:
            before = _before(len(weights_WBLH), ctx)
            y_BLC = _convolve(x_BLC, weights_WBLH, ctx.segment_ids_BL, before)
        else:
            seen_WB1C = jnp.moveaxis(seen_BLC, 1, 0)[:, :, None]
            y_BLC = jnp.sum(seen_WB1C * _by_channel(weights_WBLH, x_BLC), axis=0).astype(
                x_BLC.dtype
            )
    return y_BLC, None if seen_BLC is None else seen_BLC[:, x_BLC.shape[1] :]


def dense(x_BLD: jax.Array, kernel_WDF: jax.Array, ctx: Context) -> jax.Array:
    """The sum of W taps, each with its own matrix from D to F channels: [B, L, F].

    It cannot decode. One product applies all taps to every position, in the type of `x`. Its
    results are shifted and summed in float32; shifting the input instead would copy it W times.
    """
    width, dim, _ = kernel_WDF.shape
    together = parameters.project(x_BLD, jnp.swapaxes(kernel_WDF, 0, 1).reshape(dim, -1))
    margins = (_before(width, ctx), width)
    total_BLF = jnp.float32(0)
    for tap, part_BLF in enumerate(jnp.split(together, width, axis=-1)):
        surrounded = _surround(part_BLF, ctx.segment_ids_BL, *margins)
        total_BLF += _tap(surrounded, ctx.segment_ids_BL, tap).astype(jnp.float32)
    return total_BLF.astype(x_BLD.dtype)


def init_cache(ctx: Context, width: int, channels: int) -> jax.Array:
    """The cache before the first position: W-1 zeros."""
    return jnp.zeros((ctx.batch_size, width - 1, channels), ctx.dtype)


def _sum_of_taps(
    x_BLC: jax.Array, weights_WBLH: jax.Array, segment_ids_BL: jax.Array, before: int
) -> jax.Array:
    """The convolution of whole sequences, as a loop over the taps that keeps none of their values.

    The gradient has a loop of its own below, which adds every tap's part in place. The one that JAX
    derives adds into an array that is wider by the margins.
    """
    width = len(weights_WBLH)
    surrounded = _surround(x_BLC, segment_ids_BL, before, width)

    def add(total_BLC, tap_and_weight):
        tap, weight_BLH = tap_and_weight
        return total_BLC + _tap(surrounded, segment_ids_BL, tap) * _by_channel(
            weight_BLH, x_BLC
        ), None

    taps = (jnp.arange(width), weights_WBLH)
    total_BLC, _ = jax.lax.scan(add, jnp.zeros(x_BLC.shape), taps, unroll=_written_out())
    return total_BLC.astype(x_BLC.dtype)


def _forward(x_BLC, weights_WBLH, segment_ids_BL, before):
    return _sum_of_taps(x_BLC, weights_WBLH, segment_ids_BL, before), (
        x_BLC,
        weights_WBLH,
        segment_ids_BL,
    )


def _backward(before, inputs, grad_BLC):
    x_BLC, weights_WBLH, segment_ids_BL = inputs
    width, *shared, num_groups = weights_WBLH.shape
    grad_BLC = grad_BLC.astype(jnp.float32)
    surrounded = _surround(x_BLC, segment_ids_BL, before, width)

    def add(x_grad_BLC, tap_and_weight):
        tap, weight_BLH = tap_and_weight
        # If a position sees another through a tap, the other sees it through the opposite tap.
        weighted_BLC = grad_BLC * _by_channel(weight_BLH, x_BLC)
        seeing = _surround(weighted_BLC, segment_ids_BL, width - 1 - before, width)
        x_grad_BLC += _tap(seeing, segment_ids_BL, width - 1 - tap)
        product_BLC = _tap(surrounded, segment_ids_BL, tap) * grad_BLC
        if shared == [1, 1]:
            product_BLC = parameters.sum_rows(product_BLC.reshape(-1, x_BLC.shape[2]))[None, None]
        return x_grad_BLC, product_BLC.reshape(*product_BLC.shape[:2], num_groups, -1).sum(-1)

    taps = (jnp.arange(width), weights_WBLH)
    x_grad_BLC, weights_grad_WBLH = jax.lax.scan(
        add, jnp.zeros(x_BLC.shape), taps, unroll=_written_out()
    )
    return x_grad_BLC.astype(x_BLC.dtype), weights_grad_WBLH, None


_convolve = jax.custom_vjp(_sum_of_taps, nondiff_argnums=(3,))
_convolve.defvjp(_forward, _backward)


def _written_out() -> bool:
    """Whether the loops over taps are unrolled.

    Unrolled, an accelerator sums all taps in one kernel; in a loop it would write and read the sums
    at every tap. On a CPU the loop compiles faster.
    """
    return jax.default_backend() != "cpu"


def _by_channel(weights_BLH: jax.Array, x_BLC: jax.Array) -> jax.Array:
    """Repeats the weight of each group for all of its channels."""
    return jnp.repeat(weights_BLH, x_BLC.shape[-1] // weights_BLH.shape[-1], axis=-1)


def _before(width: int, ctx: Context) -> int:
    """How many positions before its own the first tap sees."""
    return width - 1 if ctx.causal else width // 2


def _surround(
    x_BLC: jax.Array, segment_ids_BL: jax.Array, before: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """The input and its segment ids, padded by the W-1 positions around them that taps reach."""
    margins = ((0, 0), (before, width - 1 - before))
    return jnp.pad(x_BLC, (*margins, (0, 0))), jnp.pad(segment_ids_BL, margins)


def _tap(
    surrounded: tuple[jax.Array, jax.Array], segment_ids_BL: jax.Array, tap: int | jax.Array
) -> jax.Array:
    """What one tap sees at every position: zero in another segment.

    Padding, segment 0, sees padding.
    """
    length = segment_ids_BL.shape[1]
    x_BLC, segments_BL = (
        jax.lax.dynamic_slice_in_dim(array, tap, length, axis=1) for array in surrounded
    )
    return jnp.where((segments_BL == segment_ids_BL)[..., None], x_BLC, 0)
