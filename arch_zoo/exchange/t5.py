"""The map of T5 in Hugging Face's transformers, which those of `glu` and `switch` build on.

Their projections are [out, in]. The table of the relative bias [buckets, heads] is in the first
block alone. Logits may be scaled by D^-1/2; config.json says so, in newer files as
`scale_decoder_outputs`. A file may hold copies of the table of embeddings.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.exchange import Exchange, make
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.table import TRANSPOSED, Row, row
from arch_zoo.side import Side

_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}


class T5Map(Exchange):
    """What T5 and its descendants share."""

    family = "encoder_decoder"
    kernels = ("wi", "wo")
    dense = "DenseReluDense"

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Dimensions, and how logits are made."""
        return {
            "vocab_size": cfg.vocab_size,
            "d_model": cfg.embed_dim,
            "d_kv": cfg.head_dim,
            "d_ff": cfg.mlp_dim,
            "num_heads": cfg.num_heads,
            "num_layers": cfg.num_encoder_layers,
            "num_decoder_layers": cfg.num_decoder_layers,
            "layer_norm_epsilon": cfg.stream_epsilon,
            "dropout_rate": cfg.dropout_rate,
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
            "is_encoder_decoder": True,
            "tie_word_embeddings": True,
            "scale_decoder_outputs": cfg.architecture.tied_logits and cfg.scale_tied_logits,
            "decoder_start_token_id": 0,
        }

    def config(self, settings: ForeignConfig) -> ModelConfig:
        """Dimensions; what T5 leaves open must be as in the zoo."""
        settings.require(
            relative_attention_num_buckets=32,
            relative_attention_max_distance=128,
            is_encoder_decoder=True,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
        layers = settings.whole("num_layers")
        dims = {
            "num_encoder_layers": layers,
            "num_decoder_layers": settings.whole("num_decoder_layers", layers),
            "embed_dim": settings.whole("d_model"),
            "mlp_dim": settings.whole("d_ff"),
            "num_heads": settings.whole("num_heads"),
            "head_dim": settings.whole("d_kv"),
        }
        other = {
            "vocab_size": settings.whole("vocab_size"),
            "stream_epsilon": float(settings.number("layer_norm_epsilon", 1e-6)),
            "scale_tied_logits": _scaled(settings) or own_head(settings),
        }
        return make(self.name, self.family, dims, other, **self.options(settings))

    def options(self, settings: ForeignConfig) -> dict[str, Any]:
        """The architecture's own options."""
        return {}

    def rows(self, cfg: ModelConfig, settings: ForeignConfig) -> Iterator[Row]:
        """Embeddings, the blocks of both stacks, and a head if it is not tied."""
        yield row("embedding.table", "shared.weight")
        for side in cfg.sides:
            yield from self._stack(cfg, side)
        if own_head(settings):
            # Our own tables are never scaled.
            scale = cfg.embed_dim**-0.5 if _scaled(settings) else 1.0
            yield row("head.table", "lm_head.weight", TRANSPOSED, scale=scale)

    def copies(self, cfg: ModelConfig) -> Mapping[str, str]:
        """The table of embeddings, under the names of the modules that use it."""
        names = ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
        return {f"{name}.weight": "shared.weight" for name in names}

    def feed_forward(self, cfg: ModelConfig, depth: int, ours: str, theirs: str) -> Iterator[Row]:
        """The matrices of a feed-forward layer."""
        for kernel in self.kernels:
            yield row(f"{ours}.{kernel}", f"{theirs}.{kernel}.weight", TRANSPOSED)

    def _stack(self, cfg: ModelConfig, side: Side) -> Iterator[Row]:
        yield row(
            f"{side.name}.positions.table",
            f"{side.name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        )
        for depth in range(cfg.num_layers(side)):
            ours, theirs = f"{side.name}.blocks.{depth}", f"{side.name}.block.{depth}.layer"
            mixers = {"self_attention": "SelfAttention"}
            if side.reads_memory:
                mixers["cross_attention"] = "EncDecAttention"
            for place, (name, module) in enumerate(mixers.items()):
                yield row(f"{ours}.{name}.norm.scale", f"{theirs}.{place}.layer_norm.weight")
                for own, letter in _PROJECTIONS.items():
                    their = f"{theirs}.{place}.{module}.{letter}.weight"
                    yield row(f"{ours}.{name}.layer.{own}", their, TRANSPOSED)
            last = f"{theirs}.{len(mixers)}"
            yield row(f"{ours}.feed_forward.norm.scale", f"{last}.layer_norm.weight")
            yield from self.feed_forward(
                cfg, depth, f"{ours}.feed_forward.layer", f"{last}.{self.dense}"
            )
        yield row(f"{side.name}.norm.scale", f"{side.name}.final_layer_norm.weight")


def _scaled(settings: ForeignConfig) -> bool:
    """Whether logits are multiplied by D^-1/2."""
    tied = settings.get("tie_word_embeddings", True) is not False
    return settings.get("scale_decoder_outputs", tied)


def own_head(settings: ForeignConfig) -> bool:
    """Whether the logits have a table of their own."""
    return "lm_head.weight" in settings.tensors
