"""What the maps of Llama's descendants share: embeddings, norms, gated layers and a head.

Their projections are [out, in]. Their tied logits are not scaled. Where ours are, by D^-1/2, our
last norm is theirs times D^1/2.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.exchange import Exchange, make
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.table import TRANSPOSED, Row, row

ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
GATED = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}


class LlamaLikeMap(Exchange):
    """Blocks of attention, or what replaces it, and a feed-forward layer."""

    family = "decoder_only"

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Dimensions."""
        return {
            "vocab_size": cfg.vocab_size,
            "hidden_size": cfg.embed_dim,
            "intermediate_size": cfg.mlp_dim,
            "num_hidden_layers": cfg.num_decoder_layers,
            "num_attention_heads": cfg.num_heads,
            "num_key_value_heads": cfg.num_heads,
            "head_dim": cfg.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": cfg.stream_epsilon,
            "max_position_embeddings": cfg.max_target_length,
            "tie_word_embeddings": cfg.architecture.tied,
            "attention_bias": False,
        }

    def config(self, settings: ForeignConfig) -> ModelConfig:
        """Dimensions; what Llama leaves open must be as in the zoo."""
        settings.require(hidden_act="silu", attention_bias=False, mlp_bias=False)
        heads, width = settings.whole("num_attention_heads"), settings.whole("hidden_size")
        dims = {
            "num_decoder_layers": settings.whole("num_hidden_layers"),
            "embed_dim": width,
            "mlp_dim": self.hidden_units(settings),
            "num_heads": heads,
            "head_dim": settings.whole("head_dim", width // heads),
        }
        other = {
            "vocab_size": settings.whole("vocab_size"),
            "max_target_length": settings.whole("max_position_embeddings", 2048),
            "stream_epsilon": float(settings.number("rms_norm_eps", 1e-6)),
            "scale_tied_logits": not (tied := settings.get("tie_word_embeddings", False)),
        }
        return make(self.name, self.family, dims, other, tied=tied, **self.options(settings))

    def hidden_units(self, settings: ForeignConfig) -> int:
        """The width of a feed-forward layer."""
        return settings.whole("intermediate_size")

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """The architecture's own options."""
        return {}

    def rows(self, cfg: ModelConfig, settings: ForeignConfig) -> Iterator[Row]:
        """Embeddings, blocks, the last norm and the head."""
        yield row("embedding.table", "model.embed_tokens.weight")
        for depth in range(cfg.num_decoder_layers):
            ours, theirs = f"decoder.blocks.{depth}", f"model.layers.{depth}"
            for own, their in (
                ("self_attention", "input_layernorm"),
                ("feed_forward", "post_attention_layernorm"),
            ):
                yield row(
                    f"{ours}.{own}.norm.scale",
                    f"{theirs}.{their}.weight",
                    offset=self.norm_offset(cfg),
                )
            yield from self.mixer(cfg, f"{ours}.self_attention.layer", theirs)
            yield from self.feed_forward(cfg, f"{ours}.feed_forward.layer", theirs)
        scale = self.tied_factor(cfg)
        offset = self.norm_offset(cfg) * scale
        yield row("decoder.norm.scale", "model.norm.weight", scale=scale, offset=offset)
        if not cfg.architecture.tied:
            yield row("head.table", "lm_head.weight", TRANSPOSED)

    def copies(self, cfg: ModelConfig) -> Mapping[str, str]:
        """Tied logits may be in the file as well."""
        return {"lm_head.weight": "model.embed_tokens.weight"} if cfg.architecture.tied else {}

    def norm_offset(self, cfg: ModelConfig) -> float:
        """What the scales of our norms are theirs plus."""
        return 0.0

    def mixer(self, cfg: ModelConfig, ours: str, theirs: str) -> Iterator[Row]:
        """The projections of attention."""
        for own, their in ATTENTION.items():
            yield row(f"{ours}.{own}", f"{theirs}.self_attn.{their}.weight", TRANSPOSED)

    def feed_forward(self, cfg: ModelConfig, ours: str, theirs: str) -> Iterator[Row]:
        """The matrices of a gated layer."""
        for own, their in GATED.items():
            yield row(f"{ours}.{own}", f"{theirs}.mlp.{their}.weight", TRANSPOSED)
