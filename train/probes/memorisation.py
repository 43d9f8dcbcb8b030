"""Memorisation of a fixed map (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.data import counter_random
from train.probes.probe import TEST, Ids, Positions, RandomNumbers, RowProbe, Rows
from train.ranges import CountOrZero


@dataclasses.dataclass(frozen=True)
class FixedMap(RowProbe):
    """Every key has one value, the same in all examples, so that only the weights can know it.

    A key is followed by a mark, at which the value is answered; the value is not read. The keys of
    the test are those of training. Chance is one over the number of values.

    Attributes:
      row: positions of a row, an even number.
      ids: keys, values and the mark.
    """

    name: ClassVar[str] = "memorisation"
    paper: ClassVar[str] = "Poli et al., 2024, arXiv 2403.17844"
    train_examples: CountOrZero = 256
    row: Positions = 32
    ids: Ids = 256

    def check(self) -> None:
        """Refuses an odd row."""
        if self.row % 2:
            self.refuse("row", "must be even")

    @property
    def most_answers(self) -> int:
        """One for each pair."""
        return self.row // 2

    @property
    def answers(self) -> range:
        """The values."""
        return range(1 + self._keys, self.ids)

    @property
    def _keys(self) -> int:
        return (self.ids - 1) // 2

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Keys and marks; the answers are the values."""
        keys = np.arange(self._keys)
        map_K = self._keys + counter_random.permute(TEST, 0 * keys, keys, self.ids - 1 - self._keys)
        keys_NP = draws.below(self._keys, self.row // 2)
        tokens_NP2 = np.stack([keys_NP, np.full_like(keys_NP, self.ids - 1)], axis=-1)
        labels_NP2 = np.stack([np.zeros_like(keys_NP), 1 + map_K[keys_NP]], axis=-1)
        labels_NL = labels_NP2.reshape(len(draws), -1)
        return Rows(1 + tokens_NP2.reshape(len(draws), -1), labels_NL, labels_NL > 0)
