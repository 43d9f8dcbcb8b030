"""Six of the smallest cells, which differ only in their seeds, for a test that runs each alone."""

import dataclasses

from tests.train.launch import twelve_cells
from train.study.config import StudyConfig


def study() -> StudyConfig:
    """Declares them."""
    twelve = twelve_cells.study()
    return dataclasses.replace(twelve, name="six", cells=twelve.cells[:6])
