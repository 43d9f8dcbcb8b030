"""Short convolutions: four taps for each channel, added to what they read, without an activation.

They are the Canon layers of Allen-Zhu (2025, arXiv 2512.17351). Two places are before a layer
(`layers/stack.py`), two inside it, where this module puts them: on queries, keys and values, before
positions turn them (B), and on hidden units before their activation (D).
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers import convolution
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.layer import Layer


class ShortConvolution(nnx.Module):
    """One convolution of the channels of several arrays."""

    def __init__(self, channels: int, axis: str, key: jax.Array):
        """Draws the taps [4, C]."""
        self.taps = convolution.short_taps(key, channels, axis)

    def __call__(self, arrays: Sequence[jax.Array], ctx: Context, cache: jax.Array | None = None):
        """The arrays [B, L, ...] plus their convolutions, in a tuple, and the next cache."""
        flat = [x.reshape(*x.shape[:2], -1) for x in arrays]
        joined_BLC = jnp.concatenate(flat, -1)
        mixed_BLC, cache = convolution.depthwise(joined_BLC, self.taps[:, None, None], ctx, cache)
        ends = [sum(x.shape[2] for x in flat[: count + 1]) for count in range(len(flat) - 1)]
        parts = jnp.split(joined_BLC + mixed_BLC, ends, axis=-1)
        return tuple(y.reshape(x.shape) for x, y in zip(arrays, parts, strict=True)), cache

    def init_cache(self, ctx: Context) -> jax.Array:
        """Zeros for the last three inputs."""
        return convolution.init_cache(ctx, *self.taps.shape)


class Projecting(Layer):
    """A layer that projects its input first, and then works on the projections.

    Attributes:
      site: the letter of a short convolution of the projections.
      channel_axis: the name of their channels.
      short: that convolution, where the configuration asks for it (`insert`).
    """

    site: ClassVar[str]
    channel_axis: ClassVar[str]
    short: ShortConvolution | None = None

    def projections(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """What a short convolution reads, [B, L, ...] each."""
        raise NotImplementedError

    def work(
        self, x_BLD: jax.Array, projected: tuple[jax.Array, ...], ctx: Context, cache: Any
    ) -> tuple[jax.Array, Any, Aux]:
        """What the layer returns, given its projections."""
        raise NotImplementedError

    def empty_cache(self, ctx: Context) -> Any:
        """The cache of `work` before the first position."""
        return {}

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache: Any = None):
        """Projects, convolves and works on the result."""
        projected = self.projections(x_BLD)
        if self.short is None:
            return self.work(x_BLD, projected, ctx, cache)
        taps, before = (None, None) if cache is None else (cache["taps"], cache["layer"])
        projected, taps = self.short(projected, ctx, taps)
        y_BLD, after, aux = self.work(x_BLD, projected, ctx, before)
        return y_BLD, (None if cache is None else {"taps": taps, "layer": after}), aux

    def init_cache(self, ctx: Context) -> Any:
        """The cache of the layer, and of a short convolution in it."""
        cache = self.empty_cache(ctx)
        return cache if self.short is None else {"taps": self.short.init_cache(ctx), "layer": cache}


def insert(layer: Layer, sites: str, embed_dim: int, key: jax.Array) -> None:
    """Gives a layer, and those inside it, the short convolutions of these sites."""
    found = [node for _, node in nnx.iter_graph(layer) if isinstance(node, Projecting)]
    x_BLD = jax.ShapeDtypeStruct((1, 1, embed_dim), jnp.float32)
    for number, node in enumerate(found):
        if node.site in sites:
            shapes = [x.shape for x in jax.eval_shape(node.projections, x_BLD)]
            channels = sum(math.prod(shape[2:]) for shape in shapes)
            drawn = jax.random.fold_in(key, number)
            node.short = ShortConvolution(channels, node.channel_axis, drawn)
