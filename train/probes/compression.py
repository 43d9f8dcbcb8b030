"""Compression (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from train.probes.probe import RandomNumbers, RowProbe, Rows


@dataclasses.dataclass(frozen=True)
class Compression(RowProbe):
    """All tokens of a row are to be told from the state at its last position.

    That state, with a position added, goes through two small layers to the head; the model reads
    the tokens and a mark at the end. Chance is one over the number of ids.

    Attributes:
      row: positions of a row, the mark included.
      ids: tokens and the mark.
    """

    name: ClassVar[str] = "compression"
    paper: ClassVar[str] = "Poli et al., 2024, arXiv 2403.17844"
    model: ClassVar[Mapping[str, Any]] = {"readout": "last"}

    @property
    def answers(self) -> range:
        """All ids."""
        return range(1, 1 + self.ids)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Random tokens and the mark; every position is answered by its own token."""
        tokens_NL = 1 + draws.below(self.ids - 1, self.row)
        tokens_NL[:, -1] = self.ids
        return Rows(tokens_NL, tokens_NL, np.ones(tokens_NL.shape, bool))
