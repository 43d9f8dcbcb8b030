"""Even pairs in a string of bits (Deletang et al., 2023, arXiv 2207.02098)."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.probes.probe import LastAnswer


@dataclasses.dataclass(frozen=True)
class EvenPairs(LastAnswer):
    """Whether the number of places where neighbours differ is odd. Chance is 50 %.

    It is odd if the first bit and the last one differ, so two positions are enough.
    """

    name: ClassVar[str] = "even_pairs"
    paper: ClassVar[str] = "Deletang et al., 2023, arXiv 2207.02098"

    def classify(self, symbols_NL: np.ndarray, inside_NL: np.ndarray) -> np.ndarray:
        """The number of changes modulo 2."""
        differ_NL = (symbols_NL[:, 1:] != symbols_NL[:, :-1]) & inside_NL[:, 1:]
        return differ_NL.sum(axis=1) % 2
