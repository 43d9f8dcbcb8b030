"""Compute-optimal sizes on CPU.

At each of three training budgets, small models for long or large ones briefly.

    python -m train study isoflop
    python -m eval fit runs/isoflop --approach 2

There is no downstream stage, because the question is about upstream loss. Warm-up is a fifth of a
cell's own steps.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

ARCHITECTURES = ("transformer", "lconv")
SIZES = ("centi", "milli", "micro", "nano")
BUDGETS = (
    8e11,
    4e11,
    2e11,
)  # FLOPs of training; the middle one is about the CPU study's for `micro`


def study() -> StudyConfig:
    """Declares the cells, those of the largest budget first."""
    plain = declare.override(
        declare.grid(presets.cpu, size=SIZES, architecture=ARCHITECTURES), {"finetune": None}
    )
    runs = declare.isoflop(plain, BUDGETS, declare.PYTHON_VOCABULARY)
    runs = tuple(map(_warmed_up, runs))
    return StudyConfig(
        name="isoflop", cells=runs, corpus="corpora/python", prepare="python", platform="cpu"
    )


def _warmed_up(cell: RunConfig) -> RunConfig:
    optimizer = dataclasses.replace(
        cell.pretrain.optimizer, warmup_steps=max(cell.pretrain.steps // 5, 1)
    )
    return dataclasses.replace(
        cell, pretrain=dataclasses.replace(cell.pretrain, optimizer=optimizer)
    )
