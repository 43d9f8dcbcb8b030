"""MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601): dense layers over positions mix them.

Overrides `mixer` in the encoder: self-attention is replaced by a feed-forward layer over the
positions of each channel, with biases and GELU as in the source. Overrides `positions`: the encoder
has no position biases, since its weights belong to positions already. The decoder is vanilla,
because a layer over all positions cannot decode step by step. The same holds in Tay et al. (2022).

A decoder-only model has a causal form of our own. Both matrices of the layer over positions are
square and lower triangular, so that every position has one hidden unit for each channel and sees
the inputs and the hidden units up to its own. Decoding keeps both and computes one row of either
product.

The weights are for `max_input_length` positions, or `max_target_length` in a decoder-only model. A
longer row is refused, and a shorter one uses only their first rows, as if it were padded. Packed
inputs of an encoder are refused, since their examples would mix; in the causal form each pair of
positions looks up its own weight. The hidden width of the encoder's token mixing is half of the
model's width, as in the source's sizes.

Deviations. Norms are RMSNorm, and the channels are mixed by T5's feed-forward layer, which has no
biases. Padding is zero wherever positions are mixed.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.layer import Layer
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side


class TokenMixing(Layer):
    """`(gelu(x^T wi + bi) wo + bo)^T`.

    A feed-forward layer over positions that all channels share.
    """

    def __init__(self, cfg: ModelConfig, width: int, key: jax.Array):
        """Draws wi [S, M] and wo [M, S] for the longest input S; the biases are zero."""
        wi_key, wo_key = jax.random.split(key)
        length = cfg.max_input_length
        self.wi = parameters.fan_in(wi_key, (length, width), ("length", "mlp"))
        self.wo = parameters.fan_in(wo_key, (width, length), ("mlp", "length"))
        self.wi_bias = parameters.constant(0.0, (width,), ("mlp",))
        self.wo_bias = parameters.constant(0.0, (length,), ("length",))

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Mixes all positions.

        Raises:
          ConfigError: the input has more positions than the weights.
        """
        length, most = x_BLD.shape[1], self.wi.shape[0]
        if length > most:
            raise ConfigError(
                f"mixer: an input of {length} tokens is longer than max_input_length={most}"
            )
        wi_LM, wo_ML = self.wi[:length].astype(x_BLD.dtype), self.wo[:, :length].astype(x_BLD.dtype)
        hidden_BDM = jnp.einsum("BLD,LM->BDM", x_BLD, wi_LM) + self.wi_bias.astype(x_BLD.dtype)
        hidden_BDM = ctx.dropout(jax.nn.gelu(hidden_BDM), over=1)
        y_BLD = jnp.einsum("BDM,ML->BLD", hidden_BDM, wo_ML) + self.wo_bias[:length, None].astype(
            x_BLD.dtype
        )
        return y_BLD, cache, Aux()


class CausalTokenMixing(Layer):
    """`wo gelu(wi x + bi) + bo` over positions; both matrices are lower triangular.

    A bidirectional prefix uses their upper halves as well.
    """

    def __init__(self, cfg: ModelConfig, side: Side, key: jax.Array):
        """Draws wi and wo [T, T] for the longest row T; the biases are zero."""
        wi_key, wo_key = jax.random.split(key)
        self.dim, length, axes = cfg.embed_dim, cfg.max_target_length, ("length", "length_out")
        self.wi = parameters.triangular(wi_key, length, axes, full=side.looks_ahead)
        self.wo = parameters.triangular(wo_key, length, axes, full=side.looks_ahead)
        self.wi_bias = parameters.constant(0.0, (length,), ("length",))
        self.wo_bias = parameters.constant(0.0, (length,), ("length",))

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Mixes each position with those before it. A cache holds the inputs of both products.

        Raises:
          ConfigError: there are more positions than weights.
        """
        length, most = x_BLD.shape[1] if ctx.index is None else ctx.max_length, self.wi.shape[0]
        if length > most:
            raise ConfigError(
                f"mixer: a row of {length} positions is longer than max_target_length={most}"
            )
        caches = cache or {"x": None, "hidden": None}
        seen_BSD, x_cache = _remembered(x_BLD, ctx, caches["x"])
        hidden_BLD = jax.nn.gelu(_mix(self.wi[...], self.wi_bias[...], seen_BSD, ctx))
        hidden_BLD = ctx.dropout(hidden_BLD, over=2)
        seen_BSD, hidden_cache = _remembered(hidden_BLD, ctx, caches["hidden"])
        y_BLD = _mix(self.wo[...], self.wo_bias[...], seen_BSD, ctx)
        caches = {"x": x_cache, "hidden": hidden_cache}
        return y_BLD, (None if cache is None else caches), Aux()

    def init_cache(self, ctx: Context) -> dict[str, jax.Array]:
        """Zeros [B, T, D] for the inputs of both products."""
        shape = (ctx.batch_size, ctx.max_length, self.dim)
        return {"x": jnp.zeros(shape, ctx.dtype), "hidden": jnp.zeros(shape, ctx.dtype)}


def _remembered(x_BLD: jax.Array, ctx: Context, cache: jax.Array | None):
    """What a product over positions reads, [B, S, D], and the cache with `x` in it."""
    if cache is None:
        return x_BLD, None
    start = 0 if ctx.index is None else ctx.index
    cache = jax.lax.dynamic_update_slice_in_dim(cache, x_BLD, start, axis=1)
    return (x_BLD if ctx.index is None else cache), cache


def _mix(weights_TT: jax.Array, bias_T: jax.Array, x_BSD: jax.Array, ctx: Context) -> jax.Array:
    """`weights x + bias` over positions, where attention may look: [B, L, D]."""
    if ctx.aligned and ctx.prefix_BL is None:
        length = x_BSD.shape[1]
        weights_LS = jnp.tril(weights_TT[:length, :length]).astype(x_BSD.dtype)
        y_BLD = jnp.einsum("LS,BSD->BLD", weights_LS, x_BSD)
        return y_BLD + bias_T[:length, None].astype(x_BSD.dtype)
    to_BL = from_BS = ctx.positions_BL
    if ctx.index is not None:  # the positions of the cache
        from_BS = jnp.maximum(jnp.arange(ctx.max_length) - ctx.index + to_BL, 0)
    weights_BLS = weights_TT[to_BL[:, :, None], from_BS[:, None]] * ctx.self_mask()[:, 0]
    y_BLD = jnp.einsum("BLS,BSD->BLD", weights_BLS.astype(x_BSD.dtype), x_BSD)
    return y_BLD + bias_T[to_BL][..., None].astype(x_BSD.dtype)


@register("mixer")
@dataclasses.dataclass(frozen=True)
class Mixer(Architecture):
    """Token mixing in an encoder, or in the one stack of a decoder-only model.

    Attributes:
      token_mlp_dim: hidden width of an encoder's token mixing; None is half of `embed_dim`.
    """

    title = "MLP-Mixer"
    paper = "Tolstikhin et al., 2021, arXiv 2105.01601"
    no_short_conv = {"B": "since its mixers have no queries, keys and values"}
    token_mlp_dim: int | None = None

    def check(self, cfg: ModelConfig) -> None:
        """Refuses a width or a length that is no positive integer."""
        if self.token_mlp_dim is not None and (
            type(self.token_mlp_dim) is not int or self.token_mlp_dim < 1
        ):
            raise ConfigError(
                f"mixer: token_mlp_dim={self.token_mlp_dim!r}: must be None or a positive integer"
            )
        if self.token_mlp_dim is not None and cfg.family == "decoder_only":
            raise ConfigError(
                f"mixer: token_mlp_dim={self.token_mlp_dim}: in a decoder-only model the hidden "
                "width is max_target_length"
            )

    def segment_multiple(self, cfg: ModelConfig, side: Side) -> int | None:
        """None for an encoder, where the examples of one row would mix."""
        return super().segment_multiple(cfg, side) if side.causal else None

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """A feed-forward layer over positions; a decoder that reads a memory has self-attention."""
        if side.reads_memory:
            return super().mixer(cfg, side, depth, key)
        if side.causal:
            return CausalTokenMixing(cfg, side, key)
        return TokenMixing(cfg, self.token_mlp_dim or max(1, cfg.embed_dim // 2), key)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> nnx.Module | None:
        """None where positions are mixed by their own weights, which read no biases."""
        return super().positions(cfg, side, key) if side.reads_memory else None
