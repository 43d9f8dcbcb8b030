"""Gated linear units in the feed-forward layer (Shazeer, 2020, arXiv 2002.05202).

Overrides `feed_forward`: `(act(x wi_0) * (x wi_1)) wo`. Overrides `dimensions`: there are two
thirds of the hidden units, rounded to a multiple of 8, so that parameters and FLOPs match those of
the vanilla layer. Everything else is T5.1.0, tied embeddings included. T5.1.1 has other dimensions,
and logits from a table of their own: `tied=False` overrides `head`. The default activation is GELU
(GEGLU); Tay et al. (2022) say only "GLU".
"""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.config import LATER, ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.feed_forward import FeedForward
from arch_zoo.layers.head import Head, UntiedHead
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions

# The variants by their published names. GELU is the tanh approximation, as in Mesh TensorFlow and
# T5.1.1.
ACTIVATIONS = {
    "glu": jax.nn.sigmoid,
    "geglu": jax.nn.gelu,
    "swiglu": jax.nn.silu,
    "reglu": jax.nn.relu,
}


class GatedFeedForward(FeedForward):
    """A feed-forward layer whose hidden units are multiplied by a gate, `act(x wi_0)`."""

    def __init__(self, cfg: ModelConfig, variant: str, key: jax.Array):
        """Draws wi_0 and wi_1 [D, F] and wo [F, D]."""
        gate_key, linear_key, out_key = jax.random.split(key, 3)
        self.wi_0 = parameters.fan_in(gate_key, (cfg.embed_dim, cfg.mlp_dim), ("embed", "mlp"))
        self.wi_1 = parameters.fan_in(linear_key, (cfg.embed_dim, cfg.mlp_dim), ("embed", "mlp"))
        self.wo = parameters.fan_in(out_key, (cfg.mlp_dim, cfg.embed_dim), ("mlp", "embed"))
        self.variant = variant

    def projections(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """The gate before its activation, and what it multiplies, [B, L, F] both."""
        return parameters.project(x_BLD, self.wi_0), parameters.project(x_BLD, self.wi_1)

    def hidden(self, *projected: jax.Array) -> jax.Array:
        """The gated hidden units [B, L, F]."""
        gate_BLF, linear_BLF = projected
        return ACTIVATIONS[self.variant](gate_BLF) * linear_BLF


@register("glu")
@dataclasses.dataclass(frozen=True)
class GLU(Architecture):
    """Gated feed-forward layers.

    Attributes:
      variant: the gate's activation by its published name: glu (sigmoid), geglu, swiglu, reglu.
      tied: logits are products with the embedding, as in the vanilla model.
    """

    title = "Gated linear units"
    paper = "Shazeer, 2020, arXiv 2002.05202"
    variants: ClassVar = {name: {"variant": name} for name in ACTIVATIONS}
    variant: str = "geglu"
    tied: bool = dataclasses.field(default=True, metadata=LATER)

    def check(self, cfg: ModelConfig) -> None:
        """Refuses an unknown variant."""
        if self.variant not in ACTIVATIONS:
            raise ConfigError(
                f"glu: variant={self.variant!r}: allowed are {', '.join(ACTIVATIONS)}"
            )

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """Two thirds of the hidden units, since there are three matrices instead of two."""
        return dataclasses.replace(vanilla, mlp_dim=max(1, round(vanilla.mlp_dim / 12)) * 8)

    def feed_forward(
        self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array
    ) -> GatedFeedForward:
        """A gated layer at every depth."""
        return GatedFeedForward(cfg, self.variant, key)

    @property
    def tied_logits(self) -> bool:
        """As the option says."""
        return self.tied

    def head(self, cfg: ModelConfig, key: jax.Array) -> nnx.Module:
        """A softmax over tied logits, or over logits from a table of their own."""
        return Head(cfg) if self.tied else UntiedHead(cfg, key)
