"""Part of the CPU study with five seeds of every cell: how much do equal runs differ?

python -m train study seeds
"""

import dataclasses

from configs.studies import cpu
from train.study import declare
from train.study.config import StudyConfig

ARCHITECTURES = ("transformer", "glu", "lconv", "universal")
COUNT = 5


def study() -> StudyConfig:
    """Declares the cells, seed by seed, so that a study that is cut short has complete seeds."""
    plain = cpu.study()
    cells = tuple(
        cell for cell in plain.cells if declare.matches(cell, architecture=ARCHITECTURES, seed=0)
    )
    return dataclasses.replace(plain, name="seeds", cells=declare.seeds(cells, COUNT))
