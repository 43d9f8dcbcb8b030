"""Goldens of sliding windows: Hugging Face's MistralForCausalLM, as a language model.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.parity.make_sliding_window`.

A window that is shorter than half of a row, which the zoo computes in blocks, and a longer one.
"""

from transformers import MistralConfig, MistralForCausalLM

from tests.parity import segments_torch, t5_torch
from tests.parity.segments_torch import DIMENSIONS, PACKED, PADDED


def main() -> None:
    """Writes the goldens."""
    for case, window, batch in (("padded", 9, PADDED), ("packed", 45, PACKED)):
        config = MistralConfig(
            vocab_size=DIMENSIONS["vocab_size"],
            hidden_size=DIMENSIONS["embed_dim"],
            intermediate_size=DIMENSIONS["mlp_dim"],
            num_hidden_layers=DIMENSIONS["num_decoder_layers"],
            num_attention_heads=DIMENSIONS["num_heads"],
            num_key_value_heads=1,
            head_dim=DIMENSIONS["head_dim"],
            rms_norm_eps=1e-6,
            sliding_window=window,
            attn_implementation="eager",
            use_cache=False,
        )
        model = MistralForCausalLM(config).eval()
        t5_torch.randomise(model)
        options = {"windows": (window,), "num_kv_heads": 1}
        config = {"name": "sliding_window", "size": "nano", **DIMENSIONS, **options}
        weights = t5_torch.mapped(model, config)
        segments_torch.save(
            "sliding_window", t5_torch.VERSIONS, model, weights, options, {case: batch}
        )


if __name__ == "__main__":
    main()
