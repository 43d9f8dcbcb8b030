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
from train.study.config import OptimizerConfig, StageConfig, StudyConfig

SIZES = ("centi", "milli", "micro", "nano")
STEPS = (3200, 2400, 1800, 1350)
LENGTH = 128  # tokens of a row; every one is a target


def runs() -> declare.RunConfigs:
    """One run for each size and number of steps, the longest first."""
    stage = StageConfig(
        batch_size=16,
        target_length=LENGTH,
        objective="causal_lm",
        optimizer=OptimizerConfig(
            learning_rate=0.03, schedule="linear", warmup_steps=100, min_factored_size=32
        ),
        eval_batches=8,
        eval_batch_size=64,
        log_every=50,
        checkpoint_every=500,
    )
    cells = declare.grid(
        presets.cpu, size=SIZES, architecture=("transformer",), family=("decoder_only",)
    )
    return tuple(
        dataclasses.replace(
            cell,
            pretrain=dataclasses.replace(stage, steps=steps),
            finetune=None,
            protocol=f"steps{steps}",
        )
        for steps in STEPS
        for cell in cells
    )


def study() -> StudyConfig:
    """Declares the grid."""
    return StudyConfig(
        name="kaplan", cells=runs(), corpus="corpora/python", prepare="python", platform="cpu"
    )
