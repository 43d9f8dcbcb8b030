"""Loss against parameters and tokens of decoder-only models, as in Kaplan et al. (2020).

    make study STUDY=kaplan

A grid of model sizes and of tokens, one run for each pair. The rate is constant until the last
fifth of a run, where it falls to zero. So a run ends with the loss of its own length, and the
shorter ones leave the longest one where their rate starts to fall. The paper's exponents (arXiv
2001.08361) are those of the loss in non-embedding parameters N, tokens D and compute C = 6ND.

This is the study's first form, on the embedded corpus of 3.1M tokens, of which the longest runs
read every token about twice. Small models learn little before a thousand steps, so the shortest
runs are longer than that.
"""

from configs import presets
from train.study import declare
from train.study.config import StudyConfig

SIZES = ("centi", "milli", "micro", "nano")
STEPS = (3200, 2400, 1800, 1350)
DECAY = 0.2  # of the steps
EVAL_EVERY = 90


def runs() -> declare.RunConfigs:
    """One run for each size and number of steps, the longest first."""
    cells = declare.grid(presets.cpu_text, size=SIZES, architecture=("transformer",))
    cells = declare.override(cells, {"pretrain.eval_every": EVAL_EVERY})
    return declare.branches(cells, [round(steps * (1 - DECAY)) for steps in STEPS], DECAY)


def study() -> StudyConfig:
    """Declares the grid."""
    return StudyConfig(
        name="kaplan", cells=runs(), corpus="corpora/python", prepare="python", platform="cpu"
    )
