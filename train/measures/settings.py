"""The settings of the measures that are verbs. Importing them is fast."""

import dataclasses

from train import ranges
from train.ranges import Count, Positive, Seed


@dataclasses.dataclass(frozen=True)
class RankLimited:
    """How heads are trained.

    Attributes:
      ranks: ranks to try; none may be above the model's width.
      rates: learning rates of AdamW to try for each rank; the one with the lowest training loss
        counts.
      steps: steps of training; the rate falls to zero.
      positions: targets in a step.
      batches: evaluation batches of training text whose states are used.
      seed: of the initial heads and of the order of the positions.
    """

    ranks: tuple[Count, ...] = (4, 8, 16, 32)
    rates: tuple[Positive, ...] = (0.003, 0.01, 0.03)
    steps: Count = 1000
    positions: Count = 1024
    batches: Count = 32
    seed: Seed = 0

    def __post_init__(self):
        """Checks ranges."""
        ranges.check(self)


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What is asked of a model.

    Attributes:
      prompt: tokens that are given.
      answer: tokens that must follow.
      batches: evaluation batches of training text and of held-out text.
    """

    prompt: Count = 32
    answer: Count = 32
    batches: Count = 8

    def __post_init__(self):
        """Checks ranges."""
        ranges.check(self)


@dataclasses.dataclass(frozen=True)
class ContextRank:
    """Which matrix is taken.

    Attributes:
      context: tokens of a context.
      dims: the ranks d.
      max_tokens: only the first so many tokens of the training text.
    """

    context: Count = 4
    dims: tuple[Count, ...] = (16, 32, 64, 128, 256, 512, 1024)
    max_tokens: Count = 2**24

    def __post_init__(self):
        """Checks ranges."""
        ranges.check(self)
