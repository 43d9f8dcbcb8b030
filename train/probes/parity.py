"""Parity of a string of bits (Deletang et al., 2023, arXiv 2207.02098)."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.probes.probe import LastAnswer


@dataclasses.dataclass(frozen=True)
class Parity(LastAnswer):
    """Whether the number of ones is odd. Chance is 50 %.

    A recurrent state of one number between -1 and 1 solves it if it can change its sign. The source
    trains on lengths 1 to 40 and tests up to 500.
    """

    name: ClassVar[str] = "parity"
    paper: ClassVar[str] = "Deletang et al., 2023, arXiv 2207.02098"

    def classify(self, symbols_NL: np.ndarray, inside_NL: np.ndarray) -> np.ndarray:
        """The sum of the bits modulo 2."""
        return (symbols_NL * inside_NL).sum(axis=1) % 2
