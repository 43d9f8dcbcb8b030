"""fairseq's convolutions instead of T5's self-attention, and its sinusoids before T5's stacks.

fairseq itself can no longer be installed, but the files of its modules run without the rest:
`modules` loads them from a checkout (commit 3d262bb25690e4eb2e7d3c1309b1e9c406ca4b99), unchanged,
with a stand-in for the one function that they use.
"""

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.parity import batches, t5_torch
from tests.parity.t5_torch import Weight

VERSIONS = f"fairseq 3d262bb, {t5_torch.VERSIONS}"


def modules(checkout: Path):
    """Fairseq's `lightweight_convolution`, `dynamic_convolution` and sinusoidal positions."""
    for name in ("fairseq", "fairseq.modules"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    utils = types.ModuleType("fairseq.utils")
    utils.softmax = lambda x, dim, onnx_trace=False: torch.softmax(x, dim)  # type: ignore[attr-defined]
    sys.modules["fairseq.utils"] = sys.modules["fairseq"].utils = utils  # type: ignore[attr-defined]
    names = ("lightweight_convolution", "dynamic_convolution", "sinusoidal_positional_embedding")
    return [importlib.import_module(f"fairseq.modules.{name}") for name in names]


class Convolution(t5_torch.PerSegment):
    """The replacement of attention in fairseq's LightConvEncoderLayer and its decoder."""

    def __init__(self, conv: nn.Module, dim: int):
        """Keeps fairseq's convolution between two projections."""
        super().__init__()
        self.linear1, self.conv, self.linear2 = nn.Linear(dim, 2 * dim), conv, nn.Linear(dim, dim)

    def mix(self, x):
        """One sequence [L, D], which is [L, 1, D] to fairseq."""
        return self.linear2(self.conv(nn.functional.glu(self.linear1(x))[:, None])[:, 0])


def replace_attention(model: nn.Module, widths: tuple[int, ...], convolution) -> None:
    """Puts a convolution in the place of every self-attention.

    `convolution(dim, width, padding_l=, ...)` makes it.
    """
    for stack in (model.encoder, model.decoder):
        for depth, block in enumerate(stack.block):
            width = widths[depth % len(widths)]
            conv = convolution(
                model.config.d_model,
                width,
                padding_l=width - 1 if stack.is_decoder else width // 2,
                num_heads=model.config.num_heads,
                weight_softmax=True,
            )
            block.layer[0].SelfAttention = Convolution(conv, model.config.d_model)


class Positioned(nn.Module):
    """An embedding plus fairseq's vector for each position."""

    def __init__(self, embedding: nn.Module, sinusoids: nn.Module):
        """`sinusoids` is fairseq's SinusoidalPositionalEmbedding.

        Its first position comes after that of padding.
        """
        super().__init__()
        self.embedding, self.first = embedding, sinusoids.padding_idx + 1
        self.table, self.positions = sinusoids.weights, torch.zeros(0)

    def forward(self, ids):
        """The signature of an embedding."""
        return self.embedding(ids) + self.table[self.positions + self.first]


def set_positions(model: nn.Module, batch: dict[str, np.ndarray]) -> None:
    """Sets the positions of both stacks, which restart in every packed segment."""
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        segment_ids = batches.segments(batch, side)
        default = np.broadcast_to(np.arange(segment_ids.shape[1]), segment_ids.shape)
        stack.embed_tokens.positions = torch.tensor(
            np.array(batch.get(f"{side}_positions", default))
        )


def projections(layer: Convolution, path: str) -> dict[str, Weight]:
    """linear1, which is the zoo's `linear` and `gate`, and linear2."""
    weights = t5_torch.linear(layer.linear2, f"{path}.out")
    for name, half in (("linear", 0), ("gate", 1)):
        weights[f"{path}.{name}.kernel"] = Weight(
            layer.linear1.weight, lambda a, half=half: np.split(a, 2)[half].T
        )
        weights[f"{path}.{name}.bias"] = Weight(
            layer.linear1.bias, lambda a, half=half: np.split(a, 2)[half]
        )
    return weights
