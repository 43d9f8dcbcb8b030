"""The map of sliding windows: MistralForCausalLM, with one window in all layers.

A window of theirs is W positions including the one that looks, as ours.
"""

from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.llama import LlamaMap


class SlidingWindowMap(LlamaMap):
    """Mistral."""

    name, theirs, model_type = "sliding_window", "MistralForCausalLM", "mistral"

    def refusal(self, cfg: ModelConfig) -> str:
        """All layers of theirs have the same window."""
        windows = set(cfg.architecture.windows)
        several = f"{self.theirs} has one window, not {sorted(windows)}"
        return super().refusal(cfg) or (several if len(windows) > 1 else "")

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Those of Llama, and the window."""
        return {**super().settings(cfg), "sliding_window": cfg.architecture.windows[0] or None}

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """Those of Llama, and the window; none is full attention."""
        window = 0 if settings.get("sliding_window") is None else settings.whole("sliding_window")
        return {**super().options(settings), "windows": (window,)}
