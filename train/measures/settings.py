"""The settings of the measures that are verbs. Importing them is fast."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from train import ranges
from train.ranges import Count, Positive, Range, Seed
from train.records import InputError
from train.study.config import Family, OptimizerName

RATES: Mapping[str, float] = {"adafactor": 0.03, "adamw": 0.003, "lion": 0.001, "muon": 0.01}
"""A learning rate at which a small model learns fast, for each optimizer."""


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


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Which models are compared.

    Attributes:
      architecture: a name from `python -m arch_zoo list`.
      size: the base size.
      family: encoder_decoder, or decoder_only for a language model.
      parametrization: standard, mup or completep.
      along: what grows: the width or the depth.
      multiples: of the base's width or depth.
      optimizer: adafactor, adamw, lion or muon.
      learning_rate: of every step; None for a usual one of the optimizer.
      steps: of training, all on one batch.
      seeds: each gives a slope; the intervals come from their spread.
      rows: sequences in the batch. Many more tokens than the width of a model hide what grows with
        it: a step then agrees with the activations of each token by chance only.
      length: tokens of a sequence.
      vocab: ids of the vocabulary.
      tolerance: the largest slope that passes.
      level: of the intervals.
    """

    architecture: str = "transformer"
    size: str = "micro"
    family: Family = "encoder_decoder"
    parametrization: Literal["standard", "mup", "completep"] = "mup"
    along: Literal["width", "depth"] = "width"
    multiples: tuple[Count, ...] = (1, 2, 4, 8)
    optimizer: OptimizerName = "adamw"
    learning_rate: Positive | None = None
    steps: Annotated[int, Range(1, 1000)] = 3
    seeds: Annotated[int, Range(2, 1000)] = 4
    rows: Count = 2
    length: Annotated[int, Range(2, 2**20)] = 16
    vocab: Annotated[int, Range(8, 2**20)] = 256
    tolerance: Positive = 0.2
    level: Annotated[float, Range(0, 1, low_open=True, high_open=True)] = 0.95

    def __post_init__(self):
        """Checks ranges."""
        ranges.check(self)
        if len(set(self.multiples)) < 2:
            raise InputError(f"multiples = {list(self.multiples)}: a slope needs two sizes")

    @property
    def rate(self) -> float:
        """The learning rate of every step."""
        return self.learning_rate or RATES[self.optimizer]
