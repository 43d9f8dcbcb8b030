"""Today's mixers beside the classics, as language models of equal parameters.

    make study STUDY=modern

Each at three sizes and three learning rates; the report compares every model at its own best rate.
A row is 128 tokens, every one of them a target. The window is 32 tokens, so that it does not see
the whole row.
"""

from configs import presets
from train.study import declare
from train.study.config import StudyConfig

ARCHITECTURES = (
    "transformer",
    "llama",
    "moe",
    "sliding_window",
    "retnet",
    "gla",
    "mamba2",
    "gated_deltanet",
    "hybrid",
)
SIZES = ("centi", "micro", "nano")  # the largest first, see `configs.studies.cpu`
RATES = (0.06, 0.12, 0.24)
STEPS = 700


def study() -> StudyConfig:
    """Declares the runs."""
    cells = declare.grid(presets.cpu_text, size=SIZES, architecture=ARCHITECTURES)
    cells = declare.override(cells, {"pretrain.steps": STEPS})
    runs = declare.sweep(cells, {"pretrain.optimizer.learning_rate": RATES})
    return StudyConfig(
        name="modern", cells=runs, corpus="corpora/python", prepare="python", platform="cpu"
    )
