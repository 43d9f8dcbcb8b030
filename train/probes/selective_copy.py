"""Selective copying (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.probes.probe import Ids, Positions, RandomNumbers, RowProbe, Rows, filled
from train.ranges import Count


@dataclasses.dataclass(frozen=True)
class SelectiveCopy(RowProbe):
    """Some tokens among blanks are to be repeated in order, after a mark, while blanks are read.

    Chance is one over the number of tokens.

    Attributes:
      row: positions of a row.
      copied: the number of tokens to repeat.
      ids: tokens, the blank and the mark.
    """

    name: ClassVar[str] = "selective_copy"
    paper: ClassVar[str] = "Poli et al., 2024, arXiv 2403.17844"
    row: Positions = 256
    copied: Count = 16
    ids: Ids = 16

    def check(self) -> None:
        """Refuses rows that are too short."""
        if self.row <= 2 * self.copied + 1:
            self.refuse("row", f"must be above 2 * copied + 1 = {2 * self.copied + 1}")

    @property
    def most_answers(self) -> int:
        """The tokens to repeat."""
        return self.copied

    @property
    def answers(self) -> range:
        """The tokens."""
        return range(1, self.ids - 1)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Tokens with blanks before them, the mark, and as many blanks as tokens."""
        rows, mark, blank = len(draws), self.ids - 1, self.ids - 2
        copied_NC = draws.below(self.ids - 2, self.copied)
        blanks = self.row - 2 * self.copied - 1
        before_NB = draws.below(self.copied, blanks)  # the token that each blank stands before
        count_NC = (before_NB[..., None] <= np.arange(self.copied)).sum(axis=1)
        tokens_NL = filled(rows, self.row, blank)
        np.put_along_axis(tokens_NL, count_NC + np.arange(self.copied), copied_NC, axis=1)
        tokens_NL[:, blanks + self.copied] = mark
        labels_NL = filled(rows, self.row)
        labels_NL[:, -self.copied :] = 1 + copied_NC
        return Rows(1 + tokens_NL, labels_NL, labels_NL > 0)
