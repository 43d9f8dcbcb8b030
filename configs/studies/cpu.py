"""The default study: the paper's twelve architectures at four sizes on the embedded corpus.

    python -m train study cpu

It takes up to half an hour on two cores. Every architecture has its own learning rates, from the
study `lr_sweep` (`configs.presets.CPU_RATES`). The sizes are a ladder of widths, with two blocks in
each stack. Their forward FLOPs span a factor of ten. Four sizes are the least for an interval of a
slope.
"""

from configs import presets
from train.study.config import StudyConfig

ARCHITECTURES = (
    "transformer",
    "albert",
    "dconv",
    "evolved",
    "funnel",
    "glu",
    "lconv",
    "mixer",
    "mos",
    "performer",
    "switch",
    "universal",
)
SIZES = (
    "centi",
    "milli",
    "micro",
    "nano",
)  # the largest first, so that no worker starts a long one at the end


def study() -> StudyConfig:
    """Declares the cells."""
    runs = tuple(
        presets.cpu(architecture, size) for size in SIZES for architecture in ARCHITECTURES
    )
    return StudyConfig(
        name="cpu",
        cells=runs,
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
        tuning=presets.CPU_RATES,
    )
