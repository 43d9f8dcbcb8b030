"""How text is generated, and how it is read in windows. Importing this is fast."""

import dataclasses
from typing import Annotated

from train import ranges
from train.ranges import Count, CountOrZero, NotNegative, Range, Seed
from train.records import InputError


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a model picks its tokens: the likeliest one, unless beams or a temperature are given.

    Attributes:
      max_length: the largest number of new tokens.
      beams: number of beams of a beam search.
      length_penalty: of a beam search: its exponent of the length.
      temperature: divides the logits that tokens are drawn from.
      top_k: draws only from so many of the likeliest tokens; 0 means all.
      top_p: draws only from the likeliest tokens that together have this probability.
      seed: of the draws.
    """

    max_length: Count = 64
    beams: CountOrZero = 0
    length_penalty: NotNegative = 0.6
    temperature: NotNegative = 0.0
    top_k: CountOrZero = 0
    top_p: Annotated[float, Range(0, 1, low_open=True)] = 1.0
    seed: Seed = 0

    def __post_init__(self):
        """Checks ranges, and that only one way is asked for."""
        ranges.check(self)
        if self.beams and self.temperature:
            raise InputError(
                f"beams = {self.beams} and temperature = {self.temperature}: give one of them"
            )
        if (self.top_k or self.top_p < 1) and not self.temperature:
            raise InputError("top_k and top_p need a temperature above 0")


GREEDY = Decoding()
"""The usual way."""


@dataclasses.dataclass(frozen=True)
class TextWindows:
    """How a text is read.

    Attributes:
      window: tokens that the model sees at once; 0 means as many as in its training, at most 512.
      stride: tokens of them that are scored, the last ones; the others are context. The first
        window scores all of its tokens. 0 means half of the window.
      batch_size: windows in a batch.
    """

    window: CountOrZero = 0
    stride: CountOrZero = 0
    batch_size: Count = 16

    def __post_init__(self):
        """Checks ranges."""
        ranges.check(self)
        if self.window and self.stride > self.window:
            raise InputError(f"stride = {self.stride}: must be at most window = {self.window}")

    def at_most(self, longest: int) -> "TextWindows":
        """With a window of its own, for a model that was trained on rows of `longest` tokens."""
        window = self.window or min(longest, 512)
        stride = self.stride or max(window // 2, 1)
        return TextWindows(window, stride, self.batch_size)
