"""The default study: the whole zoo at four sizes on the embedded corpus, in half an hour on two cores.

    python -m train study cpu

The sizes are a ladder of widths, two blocks in either stack: their forward FLOPs span a factor of
ten, and four of them are what an interval of a slope needs.
"""

import arch_zoo
from configs import cells
from train.study.config import StudyConfig

SIZES = (
    "centi",
    "milli",
    "micro",
    "nano",
)  # the largest first, so that no worker ends with a long one


def study() -> StudyConfig:
    """Declares the cells."""
    runs = tuple(
        cells.cpu(architecture, size) for size in SIZES for architecture in arch_zoo.names()
    )
    return StudyConfig(
        name="cpu", cells=runs, corpus="corpora/python", prepare="python", platform="cpu"
    )
