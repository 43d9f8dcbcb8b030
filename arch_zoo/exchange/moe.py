"""The map of mixtures of experts: MixtralForCausalLM, without a window."""

from collections.abc import Iterator
from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.llama import LlamaMap
from arch_zoo.exchange.table import TRANSPOSED, Row, row, stacked

_EXPERT = {"wi_0": "w1", "wi_1": "w3", "wo": "w2"}
# What Mixtral's mixture is, of the options.
_MIXTRAL = {
    "num_shared": 0,
    "scores": "softmax",
    "normalised": True,
    "scale": 1.0,
    "balance_bias": False,
}


class MoEMap(LlamaMap):
    """Mixtral."""

    name, theirs, model_type = "moe", "MixtralForCausalLM", "mixtral"

    def refusal(self, cfg: ModelConfig) -> str:
        """Other mixtures than Mixtral's."""
        for name, value in _MIXTRAL.items():
            if getattr(cfg.architecture, name) != value:
                return f"{self.theirs} has no {name}={getattr(cfg.architecture, name)!r}"
        return super().refusal(cfg)

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Those of Llama, and the experts."""
        options = cfg.architecture
        return {
            **super().settings(cfg),
            "num_local_experts": options.num_experts,
            "num_experts_per_tok": options.top_k,
            "router_aux_loss_coef": options.balance_weight,
            "sliding_window": None,
        }

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """Those of Llama, and the experts."""
        settings.require(sliding_window=None)
        return {
            **super().options(settings),
            "num_experts": settings.whole("num_local_experts"),
            "top_k": settings.whole("num_experts_per_tok", 2),
            "balance_weight": float(settings.number("router_aux_loss_coef", 0.001)),
        }

    def feed_forward(self, cfg: ModelConfig, ours: str, theirs: str) -> Iterator[Row]:
        """A router and the experts."""
        layer = f"{theirs}.block_sparse_moe"
        yield row(f"{ours}.router", f"{layer}.gate.weight", TRANSPOSED)
        for own, their in _EXPERT.items():
            experts = range(cfg.architecture.num_experts)
            names = tuple(f"{layer}.experts.{expert}.{their}.weight" for expert in experts)
            yield Row((f"{ours}.{own}",), names, stacked())
