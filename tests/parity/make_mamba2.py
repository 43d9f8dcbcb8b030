"""Goldens of Mamba-2: Hugging Face's Mamba2ForCausalLM, as a language model.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0`, then, from the root of the checkout, `python -m tests.parity.make_mamba2`.

Its two layers are one block of the zoo. Its projection is ordered gate, value, key, query, step.
"""

import numpy as np
from transformers import Mamba2Config, Mamba2ForCausalLM

from tests.parity import segments_torch, t5_torch
from tests.parity.segments_torch import DIMENSIONS
from tests.parity.t5_torch import Weight

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


def rows(start: int, stop: int):
    """Those rows of a matrix, transposed."""
    return lambda matrix: matrix[start:stop].T


def parameters(model: Mamba2ForCausalLM) -> dict[str, Weight]:
    """Every parameter by the zoo's path."""
    weights = {
        "embedding.table": Weight(model.backbone.embeddings.weight),
        "decoder.norm.scale": Weight(model.backbone.norm_f.weight),
        "head.table": Weight(model.lm_head.weight, np.transpose),
    }
    channels = INNER + 2 * STATE
    for index, layer in enumerate(model.backbone.layers):
        name = "second_mixer" if index % 2 else "first_mixer"
        path, own = f"decoder.blocks.{index // 2}.{name}", layer.mixer
        into = own.in_proj.weight
        weights[f"{path}.norm.scale"] = Weight(layer.norm.weight)
        weights |= {
            f"{path}.layer.{name}": weight
            for name, weight in {
                "gate": Weight(into, rows(0, INNER)),
                "into": Weight(into, rows(INNER, INNER + channels)),
                "taps": Weight(own.conv1d.weight, lambda weight: weight[:, 0].T),
                "taps_bias": Weight(own.conv1d.bias),
                "steps.kernel": Weight(into, rows(INNER + channels, len(into))),
                "steps.bias": Weight(own.dt_bias),
                "steps.log_rate": Weight(own.A_log),
                "skip": Weight(own.D),
                "norm.scale": Weight(own.norm.weight),
                "out": Weight(own.out_proj.weight, np.transpose),
            }.items()
        }
    return weights


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
    segments_torch.save("mamba2", t5_torch.VERSIONS, model, parameters(model), options)


if __name__ == "__main__":
    main()
