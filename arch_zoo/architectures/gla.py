"""Gated linear attention (Yang et al., 2023, arXiv 2312.06635): a decay for each row of the state.

Overrides `mixer`: the decay of every entry of a head's key is a sigmoid of a low-rank projection of
the input, to the power of 1/16. Keys are half as wide as values. Each head's output is normalised,
then multiplied by a gate. There are no positions. The rest are Llama's blocks.

Deviations. The paper has four heads at every size; here the size says how many. It has a
decoder-only model alone; in an encoder half of the heads read from right to left. A log decay below
-5 counts as -5, which no sigmoid to the power of 1/16 reaches before its input is -80.
"""

import dataclasses
from typing import Any, ClassVar

import jax

from arch_zoo.architectures.recurrent import RecurrentBlocks
from arch_zoo.config import ModelConfig
from arch_zoo.layers import decayed_attention, parameters, recurrence
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.norm import RMSNorm
from arch_zoo.layers.parameters import Dense
from arch_zoo.layers.recurrence import MatrixState
from arch_zoo.layers.short_convolution import Projecting
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


class GatedLinearAttention(Projecting):
    """Linear attention with a decay for each entry of a key, and a gate."""

    site, channel_axis = "B", "joined_kv"

    def __init__(self, cfg: ModelConfig, options: "GLA", key: jax.Array):
        """Draws the projections to queries, keys, values, gates and decays, and back."""
        keys = jax.random.split(key, 7)
        dim, joined = cfg.embed_dim, cfg.num_heads * cfg.head_dim
        self.num_heads, self.head_dim, self.options = cfg.num_heads, cfg.head_dim, options
        self.query, self.key, self.value, self.gate = (
            parameters.fan_in(key, (dim, width), ("embed", "joined_kv"))
            for key, width in zip(keys, (joined // 2, joined // 2, joined, joined), strict=False)
        )
        self.decay_in = parameters.fan_in(keys[4], (dim, options.rank), ("embed", "rank"))
        decay_out = parameters.fan_in(keys[5], (options.rank, joined // 2), ("rank", "joined_kv"))
        self.decay_out = Dense(decay_out, bias=True)
        self.norm = RMSNorm(self.head_dim, options.norm_epsilon)
        self.out = parameters.fan_in(keys[6], (joined, dim), ("joined_kv", "embed"))

    def projections(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """Queries, keys and values."""
        return tuple(parameters.project(x_BLD, w) for w in (self.query, self.key, self.value))

    def work(self, x_BLD: jax.Array, projected: tuple[jax.Array, ...], ctx: Context, cache: Any):
        """Reads the state at every position."""
        query_BLX, key_BLX, value_BLX = projected
        gate_BLX = parameters.project(x_BLD, self.gate)
        decay_BLX = self.decay_out(parameters.project(x_BLD, self.decay_in)).astype("float32")
        sequences = recurrence.by_head(
            ctx,
            (self.num_heads, 1),
            query_BLX * (self.head_dim // 2) ** -0.5,
            key_BLX,
            value_BLX,
            jax.nn.log_sigmoid(decay_BLX) / self.options.temperature,
        )
        y_BGRLV, cache = recurrence.mix(decayed_attention.attend, sequences, ctx, cache)
        y_BLX = recurrence.joined(y_BGRLV, self.norm).astype(x_BLD.dtype)
        return parameters.project(y_BLX * jax.nn.silu(gate_BLX), self.out), cache, Aux()

    def empty_cache(self, ctx: Context) -> MatrixState:
        """A matrix [K/2, K] for each head, however long the sequence."""
        shape = (self.num_heads, 1, self.head_dim // 2, self.head_dim)
        return recurrence.empty_state(ctx.batch_size, *shape)


@register("gla")
@dataclasses.dataclass(frozen=True)
class GLA(RecurrentBlocks):
    """Gated linear attention in place of self-attention.

    Attributes:
      rank: of the projection to the decays.
      temperature: the decay is a sigmoid to the power of 1 / temperature.
    """

    title = "Gated linear attention"
    paper = "Yang et al., 2023, arXiv 2312.06635"
    head_multiple: ClassVar[int] = 2
    rank: int = 16
    temperature: float = 16.0

    def check(self, cfg: ModelConfig) -> None:
        """Refuses decays without rank or temperature."""
        super().check(cfg)
        if self.rank < 1:
            raise ConfigError(f"gla: rank={self.rank}: must be at least 1")
        if not self.temperature > 0:
            raise ConfigError(f"gla: temperature={self.temperature}: must be above 0")

    def mixer_params(self, vanilla: Dimensions) -> int:
        """Queries and keys of half the width; values, gates and outputs; decays and their bias."""
        dim, joined = vanilla.embed_dim, vanilla.num_heads * vanilla.head_dim
        return 4 * dim * joined + self.rank * (dim + joined // 2) + joined // 2 + vanilla.head_dim

    def mixer(
        self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array
    ) -> GatedLinearAttention:
        """Gated linear attention at every depth."""
        return GatedLinearAttention(cfg, self, key)
