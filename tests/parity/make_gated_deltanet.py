"""Goldens of Gated DeltaNet: Hugging Face's Qwen3NextForCausalLM, as a language model.

Recipe, in an environment of its own (never the project's): `pip install torch==2.13.0
transformers==5.23.0`, then, from the root of the checkout,
`python -m tests.parity.make_gated_deltanet`.

All of its layers are linear attention and none has experts. Its norms multiply by 1 + w. Its
projections are ordered by head: query, key, value, gate; and rate, decay.
"""

import dataclasses

import numpy as np
from torch import nn
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

from tests.parity import segments_torch, t5_torch
from tests.parity.segments_torch import DIMENSIONS
from tests.parity.t5_torch import Weight

HEADS, KEY = DIMENSIONS["num_heads"], 3 * DIMENSIONS["head_dim"] // 4


@dataclasses.dataclass(frozen=True)
class OnePlus(Weight):
    """A norm's weight, to which the model adds 1."""

    def value(self) -> np.ndarray:
        """What the zoo multiplies by."""
        return 1 + super().value()


def columns(start: int, stop: int, width: int):
    """Of a matrix whose rows are ordered by head, those rows of each head, transposed."""

    def layout(matrix: np.ndarray) -> np.ndarray:
        by_head = matrix.reshape(HEADS, width, -1)[:, start:stop]
        return by_head.reshape(HEADS * (stop - start), -1).T

    return layout


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
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = Qwen3NextForCausalLM(config).eval()
    # With other seeds a head reads almost nothing somewhere, and its norm magnifies rounding.
    t5_torch.randomise(model, seed=3)
    return model


def mixer(layer: nn.Module) -> dict[str, Weight]:
    """The parameters of linear attention."""
    own, width = layer.linear_attn, 6 * KEY
    joined, narrow = own.in_proj_qkvz.weight, own.in_proj_ba.weight
    return segments_torch.linear(out=own.out_proj) | {
        "query": Weight(joined, columns(0, KEY, width)),
        "key": Weight(joined, columns(KEY, 2 * KEY, width)),
        "value": Weight(joined, columns(2 * KEY, 4 * KEY, width)),
        "gate": Weight(joined, columns(4 * KEY, 6 * KEY, width)),
        "taps": Weight(own.conv1d.weight, lambda weight: weight[:, 0].T),
        "rate": Weight(narrow, columns(0, 1, 2)),
        "decay.kernel": Weight(narrow, columns(1, 2, 2)),
        "decay.bias": Weight(own.dt_bias),
        "decay.log_rate": Weight(own.A_log),
        "norm.scale": Weight(own.norm.weight),
    }


def main() -> None:
    """Writes the goldens."""
    model = build()
    weights = {
        path: OnePlus(weight.tensors)
        if path.endswith("norm.scale") and "layer" not in path
        else weight
        for path, weight in segments_torch.parameters(model, mixer).items()
    }
    options = {"norm_epsilon": 1e-6}
    segments_torch.save("gated_deltanet", t5_torch.VERSIONS, model, weights, options)


if __name__ == "__main__":
    main()
