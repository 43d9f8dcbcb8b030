"""The default study: every architecture at three sizes on the embedded corpus, in minutes on two cores.

python -m train study cpu
"""

from configs import cells
from train.config import StudyConfig

ARCHITECTURES = ("transformer", "glu", "lconv", "universal")
SIZES = ("milli", "micro", "nano")  # the largest first, so that no worker ends with a long one


def study() -> StudyConfig:
    """Declares the cells."""
    runs = tuple(cells.cpu(architecture, size) for size in SIZES for architecture in ARCHITECTURES)
    return StudyConfig(name="cpu", cells=runs, corpus="corpora/python", prepare="python", platform="cpu")
