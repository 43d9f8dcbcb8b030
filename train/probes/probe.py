"""What every probe has, and the random numbers that its examples are made of."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np

from train import ranges
from train.data import counter_random
from train.ranges import Count, CountOrZero, Range
from train.records import InputError

TRAIN, VALIDATION, TEST, FRESH = 0, 1, 2, 3
"""Seeds of the examples: three fixed sets, and from FRESH on those that are never repeated."""

Positions = Annotated[int, Range(2, 2**16)]
Ids = Annotated[int, Range(3, 2**20)]

_FIRST_STREAM = 16  # below are the streams of the text's batches
_GOLDEN = 0x9E3779B97F4A7C15

PROBES: dict[str, type["Probe"]] = {}
"""The class of every probe by its name."""


class Rows(NamedTuple):
    """Examples, as what a model reads and what it should answer at each position.

    Attributes:
      tokens: what is read, int32 [N, L]; 0 after the end of a row.
      labels: the answer at each position that the loss is taken of, int32 [N, L]; 0 where there is
        none. A model gives it after it has read the token at this position.
      scored: which of them count for the score, bool [N, L].
      size: what the score is drawn against, such as the length of the example, int [N]; None if all
        examples are alike.
    """

    tokens: np.ndarray
    labels: np.ndarray
    scored: np.ndarray
    size: np.ndarray | None = None


class RandomNumbers:
    """Random numbers of examples: row n depends only on the seed and on the example's number.

    Each call takes new numbers, so the order of calls belongs to the definition of a probe.
    """

    def __init__(self, seed: int, index_N: np.ndarray):
        """Starts with the first numbers of these examples."""
        self._seed, self._index_N = seed, np.asarray(index_N, np.int64)
        self._stream = _FIRST_STREAM

    def __len__(self) -> int:
        """The number of examples."""
        return len(self._index_N)

    def words(self, count: int) -> np.ndarray:
        """Uniform words below 2**32, uint64 [N, count]."""
        self._stream += 1
        return counter_random.draws(self._seed, self._stream, self._index_N, count)

    def below(self, limit: int | np.ndarray, count: int) -> np.ndarray:
        """Whole numbers from 0 to limit - 1, int64 [N, count]."""
        return counter_random.below(self.words(count), limit).astype(np.int64)

    def uniform(self, count: int) -> np.ndarray:
        """Numbers between 0 and 1, both excluded, float64 [N, count]."""
        return (self.words(count).astype(np.float64) + 0.5) / 2**32

    def distinct(self, size: int, count: int) -> np.ndarray:
        """Different whole numbers from 0 to size - 1, int64 [N, count], in random order."""
        self._stream += 1
        seed = (self._seed + self._stream * _GOLDEN) % 2**64
        index = np.repeat(self._index_N, count)
        place = np.tile(np.arange(count), len(self))
        return counter_random.permute(seed, index, place, size).reshape(len(self), count)

    def of(self, number_N: np.ndarray, limit: int) -> "RandomNumbers":
        """Random numbers of their own for each example and number below `limit`.

        They are the same whenever an example asks for the same number.
        """
        seed = (self._seed + _GOLDEN) % 2**64
        return RandomNumbers(seed, self._index_N * limit + number_N)

    def choose(self, allowed_NK: np.ndarray) -> np.ndarray:
        """One of the allowed columns of each row, each with the same probability, int64 [N]."""
        return np.argmax(self.uniform(allowed_NK.shape[1]) * allowed_NK, axis=1)


@dataclasses.dataclass(frozen=True)
class Probe:
    """A probe; its fields are its settings.

    A subclass has a name, and gives vocabulary, length, answers and examples.

    Attributes:
      name: by which a run's configuration names it.
      paper: where it is from.
      model: options that every model needs for this probe.
      exact: whether an example counts as right only if all of its answers are.
      train_examples: examples of the training set, which is read again and again in new orders; 0
        makes new ones at every step.
      test_examples: examples of the test set, and of the validation set.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    model: ClassVar[Mapping[str, Any]] = {}
    exact: ClassVar[bool] = False
    train_examples: CountOrZero = 12_800
    test_examples: Count = 1280

    def __init_subclass__(cls) -> None:
        """Makes the probe known by its name."""
        super().__init_subclass__()
        if cls.name:
            PROBES[cls.name] = cls

    def __post_init__(self):
        """Checks that every value is in range, and what `check` adds."""
        ranges.check(self)
        self.check()

    def check(self) -> None:
        """Refuses settings that do not fit each other."""

    @property
    def vocab_size(self) -> int:
        """Number of ids; 0 is never read or answered."""
        raise NotImplementedError

    @property
    def length(self) -> int:
        """Positions of a row in training."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """Positions of the longest row, in training or in the test."""
        return self.length

    @property
    def most_answers(self) -> int:
        """The largest number of answers in a row of training."""
        return self.length

    @property
    def answers(self) -> range:
        """The ids among which a model chooses its answer where it is scored."""
        raise NotImplementedError

    @property
    def chance(self) -> float:
        """The score of guessing, in percent."""
        return 100 / len(self.answers)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """The examples whose random numbers are given, of the training or of the test set."""
        raise NotImplementedError

    def examples(self, seed: int, index_N: np.ndarray, *, test: bool = False) -> Rows:
        """The examples with these numbers, padded with 0 to `length`, or to `longest` in a test."""
        rows = self.make(RandomNumbers(seed, index_N), test=test)
        missing = (self.longest if test else self.length) - rows.tokens.shape[1]
        if missing < 0:
            raise InputError(f"probe {self.name}: rows of {rows.tokens.shape[1]} are too long")
        padded = [np.pad(values, ((0, 0), (0, missing))) for values in rows[:3]]
        tokens, labels, scored = padded
        return Rows(tokens.astype(np.int32), labels.astype(np.int32), scored, rows.size)

    def refuse(self, key: str, rule: str) -> None:
        """Raises the error that says how a setting must be."""
        raise InputError(f"{key} = {getattr(self, key)!r}: {rule}")


@dataclasses.dataclass(frozen=True)
class RowProbe(Probe):
    """A probe whose examples are rows of one length.

    Attributes:
      row: positions of a row.
      ids: the number of different tokens.
    """

    row: Positions = 32
    ids: Ids = 16

    @property
    def vocab_size(self) -> int:
        """The tokens, and 0, which is never one."""
        return 1 + self.ids

    @property
    def length(self) -> int:
        """The row."""
        return self.row


@dataclasses.dataclass(frozen=True)
class StringProbe(Probe):
    """A probe whose examples are strings of several lengths, tested on longer ones.

    Examples are new at every step, and the lengths in the test are not those in training, so no
    example of the test occurs in training.

    Attributes:
      shortest: the smallest length of a string in training.
      longest_trained: the largest one.
      tested: the lengths in the test, each in equally many examples.
    """

    train_examples: CountOrZero = 0
    shortest: Count = 1
    longest_trained: Annotated[int, Range(1, 2**16)] = 40
    tested: tuple[Count, ...] = (48, 64, 96, 128, 192, 256)

    def check(self) -> None:
        """Refuses lengths in the wrong order."""
        if self.shortest > self.longest_trained:
            self.refuse("shortest", f"must be at most longest_trained = {self.longest_trained}")
        if not self.tested or min(self.tested) <= self.longest_trained:
            self.refuse("tested", f"lengths must be above longest_trained = {self.longest_trained}")

    def positions(self, size: int) -> int:
        """Positions of a row with a string of this length."""
        return size + 1

    @property
    def length(self) -> int:
        """That of the longest string in training."""
        return self.positions(self.longest_trained)

    @property
    def longest(self) -> int:
        """That of the longest string in the test."""
        return self.positions(max(self.tested))

    def sizes(self, draws: RandomNumbers, *, test: bool) -> np.ndarray:
        """The length of each string, int64 [N]."""
        if test:
            return np.array(self.tested)[draws.below(len(self.tested), 1)[:, 0]]
        return self.shortest + draws.below(self.longest_trained - self.shortest + 1, 1)[:, 0]


@dataclasses.dataclass(frozen=True)
class LastAnswer(StringProbe):
    """A string probe with one answer, given at a mark after the string."""

    symbols: ClassVar[int] = 2
    classes: ClassVar[int] = 2

    @property
    def vocab_size(self) -> int:
        """Padding, symbols, the mark, and the classes."""
        return 2 + self.symbols + self.classes

    @property
    def most_answers(self) -> int:
        """One."""
        return 1

    @property
    def answers(self) -> range:
        """The classes."""
        return range(2 + self.symbols, self.vocab_size)

    def classify(self, symbols_NL: np.ndarray, inside_NL: np.ndarray) -> np.ndarray:
        """The class of each string, whose symbols are those inside; int64 [N]."""
        raise NotImplementedError

    def symbols_of(self, draws: RandomNumbers, length: int) -> np.ndarray:
        """The symbols of the longest possible strings, int64 [N, length]."""
        return draws.below(self.symbols, length)

    def make(self, draws: RandomNumbers, *, test: bool) -> Rows:
        """Strings, the mark after each, and the class as the answer at the mark."""
        sizes_N1 = self.sizes(draws, test=test)[:, None]
        longest = max(self.tested) if test else self.longest_trained
        symbols_NL = self.symbols_of(draws, longest)
        at_L = np.arange(longest + 1)
        inside_NL = at_L < sizes_N1
        classes_N1 = self.classify(symbols_NL, inside_NL[:, :-1])[:, None]
        mark_NL = at_L == sizes_N1
        tokens_NL = np.where(inside_NL, 1 + np.pad(symbols_NL, ((0, 0), (0, 1))), 0)
        tokens_NL = np.where(mark_NL, 1 + self.symbols, tokens_NL)
        labels_NL = np.where(mark_NL, self.answers.start + classes_N1, 0)
        return Rows(tokens_NL, labels_NL, mark_NL, sizes_N1[:, 0])


def filled(rows: int, length: int, value: int = 0) -> np.ndarray:
    """An array int64 [rows, length] of one value."""
    return np.full((rows, length), value, np.int64)
