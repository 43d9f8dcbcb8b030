"""Copying a string (Jelassi et al., 2024, arXiv 2402.01032)."""

import dataclasses
from typing import Annotated, ClassVar

import numpy as np

from train.probes.probe import RandomNumbers, Rows, StringProbe, filled
from train.ranges import Count, Range

_LETTERS = 26
_START, _MIDDLE, _END = (1 + _LETTERS + mark for mark in range(3))


@dataclasses.dataclass(frozen=True)
class Copy(StringProbe):
    """A string of letters is to be repeated after a mark, and then ended.

    The score is the share of strings of which every letter is right, so chance is practically 0. A
    model reads the right letters, not its own; it has all of them right if and only if it repeats
    the string by itself. The source trains on lengths 5 to 20 and packs several strings into a row;
    here a row has one.
    """

    name: ClassVar[str] = "copy"
    paper: ClassVar[str] = "Jelassi et al., 2024, arXiv 2402.01032"
    exact: ClassVar[bool] = True
    shortest: Count = 5
    longest_trained: Annotated[int, Range(1, 2**16)] = 20
    tested: tuple[Count, ...] = (24, 32, 48, 64, 96)

    @property
    def vocab_size(self) -> int:
        """Padding, letters, and three marks."""
        return _END + 1

    def positions(self, size: int) -> int:
        """The start, the string, the mark, and the string again."""
        return 2 * size + 2

    @property
    def most_answers(self) -> int:
        """The letters and the end."""
        return self.longest_trained + 1

    @property
    def answers(self) -> range:
        """The letters."""
        return range(1, _START)

    @property
    def chance(self) -> float:
        """That of guessing the shortest string of the test."""
        return 100 * float(_LETTERS) ** -min(self.tested)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Start, string, mark, string; the answers are the string and the end."""
        sizes_N1 = self.sizes(draws, test=test)[:, None]
        longest = max(self.tested) if test else self.longest_trained
        letters_NL = 1 + draws.below(_LETTERS, longest)
        length = self.positions(longest)
        at_L = np.broadcast_to(np.arange(length), (len(draws), length))
        again_NL = at_L - sizes_N1 - 2  # the place in the repeated string
        first_NL, second_NL = (
            np.take_along_axis(letters_NL, np.clip(place_NL, 0, longest - 1), axis=1)
            for place_NL in (at_L - 1, again_NL)
        )
        tokens_NL = np.where(at_L <= sizes_N1, first_NL, second_NL)
        tokens_NL[:, 0] = _START
        tokens_NL = np.where(at_L == sizes_N1 + 1, _MIDDLE, tokens_NL)
        tokens_NL = np.where(again_NL < sizes_N1, tokens_NL, 0)
        next_NL = np.concatenate([tokens_NL[:, 1:], filled(len(draws), 1)], axis=1)
        labels_NL = np.where((again_NL >= -1) & (again_NL < sizes_N1 - 1), next_NL, 0)
        labels_NL = np.where(again_NL == sizes_N1 - 1, _END, labels_NL)
        return Rows(tokens_NL, labels_NL, (labels_NL > 0) & (labels_NL != _END), sizes_N1[:, 0])
