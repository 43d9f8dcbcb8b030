"""Switch Transformer (Fedus et al., 2022, arXiv 2101.03961).

Each token goes to one of E feed-forward experts. Overrides `feed_forward` at every second depth: a
router picks the expert with the largest probability, and the expert's output is multiplied by that
probability. A loss keeps the experts evenly loaded.

In training an expert takes at most C tokens of a group of about `group_size`. Tokens beyond that
skip the layer through the residual connection. Groups consist of whole rows, so that neither
dropping nor the loss depends on the number of devices, as long as each device has whole groups.
Tokens queue by position first and row second: a token may be dropped because of earlier positions,
in its row or another, but never because of later ones. Padding is not routed and takes no capacity.

Deviations. Evaluation and decoding drop nothing, since otherwise a token decoded alone would differ
from the same token in its sequence. (`eval_capacity_factor=2.0` is Mesh TensorFlow's evaluation.) E
is 16, where the paper has 128; the number in the original study is not published. The variant
`narang` is that of the sibling study on the same code base (Narang et al., 2021, arXiv 2102.11972):
32 experts in every fourth layer with a capacity factor of 1.2. At base it has 1,100.7M parameters,
and that study reports 1100M; the default has 1,072.4M. Initial weights are not scaled down by ten.
Fractions and probabilities are taken over real tokens; Mesh TensorFlow counts padding in the
fractions. Dropout of hidden units is drawn for each token, not once for a sequence.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import experts, parameters
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.feed_forward import FeedForward
from arch_zoo.layers.layer import Layer
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side


class SwitchFeedForward(Layer):
    """A router and E feed-forward layers, of which each token uses one."""

    def __init__(self, cfg: ModelConfig, options: "Switch", key: jax.Array):
        """Draws the router [D, E] and the experts [E, D, F] and [E, F, D]."""
        router_key, wi_key, wo_key = jax.random.split(key, 3)
        self.options = options
        E, D, F = options.num_experts, cfg.embed_dim, cfg.mlp_dim
        self.router = parameters.fan_in(router_key, (D, E), ("embed", "router"))
        self.wi = parameters.fan_in(wi_key, (E, D, F), ("expert", "embed", "mlp"), batch_axis=(0,))
        self.wo = parameters.fan_in(wo_key, (E, F, D), ("expert", "mlp", "embed"), batch_axis=(0,))

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Sends every token through its expert; the cache stays as it is."""
        options = self.options
        probs_BLE = self.probabilities(x_BLD, ctx)
        expert_BL, gate_BL = jnp.argmax(probs_BLE, axis=-1), jnp.max(probs_BLE, axis=-1)
        rows = experts.rows_per_group(x_BLD.shape[0], x_BLD.shape[1], options.group_size)
        factor = options.train_capacity_factor if ctx.train else options.eval_capacity_factor
        queue = experts.Queue(options.num_experts, rows, factor if cache is None else None)
        y_BLD, kept_BL = experts.feed_forward(
            x_BLD, expert_BL, (self.wi[...],), self.wo[...], ctx.fold(1), queue
        )
        y_BLD = y_BLD * gate_BL[..., None].astype(x_BLD.dtype)
        loss, metrics = experts.balance(probs_BLE, expert_BL, kept_BL, ctx, rows)
        return y_BLD, cache, Aux({"load_balance": options.balance_weight * loss}, metrics)

    def probabilities(self, x_BLD: jax.Array, ctx: Context) -> jax.Array:
        """The router's distribution over experts [B, L, E] in float32.

        Its input is jittered in training.
        """
        x_BLD = x_BLD.astype(jnp.float32)
        if ctx.train and self.options.jitter:
            width = self.options.jitter
            x_BLD *= jax.random.uniform(
                ctx.fold(0).key, x_BLD.shape, minval=1 - width, maxval=1 + width
            )
        return jax.nn.softmax(parameters.project(x_BLD, self.router), axis=-1)


@register("switch")
@dataclasses.dataclass(frozen=True)
class Switch(Architecture):
    """Sparse feed-forward layers.

    Attributes:
      num_experts: E.
      every: of so many depths, the last one has a sparse layer.
      train_capacity_factor: an expert's capacity in training, divided by its share of the tokens
        under an even load.
      eval_capacity_factor: the same in evaluation; with None nothing is dropped. Decoding never
        drops.
      group_size: tokens that compete for capacity, rounded down to whole rows, at least one.
      jitter: in training, the router's input is multiplied by a number between 1 - jitter and 1 +
        jitter.
      balance_weight: weight of the load-balancing loss of each sparse layer.
    """

    title = "Switch Transformer"
    paper = "Fedus et al., 2022, arXiv 2101.03961"
    variants: ClassVar = {"narang": {"num_experts": 32, "every": 4, "train_capacity_factor": 1.2}}
    no_short_conv: ClassVar = {"D": "since an expert's tokens are not neighbours"}
    num_experts: int = 16
    every: int = 2
    train_capacity_factor: float = 1.25
    eval_capacity_factor: float | None = None
    group_size: int = 1024
    jitter: float = 0.01
    balance_weight: float = 0.01

    def check(self, cfg: ModelConfig) -> None:
        """Refuses counts below one, factors without capacity, stacks without a sparse layer."""
        for name in ("num_experts", "every", "group_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"switch: {name}={getattr(self, name)}: must be at least 1")
        factors = (
            self.train_capacity_factor,
            1.0 if self.eval_capacity_factor is None else self.eval_capacity_factor,
        )
        if not all(isinstance(factor, (int, float)) and factor > 0 for factor in factors):
            raise ConfigError(f"switch: capacity factors {factors}: must be above 0")
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"switch: jitter={self.jitter}: must be at least 0 and below 1")
        if self.balance_weight < 0:
            raise ConfigError(f"switch: balance_weight={self.balance_weight}: must not be negative")
        if self.every > max(map(cfg.num_layers, cfg.sides)):
            raise ConfigError(f"switch: every={self.every}: no layer would be sparse")

    def stochastic(self, cfg: ModelConfig) -> bool:
        """Training is random with dropout or jitter."""
        return cfg.dropout_rate > 0 or self.jitter > 0

    def feed_forward(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """A sparse layer at the last of `every` depths, dense layers at the others."""
        sparse = depth % self.every == self.every - 1
        return SwitchFeedForward(cfg, self, key) if sparse else FeedForward(cfg, key)
