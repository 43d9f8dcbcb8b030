"""The map of Llama: LlamaForCausalLM."""

from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.llama_like import LlamaLikeMap


class LlamaMap(LlamaLikeMap):
    """Rotary positions and groups of queries."""

    name, theirs, model_type = "llama", "LlamaForCausalLM", "llama"

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Dimensions, groups and wavelengths."""
        options = cfg.architecture
        return {
            **super().settings(cfg),
            "num_key_value_heads": options.num_kv_heads or cfg.num_heads,
            "rope_parameters": {"rope_type": "default", "rope_theta": options.theta},
            "rope_theta": options.theta,
            "mlp_bias": False,
        }

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """Groups and wavelengths."""
        heads = settings.whole("num_attention_heads")
        groups = settings.whole("num_key_value_heads", heads)
        return {
            "num_kv_heads": None if groups == heads else groups,
            "theta": settings.rotary_base(),
        }
