"""Multi-query associative recall (Arora et al., 2023, arXiv 2312.04927)."""

import dataclasses
from typing import ClassVar

import numpy as np

from train.probes.probe import Ids, Positions, RandomNumbers, RowProbe, Rows
from train.ranges import Count, CountOrZero, Positive


@dataclasses.dataclass(frozen=True)
class MQAR(RowProbe):
    """Pairs of a key and a value are read, and later every key is asked for its value once.

    The keys are different, and so are the values. The places of the questions are drawn without
    replacement, place i with probability proportional to a i^(a-1); all other places hold random
    tokens. The answer is not read. Chance is one over the number of values.

    The settings of the source are row and pairs (64, 4), (128, 8), (256, 16) and (512, 64), in
    models without feed-forward layers; here the models are the zoo's. The answer is the most likely
    one of the values.

    Attributes:
      row: positions of a row, an even number.
      pairs: P.
      ids: of which half are keys and half are values.
      power: a.
    """

    name: ClassVar[str] = "mqar"
    paper: ClassVar[str] = "Arora et al., 2023, arXiv 2312.04927"
    train_examples: CountOrZero = 100_000
    test_examples: Count = 3000
    row: Positions = 64
    pairs: Count = 4
    ids: Ids = 8192
    power: Positive = 0.01

    def check(self) -> None:
        """Refuses rows that are too short, and too few keys."""
        if self.row % 2 or self.row < 4 * self.pairs:
            self.refuse("row", f"must be even, and at least 4 * pairs = {4 * self.pairs}")
        if self.pairs > self.ids // 2 - 1:
            self.refuse("pairs", f"there are only {self.ids // 2 - 1} keys")

    @property
    def most_answers(self) -> int:
        """One for each pair."""
        return self.pairs

    @property
    def answers(self) -> range:
        """The values."""
        return range(1 + self.ids // 2, 1 + self.ids)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """The pairs, and then the questions among random tokens."""
        half = self.ids // 2
        keys_NP = 1 + draws.distinct(half - 1, self.pairs)
        values_NP = half + draws.distinct(self.ids - half, self.pairs)
        gaps_NP = self.gaps(draws)
        tokens_NL = draws.below(self.ids, self.row)
        tokens_NL[:, 0 : 2 * self.pairs : 2] = keys_NP
        tokens_NL[:, 1 : 2 * self.pairs : 2] = values_NP
        places_NP = 2 * self.pairs + 2 * gaps_NP
        np.put_along_axis(tokens_NL, places_NP, keys_NP, axis=1)
        labels_NL = np.zeros_like(tokens_NL)
        np.put_along_axis(labels_NL, places_NP, 1 + values_NP, axis=1)
        return Rows(1 + tokens_NL, labels_NL, labels_NL > 0)

    def gaps(self, draws: RandomNumbers) -> np.ndarray:
        """The place of each question, in steps of two after the pairs, int64 [N, P].

        The first P of exponential variables with these rates are a draw without replacement.
        """
        space = self.row // 2 - self.pairs
        share = np.arange(1, space + 1) ** (self.power - 1)
        return np.argsort(-np.log(draws.uniform(space)) / share, axis=1)[:, : self.pairs]
