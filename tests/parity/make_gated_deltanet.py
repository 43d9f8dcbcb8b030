"""Goldens of Gated DeltaNet: Hugging Face's Qwen3NextForCausalLM, as a language model.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.parity.make_gated_deltanet`.

All of its layers are linear attention and none has experts.
"""

from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

from tests.parity import segments_torch, t5_torch
from tests.parity.segments_torch import DIMENSIONS

# A head may read almost nothing; a smaller epsilon would magnify its rounding, which depends on the
# processor.
EPSILON = 1e-3
HEADS, KEY = DIMENSIONS["num_heads"], 3 * DIMENSIONS["head_dim"] // 4


def build() -> Qwen3NextForCausalLM:
    """The model, with random weights."""
    layers = DIMENSIONS["num_decoder_layers"]
    config = Qwen3NextConfig(
        vocab_size=DIMENSIONS["vocab_size"],
        hidden_size=DIMENSIONS["embed_dim"],
        intermediate_size=DIMENSIONS["mlp_dim"],
        num_hidden_layers=layers,
        layer_types=["linear_attention"] * layers,
        mlp_only_layers=list(range(layers)),
        linear_num_key_heads=HEADS,
        linear_num_value_heads=HEADS,
        linear_key_head_dim=KEY,
        linear_value_head_dim=2 * KEY,
        linear_conv_kernel_dim=4,
        rms_norm_eps=EPSILON,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = Qwen3NextForCausalLM(config).eval()
    t5_torch.randomise(model, seed=3)
    return model


def main() -> None:
    """Writes the goldens."""
    model = build()
    options = {"norm_epsilon": EPSILON, "stream_epsilon": EPSILON}
    config = {"name": "gated_deltanet", "size": "nano", **DIMENSIONS, **options}
    weights = t5_torch.mapped(model, config)
    segments_torch.save("gated_deltanet", t5_torch.VERSIONS, model, weights, options)


if __name__ == "__main__":
    main()
