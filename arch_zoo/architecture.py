"""The seams: what an architecture may build differently, and what the vanilla Transformer builds there."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers.attention import CrossAttention, SelfAttention
from arch_zoo.layers.embedding import Embedding
from arch_zoo.layers.feed_forward import FeedForward
from arch_zoo.layers.head import Head
from arch_zoo.layers.relative_bias import RelativeBias
from arch_zoo.layers.stack import Block, Stack
from arch_zoo.sizes import Dimensions


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The vanilla choice at every seam. A subclass overrides the one or two where its inductive bias lives.

    Its fields are the architecture's own options; `variants` gives published settings of them a
    name, such as `{"narang": {"num_experts": 32}}`, which `arch_zoo.config(..., variant="narang")`
    takes. Every builder takes the model's configuration and the key that its parameters are drawn
    from. See `docs/adding_an_architecture.md`.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = "Transformer"
    paper: ClassVar[str] = (
        "Vaswani et al., 2017, arXiv 1706.03762; T5.1.0: Raffel et al., 2020, arXiv 1910.10683"
    )
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def check(self, cfg: ModelConfig) -> None:
        """Raises `ConfigError` for options that cannot be built."""

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """What a size means here, given what it means for the vanilla Transformer."""
        return vanilla

    def segment_multiple(self, cfg: ModelConfig) -> int | None:
        """Packed encoder segments must start at multiples of this; None if inputs cannot be packed at all."""
        return 1

    def stochastic(self, cfg: ModelConfig) -> bool:
        """Whether training needs a key."""
        return cfg.dropout_rate > 0

    def embedding(self, cfg: ModelConfig, key: jax.Array) -> nnx.Module:
        """Ids [B, L] to vectors [B, L, D], and `attend(x)` for the tied logits."""
        return Embedding(cfg, key)

    def head(self, cfg: ModelConfig, key: jax.Array) -> nnx.Module:
        """`logits(x, embedding)` and `nll(x, targets, embedding)`."""
        return Head(cfg)

    def schedule(self, cfg: ModelConfig, num_layers: int) -> tuple[int, ...]:
        """Which block runs at each depth of a stack: `(0, 1, ..., N-1)`; `(0,) * N` shares one block."""
        return tuple(range(num_layers))

    def encoder_layers(self, cfg: ModelConfig, depth: int, key: jax.Array) -> dict[str, nnx.Module]:
        """The residual layers of an encoder block, in order."""
        mixer_key, feed_forward_key = jax.random.split(key)
        return {
            "self_attention": self.encoder_mixer(cfg, depth, mixer_key),
            "feed_forward": self.feed_forward(cfg, depth, feed_forward_key),
        }

    def decoder_layers(self, cfg: ModelConfig, depth: int, key: jax.Array) -> dict[str, nnx.Module]:
        """The residual layers of a decoder block, in order."""
        mixer_key, cross_key, feed_forward_key = jax.random.split(key, 3)
        return {
            "self_attention": self.decoder_mixer(cfg, depth, mixer_key),
            "cross_attention": CrossAttention(cfg, cross_key),
            "feed_forward": self.feed_forward(cfg, depth, feed_forward_key),
        }

    def encoder_mixer(self, cfg: ModelConfig, depth: int, key: jax.Array) -> nnx.Module:
        """What stands for self-attention in the encoder."""
        return SelfAttention(cfg, key)

    def decoder_mixer(self, cfg: ModelConfig, depth: int, key: jax.Array) -> nnx.Module:
        """What stands for self-attention in the decoder; it sees no later position."""
        return SelfAttention(cfg, key)

    def feed_forward(self, cfg: ModelConfig, depth: int, key: jax.Array) -> nnx.Module:
        """What stands for the feed-forward layer, in either stack."""
        return FeedForward(cfg, key)

    def positions(self, cfg: ModelConfig, key: jax.Array) -> nnx.Module | None:
        """`(x, ctx) -> (x, ctx)` at the input of a stack: biases in the context, tables added to x, or nothing."""
        return RelativeBias(cfg.num_heads, key)

    def encoder(self, cfg: ModelConfig, key: jax.Array) -> Stack:
        """The encoder's stack."""
        return Stack(cfg, *self.stack_parts(cfg, cfg.num_encoder_layers, self.encoder_layers, key))

    def decoder(self, cfg: ModelConfig, key: jax.Array) -> Stack:
        """The decoder's stack."""
        return Stack(cfg, *self.stack_parts(cfg, cfg.num_decoder_layers, self.decoder_layers, key))

    def stack_parts(self, cfg: ModelConfig, num_layers: int, layers, key: jax.Array):
        """Blocks, schedule and positions of a stack whose blocks hold `layers(cfg, depth, key)`."""
        positions_key, *keys = jax.random.split(key, num_layers + 1)
        schedule = self.schedule(cfg, num_layers)
        blocks = [Block(cfg, layers(cfg, index, keys[index])) for index in range(max(schedule) + 1)]
        return blocks, schedule, self.positions(cfg, positions_key)
