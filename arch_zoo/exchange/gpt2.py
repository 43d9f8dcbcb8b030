"""The map of GPT-2: GPT2LMHeadModel.

Their kernels are [in, out] like ours, and one kernel holds queries, keys and values side by side.
Their tied logits are not scaled. Where ours are, by D^-1/2, our last norm is theirs times D^1/2.
Where one token starts and ends a text, our table has one row more, of the start, which
nothing reads.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.exchange import Exchange, make
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.table import SAME, Move, Row, row, side_by_side

_ONE_MORE = Move(lambda table: (np.pad(table, ((0, 1), (0, 0))),), lambda table: (table[:-1],))
_NORMS = {"self_attention": "ln_1", "feed_forward": "ln_2"}
_KERNELS = {
    "self_attention.layer.out": "attn.c_proj",
    "feed_forward.layer.wi": "mlp.c_fc",
    "feed_forward.layer.wo": "mlp.c_proj",
}
_PREFIX = "transformer."
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")


class GPT2Map(Exchange):
    """GPT-2."""

    name, theirs, model_type = "gpt2", "GPT2LMHeadModel", "gpt2"
    family = "decoder_only"

    def refusal(self, cfg: ModelConfig) -> str:
        """Their heads together are as wide as the model."""
        joined = cfg.num_heads * cfg.head_dim
        if joined != cfg.embed_dim:
            return f"{self.theirs} has heads as wide as embed_dim={cfg.embed_dim}, not {joined}"
        return super().refusal(cfg)

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """Dimensions."""
        return {
            "vocab_size": cfg.vocab_size - cfg.architecture.one_boundary,
            "n_positions": cfg.max_target_length,
            "n_embd": cfg.embed_dim,
            "n_layer": cfg.num_decoder_layers,
            "n_head": cfg.num_heads,
            "n_inner": cfg.mlp_dim,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": cfg.stream_epsilon,
            "resid_pdrop": cfg.dropout_rate,
            "embd_pdrop": cfg.dropout_rate,
            "attn_pdrop": cfg.dropout_rate,
            # As `_one_boundary` reads it; an export writes the tokens of its own run.
            "bos_token_id": 1 if cfg.architecture.one_boundary else 0,
            "eos_token_id": 1,
        }

    def config(self, settings: ForeignConfig) -> ModelConfig:
        """Dimensions; what GPT-2 leaves open must be as in the zoo."""
        settings.require(
            activation_function=("gelu_new", "gelu_pytorch_tanh"),
            scale_attn_weights=True,
            scale_attn_by_inverse_layer_idx=False,
            tie_word_embeddings=True,
            add_cross_attention=False,
        )
        width, heads = settings.whole("n_embd"), settings.whole("n_head")
        dims = {
            "num_decoder_layers": settings.whole("n_layer"),
            "embed_dim": width,
            "mlp_dim": settings.whole("n_inner", 4 * width),
            "num_heads": heads,
            "head_dim": width // heads,
        }
        one_boundary = _one_boundary(settings)
        other = {
            "vocab_size": settings.whole("vocab_size") + one_boundary,
            "max_target_length": settings.whole("n_positions", 1024),
            "stream_epsilon": float(settings.number("layer_norm_epsilon", 1e-5)),
            "scale_tied_logits": False,
        }
        return make(self.name, self.family, dims, other, one_boundary=one_boundary)

    def rows(self, cfg: ModelConfig, settings: ForeignConfig) -> Iterator[Row]:
        """Tables of tokens and positions, blocks, and the last norm."""
        table = _ONE_MORE if cfg.architecture.one_boundary else SAME
        yield row("embedding.table", f"{_PREFIX}wte.weight", table)
        yield row("decoder.positions.table", f"{_PREFIX}wpe.weight")
        for depth in range(cfg.num_decoder_layers):
            ours, theirs = f"decoder.blocks.{depth}", f"{_PREFIX}h.{depth}"
            for own, their in _NORMS.items():
                yield row(f"{ours}.{own}.norm.scale", f"{theirs}.{their}.weight")
                yield row(f"{ours}.{own}.norm.bias", f"{theirs}.{their}.bias")
            projections = [
                f"{ours}.self_attention.layer.{name}" for name in ("query", "key", "value")
            ]
            beside = side_by_side(*[cfg.embed_dim] * 3)
            biases = tuple(f"{path}_bias" for path in projections)
            yield Row(tuple(projections), (f"{theirs}.attn.c_attn.weight",), beside)
            yield Row(biases, (f"{theirs}.attn.c_attn.bias",), beside)
            for own, their in _KERNELS.items():
                yield row(f"{ours}.{own}", f"{theirs}.{their}.weight")
                yield row(f"{ours}.{own}_bias", f"{theirs}.{their}.bias")
        for own, their in (("scale", "weight"), ("bias", "bias")):
            ln_f = f"{_PREFIX}ln_f.{their}"
            yield row(f"decoder.norm.{own}", ln_f, scale=self.tied_factor(cfg))

    def copies(self, cfg: ModelConfig) -> Mapping[str, str]:
        """Tied logits may be in the file as well."""
        return {"lm_head.weight": f"{_PREFIX}wte.weight"}

    def renamed(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """OpenAI's files have no prefix, and older ones hold the causal masks."""
        found = {}
        for name, tensor in tensors.items():
            bare = name.removeprefix(_PREFIX)
            if not _MASK.fullmatch(bare):
                found[name if name.startswith("lm_head.") else _PREFIX + bare] = tensor
        return found


def _one_boundary(settings: ForeignConfig) -> bool:
    """Whether one token starts and ends a text, as where config.json names neither."""
    return settings.get("bos_token_id", 50256) == settings.get("eos_token_id", 50256)
