"""The map of gated feed-forward layers: T5.1.1, a T5ForConditionalGeneration with a gate.

T5.1.1's logits have a table of their own (`tied=False`). What transformers calls `gated-gelu` is
the tanh approximation, as in the zoo.
"""

from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.t5 import T5Map, own_head

ACTIVATIONS = {"glu": "sigmoid", "geglu": "gelu", "swiglu": "silu", "reglu": "relu"}
"""Their name of the gate's activation, for each variant of ours."""

_VARIANTS = {f"gated-{theirs}": ours for ours, theirs in ACTIVATIONS.items()}
_VARIANTS |= {"gated-gelu_new": "geglu", "gated-swish": "swiglu"}


class GLUMap(T5Map):
    """T5.1.1."""

    name, theirs, model_type = "glu", "T5ForConditionalGeneration", "t5"
    kernels = ("wi_0", "wi_1", "wo")

    def accepts(self, settings: ForeignConfig) -> bool:
        """A gate that the zoo has."""
        return super().accepts(settings) and settings.get("feed_forward_proj") in _VARIANTS

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """The gate, and whether logits are tied."""
        variant = _VARIANTS[settings.get("feed_forward_proj")]
        return {"variant": variant, "tied": not own_head(settings)}

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Those of T5, and the gate."""
        return {
            **super().settings(cfg),
            "feed_forward_proj": f"gated-{ACTIVATIONS[cfg.architecture.variant]}",
            "tie_word_embeddings": cfg.architecture.tied,
        }
