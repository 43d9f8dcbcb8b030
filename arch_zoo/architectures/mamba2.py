"""Mamba-2 (Dao and Gu, 2024, arXiv 2405.21060): a state space model as linear attention with decay.

Overrides `layers`: two mixers in place of self-attention and feed-forward layer, since a mixer has
about half the parameters of both; in a decoder cross-attention is between them. All heads share one
key (B in the paper) and one query (C) of `state_dim`. Each head has a decay that depends on the
input. Values, keys and queries pass a causal convolution of four taps. The output plus a multiple
of the values is multiplied by a gate, then normalised. There are no positions and no feed-forward
layers; `mlp_dim` is the inner width of a mixer, and `head_dim` that of its heads.

Deviations. Initial weights are the zoo's, except those of the decay. The inner width is what makes
the number of parameters that of the vanilla model, slightly less than twice the model's width; the
last head may be narrower than the others. The paper has a decoder-only model alone; in an encoder
half of the heads read from right to left, with the same keys and queries, and the convolution's
taps are around a position.
"""

import dataclasses

import jax
import jax.numpy as jnp

from arch_zoo.architectures.recurrent import RecurrentBlocks, block_params
from arch_zoo.config import ModelConfig
from arch_zoo.layers import convolution, decayed_attention, parameters, recurrence
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.decay import Steps
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.norm import RMSNorm
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


class StateSpace(Layer):
    """One Mamba-2 mixer."""

    def __init__(self, cfg: ModelConfig, options: "Mamba2", key: jax.Array):
        """Draws the projections to gates, values, keys, queries and steps, and back."""
        in_key, gate_key, taps_key, steps_key, out_key = jax.random.split(key, 5)
        dim, inner = cfg.embed_dim, cfg.mlp_dim
        self.inner, self.head_dim = inner, cfg.head_dim
        self.state_dim = options.state_dim or 2 * cfg.head_dim
        self.num_heads = _num_heads(cfg)
        channels = inner + 2 * self.state_dim
        self.gate = parameters.fan_in(gate_key, (dim, inner), ("embed", "mlp"))
        self.into = parameters.fan_in(in_key, (dim, channels), ("embed", "mlp"))
        self.taps = convolution.short_taps(taps_key, channels, "mlp")
        self.taps_bias = parameters.constant(0.0, (channels,), ("mlp",))
        rates_H = jnp.arange(1, self.num_heads + 1, dtype=jnp.float32)
        self.steps = Steps(dim, jnp.log(rates_H), steps_key)
        self.skip = parameters.constant(1.0, (self.num_heads,), ("heads",))
        self.norm = RMSNorm(inner, options.norm_epsilon)
        self.out = parameters.fan_in(out_key, (inner, dim), ("mlp", "embed"))

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Reads the state at every position."""
        mixed_BLX, taps = convolution.depthwise(
            parameters.project(x_BLD, self.into),
            self.taps[:, None, None],
            ctx,
            None if cache is None else cache["taps"],
        )
        mixed_BLX = jax.nn.silu(mixed_BLX.astype("float32") + self.taps_bias)
        value_BLX, key_BLX, query_BLX = jnp.split(
            mixed_BLX, [self.inner, self.inner + self.state_dim], -1
        )
        width = self.num_heads * self.head_dim
        value_BLX = jnp.pad(value_BLX, ((0, 0), (0, 0), (0, width - self.inner)))
        steps_BLH, log_decay_BLH = self.steps(x_BLD)
        by_channel = [jnp.repeat(x, self.head_dim, -1) for x in (steps_BLH, self.skip[...])]
        sequences = recurrence.by_head(
            ctx,
            (1, self.num_heads),
            query_BLX,
            key_BLX,
            value_BLX * by_channel[0],
            log_decay_BLH,
        )
        y_BGRLV, state = recurrence.mix(
            decayed_attention.attend, sequences, ctx, None if cache is None else cache["state"]
        )
        y_BLX = recurrence.joined(y_BGRLV) + by_channel[1] * value_BLX
        gate_BLX = jax.nn.silu(parameters.project(x_BLD, self.gate))
        y_BLX = self.norm(y_BLX[..., : self.inner] * gate_BLX).astype(x_BLD.dtype)
        cache = None if cache is None else {"taps": taps, "state": state}
        return parameters.project(y_BLX, self.out), cache, Aux()

    def init_cache(self, ctx: Context) -> dict:
        """A matrix for each head, and the last inputs of the convolution."""
        shape = (1, self.num_heads, self.state_dim, self.head_dim)
        return {
            "taps": convolution.init_cache(ctx, *self.taps.shape),
            "state": recurrence.empty_state(ctx.batch_size, *shape),
        }


@register("mamba2")
@dataclasses.dataclass(frozen=True)
class Mamba2(RecurrentBlocks):
    """Two state space mixers in each block.

    Attributes:
      state_dim: the width of keys and queries; None for twice that of the heads.
    """

    title = "Mamba-2"
    paper = "Dao and Gu, 2024, arXiv 2405.21060"
    no_short_conv = dict.fromkeys("BCD", "since it has mixers with convolutions only")
    state_dim: int | None = None

    def check(self, cfg: ModelConfig) -> None:
        """Refuses a state without width."""
        super().check(cfg)
        if self.state_dim is not None and self.state_dim < 1:
            raise ConfigError(f"mamba2: state_dim={self.state_dim}: must be at least 1")

    def num_heads(self, cfg: ModelConfig) -> int:
        """As many as the inner width needs."""
        return _num_heads(cfg)

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """The inner width for which two mixers have as many parameters as a vanilla block."""
        dim, state_dim = vanilla.embed_dim, self.state_dim or 2 * vanilla.head_dim
        channel = convolution.SHORT + 1  # its taps and bias
        per_unit = 3 * dim + channel + 1 + (dim + 3) / vanilla.head_dim
        shared = 2 * state_dim * (dim + channel)
        units = (block_params(vanilla) / 2 - shared) / per_unit
        return self.with_width(vanilla, units, 2 * per_unit)

    def layers(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> dict[str, Layer]:
        """Mixer, cross-attention where there is a memory, mixer."""
        first_key, cross_key, second_key = jax.random.split(key, 3)
        layers: dict[str, Layer] = {"first_mixer": self.mixer(cfg, side, depth, first_key)}
        if side.reads_memory:
            layers["cross_attention"] = self.cross_attention(cfg, side, depth, cross_key)
        layers["second_mixer"] = self.mixer(cfg, side, depth, second_key)
        return layers

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> StateSpace:
        """A state space mixer."""
        return StateSpace(cfg, self, key)


def _num_heads(cfg: ModelConfig) -> int:
    return -(-cfg.mlp_dim // cfg.head_dim)
