"""Loss against parameters and tokens of decoder-only models, as in Kaplan et al. (2020).

    make study STUDY=kaplan

A grid of model sizes and of tokens, one run for each pair. The rate is constant until the last
fifth of a run, where it falls to zero. So a run ends with the loss of its own length, and its curve
before the decay is the same for all lengths. The paper's exponents (arXiv 2001.08361) are those of
the loss in non-embedding parameters N, tokens D and compute C = 6ND.

This is the study's first form, on the embedded corpus of 3.1M tokens, of which the longest runs
read every token about twice. Small models learn little before a thousand steps, so the shortest
runs are longer than that.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

SIZES = ("centi", "milli", "micro", "nano")
STEPS = (3200, 2400, 1800, 1350)
DECAY = 5  # one step of so many is in the decay
EVALUATIONS = 20


def runs() -> declare.RunConfigs:
    """One run for each size and number of steps, the longest first."""
    cells = declare.grid(presets.cpu_text, size=SIZES, architecture=("transformer",))
    return tuple(_of_length(cell, steps) for steps in STEPS for cell in cells)


def _of_length(cell: RunConfig, steps: int) -> RunConfig:
    plain = cell.pretrain
    optimizer = dataclasses.replace(
        plain.optimizer, schedule="constant", decay_steps=steps // DECAY
    )
    every = steps // EVALUATIONS
    stage = dataclasses.replace(plain, steps=steps, eval_every=every, optimizer=optimizer)
    return dataclasses.replace(cell, pretrain=stage, protocol=f"steps{steps}")


def study() -> StudyConfig:
    """Declares the grid."""
    return StudyConfig(
        name="kaplan", cells=runs(), corpus="corpora/python", prepare="python", platform="cpu"
    )
