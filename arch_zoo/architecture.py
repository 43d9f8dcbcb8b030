"""The seams: what an architecture can build differently, with the vanilla Transformer's choice."""

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
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.norm import RMSNorm
from arch_zoo.layers.relative_bias import RelativeBias
from arch_zoo.layers.stack import Block, Stack
from arch_zoo.registry import ConfigError
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The vanilla choice at every seam.

    A subclass overrides the one or two seams in which it differs. Its fields are the architecture's
    own options. Its methods are the seams: each takes the model's configuration, the side it builds
    for where that matters, and the key that its parameters are drawn from. Class attributes hold
    what tests and studies need to know of the architecture. See `docs/adding_an_architecture.md`.

    Attributes:
      name: the name it is registered under.
      title: its name in print.
      paper: its source.
      variants: published settings of the options by name, such as `{"narang": {"num_experts":
        32}}`, which `arch_zoo.config(..., variant="narang")` takes.
      scans: whether `scan_layers` works with its default options.
      float32_share: the largest share of a training step's matrix products that it computes in
        float32 when the model computes in bfloat16.
      cpu_options: options for runs of a few hundred steps, where the defaults do not train in so
        few.
      families: the families it can be built in.
      no_short_conv: the sites of `ModelConfig.short_conv` that it does not have, with the reason.
      parity: whether an independent implementation has confirmed its outputs and gradients
        (`tests/parity`).
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = "Transformer"
    paper: ClassVar[str] = (
        "Vaswani et al., 2017, arXiv 1706.03762; T5.1.0: Raffel et al., 2020, arXiv 1910.10683"
    )
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    scans: ClassVar[bool] = True
    float32_share: ClassVar[float] = 0.02
    cpu_options: ClassVar[Mapping[str, Any]] = {}
    families: ClassVar[tuple[str, ...]] = ("encoder_decoder", "decoder_only")
    no_short_conv: ClassVar[Mapping[str, str]] = {}
    parity: ClassVar[bool] = True

    def check(self, cfg: ModelConfig) -> None:
        """Raises `ConfigError` for options that no model can be built from."""

    @property
    def tied_logits(self) -> bool:
        """Whether logits are products with the embedding, made by `Head`."""
        return True

    def check_logits(self, cfg: ModelConfig) -> None:
        """Refuses `scale_tied_logits=False` where no logits are tied."""
        if not (cfg.scale_tied_logits or self.tied_logits):
            raise ConfigError(f"{self.name}: scale_tied_logits=False: its logits are not tied")

    def check_short_conv(self, cfg: ModelConfig) -> None:
        """Refuses short convolutions at sites that it does not have."""
        for site, reason in self.no_short_conv.items():
            if site in cfg.short_conv:
                raise ConfigError(
                    f"{self.name}: short_conv={cfg.short_conv!r}: it has no site {site}, {reason}"
                )

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """The dimensions of a size, given those of the vanilla Transformer."""
        return vanilla

    def segment_multiple(self, cfg: ModelConfig, side: Side) -> int | None:
        """Packed segments of `side` must start at multiples of this.

        None if its rows cannot be packed.
        """
        return 1

    def stochastic(self, cfg: ModelConfig) -> bool:
        """Whether training is random and so needs a key."""
        return cfg.dropout_rate > 0

    def embedding(self, cfg: ModelConfig, key: jax.Array) -> nnx.Module:
        """A module that maps ids [B, L] to vectors [B, L, D]; `attend(x)` gives tied logits."""
        return Embedding(cfg, key)

    def head(self, cfg: ModelConfig, key: jax.Array) -> nnx.Module:
        """The output layer, with `logits(x, embedding)` and `nll(x, targets, embedding)`."""
        return Head(cfg)

    def schedule(self, cfg: ModelConfig, side: Side) -> tuple[int, ...]:
        """The index of the block that runs at each depth: `(0, 1, ..., N-1)`.

        `(0,) * N` would share one block.
        """
        return tuple(range(cfg.num_layers(side)))

    def layers(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> dict[str, Layer]:
        """The residual layers of a block by name, in order."""
        mixer_key, *cross_key, feed_forward_key = jax.random.split(
            key, 3 if side.reads_memory else 2
        )
        layers: dict[str, Layer] = {"self_attention": self.mixer(cfg, side, depth, mixer_key)}
        if side.reads_memory:
            layers["cross_attention"] = self.cross_attention(cfg, side, depth, *cross_key)
        layers["feed_forward"] = self.feed_forward(cfg, side, depth, feed_forward_key)
        return layers

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """The layer that mixes positions.

        On a causal side it sees no later position, prefixes aside, and can decode step by step.
        """
        return SelfAttention(cfg, key)

    def cross_attention(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """The layer that reads the memory, on a side that has one."""
        return CrossAttention(cfg, key)

    def feed_forward(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """The layer after the mixer, which treats each position alone."""
        return FeedForward(cfg, key)

    def norm(self, cfg: ModelConfig) -> nnx.Module:
        """The norm [..., D] before every residual layer, and at the end of a stack."""
        return RMSNorm(cfg.embed_dim, cfg.stream_epsilon)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> nnx.Module | None:
        """`(x, ctx) -> (x, ctx)` at the input of a stack.

        Adds biases to the context or vectors to x. None: neither.
        """
        return RelativeBias(cfg.num_heads, key, causal=not side.looks_ahead)

    def stack(self, cfg: ModelConfig, side: Side, key: jax.Array) -> Stack:
        """The stack of a side, which holds its blocks and runs them."""
        return Stack(cfg, *self.stack_parts(cfg, side, key))

    def stack_parts(
        self, cfg: ModelConfig, side: Side, key: jax.Array
    ) -> tuple[list[Block], tuple[int, ...], nnx.Module | None]:
        """The blocks, schedule and positions of a stack."""
        positions_key, *keys = jax.random.split(key, cfg.num_layers(side) + 1)
        schedule = self.schedule(cfg, side)
        blocks = [
            Block(cfg, self.layers(cfg, side, index, keys[index]), keys[index])
            for index in range(max(schedule) + 1)
        ]
        return blocks, schedule, self.positions(cfg, side, positions_key)
