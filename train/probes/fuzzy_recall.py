"""Fuzzy in-context recall (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from typing import Annotated, ClassVar

import numpy as np

from train.probes.probe import Ids, Positions, RandomNumbers, RowProbe, Rows, filled
from train.ranges import Range

_Size = Annotated[int, Range(1, 8)]


@dataclasses.dataclass(frozen=True)
class FuzzyRecall(RowProbe):
    """Recall in which keys and values are up to three different tokens in order.

    A model is trained to predict every token of the row. The score is that of the values' tokens
    whose key has come before. The last key is one of those before it. In the test every key has the
    largest size. A row is padded on the left with an id of its own. Chance is one over the number
    of tokens of values.

    Attributes:
      row: positions of a row.
      ids: the padding; of the others half are tokens of keys and half are tokens of values.
      key_size: the largest number of tokens of a key.
      value_size: the same of a value.
    """

    name: ClassVar[str] = "fuzzy_recall"
    paper: ClassVar[str] = "Poli et al., 2024, arXiv 2403.17844"
    row: Positions = 128
    ids: Ids = 16
    key_size: _Size = 3
    value_size: _Size = 3

    def check(self) -> None:
        """Refuses sizes above the number of tokens, and rows that are too short."""
        if self.key_size > self._keys:
            self.refuse("key_size", f"there are only {self._keys} tokens of keys")
        if self.value_size > self.ids - 1 - self._keys:
            self.refuse(
                "value_size", f"there are only {self.ids - 1 - self._keys} tokens of values"
            )
        least = 4 * (self.key_size + self.value_size)
        if self.row < least:
            self.refuse("row", f"must be at least 4 * (key_size + value_size) = {least}")

    @property
    def answers(self) -> range:
        """The tokens of values."""
        return range(1 + self._keys, self.ids)

    @property
    def _keys(self) -> int:
        return (self.ids - 1) // 2

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Pairs until the row is nearly full, then the pair that is asked for."""
        rows = len(draws)
        asked_key = self.key(draws, test=test)
        asked_value = self.value(draws)
        pair_N = asked_key.size + asked_value.size
        start_N = draws.below((self.row - 2 * pair_N)[:, None].astype(np.uint64), 1)[:, 0]
        end_N = self.row - pair_N - (self.key_size + self.value_size)

        # One more position than the row: the last token is only answered.
        text = _Text(filled(rows, self.row + 1, self.ids - 1))
        came_N, before = np.zeros(rows, bool), [np.full(rows, -1)]
        while (text.length_N < end_N).any():
            active_N = text.length_N < end_N
            drawn = self.key(draws, test=test)
            insert_N = ~came_N & (text.length_N >= start_N)
            key = drawn.where(~insert_N, asked_key)
            is_asked_N = key.code(self._keys) == asked_key.code(self._keys)
            value = self.value(draws.of(key.code(self._keys), (self._keys + 1) ** self.key_size))
            value = value.where(~is_asked_N, asked_value)
            code_N = key.code(self._keys)
            known_N = (np.stack(before) == code_N).any(axis=0)
            text.add(key, active_N, np.zeros(rows, bool))
            text.add(value, active_N, known_N & ~insert_N)
            came_N |= active_N & is_asked_N
            before.append(np.where(active_N, code_N, -1))
        text.add(asked_key, np.ones(rows, bool), np.zeros(rows, bool))
        text.add(asked_value, np.ones(rows, bool), np.ones(rows, bool))
        tokens_NL, scored_NL = text.flushed_right()
        return Rows(1 + tokens_NL[:, :-1], 1 + tokens_NL[:, 1:], scored_NL[:, 1:])

    def key(self, draws: RandomNumbers, *, test: bool) -> "_Motif":
        """Keys of a random size; in the test of the largest."""
        motif = _motif(draws, self._keys, self.key_size)
        return _Motif(motif.tokens, np.full_like(motif.size, self.key_size)) if test else motif

    def value(self, draws: RandomNumbers) -> "_Motif":
        """Values of a random size."""
        motif = _motif(draws, self.ids - 1 - self._keys, self.value_size)
        return _Motif(self._keys + motif.tokens, motif.size)


@dataclasses.dataclass(frozen=True)
class _Motif:
    """Different tokens in order, of which the first `size` count: int64 [N, S] and [N]."""

    tokens: np.ndarray
    size: np.ndarray

    def where(self, mask_N: np.ndarray, other: "_Motif") -> "_Motif":
        tokens = np.where(mask_N[:, None], self.tokens, other.tokens)
        return _Motif(tokens, np.where(mask_N, self.size, other.size))

    def code(self, base: int) -> np.ndarray:
        """A number for each different motif, int64 [N]."""
        inside = np.arange(self.tokens.shape[1]) < self.size[:, None]
        digits = np.where(inside, 1 + self.tokens, 0)
        return digits @ (base + 1) ** np.arange(self.tokens.shape[1])


def _motif(draws: RandomNumbers, count: int, most: int) -> _Motif:
    """Up to `most` different tokens out of `count`."""
    size_N = 1 + draws.below(most, 1)[:, 0]
    return _Motif(np.argsort(draws.uniform(count), axis=1)[:, :most], size_N)


class _Text:
    """Rows that grow by motifs."""

    def __init__(self, tokens_NL: np.ndarray):
        self._tokens_NL, self._scored_NL = tokens_NL, np.zeros(tokens_NL.shape, bool)
        self.length_N = np.zeros(len(tokens_NL), np.int64)

    def add(self, motif: _Motif, active_N: np.ndarray, scored_N: np.ndarray) -> None:
        """Appends a motif to the active rows."""
        for place in range(motif.tokens.shape[1]):
            rows = np.flatnonzero(active_N & (place < motif.size))
            at = self.length_N[rows] + place
            self._tokens_NL[rows, at] = motif.tokens[rows, place]
            self._scored_NL[rows, at] = scored_N[rows]
        self.length_N += np.where(active_N, motif.size, 0)

    def flushed_right(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and what is scored, with the padding on the left."""
        length = self._tokens_NL.shape[1]
        source_NL = (np.arange(length) + self.length_N[:, None]) % length
        return (
            np.take_along_axis(self._tokens_NL, source_NL, axis=1),
            np.take_along_axis(self._scored_NL, source_NL, axis=1),
        )
