"""Llama (Touvron et al., 2023, arXiv 2302.13971), with the grouped queries of Llama 2 (2307.09288).

Overrides `mixer` and `cross_attention`: logits are scaled by K^-1/2, and groups of heads may share
keys and values (Ainslie et al., 2023, arXiv 2305.13245). Overrides `positions`: rotary positions in
self-attention; cross-attention has none. Overrides `feed_forward` and `dimensions`: the layers of
`glu` in the form SwiGLU, with 8/3 D hidden units. Overrides `head`: the logits have a table of
their own. RMSNorm before each layer and at the end, and no biases, are the vanilla model's already.

Deviations. The paper has a decoder-only model alone; in an encoder-decoder both stacks are like it.
Initial weights are the zoo's: embeddings of unit variance, and projections by their fan-in, where
Llama draws everything with a standard deviation of 0.02. 8/3 D is rounded to a multiple of 8, where
Llama rounds up to one of 256. Tied logits are the vanilla model's, scaled by D^-1/2.
"""

import dataclasses

import jax
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.architectures.glu import GLU, GatedFeedForward
from arch_zoo.config import ModelConfig
from arch_zoo.layers.attention import CrossAttention, SelfAttention
from arch_zoo.layers.head import Head, UntiedHead
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.rotary import Rotary
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


@dataclasses.dataclass(frozen=True)
class LlamaBlocks(Architecture):
    """Llama's blocks around any mixer: gated feed-forward layers, and logits of their own.

    Attributes:
      tied: logits are products with the embedding, as in the vanilla model.
    """

    tied: bool = False

    def cross_attention(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """Attention with scaled logits."""
        return CrossAttention(cfg, key, scaled_logits=True)

    def feed_forward(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """SwiGLU."""
        return GatedFeedForward(cfg, "swiglu", key)

    @property
    def tied_logits(self) -> bool:
        """As the option says."""
        return self.tied

    def head(self, cfg: ModelConfig, key: jax.Array) -> nnx.Module:
        """A softmax over logits from a table of their own, unless they are tied."""
        return Head(cfg) if self.tied else UntiedHead(cfg, key)


@register("llama")
@dataclasses.dataclass(frozen=True)
class Llama(LlamaBlocks):
    """Rotary positions, grouped queries and gated feed-forward layers.

    Attributes:
      num_kv_heads: heads of keys and values; None for as many as of queries.
      theta: the base of the rotary wavelengths.
    """

    title = "Llama"
    paper = "Touvron et al., 2023, arXiv 2302.13971"
    num_kv_heads: int | None = None
    theta: float = 10_000.0

    def check(self, cfg: ModelConfig) -> None:
        """Refuses heads that have no halves or no groups, and wavelengths that do not grow."""
        if cfg.head_dim % 2:
            raise ConfigError(f"llama: head_dim={cfg.head_dim}: must be even")
        if self.num_kv_heads is not None and not (
            type(self.num_kv_heads) is int
            and self.num_kv_heads > 0
            and cfg.num_heads % self.num_kv_heads == 0
        ):
            raise ConfigError(
                f"llama: num_kv_heads={self.num_kv_heads!r}: must be None or divide "
                f"num_heads={cfg.num_heads}"
            )
        if self.num_kv_heads is not None and cfg.shared_heads:
            raise ConfigError(
                f"llama: num_kv_heads={self.num_kv_heads}: the size's operator SH sets it to 1"
            )
        if not self.theta > 1:
            raise ConfigError(f"llama: theta={self.theta}: must be above 1")

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """Two thirds of the hidden units, since there are three matrices instead of two."""
        return GLU().dimensions(vanilla)

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """Self-attention with scaled logits and groups of queries."""
        return SelfAttention(cfg, key, kv_heads=self.num_kv_heads, scaled_logits=True)

    def cross_attention(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """The same for cross-attention."""
        return CrossAttention(cfg, key, kv_heads=self.num_kv_heads, scaled_logits=True)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> Rotary:
        """Angles for self-attention."""
        return Rotary(cfg.head_dim, self.theta)
