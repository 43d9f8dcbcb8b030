"""Depth against width on CPU.

Vanilla, Evolved, MoS and LConv from `micro`, at matched FLOPs (figures 4 and 5).

    make study STUDY=protocols

It takes less than an hour on two cores. Each width is the multiple of 8 at which an architecture's
own FLOPs are closest to those of one step of its ladder of depths; a test computes them again. The
number of layers is even, because an Evolved block is two layers.
"""

from configs import presets
from train.study import declare
from train.study.config import StudyConfig

LAYERS = (12, 8, 6, 4)
WIDTHS = {
    "transformer": (160, 128, 112, 88),
    "evolved": (160, 128, 112, 88),
    "mos": (120, 96, 88, 80),
    "lconv": (152, 128, 112, 88),
}


def study() -> StudyConfig:
    """Declares both ladders, the longest cells first, and the plain `micro`."""
    plain = declare.grid(presets.cpu, architecture=tuple(WIDTHS), size=("micro",))
    runs = []
    for rung, layers in enumerate(LAYERS):
        runs += declare.ladder(plain, "depth", "NL", (layers,))
        for cell in plain:
            runs += declare.ladder((cell,), "width", "W", (WIDTHS[cell.architecture][rung],))
    return StudyConfig(
        name="protocols",
        cells=(*runs, *plain),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
