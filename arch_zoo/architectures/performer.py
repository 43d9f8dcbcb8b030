"""Performer (Choromanski et al., 2021, arXiv 2009.14794): self-attention in linear time by features.

Overrides `mixer` and `positions`: relative biases belong to pairs, which
no longer meet, so a learned vector for each position is added to the input, as large at first as a
token's: Adafactor's steps follow a parameter's size, and from vectors of 0.02 a small model has not
learned to copy after 600 steps where from these it has after 100. Cross-attention stays softmax
attention. Decoding keeps a state of fixed size instead of keys and values. Two kernels:

* `relu`: `relu(u) + 0.001`, nothing random; the default of the original study's authors elsewhere
  (Long Range Arena).
* `softmax`: random features, drawn anew at each training step (`redraw`) and fixed in evaluation,
  whose products estimate the vanilla model's own exp(q . k).

Deviations. The published code ignores masks; here padding and segments are exact. It divides keys
by the sequence's largest feature and then adds a small number, so that its decoder sees later keys;
here that number is relative to each key's own largest feature (`layers/favor.py`). It adds twice a
threshold to small denominators; here none is needed. Queries are as long as T5 draws them, and
queries and keys are balanced by K^1/4 instead of both divided by it, which is the same product.
There are no attention weights to drop in training.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import favor
from arch_zoo.layers.attention import Projections
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.positions import LearnedPositions
from arch_zoo.layers.stack import Stack
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side

# What is added to every feature, which keeps denominators away from zero.
EPSILONS = {"relu": 1e-3, "softmax": 1e-6}


class RandomFeatures(nnx.Variable):
    """Random directions: part of a model's state, never trained."""


class LinearAttention(Projections):
    """Attention of a sequence to itself through features."""

    def __init__(self, cfg: ModelConfig, options: "Performer", key: jax.Array):
        """Draws the projections and, for the softmax kernel, the directions [M, K] of its features."""
        projections_key, features_key = jax.random.split(key)
        super().__init__(cfg, projections_key)
        self.options = options
        random = options.kernel == "softmax"
        self.num_features = options.num_features if random else cfg.head_dim
        self.directions = RandomFeatures(self._draw(features_key)) if random else None

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """All keys of a segment in an encoder; in a decoder those up to the query, before it in the cache."""
        features = self.features(x_BLD, ctx)
        if ctx.causal:
            y_BHLK, state = favor.attend_to_prefix(
                features, self.init_cache(ctx) if cache is None else cache
            )
            cache = None if cache is None else state
        else:
            y_BHLK = favor.attend_to_all(features, packed=ctx.packed)
        return self.output(jnp.moveaxis(y_BHLK, 1, 2).astype(x_BLD.dtype)), cache, Aux()

    def init_cache(self, ctx: Context) -> favor.State:
        """The sums over no keys; their size does not depend on the length."""
        return favor.empty_state(ctx.batch_size, self.num_heads, self.num_features, self.head_dim)

    def features(self, x_BLD: jax.Array, ctx: Context) -> favor.Features:
        """Features of the sequence's queries and keys, in float32."""
        projected = (self.queries(x_BLD), *self.keys_values(x_BLD))
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
      num_features: M, random features of the softmax kernel; the ReLU kernel has one for each
        dimension of a head.
      redraw: draw the random features anew at each training step.
    """

    title = "Performer"
    paper = "Choromanski et al., 2021, arXiv 2009.14794"
    float32_share = 0.25
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
        """Features drawn in training are random as well."""
        return cfg.dropout_rate > 0 or (self.kernel == "softmax" and self.redraw)

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> LinearAttention:
        """Linear attention in place of softmax attention."""
        return LinearAttention(cfg, self, key)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> LearnedPositions:
        """A vector for each position up to the longest input or target."""
        limit = "max_target_length" if side.causal else "max_input_length"
        return LearnedPositions(getattr(cfg, limit), cfg.embed_dim, limit, key)

    def stack(self, cfg: ModelConfig, side: Side, key: jax.Array) -> Stack:
        """The vanilla one. Positions have a key of their own, so that a seed draws what it always drew."""
        positions_key, key = jax.random.split(key)
        return Stack(cfg, *self.stack_parts(cfg, side, key, positions_key))
