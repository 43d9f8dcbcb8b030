"""RetNet (Sun et al., 2023, arXiv 2307.08621): linear attention with a fixed decay for each head.

Overrides `mixer`: head h keeps `1 - 2^(-5-h)` of its state at each step. Queries and keys are
turned by rotary positions, and values are twice as wide as keys. Each head's output is normalised,
then multiplied by a gate. Overrides `positions`: the angles. The rest are Llama's blocks.

Deviations. The paper's heads are 256 wide, here they are as wide as the size says. Its sums are
divided by the sum of their weights, which the norm makes unnecessary. Its feed-forward layers have
no gates. It has a decoder-only model alone; in an encoder half of the heads read from right to
left, and those of either direction have short and long memories.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from arch_zoo.architectures.recurrent import RecurrentBlocks
from arch_zoo.config import ModelConfig
from arch_zoo.layers import decayed_attention, parameters, recurrence
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.norm import RMSNorm
from arch_zoo.layers.recurrence import MatrixState
from arch_zoo.layers.rotary import Rotary, rotate
from arch_zoo.layers.short_convolution import Projecting
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


class MultiScaleRetention(Projecting):
    """Linear attention with one decay for each head, and a gate."""

    site, channel_axis = "B", "joined_kv"

    def __init__(self, cfg: ModelConfig, options: "RetNet", key: jax.Array):
        """Draws the projections to queries, keys, values and gates, and back."""
        keys = jax.random.split(key, 5)
        dim, joined = cfg.embed_dim, cfg.num_heads * cfg.head_dim
        self.num_heads, self.head_dim = cfg.num_heads, cfg.head_dim
        self.query, self.key, self.value, self.gate = (
            parameters.fan_in(key, (dim, width), ("embed", "joined_kv"))
            for key, width in zip(keys, (joined, joined, 2 * joined, 2 * joined), strict=False)
        )
        self.norm = RMSNorm(2 * self.head_dim, options.norm_epsilon)
        self.out = parameters.fan_in(keys[4], (2 * joined, dim), ("joined_kv", "embed"))

    def projections(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """Queries, keys and values."""
        return tuple(parameters.project(x_BLD, w) for w in (self.query, self.key, self.value))

    def work(self, x_BLD: jax.Array, projected: tuple[jax.Array, ...], ctx: Context, cache: Any):
        """Reads the state at every position."""
        query_BLX, key_BLX, value_BLX = projected
        gate_BLX = parameters.project(x_BLD, self.gate)
        sequences = recurrence.by_head(
            ctx,
            (self.num_heads, 1),
            self._turned(query_BLX, ctx) * self.head_dim**-0.5,
            self._turned(key_BLX, ctx),
            value_BLX,
            jnp.broadcast_to(self._log_decay_H(ctx), (*x_BLD.shape[:2], self.num_heads)),
        )
        y_BGRLV, cache = recurrence.mix(decayed_attention.attend, sequences, ctx, cache)
        y_BLX = recurrence.joined(y_BGRLV, self.norm).astype(x_BLD.dtype)
        return parameters.project(y_BLX * jax.nn.silu(gate_BLX), self.out), cache, Aux()

    def empty_cache(self, ctx: Context) -> MatrixState:
        """A matrix [K, 2K] for each head, however long the sequence."""
        shape = (self.num_heads, 1, self.head_dim, 2 * self.head_dim)
        return recurrence.empty_state(ctx.batch_size, *shape)

    def _turned(self, x_BLX: jax.Array, ctx: Context) -> jax.Array:
        x_BLHK = x_BLX.reshape(*x_BLX.shape[:2], self.num_heads, self.head_dim)
        return rotate(x_BLHK, ctx.rotary).reshape(x_BLX.shape)

    def _log_decay_H(self, ctx: Context) -> jax.Array:
        """From short memories to long ones; where there are two directions, in each of them."""
        order_H = jnp.arange(self.num_heads)
        if not ctx.causal:
            order_H = jnp.concatenate([order_H[::2], order_H[1::2]])
        return jnp.log1p(-(2.0 ** (-5.0 - order_H)))


@register("retnet")
@dataclasses.dataclass(frozen=True)
class RetNet(RecurrentBlocks):
    """Retention in place of self-attention.

    Attributes:
      theta: the base of the rotary wavelengths.
    """

    title = "RetNet"
    paper = "Sun et al., 2023, arXiv 2307.08621"
    head_multiple: ClassVar[int] = 2
    theta: float = 10_000.0

    def check(self, cfg: ModelConfig) -> None:
        """Refuses wavelengths that do not grow."""
        super().check(cfg)
        if not self.theta > 1:
            raise ConfigError(f"retnet: theta={self.theta}: must be above 1")

    def mixer_params(self, vanilla: Dimensions) -> int:
        """Queries and keys, and values, gates and outputs that are twice as wide."""
        joined = vanilla.num_heads * vanilla.head_dim
        return 8 * vanilla.embed_dim * joined + 2 * vanilla.head_dim

    def mixer(
        self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array
    ) -> MultiScaleRetention:
        """Retention at every depth."""
        return MultiScaleRetention(cfg, self, key)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> Rotary:
        """Angles for queries and keys."""
        return Rotary(cfg.head_dim, self.theta)
