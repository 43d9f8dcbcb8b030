"""Depth against width at equal FLOPs: vanilla, Evolved, MoS and LConv at `base`.

    python -m train study equal_flops

The depths are those of `configs.studies.depth`. Each width is the multiple of 64 at which an
architecture's own FLOPs are closest to those of its depth on the same step of the ladder, within 10
%; a test computes them again. In `width`, all architectures have the widths that match the vanilla
Transformer. For MoS, whose head costs more than its layers, the widths here are different.
"""

from configs import presets
from configs.studies import depth
from train.study import declare
from train.study.config import StudyConfig

WIDTHS = {
    "transformer": (1280, 1088, 896, 640, 448),
    "evolved": (1280, 1088, 896, 640, 448),
    "mos": (1216, 1024, 896, 640, 576),
    "lconv": (1280, 1088, 896, 640, 448),
}


def study() -> StudyConfig:
    """Declares both ladders and the plain `base`."""
    base = declare.grid(presets.t5, architecture=depth.ARCHITECTURES, size=("base",))
    wide = [
        run
        for cell in base
        for run in declare.ladder((cell,), "width", "W", WIDTHS[cell.architecture])
    ]
    return StudyConfig(name="equal_flops", cells=(*base, *depth.runs(), *wide), corpus="corpora/c4")
