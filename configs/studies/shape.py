"""Models of equal size and of very different shapes.

    make study STUDY=shape

At two numbers of parameters outside the tables: 1 to 16 layers (the width makes up for it), 1 to 16
heads, and feed-forward layers of 1 to 16 times the width. Kaplan et al. (2020) find that the shape
matters little over a wide range.
"""

import dataclasses
import math

from arch_zoo import sizes
from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

BASES = ("centi", "micro")
LAYERS = HEADS = RATIOS = (1, 2, 4, 8, 16)
STEPS = 1350
SEEDS = 2
HEAD = 8  # dimension of a head, where the number of heads follows from the width


def _shape(cell: RunConfig, protocol: str, layers: int, width: int, heads: int) -> RunConfig:
    """One shape; F makes its layers as large as those of the base: 4 D^2 + 2 D F in each."""
    base = sizes.dimensions(cell.size)
    total = 12 * base.num_decoder_layers * base.embed_dim**2
    hidden = round((total / layers - 4 * width**2) / (2 * width))
    size = cell.size
    for operator, value in {
        "NL": layers,
        "DM": width,
        "FF": hidden,
        "NH": heads,
        "KV": width // heads,
    }.items():
        size = declare.scale(size, operator, value)
    return dataclasses.replace(cell, size=size, protocol=protocol)


def _shapes(cell: RunConfig) -> list[RunConfig]:
    """All shapes of one size, each once: F is about 4 D, except where its ratio to D differs."""
    base = sizes.dimensions(cell.size)
    layers, width = base.num_decoder_layers, base.embed_dim
    found = []
    for depth in LAYERS:
        dim = HEAD * round(width * math.sqrt(layers / depth) / HEAD)
        found.append(_shape(cell, f"depth{depth}", depth, dim, dim // HEAD))
    for heads in HEADS:
        found.append(_shape(cell, f"heads{heads}", layers, width, heads))
    for ratio in RATIOS:
        dim = HEAD * round(width * math.sqrt(12 / (4 + 2 * ratio)) / HEAD)
        found.append(_shape(cell, f"ratio{ratio}", layers, dim, dim // HEAD))
    return list({shaped.size: shaped for shaped in reversed(found)}.values())


def study() -> StudyConfig:
    """Declares the shapes of both sizes."""
    cells = declare.override(
        declare.grid(presets.cpu_text, size=BASES, architecture=("transformer",)),
        {"pretrain.steps": STEPS},
    )
    runs = tuple(shaped for cell in cells for shaped in _shapes(cell))
    return StudyConfig(
        name="shape",
        cells=declare.seeds(runs, SEEDS),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
