"""MLP-Mixer (Tolstikhin et al., 2021, arXiv 2105.01601): dense layers over positions mix them.

Overrides `mixer` in the encoder: self-attention is replaced by a feed-forward layer over the
positions of each channel, with biases and GELU as in the source. Overrides `positions`: the encoder
has no position biases, since its weights belong to positions already. The decoder is vanilla,
because a layer over all positions cannot decode step by step. The same holds in Tay et al. (2022).

The weights are for `max_input_length` positions. A longer input is refused, and a shorter one uses
only their first rows, as if it were padded. Packed inputs are refused, since their examples would
mix. The hidden width of the token mixing is half of the model's width, as in the source's sizes.

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


@register("mixer")
@dataclasses.dataclass(frozen=True)
class Mixer(Architecture):
    """Token mixing in the encoder.

    Attributes:
      token_mlp_dim: hidden width of the token mixing; None is half of `embed_dim`.
    """

    title = "MLP-Mixer"
    paper = "Tolstikhin et al., 2021, arXiv 2105.01601"
    token_mlp_dim: int | None = None

    def check(self, cfg: ModelConfig) -> None:
        """Refuses a width or a length that is no positive integer."""
        if self.token_mlp_dim is not None and (
            type(self.token_mlp_dim) is not int or self.token_mlp_dim < 1
        ):
            raise ConfigError(
                f"mixer: token_mlp_dim={self.token_mlp_dim!r}: must be None or a positive integer"
            )
        if cfg.max_input_length < 1:
            raise ConfigError(f"mixer: max_input_length={cfg.max_input_length}: must be at least 1")

    def segment_multiple(self, cfg: ModelConfig, side: Side) -> int | None:
        """None for the encoder, where the examples of one row would mix."""
        return super().segment_multiple(cfg, side) if side.causal else None

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """The encoder mixes positions by a feed-forward layer; the decoder keeps self-attention."""
        if side.causal:
            return super().mixer(cfg, side, depth, key)
        return TokenMixing(cfg, self.token_mlp_dim or max(1, cfg.embed_dim // 2), key)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> nnx.Module | None:
        """None for the encoder, where no layer would read biases."""
        return super().positions(cfg, side, key) if side.causal else None
