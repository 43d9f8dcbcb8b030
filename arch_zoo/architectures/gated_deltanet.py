"""Gated DeltaNet (Yang et al., 2024, arXiv 2412.06464): the delta rule with decay.

Overrides `mixer`: before a position adds its value, its head's state forgets what it had for the
key (`layers/delta_rule.py`). Queries, keys and values pass a causal convolution of four taps;
queries and keys are divided by their length. Keys are 3/4 as wide as the size's heads, values
twice as wide as keys. Each head's output is normalised, then multiplied by a gate. There are no
positions. The rest are Llama's blocks. Options:

* `decay=False`: DeltaNet (Yang et al., 2024, arXiv 2406.06484).
* `negative=True`: a step may turn the sign of what the state has for a key (Grazzi et al., 2024,
  arXiv 2411.12537).
* `centred_norms=True`: the norms of the residual stream multiply by 1 + w, as in Qwen3-Next, so
  that weight decay draws them to 1. Overrides `norm`.

Deviations. Initial weights are the zoo's, except those of the decay. The sources have decoder-only
models alone; in an encoder half of the heads read from right to left, and the convolution's taps
are around a position.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from arch_zoo.architectures.recurrent import RecurrentBlocks
from arch_zoo.config import LATER, ModelConfig
from arch_zoo.layers import convolution, delta_rule, parameters, recurrence
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.decay import Steps
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.norm import CentredRMSNorm, RMSNorm
from arch_zoo.registry import register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


class GatedDeltaRule(Layer):
    """The gated delta rule between convolutions and a gate."""

    def __init__(self, cfg: ModelConfig, options: "GatedDeltaNet", key: jax.Array):
        """Draws the projections to queries, keys, values, gates, rates and decays, and back."""
        *keys, rates_key = jax.random.split(key, 9)
        dim, heads = cfg.embed_dim, cfg.num_heads
        self.num_heads, self.key_dim, self.options = heads, _key_dim(cfg.head_dim), options
        joined = heads * self.key_dim
        self.query, self.key, self.value, self.gate = (
            parameters.fan_in(key, (dim, width), ("embed", "joined_kv"))
            for key, width in zip(keys, (joined, joined, 2 * joined, 2 * joined), strict=False)
        )
        self.taps = convolution.short_taps(keys[4], 4 * joined, "joined_kv")
        self.rate = parameters.fan_in(keys[5], (dim, heads), ("embed", "heads"))
        # Uniform rates of decay, away from zero, whose logarithm is infinite.
        rates_H = jax.random.uniform(rates_key, (heads,), minval=0.01, maxval=16.0)
        self.decay = Steps(dim, jnp.log(rates_H), keys[6]) if options.decay else None
        self.norm = RMSNorm(2 * self.key_dim, options.norm_epsilon)
        self.out = parameters.fan_in(keys[7], (2 * joined, dim), ("joined_kv", "embed"))

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Reads the state at every position."""
        projected = [parameters.project(x_BLD, w) for w in (self.query, self.key, self.value)]
        joined = self.num_heads * self.key_dim
        mixed_BLX, taps = convolution.depthwise(
            jnp.concatenate(projected, -1),
            self.taps[:, None, None],
            ctx,
            None if cache is None else cache["taps"],
        )
        query_BLX, key_BLX, value_BLX = jnp.split(
            jax.nn.silu(mixed_BLX).astype("float32"), [joined, 2 * joined], -1
        )
        rate_BLH = jax.nn.sigmoid(parameters.project(x_BLD, self.rate, "float32"))
        sequences = recurrence.by_head(
            ctx,
            (self.num_heads, 1),
            self._unit(query_BLX) * self.key_dim**-0.5,
            self._unit(key_BLX),
            value_BLX,
            jnp.zeros_like(rate_BLH) if self.decay is None else self.decay(x_BLD)[1],
            rate_BLH * (2.0 if self.options.negative else 1.0),
        )
        y_BGRLV, state = recurrence.mix(
            delta_rule.attend, sequences, ctx, None if cache is None else cache["state"]
        )
        y_BLX = recurrence.joined(y_BGRLV, self.norm).astype(x_BLD.dtype)
        gated_BLX = y_BLX * jax.nn.silu(parameters.project(x_BLD, self.gate))
        cache = None if cache is None else {"taps": taps, "state": state}
        return parameters.project(gated_BLX, self.out), cache, Aux()

    def init_cache(self, ctx: Context) -> dict:
        """A matrix for each head, and the last inputs of the convolution."""
        shape = (self.num_heads, 1, self.key_dim, 2 * self.key_dim)
        return {
            "taps": convolution.init_cache(ctx, *self.taps.shape),
            "state": recurrence.empty_state(ctx.batch_size, *shape),
        }

    def _unit(self, x_BLX: jax.Array) -> jax.Array:
        """Divides each head's vector by its length."""
        x_BLHK = x_BLX.reshape(*x_BLX.shape[:2], self.num_heads, -1)
        squares_BLH1 = jnp.sum(jnp.square(x_BLHK), -1, keepdims=True)
        return (x_BLHK * jax.lax.rsqrt(squares_BLH1 + 1e-6)).reshape(x_BLX.shape)


@register("gated_deltanet")
@dataclasses.dataclass(frozen=True)
class GatedDeltaNet(RecurrentBlocks):
    """The gated delta rule in place of self-attention.

    Attributes:
      decay: the state decays; without decay this is DeltaNet.
      negative: rates are up to 2, so that a step may turn a sign.
      centred_norms: the norms of the residual stream multiply by 1 + w.
    """

    title = "Gated DeltaNet"
    paper = "Yang et al., 2024, arXiv 2412.06464"
    variants: ClassVar = {"deltanet": {"decay": False}, "negative": {"negative": True}}
    head_multiple: ClassVar[int] = 4
    no_short_conv: ClassVar = {"B": "since its mixers have such convolutions of their own"}
    decay: bool = True
    negative: bool = False
    centred_norms: bool = dataclasses.field(default=False, metadata=LATER)

    def mixer_params(self, vanilla: Dimensions) -> int:
        """Projections, taps, rates and decays, and the norm of a head."""
        key_dim, heads = _key_dim(vanilla.head_dim), vanilla.num_heads
        per_input = 8 * heads * key_dim + (2 if self.decay else 1) * heads
        others = (
            4 * convolution.SHORT * heads * key_dim + 2 * key_dim + (2 * heads if self.decay else 0)
        )
        return vanilla.embed_dim * per_input + others

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> GatedDeltaRule:
        """The gated delta rule at every depth."""
        return GatedDeltaRule(cfg, self, key)

    def norm(self, cfg: ModelConfig) -> RMSNorm:
        """The usual norm, or one whose scale is written as its distance from 1."""
        return (CentredRMSNorm if self.centred_norms else RMSNorm)(
            cfg.embed_dim, cfg.stream_epsilon
        )


def _key_dim(head_dim: int) -> int:
    return 3 * head_dim // 4
