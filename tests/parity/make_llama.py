"""Goldens of Llama: Hugging Face's LlamaForCausalLM, as a language model.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.parity.make_llama`.

With as many heads of keys as of queries, with fewer, and with one; with a table of its own for the
logits, and with the embedding's. The encoder-decoder has no counterpart there.
"""

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.parity import batches, t5_torch

# Rotary positions need an even width of a head, and groups an even number of heads.
DIMENSIONS = {**t5_torch.DECODER_ONLY, "embed_dim": 16, "num_heads": 4}


def build(kv_heads: int, tied: bool) -> LlamaForCausalLM:
    """The model, with eager attention and the norms' epsilon of the zoo."""
    config = LlamaConfig(
        vocab_size=DIMENSIONS["vocab_size"],
        hidden_size=DIMENSIONS["embed_dim"],
        intermediate_size=DIMENSIONS["mlp_dim"],
        num_hidden_layers=DIMENSIONS["num_decoder_layers"],
        num_attention_heads=DIMENSIONS["num_heads"],
        num_key_value_heads=kv_heads,
        head_dim=DIMENSIONS["head_dim"],
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
        attn_implementation="eager",
        use_cache=False,
    )
    return LlamaForCausalLM(config).eval()


def logits(model: LlamaForCausalLM, batch: dict[str, np.ndarray]) -> torch.Tensor:
    """Logits [B, T, V]; positions restart in every packed example.

    Where they are tied, the map has the zoo's scale of logits in the last norm.
    """
    positions = batch.get("decoder_positions")
    return model(
        input_ids=torch.tensor(batch["decoder_input_tokens"]),
        attention_mask=t5_torch.causal_mask(batch),
        position_ids=None if positions is None else torch.tensor(positions),
    ).logits


def main() -> None:
    """Writes the goldens."""
    vocab_size = DIMENSIONS["vocab_size"]
    padded = batches.decoder_only(batches.padded((1, 1), (70, 37), vocab_size))
    packed = batches.decoder_only(
        batches.packed([[(1, 17), (1, 12), (1, 1)], [(1, 11), (1, 9)]], vocab_size, spare=3)
    )
    for case, kv_heads, tied, batch in (
        ("padded", None, False, padded),
        ("grouped-packed", 2, False, packed),
        ("one-kv-head-tied", 1, True, padded),
    ):
        model = build(kv_heads or DIMENSIONS["num_heads"], tied)
        t5_torch.randomise(model)
        options = {"num_kv_heads": kv_heads, "tied": tied}
        config = {"name": "llama", "size": "nano", **options, **DIMENSIONS}
        weights = t5_torch.mapped(model, config)
        t5_torch.check_complete(model, weights)
        own = sum(parameter.numel() for parameter in model.parameters())
        assert own == sum(weight.value().size for weight in weights.values()), own
        t5_torch.golden(t5_torch.VERSIONS, config, batch, weights, logits(model, batch)).save(
            f"llama-lm-{case}"
        )


if __name__ == "__main__":
    main()
