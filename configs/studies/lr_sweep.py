"""The learning rate of each architecture: five rates at two sizes, and at a third for two of them.

    make study STUDY=lr_sweep
    python -m eval tune runs/lr_sweep --out tuning.json

Pretraining alone, with a rate that falls to zero. `declare.tuned` gives the cells of another study
the best rates in the file.
"""

import dataclasses

from configs import presets
from configs.studies import cpu
from train.study import declare
from train.study.config import RunConfig, StudyConfig

SIZES = ("micro", "nano")
LARGER, OF_LARGER = "centi", ("transformer", "lconv")
RATES = (0.03, 0.045, 0.067, 0.1, 0.15)
STEPS = 1000
SEEDS = 3


def _plain(cell: RunConfig) -> RunConfig:
    optimizer = dataclasses.replace(cell.pretrain.optimizer, schedule="linear")
    stage = dataclasses.replace(
        cell.pretrain, steps=STEPS, checkpoint_every=STEPS, log_every=50, optimizer=optimizer
    )
    return dataclasses.replace(cell, pretrain=stage, finetune=None)


def study() -> StudyConfig:
    """Declares the runs, the largest first."""
    cells = declare.grid(presets.cpu, size=(LARGER,), architecture=OF_LARGER)
    cells += declare.grid(presets.cpu, size=SIZES, architecture=cpu.ARCHITECTURES)
    plain = tuple(map(_plain, cells))
    runs = declare.sweep(plain, {"pretrain.optimizer.learning_rate": RATES})
    return StudyConfig(
        name="lr_sweep",
        cells=declare.seeds(runs, SEEDS),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
