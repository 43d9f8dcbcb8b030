"""The map of Mamba-2: Mamba2ForCausalLM with one group of keys and queries.

Two of their layers are one block of ours. Their projection has gate, value, key, query and step
after one another.
"""

from collections.abc import Iterator
from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.exchange import make
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.llama_like import LlamaLikeMap
from arch_zoo.exchange.table import TAPS, TRANSPOSED, Row, joined, row
from arch_zoo.registry import ConfigError

_SAME = {
    "taps_bias": "conv1d.bias",
    "steps.bias": "dt_bias",
    "steps.log_rate": "A_log",
    "skip": "D",
    "norm.scale": "norm.weight",
}


class Mamba2Map(LlamaLikeMap):
    """Two state space mixers in a block."""

    name, theirs, model_type = "mamba2", "Mamba2ForCausalLM", "mamba2"

    def refusal(self, cfg: ModelConfig) -> str:
        """Their heads divide the inner width, and all their norms have one epsilon."""
        if cfg.mlp_dim % cfg.head_dim:
            return f"{self.theirs} has no heads of {cfg.head_dim} for mlp_dim={cfg.mlp_dim}"
        if cfg.mlp_dim % cfg.embed_dim:
            return f"{self.theirs} has no mlp_dim={cfg.mlp_dim} for embed_dim={cfg.embed_dim}"
        if cfg.architecture.norm_epsilon != cfg.stream_epsilon:
            return f"{self.theirs} has one epsilon, not norm_epsilon and stream_epsilon"
        return super().refusal(cfg)

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Dimensions."""
        return {
            "vocab_size": cfg.vocab_size,
            "hidden_size": cfg.embed_dim,
            "num_hidden_layers": 2 * cfg.num_decoder_layers,
            "expand": cfg.mlp_dim // cfg.embed_dim,
            "num_heads": cfg.mlp_dim // cfg.head_dim,
            "head_dim": cfg.head_dim,
            "state_size": _state_dim(cfg),
            "n_groups": 1,
            "conv_kernel": 4,
            "use_bias": False,
            "use_conv_bias": True,
            "hidden_act": "silu",
            "layer_norm_epsilon": cfg.stream_epsilon,
            "tie_word_embeddings": cfg.architecture.tied,
        }

    def config(self, settings: ForeignConfig) -> ModelConfig:
        """Dimensions; what Mamba-2 leaves open must be as in the zoo."""
        settings.require(
            hidden_act="silu", n_groups=1, conv_kernel=4, use_bias=False, use_conv_bias=True
        )
        layers, width = settings.whole("num_hidden_layers"), settings.whole("hidden_size")
        if layers % 2:
            raise ConfigError(f"config.json: num_hidden_layers = {layers}: must be even")
        head_dim, heads = settings.whole("head_dim"), settings.whole("num_heads")
        inner = int(settings.number("expand", 2) * width)
        if inner != head_dim * heads:
            raise ConfigError(
                f"config.json: num_heads = {heads} of head_dim = {head_dim} are not expand * "
                f"hidden_size = {inner}"
            )
        dims = {
            "num_decoder_layers": layers // 2,
            "embed_dim": width,
            "mlp_dim": inner,
            "num_heads": heads,
            "head_dim": head_dim,
        }
        epsilon = float(settings.number("layer_norm_epsilon", 1e-5))
        tied = settings.get("tie_word_embeddings", False)
        other = {
            "vocab_size": settings.whole("vocab_size"),
            "stream_epsilon": epsilon,
            "scale_tied_logits": not tied,
        }
        options = {
            "state_dim": settings.whole("state_size"),
            "norm_epsilon": epsilon,
            "tied": tied,
        }
        return make(self.name, self.family, dims, other, **options)

    def rows(self, cfg: ModelConfig, settings: ForeignConfig) -> Iterator[Row]:
        """Embeddings, pairs of layers, the last norm and the head."""
        yield row("embedding.table", "backbone.embeddings.weight")
        inner, state = cfg.mlp_dim, _state_dim(cfg)
        parts = {"gate": inner, "into": inner + 2 * state, "steps.kernel": inner // cfg.head_dim}
        for layer in range(2 * cfg.num_decoder_layers):
            name = ("first_mixer", "second_mixer")[layer % 2]
            block = f"decoder.blocks.{layer // 2}.{name}"
            ours, theirs = f"{block}.layer", f"backbone.layers.{layer}"
            yield row(f"{block}.norm.scale", f"{theirs}.norm.weight")
            yield Row(
                tuple(f"{ours}.{part}" for part in parts),
                (f"{theirs}.mixer.in_proj.weight",),
                joined(*parts.values()),
            )
            yield row(f"{ours}.taps", f"{theirs}.mixer.conv1d.weight", TAPS)
            yield row(f"{ours}.out", f"{theirs}.mixer.out_proj.weight", TRANSPOSED)
            for own, their in _SAME.items():
                yield row(f"{ours}.{own}", f"{theirs}.mixer.{their}")
        scale = self.tied_factor(cfg)
        yield row("decoder.norm.scale", "backbone.norm_f.weight", scale=scale)
        if not cfg.architecture.tied:
            yield row("head.table", "lm_head.weight", TRANSPOSED)

    def copies(self, cfg: ModelConfig) -> dict[str, str]:
        """Tied logits may be in the file as well."""
        return {"lm_head.weight": "backbone.embeddings.weight"} if cfg.architecture.tied else {}


def _state_dim(cfg: ModelConfig) -> int:
    return cfg.architecture.state_dim or 2 * cfg.head_dim
