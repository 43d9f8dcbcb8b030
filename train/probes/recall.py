"""In-context recall (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from typing import Annotated, ClassVar

import numpy as np

from train.probes.probe import Ids, Positions, RandomNumbers, RowProbe, Rows
from train.ranges import Range, Rate


@dataclasses.dataclass(frozen=True)
class Recall(RowProbe):
    """Pairs of a key and a value; a key that comes again has the same value.

    A model is trained to predict every token of the row. The score is that of the values whose key
    has come before. The last key is one of those before it. Chance is one over the number of
    values.

    Attributes:
      row: tokens of all pairs, an even number. The last value is only answered.
      ids: of which half are keys, half are values, after `noise_ids` are taken off.
      noise_ids: ids of noise.
      noise: the share of pairs that are two tokens of noise instead.
    """

    name: ClassVar[str] = "recall"
    paper: ClassVar[str] = "Poli et al., 2024, arXiv 2403.17844"
    row: Positions = 128
    ids: Ids = 16
    noise_ids: Annotated[int, Range(0, 2**20)] = 0
    noise: Rate = 0.0

    def check(self) -> None:
        """Refuses an odd or a short row, and too few ids."""
        if self.row % 2 or self.row < 4:
            self.refuse("row", "must be even, and at least 4")
        if self.ids - self.noise_ids < 2:
            self.refuse("noise_ids", f"leaves no key and value of ids = {self.ids}")
        if self.noise and not self.noise_ids:
            self.refuse("noise_ids", "noise needs at least one")

    @property
    def _known(self) -> int:
        """The number of keys and values."""
        return self.ids - self.noise_ids

    @property
    def length(self) -> int:
        """All tokens but the last."""
        return self.row - 1

    @property
    def answers(self) -> range:
        """The values."""
        return range(1 + self._known // 2, 1 + self._known)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Pairs, some of them noise, and one of the keys at the end."""
        keys, pairs = self._known // 2, self.row // 2 - 1
        keys_NP = draws.below(keys, pairs)
        # The value of every key, whether it comes or not.
        values_NK = keys + draws.below(self._known - keys, keys)
        kept_N1 = draws.below(self.row // 2, 1)  # never noise; may be the last pair, which is none
        noisy_NP = (draws.uniform(pairs) < self.noise) & (np.arange(pairs) != kept_N1)
        come_NPK = (keys_NP[..., None] == np.arange(keys)) & ~noisy_NP[..., None]
        before_NPK = np.cumsum(come_NPK, axis=1) - come_NPK
        # A row may be all noise if the kept pair is the last one; then the last key is any.
        come_NK = come_NPK.any(axis=1)
        come_NK |= ~come_NK.any(axis=1, keepdims=True)
        last_N1 = draws.choose(come_NK)[:, None]
        keys_NP = np.concatenate([keys_NP, last_N1], axis=1)
        noisy_NP = np.pad(noisy_NP, ((0, 0), (0, 1)))
        pairs_NP2 = np.stack([keys_NP, np.take_along_axis(values_NK, keys_NP, axis=1)], axis=-1)
        if self.noise:
            noise_NP2 = self._known + draws.below(self.noise_ids, self.row).reshape(pairs_NP2.shape)
            pairs_NP2 = np.where(noisy_NP[..., None], noise_NP2, pairs_NP2)
        again_NP = (come_NPK & (before_NPK > 0)).any(axis=2)
        again_NP = np.pad(again_NP, ((0, 0), (0, 1)), constant_values=True)
        scored_NL = np.stack([np.zeros_like(again_NP), again_NP], axis=-1).reshape(len(draws), -1)
        tokens_NL = 1 + pairs_NP2.reshape(len(draws), -1)
        return Rows(tokens_NL[:, :-1], tokens_NL[:, 1:], scored_NL[:, 1:])
