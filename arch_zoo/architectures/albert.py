"""ALBERT (Lan et al., 2020, arXiv 1909.11942).

One block shared by the layers of a stack, and a factorised embedding. Overrides `schedule`: the
layers of a stack are divided into `groups` of neighbours, and all layers of a group share one
block. There is one group by default; encoder and decoder have separate blocks, norms included.
Overrides `embedding`: a table [V, R] and a matrix [R, D] replace the table [V, D], and both are
tied to the logits. Parameters fall by a factor of ten while FLOPs stay the same, so the two
measures of scale come apart.

The rank R is 128, as at every size in the paper, where D is 768 to 4096: it depends on the
vocabulary and not on the width. Below D = 256 it is D / 2, since with R = D nothing would be
factorised.

Deviations. ALBERT is a BERT: it has post-norm, GELU, absolute positions, an embedding with a bias,
and an extra loss (sentence order). As in the original study, T5 only takes over sharing and
factorisation. As in Mesh TensorFlow, both factors are drawn so that a token's vector starts with
unit variance.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side

_PAPER_FACTOR = 128


class FactorisedEmbedding(nnx.Module):
    """Unit normal vectors [V, D] of rank R."""

    def __init__(self, cfg: ModelConfig, factor: int, key: jax.Array):
        """Draws the table [V, R] and its expansion [R, D]."""
        table_key, expansion_key = jax.random.split(key)
        stddev = factor**-0.25
        self.table = parameters.normal(
            table_key, (cfg.vocab_size, factor), ("vocab", "factor"), stddev
        )
        self.expansion = parameters.normal(
            expansion_key, (factor, cfg.embed_dim), ("factor", "embed"), stddev
        )
        self.dtype = cfg.dtype

    def __call__(self, ids_BL: jax.Array) -> jax.Array:
        """Vectors [B, L, D] of the tokens, in the compute type."""
        return parameters.project(self.table[ids_BL].astype(self.dtype), self.expansion)

    def attend(self, x_BLD: jax.Array) -> jax.Array:
        """Products with every token's vector, [B, L, V] in float32: the tied logits."""
        x_BLR = parameters.project(x_BLD, self.expansion.T)
        return parameters.project(x_BLR, self.table.T, jnp.float32)


@register("albert")
@dataclasses.dataclass(frozen=True)
class Albert(Architecture):
    """Shared blocks and a factorised embedding.

    Attributes:
      groups: the number of blocks of a stack. Layers are divided among them in order, as evenly as
        possible.
      factor: R, the rank of the embedding; None for 128, or half of D where that is less.
    """

    title = "ALBERT"
    paper = "Lan et al., 2020, arXiv 1909.11942"
    groups: int = 1
    factor: int | None = None

    def check(self, cfg: ModelConfig) -> None:
        """Refuses more groups than layers, and a rank outside 1 to D."""
        layers = min(map(cfg.num_layers, cfg.sides))
        if not 1 <= self.groups <= layers:
            raise ConfigError(
                f"albert: groups={self.groups}: must be between 1 and the number of layers, "
                f"{layers}"
            )
        if self.factor is not None and not (
            type(self.factor) is int and 1 <= self.factor <= cfg.embed_dim
        ):
            raise ConfigError(
                f"albert: factor={self.factor!r}: must be None or from 1 to "
                f"embed_dim={cfg.embed_dim}"
            )

    def schedule(self, cfg: ModelConfig, side: Side) -> tuple[int, ...]:
        """The group that each depth belongs to."""
        num_layers = cfg.num_layers(side)
        return tuple(depth * self.groups // num_layers for depth in range(num_layers))

    def embedding(self, cfg: ModelConfig, key: jax.Array) -> FactorisedEmbedding:
        """An embedding of rank R."""
        return FactorisedEmbedding(
            cfg, self.factor or max(1, min(_PAPER_FACTOR, cfg.embed_dim // 2)), key
        )
