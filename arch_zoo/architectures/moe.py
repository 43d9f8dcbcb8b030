"""Mixture of experts as in Mixtral (Jiang et al., 2024, arXiv 2401.04088): k of E experts a token.

Overrides `feed_forward` of `llama`: a router gives every token to the k experts with the highest
scores, and their outputs are added with weights. An expert is a SwiGLU layer. Overrides
`dimensions`: the experts of a token have about the parameters of a vanilla feed-forward layer, so
that FLOPs are about equal. `mlp_dim` is the width of one expert. Options: scores are a softmax over
the experts, or a sigmoid for each (DeepSeek-V3, arXiv 2412.19437); the weights of the chosen
experts add up to 1 or are kept (OLMoE, arXiv 2409.02060); shared experts see every token.

A loss keeps the experts evenly loaded, or biases of the choice (DeepSeek-V3, sec. 2.1.2), which the
optimizer moves by the loads alone. In training an expert has a limited capacity, as in `switch`,
which says how tokens queue for it; evaluation and decoding drop nothing.

Deviations. The sources drop nothing in training, as does `train_capacity_factor=None` at a cost.
`deepseek_v3` has no loss by sequence and no groups of experts. Initial weights are the zoo's.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from arch_zoo import size_rules
from arch_zoo.architectures.glu import GatedFeedForward
from arch_zoo.architectures.llama import Llama
from arch_zoo.config import LATER, ModelConfig
from arch_zoo.layers import experts, parameters
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.layer import Layer
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions

SCORES = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}


class MixtureFeedForward(Layer):
    """A router and E gated feed-forward layers, of which each token uses k."""

    def __init__(self, cfg: ModelConfig, options: "MoE", key: jax.Array):
        """Draws the router [D, E], and the experts [E, D, F] twice and [E, F, D]."""
        router_key, gate_key, linear_key, out_key, shared_key = jax.random.split(key, 5)
        self.options = options
        E, D, F = options.num_experts, cfg.embed_dim, cfg.mlp_dim
        self.router = parameters.fan_in(router_key, (D, E), ("embed", "router"))
        self.bias = parameters.constant(0.0, (E,), ("router",)) if options.balance_bias else None
        into, out = ("expert", "embed", "mlp"), ("expert", "mlp", "embed")
        self.wi_0 = parameters.fan_in(gate_key, (E, D, F), into, batch_axis=(0,))
        self.wi_1 = parameters.fan_in(linear_key, (E, D, F), into, batch_axis=(0,))
        self.wo = parameters.fan_in(out_key, (E, F, D), out, batch_axis=(0,))
        for kernel in (self.wi_0, self.wi_1, self.wo):
            kernel.set_metadata(used=options.top_k)
        wide = dataclasses.replace(cfg, mlp_dim=max(1, options.num_shared) * F)
        self.shared = GatedFeedForward(wide, "swiglu", shared_key) if options.num_shared else None

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Sends every token through its experts; the cache stays as it is."""
        options, each = self.options, self.options.top_k
        logits_BLE = parameters.project(x_BLD.astype(jnp.float32), self.router)
        scores_BLE = SCORES[options.scores](logits_BLE)
        weight_BLK, expert_BLK = experts.choose(scores_BLE, self.bias, each)
        if options.normalised:
            weight_BLK /= jnp.sum(weight_BLK, -1, keepdims=True) + 1e-20
        # Every choice of a token is a row of its own, next to those of its other choices.
        expert_NL = jnp.moveaxis(expert_BLK, 2, 1).reshape(-1, x_BLD.shape[1])
        x_NLD = jnp.repeat(x_BLD, each, axis=0)
        rows = experts.rows_per_group(len(x_BLD), x_BLD.shape[1], options.group_size) * each
        factor = options.train_capacity_factor if ctx.train else options.eval_capacity_factor
        queue = experts.Queue(options.num_experts, rows, factor if cache is None else None)
        into, out = (self.wi_0[...], self.wi_1[...]), self.wo[...]
        y_NLD, kept_NL = experts.feed_forward(x_NLD, expert_NL, into, out, ctx.fold(1), queue)
        y_BKLD = y_NLD.reshape(len(x_BLD), each, *x_BLD.shape[1:])
        weight_BKL1 = jnp.moveaxis(weight_BLK, 2, 1)[..., None].astype(x_BLD.dtype)
        y_BLD = jnp.sum(y_BKLD * (options.scale * weight_BKL1), axis=1)
        if self.shared is not None:
            y_BLD += self.shared(x_BLD, ctx)[0]
        loss, metrics = experts.balance(scores_BLE, expert_NL, kept_NL, ctx, rows)
        loss = options.balance_weight * loss + experts.even_out(self.bias, expert_NL, ctx)
        return y_BLD, cache, Aux({"load_balance": loss}, metrics)


@register("moe")
@dataclasses.dataclass(frozen=True)
class MoE(Llama):
    """Several experts for every token, in every layer.

    Attributes:
      num_experts: E.
      top_k: the experts that a token uses.
      num_shared: experts that every token uses besides, as one layer of their joint width.
      scores: `softmax` or `sigmoid`.
      normalised: the weights of a token's experts add up to 1.
      scale: a factor of the weights.
      train_capacity_factor: capacity in training over an even share of the tokens; None: no limit.
      eval_capacity_factor: the same in evaluation. Decoding never drops.
      group_size: tokens that compete for capacity, in whole rows.
      balance_weight: weight of the load-balancing loss of each layer.
      balance_bias: whether a bias is added to the scores by which experts are chosen.
    """

    title = "Mixture of experts"
    paper = "Jiang et al., 2024, arXiv 2401.04088"
    variants: ClassVar = {
        "olmoe": {"num_experts": 64, "top_k": 8, "normalised": False},
        "deepseek_v3": {
            **{"num_experts": 256, "top_k": 8, "num_shared": 1},
            **{"scores": "sigmoid", "scale": 2.5, "balance_weight": 0.0, "balance_bias": True},
        },
    }
    no_short_conv: ClassVar = {"D": "since an expert's tokens are not neighbours"}
    num_experts: int = 8
    top_k: int = 2
    num_shared: int = 0
    scores: str = "softmax"
    normalised: bool = True
    scale: float = 1.0
    train_capacity_factor: float | None = 1.5
    eval_capacity_factor: float | None = None
    group_size: int = 1024
    balance_weight: float = 0.01
    balance_bias: bool = dataclasses.field(default=False, metadata=LATER)

    def check(self, cfg: ModelConfig) -> None:
        """Refuses what makes no mixture, beside what Llama refuses."""
        super().check(cfg)
        above = lambda factor: factor is None or (isinstance(factor, (int, float)) and factor > 0)
        for name, fits, rule in (
            ("top_k", 1 <= self.top_k <= self.num_experts, f"1 to {self.num_experts}, the experts"),
            ("num_shared", self.num_shared >= 0, "at least 0"),
            ("scores", self.scores in SCORES, " or ".join(SCORES)),
            ("scale", self.scale > 0, "above 0"),
            ("train_capacity_factor", above(self.train_capacity_factor), "above 0 or None"),
            ("eval_capacity_factor", above(self.eval_capacity_factor), "above 0 or None"),
            ("group_size", self.group_size >= 1, "at least 1"),
            ("balance_weight", self.balance_weight >= 0, "at least 0"),
        ):
            if not fits:
                raise ConfigError(f"moe: {name}={getattr(self, name)!r}: must be {rule}")

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """The width of an expert: those of a token have the vanilla layer's parameters."""
        units = 2 * vanilla.mlp_dim / (3 * max(1, self.top_k + self.num_shared))
        width = size_rules.round_width(units, size_rules.TOLERANCE * units)
        return dataclasses.replace(vanilla, mlp_dim=max(1, width))

    def feed_forward(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """A mixture at every depth."""
        return MixtureFeedForward(cfg, self, key)
