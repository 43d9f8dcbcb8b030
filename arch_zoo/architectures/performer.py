"""Performer (Choromanski et al., 2021, arXiv 2009.14794): self-attention in linear time.

Overrides `mixer`: features of queries and keys replace the softmax (`layers/favor.py`).
Cross-attention stays softmax attention. Decoding keeps a state of fixed size instead of keys and
values. Two kernels:

* `relu`: the features are `relu(u) + 0.001`, without randomness. It is the default of Long Range
  Arena, by the same authors as the original study.
* `softmax`: random features whose products estimate the vanilla model's exp(q . k). They are drawn
  again at each training step (`redraw`) and fixed in evaluation.

Overrides `positions`: relative biases would need pairs of positions, which are never formed. A
learned vector for each position is added to the input instead. It starts as large as a token's
vector: Adafactor's steps are proportional to a parameter's size, and with vectors of 0.02 a small
model had not learned to copy after 600 steps, with these after 100.

Deviations. The published code ignores masks; here padding and segments are exact. It divides keys
by the largest feature of the sequence and then adds a small number, so its decoder sees later keys;
here that number is relative to each key's own largest feature. It adds twice a threshold to small
denominators; here none is needed. Queries are as large as T5 draws them. Queries are multiplied and
keys divided by K^1/4 where the source divides both, and T5's queries make the product the same.
There are no attention weights to drop in training.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import favor
from arch_zoo.layers.attention import OwnProjections
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.positions import LearnedPositions
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side

# Added to every feature, so that denominators stay away from zero.
EPSILONS = {"relu": 1e-3, "softmax": 1e-6}


class RandomFeatures(nnx.Variable):
    """Random directions. They belong to the model's state and are never trained."""


class LinearAttention(OwnProjections):
    """Self-attention through features of queries and keys."""

    def __init__(self, cfg: ModelConfig, options: "Performer", key: jax.Array):
        """Draws the projections and, for the softmax kernel, directions [M, K] of features."""
        projections_key, features_key = jax.random.split(key)
        super().__init__(cfg, projections_key)
        self.options = options
        random = options.kernel == "softmax"
        self.num_features = options.num_features if random else cfg.head_dim
        self.directions = RandomFeatures(self._draw(features_key)) if random else None

    def work(self, x_BLD: jax.Array, projected: tuple[jax.Array, ...], ctx: Context, cache: Any):
        """Attends to all keys of a segment.

        In a causal context to those up to the query, whose sums a cache holds.
        """
        features = self.features(projected, ctx)
        if ctx.causal:
            before = self.empty_cache(ctx) if cache is None else cache
            prefix_B1L = None if ctx.prefix_BL is None else ctx.prefix_BL[:, None]
            y_BHLK, state = favor.attend_to_prefix(features, before, prefix_B1L)
            cache = None if cache is None else state
        else:
            y_BHLK = favor.attend_to_all(features, packed=ctx.packed)
        return self.output(jnp.moveaxis(y_BHLK, 1, 2).astype(x_BLD.dtype)), cache, Aux()

    def empty_cache(self, ctx: Context) -> favor.FavorState:
        """Empty sums. Their size does not depend on the length."""
        return favor.empty_state(ctx.batch_size, self.num_heads, self.num_features, self.head_dim)

    def features(self, projected: tuple[jax.Array, ...], ctx: Context) -> favor.Features:
        """Features of the sequence's queries and keys, in float32."""
        q_BHLK, k_BHLK, v_BHLK = (jnp.moveaxis(a, 1, 2).astype(jnp.float32) for a in projected)
        k_BHLK, v_BHLK = (
            jnp.repeat(a, self.num_heads // a.shape[1], axis=1) for a in (k_BHLK, v_BHLK)
        )
        epsilon = EPSILONS[self.options.kernel]
        if self.directions is None:
            phi = favor.relu_features(q_BHLK, k_BHLK, epsilon)
        else:
            redraw = ctx.train and self.options.redraw
            directions_MK = self._draw(ctx.key) if redraw else self.directions[...]
            phi = favor.softmax_features(q_BHLK, k_BHLK, directions_MK, epsilon)
        v_BHLJ = jnp.pad(v_BHLK, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=1.0)
        return favor.Features(*phi, v_BHLJ, ctx.segment_ids_BL[:, None])

    def _draw(self, key: jax.Array) -> jax.Array:
        return favor.draw_directions(key, self.num_features, self.head_dim)


@register("performer")
@dataclasses.dataclass(frozen=True)
class Performer(Architecture):
    """Linear attention in place of self-attention.

    Attributes:
      kernel: `relu` or `softmax`.
      num_features: M, the random features of the softmax kernel. The ReLU kernel has one for each
        dimension of a head.
      redraw: draw the random features again at each training step.
    """

    title = "Performer"
    paper = "Choromanski et al., 2021, arXiv 2009.14794"
    float32_share = 0.31  # reached where a prefix looks ahead, as keys are then summed twice
    kernel: str = "relu"
    num_features: int = 256
    redraw: bool = True

    def check(self, cfg: ModelConfig) -> None:
        """Refuses unknown kernels and kernels without features."""
        if self.kernel not in EPSILONS:
            raise ConfigError(
                f"performer: kernel={self.kernel!r}: allowed are {', '.join(EPSILONS)}"
            )
        if self.num_features < 1:
            raise ConfigError(f"performer: num_features={self.num_features}: must be at least 1")

    def stochastic(self, cfg: ModelConfig) -> bool:
        """Training is random with dropout, or if features are redrawn at each step."""
        return cfg.dropout_rate > 0 or (self.kernel == "softmax" and self.redraw)

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> LinearAttention:
        """Linear attention."""
        return LinearAttention(cfg, self, key)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> LearnedPositions:
        """A vector for each position up to the longest row of the side."""
        return LearnedPositions(getattr(cfg, side.limit), cfg.embed_dim, side.limit, key)
