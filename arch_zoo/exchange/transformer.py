"""The map of the vanilla Transformer: T5.1.0, which is T5ForConditionalGeneration with ReLU."""

from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.t5 import T5Map, own_head


class TransformerMap(T5Map):
    """T5.1.0."""

    name, theirs, model_type = "transformer", "T5ForConditionalGeneration", "t5"

    def accepts(self, settings: ForeignConfig) -> bool:
        """ReLU, and tied logits."""
        plain = settings.get("feed_forward_proj", "relu") == "relu"
        return super().accepts(settings) and plain and not own_head(settings)

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Those of T5."""
        return {**super().settings(cfg), "feed_forward_proj": "relu"}
