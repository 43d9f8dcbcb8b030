"""Goldens of Mamba-2: Hugging Face's Mamba2ForCausalLM, as a language model.

Recipe, in an environment of its own (never the project's): `pip install -e '.[parity]'`, then, from
the root of the checkout, `python -m tests.parity.make_mamba2`.

Its two layers are one block of the zoo.
"""

from transformers import Mamba2Config, Mamba2ForCausalLM

from tests.parity import segments_torch, t5_torch
from tests.parity.segments_torch import DIMENSIONS

EXPAND, HEAD, STATE = 2, 10, 5
INNER = EXPAND * DIMENSIONS["embed_dim"]


def build() -> Mamba2ForCausalLM:
    """The model, with random weights."""
    config = Mamba2Config(
        vocab_size=DIMENSIONS["vocab_size"],
        hidden_size=DIMENSIONS["embed_dim"],
        num_hidden_layers=2,
        expand=EXPAND,
        num_heads=INNER // HEAD,
        head_dim=HEAD,
        state_size=STATE,
        n_groups=1,
        conv_kernel=4,
        chunk_size=16,
        layer_norm_epsilon=1e-6,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = Mamba2ForCausalLM(config).eval()
    t5_torch.randomise(model)
    return model


def main() -> None:
    """Writes the goldens."""
    model = build()
    options = {
        "num_decoder_layers": 1,
        "mlp_dim": INNER,
        "head_dim": HEAD,
        "state_dim": STATE,
        "norm_epsilon": 1e-6,
    }
    config = {"name": "mamba2", "size": "nano", **DIMENSIONS, **options}
    weights = t5_torch.mapped(model, config)
    segments_torch.save("mamba2", t5_torch.VERSIONS, model, weights, options)


if __name__ == "__main__":
    main()
