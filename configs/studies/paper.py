"""The whole study of 2207.10551.

Twelve architectures from tiny to XL, and depth against width for four of them.

    python -m train plan paper --device tpu-v3 --devices 32

2^19 steps of 65,536 input tokens on C4, then 100,000 steps on 17 tasks. The paper trained on 16
TPU-v3 chips. From `large` on, layers are recomputed in the backward pass and scanned if the
architecture allows it, and XL is sharded.
"""

import arch_zoo
from configs import presets
from configs.studies import depth, width
from train.study import declare
from train.study.config import StudyConfig

ARCHITECTURES = (
    "transformer",
    "evolved",
    "universal",
    "switch",
    "performer",
    "funnel",
    "albert",
    "mos",
    "glu",
    "lconv",
    "dconv",
    "mixer",
)
SIZES = ("xl", "large", "base", "small", "mini", "tiny")


def study() -> StudyConfig:
    """Declares the cells, the largest first."""
    runs = declare.grid(presets.t5, size=SIZES, architecture=ARCHITECTURES)
    runs = declare.override(runs, {"model.remat": "full"}, size=("large", "xl"))
    scanned = tuple(name for name in ARCHITECTURES if arch_zoo.get(name).scans)
    runs = declare.override(
        runs, {"model.scan_layers": True}, size=("large", "xl"), architecture=scanned
    )
    runs = declare.override(runs, {"parallel": "mesh", "mesh": (-1, 4, 1)}, size="xl")
    runs = declare.override(runs, {"mesh": (-1, 1, 16)}, size="xl", architecture="switch")
    return StudyConfig(
        name="paper", cells=(*runs, *depth.runs(), *width.runs()), corpus="corpora/c4"
    )
