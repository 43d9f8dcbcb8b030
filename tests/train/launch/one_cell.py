"""One of the two cells of `tiny_study`, under its name."""

import dataclasses

from tests.train import tiny_study
from train.study.config import StudyConfig


def study() -> StudyConfig:
    """Declares it."""
    both = tiny_study.study()
    return dataclasses.replace(
        both, cells=tuple(cell for cell in both.cells if cell.architecture == "glu")
    )
