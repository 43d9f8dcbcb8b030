"""What a claim is: a hypothesis fixed in advance, its test, and the study that would decide it."""

import dataclasses
from collections.abc import Callable

from eval.analyses.sources.measured import Measured
from eval.stats.decision import Finding

MARGIN = 0.25
"""A number within this share of the published one counts as the published one."""


@dataclasses.dataclass(frozen=True)
class SourceClaim:
    """One claim of a source, or one part of a claim.

    Attributes:
      number: its name, such as K1.
      part: a letter, if the claim has several parts.
      text: what the source says.
      hypothesis: what is tested here.
      measure: what the effect is.
      unit: the unit of the effect.
      study: the study that would decide it.
      more: what that study would need more of, if its runs cannot tell.
      test: computes the finding from what was measured of one architecture; raises
        `eval.stats.decision.Untestable` if the runs lack what the claim is about.
    """

    number: str
    part: str
    text: str
    hypothesis: str
    measure: str
    unit: str
    study: str
    more: str
    test: Callable[[Measured], Finding]


@dataclasses.dataclass(frozen=True)
class Source:
    """A paper, or several on one subject.

    Attributes:
      name: its authors and year.
      claims: its claims, in order.
    """

    name: str
    claims: tuple[SourceClaim, ...]


def near(published: float, margin: float = MARGIN) -> tuple[float, float]:
    """The range of values that count as the published one."""
    return published * (1 - margin), published * (1 + margin)
