"""Compression (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np

from train.probes.probe import Probe, RandomNumbers, Rows
from train.ranges import Range


@dataclasses.dataclass(frozen=True)
class Compression(Probe):
    """All tokens of a row are to be told from the state at its last position.

    That state, with a position added, goes through two small layers to the head; the model reads
    the tokens and a mark at the end. Chance is 1 of the ids.

    Attributes:
      row: positions of a row, the mark included.
      ids: tokens and the mark.
    """

    name: ClassVar[str] = "compression"
    paper: ClassVar[str] = "Poli et al., 2024, arXiv 2403.17844"
    model: ClassVar[Mapping[str, Any]] = {"readout": "last"}
    row: Annotated[int, Range(2, 2**16)] = 32
    ids: Annotated[int, Range(2, 2**20)] = 16

    @property
    def vocab_size(self) -> int:
        """One more than `ids`."""
        return 1 + self.ids

    @property
    def length(self) -> int:
        """The row."""
        return self.row

    @property
    def answers(self) -> range:
        """All ids."""
        return range(1, 1 + self.ids)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Random tokens and the mark; every position is answered by its own token."""
        tokens_NL = 1 + draws.below(self.ids - 1, self.row)
        tokens_NL[:, -1] = self.ids
        return Rows(tokens_NL, tokens_NL, np.ones(tokens_NL.shape, bool))
