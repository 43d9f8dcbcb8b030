"""fairseq's convolutions in place of T5's self-attention.

fairseq itself does not install any more, but the files of its convolutions run on their own: `modules` loads them from
a checkout (commit 3d262bb25690e4eb2e7d3c1309b1e9c406ca4b99), unmodified, with a stand-in for the one function they use.
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
    """The modules `lightweight_convolution` and `dynamic_convolution` of a fairseq checkout."""
    for name in ("fairseq", "fairseq.modules"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    utils = types.ModuleType("fairseq.utils")
    utils.softmax = lambda x, dim, onnx_trace=False: torch.softmax(x, dim)  # type: ignore[attr-defined]
    sys.modules["fairseq.utils"] = sys.modules["fairseq"].utils = utils  # type: ignore[attr-defined]
    return [importlib.import_module(f"fairseq.modules.{kind}_convolution") for kind in ("lightweight", "dynamic")]


class Convolution(nn.Module):
    """What fairseq's LightConvEncoderLayer and its decoder's counterpart do instead of attending.

    It runs on every segment of every row alone, so that fairseq's code, which knows nothing of packing, says what a
    packed row has to be.
    """

    def __init__(self, conv: nn.Module, dim: int):
        """Keeps fairseq's convolution between two projections."""
        super().__init__()
        self.linear1, self.conv, self.linear2 = nn.Linear(dim, 2 * dim), conv, nn.Linear(dim, dim)
        self.segment_ids = np.zeros((0, 0), np.int32)

    def forward(self, x, **unused):
        """The signature of T5Attention: output, position bias, attention weights."""
        y = torch.zeros_like(x)
        for row, segment_ids in enumerate(self.segment_ids):
            for segment in np.unique(segment_ids[segment_ids > 0]):
                where = torch.tensor(segment_ids == segment)
                hidden = nn.functional.glu(self.linear1(x[row, where]))
                y[row, where] = self.linear2(self.conv(hidden[:, None])[:, 0])
        return y, None, None


def replace_attention(model: nn.Module, widths: tuple[int, ...], convolution) -> None:
    """Puts a convolution in the place of every self-attention; `convolution(dim, width, padding_l=, ...)` makes it."""
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


def set_segments(model: nn.Module, batch: dict[str, np.ndarray]) -> None:
    """Tells every convolution which positions belong together."""
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        for block in stack.block:
            block.layer[0].SelfAttention.segment_ids = batches.segments(batch, side)


def projections(layer: Convolution, path: str) -> dict[str, Weight]:
    """linear1, which is the zoo's `linear` and `gate`, and linear2."""
    weights = t5_torch.linear(layer.linear2, f"{path}.out")
    for name, half in (("linear", 0), ("gate", 1)):
        weights[f"{path}.{name}.kernel"] = Weight(layer.linear1.weight, lambda a, half=half: np.split(a, 2)[half].T)
        weights[f"{path}.{name}.bias"] = Weight(layer.linear1.bias, lambda a, half=half: np.split(a, 2)[half])
    return weights
