"""Loss against parameters and tokens of decoder-only models, as in Kaplan et al. (2020).

    make study STUDY=kaplan

A grid of model sizes and of tokens, one run for each pair, with a warm-up and a decay to zero of
its own: the loss of a run that is stopped early is not that of a shorter run. The paper's exponents
(arXiv 2001.08361) are those of the loss in non-embedding parameters N, tokens D and compute
C = 6ND.

This is the study's first form, on the embedded corpus of 3.1M tokens, of which the longest runs
read every token about twice. Small models learn little before a thousand steps, so the shortest
runs are longer than that.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import StudyConfig

SIZES = ("centi", "milli", "micro", "nano")
STEPS = (3200, 2400, 1800, 1350)


def runs() -> declare.RunConfigs:
    """One run for each size and number of steps, the longest first."""
    cells = declare.grid(presets.cpu_text, size=SIZES, architecture=("transformer",))
    return tuple(
        dataclasses.replace(cell, protocol=f"steps{steps}")
        for steps in STEPS
        for cell in declare.override(cells, {"pretrain.steps": steps})
    )


def study() -> StudyConfig:
    """Declares the grid."""
    return StudyConfig(
        name="kaplan", cells=runs(), corpus="corpora/python", prepare="python", platform="cpu"
    )
