"""Steps on a circle (cycle navigation, Deletang et al., 2023, arXiv 2207.02098)."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.probes.probe import LastAnswer


@dataclasses.dataclass(frozen=True)
class Cycle(LastAnswer):
    """The place on a circle of five after steps back, none, or forward. Chance is 20 %."""

    name: ClassVar[str] = "cycle"
    paper: ClassVar[str] = "Deletang et al., 2023, arXiv 2207.02098"
    symbols: ClassVar[int] = 3
    classes: ClassVar[int] = 5

    def classify(self, symbols_NL: np.ndarray, inside_NL: np.ndarray) -> np.ndarray:
        """The sum of the steps modulo 5; the symbols 0, 1 and 2 are steps of -1, 0 and 1."""
        return ((symbols_NL - 1) * inside_NL).sum(axis=1) % self.classes
