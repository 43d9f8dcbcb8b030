"""What a claim comes to: the finding, and the rules by which p values become a verdict."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

SUPPORTED, CONTRADICTED = "supported", "contradicted"
CANNOT_BE_TOLD, NOT_TESTED = "cannot be told from these data", "not tested"


class Untestable(Exception):
    """The table lacks what a claim speaks of; str() says what."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """Effect, interval, two-sided p of the verdict, verdict, and a note."""

    effect: float
    low: float
    high: float
    p: float
    verdict: str
    note: str = ""


def judge(p_for: float, p_against: float, level: float) -> tuple[str, float]:
    """Verdict and its two-sided p from the one-sided p values for and against a claim."""
    p = np.fmin(p_for, p_against)
    if np.isnan(p):
        return CANNOT_BE_TOLD, np.nan
    p = float(min(1.0, 2 * p))
    if p >= 1 - level:
        return CANNOT_BE_TOLD, p
    return (SUPPORTED if p_for <= p_against or np.isnan(p_against) else CONTRADICTED), p


def all_must(p: Sequence[float] | np.ndarray) -> float:
    """P of the claim that holds only where every part does: the largest; NaN where one is unknown."""
    return float(np.max(np.asarray(p, float)))


def one_enough(p: Sequence[float] | np.ndarray) -> float:
    """P of the claim that holds where any part does: Bonferroni over the parts that are known; NaN where none is."""
    known = np.asarray(p, float)
    known = known[np.isfinite(known)]
    return float(min(1.0, len(known) * known.min())) if len(known) else np.nan


def testable(test: Callable[..., Finding]) -> Callable[..., Finding]:
    """A test that finds the claim's subject missing says `not tested` and why."""

    @functools.wraps(test)
    def wrapped(*args, **kwargs) -> Finding:
        try:
            return test(*args, **kwargs)
        except Untestable as reason:
            return Finding(np.nan, np.nan, np.nan, np.nan, NOT_TESTED, str(reason))

    return wrapped
