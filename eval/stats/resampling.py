"""How intervals are drawn: how many draws, what they cover, from which seed."""

import dataclasses

from train import ranges
from train.ranges import CountOrZero, Level, Seed


@dataclasses.dataclass(frozen=True)
class Resampling:
    """The settings of a bootstrap.

    Attributes:
      draws: how many.
      level: coverage of the intervals.
      seed: of the generator.
    """

    draws: CountOrZero = 500
    level: Level = 0.95
    seed: Seed = 0

    def __post_init__(self):
        """Refuses values out of range."""
        ranges.check(self)


DEFAULT = Resampling()
