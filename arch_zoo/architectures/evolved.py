"""Evolved Transformer (So et al., 2019, arXiv 1901.11117): blocks found by an architecture search.

Overrides `layers`. All are residual with a norm before them:

* encoder: gated linear unit, convolutions, self-attention, feed-forward;
* decoder: self-attention with twice the heads beside cross-attention, convolutions, self-attention,
  cross-attention, feed-forward with swish. A decoder-only model has this block without either
  cross-attention.

Overrides `dimensions`: an encoder and a decoder block together have 54 D^2 parameters, a vanilla
pair has 28 D^2. So a stack has half as many blocks, rounded up. Overrides `positions`: the decoder
has one table of biases for each number of heads.

Where sources differ, this follows Mesh TensorFlow, the original study's code base: the doubled
heads keep their dimension (Tensor2Tensor keeps the total), and the encoder's first dense branch has
no bias. Swish in the decoder is the paper's, without the norm that Tensor2Tensor puts before the
output projection.

Deviations. Taps never reach into another packed segment or into padding. In Mesh TensorFlow they
do, and its decoder masks position 0 in training only. The norm inside the convolutions is the
source's layer norm; all others are RMSNorm.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import convolution, parameters
from arch_zoo.layers.attention import CrossAttention, SelfAttention
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.feed_forward import FeedForward, relu
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.norm import LayerNorm
from arch_zoo.layers.parameters import Dense
from arch_zoo.layers.relative_bias import RelativeBias
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


class GatedLinearUnit(Layer):
    """`linear(x) * sigmoid(gate(x))`, from D to D, with biases."""

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws both projections."""
        linear_key, gate_key = jax.random.split(key)
        shape, axes = (cfg.embed_dim, cfg.embed_dim), ("embed", "embed_out")
        self.linear = Dense(parameters.fan_in(linear_key, shape, axes), bias=True)
        self.gate = Dense(parameters.fan_in(gate_key, shape, axes), bias=True)

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Treats each position alone, so the cache stays as it is."""
        return self.linear(x_BLD) * jax.nn.sigmoid(self.gate(x_BLD)), cache, Aux()


class SeparableConvolution(nnx.Module):
    """A depthwise convolution of W taps, then a dense layer over channels.

    Each is followed by a bias.
    """

    def __init__(self, width: int, channels: int, features: int, key: jax.Array):
        """Draws the taps [W, C] and the dense layer [C, features]."""
        taps_key, dense_key = jax.random.split(key)
        self.taps = parameters.fan_in(taps_key, (width, channels), ("width", "embed"))
        self.bias = parameters.constant(0.0, (channels,), ("embed",))
        self.dense = Dense(
            parameters.fan_in(dense_key, (channels, features), ("embed", "embed_out")), bias=True
        )

    def __call__(self, x_BLC: jax.Array, ctx: Context, cache=None):
        """Returns the output [B, L, features] and the next cache."""
        y_BLC, cache = convolution.depthwise(x_BLC, self.taps[:, None, None], ctx, cache)
        return self.dense(y_BLC + self.bias.astype(y_BLC.dtype)), cache

    def init_cache(self, ctx: Context) -> jax.Array:
        """Zeros for the last W-1 inputs."""
        return convolution.init_cache(ctx, *self.taps.shape)


class EncoderConvolutions(Layer):
    """`separable9(norm(relu(dense(x)) + relu(conv3(x))))`, of 4 D hidden channels.

    The second branch and the output have D/2 channels. Zeros fill up the rest.
    """

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws both branches and what joins them."""
        left_key, right_key, out_key = jax.random.split(key, 3)
        dim = cfg.embed_dim
        self.left = Dense(parameters.fan_in(left_key, (dim, 4 * dim), ("embed", "mlp")))
        self.right = parameters.glorot_uniform(
            right_key, (3, dim, dim // 2), ("width", "embed", "embed_out")
        )
        self.norm = LayerNorm(4 * dim)
        self.out = SeparableConvolution(9, 4 * dim, dim // 2, out_key)

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Applies both branches to whole sequences; an encoder never decodes."""
        left_BLF = ctx.fold(0).dropout(relu(self.left(x_BLD)), over=1)
        right = convolution.dense(x_BLD, self.right[...], ctx)
        right = ctx.fold(1).dropout(relu(right), over=1)
        y, _ = self.out(self.norm(left_BLF + _widen(right, left_BLF)), ctx)
        return _widen(y, x_BLD), cache, Aux()


class DecoderConvolutions(Layer):
    """`separable7(norm(relu(separable11(x)) + separable7(x)))`, of 2 D hidden channels.

    The second branch has D/2.
    """

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws both branches and what joins them."""
        left_key, right_key, out_key = jax.random.split(key, 3)
        dim = cfg.embed_dim
        self.left = SeparableConvolution(11, dim, 2 * dim, left_key)
        self.right = SeparableConvolution(7, dim, dim // 2, right_key)
        self.norm = LayerNorm(2 * dim)
        self.out = SeparableConvolution(7, 2 * dim, dim, out_key)

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Applies both branches. Each of the three convolutions has its own cache."""
        caches = cache or {"left": None, "right": None, "out": None}
        left, left_cache = self.left(x_BLD, ctx, caches["left"])
        right, right_cache = self.right(x_BLD, ctx, caches["right"])
        left = ctx.fold(0).dropout(relu(left), over=1)
        right = ctx.fold(1).dropout(right, over=1)
        y_BLD, out_cache = self.out(self.norm(left + _widen(right, left)), ctx, caches["out"])
        caches = {"left": left_cache, "right": right_cache, "out": out_cache}
        return y_BLD, (None if cache is None else caches), Aux()

    def init_cache(self, ctx: Context) -> dict[str, jax.Array]:
        """The caches of the three convolutions."""
        return {name: getattr(self, name).init_cache(ctx) for name in ("left", "right", "out")}


class ParallelAttention(Layer):
    """Self-attention with twice the heads, plus cross-attention of the same input to a memory."""

    def __init__(self, cfg: ModelConfig, side: Side, key: jax.Array):
        """Draws both; without a memory only self-attention."""
        self_key, cross_key = jax.random.split(key)
        self.self_attention = SelfAttention(cfg, self_key, 2 * cfg.num_heads)
        self.cross_attention = CrossAttention(cfg, cross_key) if side.reads_memory else None

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Adds the outputs of both."""
        caches = dict(cache or {})
        y_BLD, caches["self"], _ = self.self_attention(x_BLD, ctx.fold(0), caches.get("self"))
        if self.cross_attention is not None:
            cross_BLD, caches["cross"], _ = self.cross_attention(
                x_BLD, ctx.fold(1), caches.get("cross")
            )
            y_BLD += cross_BLD
        return y_BLD, (None if cache is None else caches), Aux()

    def init_cache(self, ctx: Context) -> dict:
        """The caches of both."""
        cache = {"self": self.self_attention.init_cache(ctx)}
        if self.cross_attention is not None:
            cache["cross"] = self.cross_attention.init_cache(ctx)
        return cache


class SwishFeedForward(FeedForward):
    """`swish(x wi) wo`."""

    def hidden(self, *projected: jax.Array) -> jax.Array:
        """The hidden units [B, L, F]."""
        return jax.nn.silu(*projected)


class TwoBiases(nnx.Module):
    """Relative biases for H and for 2 H heads."""

    def __init__(self, num_heads: int, key: jax.Array, *, causal: bool):
        """Draws both tables."""
        single_key, double_key = jax.random.split(key)
        self.single = RelativeBias(num_heads, single_key, causal=causal)
        self.double = RelativeBias(2 * num_heads, double_key, causal=causal)

    def __call__(self, x_BLD: jax.Array, ctx: Context) -> tuple[jax.Array, Context]:
        """Adds both biases to the context."""
        return self.double(*self.single(x_BLD, ctx))


@register("evolved")
@dataclasses.dataclass(frozen=True)
class Evolved(Architecture):
    """The blocks of the Evolved Transformer."""

    title = "Evolved Transformer"
    paper = "So et al., 2019, arXiv 1901.11117"

    def check(self, cfg: ModelConfig) -> None:
        """Refuses a width that has no half."""
        if cfg.embed_dim % 2:
            raise ConfigError(f"evolved: embed_dim={cfg.embed_dim}: must be even")

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """Half of the blocks, rounded up."""
        return dataclasses.replace(
            vanilla,
            num_encoder_layers=(vanilla.num_encoder_layers + 1) // 2,
            num_decoder_layers=(vanilla.num_decoder_layers + 1) // 2,
        )

    def layers(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> dict[str, Layer]:
        """Four layers in an encoder, five in a decoder; those that read a memory only with one."""
        keys = jax.random.split(key, 5 if side.causal else 4)
        if side.causal:
            layers: dict[str, Layer] = {
                "parallel_attention": ParallelAttention(cfg, side, keys[0]),
                "convolutions": DecoderConvolutions(cfg, keys[1]),
                "self_attention": SelfAttention(cfg, keys[2]),
            }
            if side.reads_memory:
                layers["cross_attention"] = CrossAttention(cfg, keys[3])
            return layers | {"feed_forward": SwishFeedForward(cfg, keys[4])}
        return {
            "gated_linear_unit": GatedLinearUnit(cfg, keys[0]),
            "convolutions": EncoderConvolutions(cfg, keys[1]),
            "self_attention": SelfAttention(cfg, keys[2]),
            "feed_forward": FeedForward(cfg, keys[3]),
        }

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> nnx.Module | None:
        """One table of biases in an encoder, two in a decoder."""
        if side.causal:
            return TwoBiases(cfg.num_heads, key, causal=not side.looks_ahead)
        return super().positions(cfg, side, key)


def _widen(x: jax.Array, like: jax.Array) -> jax.Array:
    """Appends zero channels to `x` until it is as wide as `like`."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, like.shape[-1] - x.shape[-1])))
