"""From p values to verdicts: Holm's correction, verdicts on differences, and findings on claims."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

SUPPORTED, CONTRADICTED = "supported", "contradicted"
CANNOT_BE_TOLD, NOT_TESTED = "cannot be told from these data", "not tested"


class Untestable(Exception):
    """The table lacks something that a claim is about; the message says what."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of testing a claim.

    Attributes:
      effect: its size.
      low: lower end of its interval.
      high: upper end of its interval.
      p: two-sided p value of the verdict.
      verdict: one of `eval.analyses.claims.VERDICTS`.
      note: limits of the test, in words.
      exact: whether the effect is counted, not estimated; then `low` and `high` are its range.
    """

    effect: float
    low: float
    high: float
    p: float
    verdict: str
    note: str = ""
    exact: bool = False


def holm(p: Sequence[float] | np.ndarray | pd.Series) -> np.ndarray:
    """Holm's adjusted p values; NaN stays NaN and does not count as a test."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    known = np.isfinite(p[order])
    # NaN sorts last; minus infinity keeps it out of the running maximum.
    steps = np.where(known, (known.sum() - np.arange(len(p))) * p[order], -np.inf)
    adjusted = np.empty_like(p)
    adjusted[order] = np.where(known, np.minimum(np.maximum.accumulate(steps), 1.0), np.nan)
    return adjusted


def verdict(advantage: float, p: float, level: float, better: str, worse: str) -> str:
    """The word for a difference: `better` or `worse` by its sign if p is small enough."""
    if np.isnan(p):
        return "not tested"
    if p >= 1 - level:
        return "not told apart"
    return better if advantage > 0 else worse


def judge(p_for: float, p_against: float, level: float) -> tuple[str, float]:
    """The verdict on a claim and its two-sided p, from the one-sided p values for and against."""
    p = np.fmin(p_for, p_against)
    if np.isnan(p):
        return CANNOT_BE_TOLD, np.nan
    p = float(min(1.0, 2 * p))
    if p >= 1 - level:
        return CANNOT_BE_TOLD, p
    return (SUPPORTED if p_for <= p_against or np.isnan(p_against) else CONTRADICTED), p


def all_must(p: Sequence[float] | np.ndarray) -> float:
    """The p value of a claim whose parts must all hold: the largest; NaN if one is unknown."""
    return float(np.max(np.asarray(p, float)))


def one_enough(p: Sequence[float] | np.ndarray) -> float:
    """The p value of a claim that holds if any part does: Bonferroni over the parts that are known.

    NaN if none is known.
    """
    known = np.asarray(p, float)
    known = known[np.isfinite(known)]
    return float(min(1.0, len(known) * known.min())) if len(known) else np.nan


def testable(test: Callable[..., Finding]) -> Callable[..., Finding]:
    """Turns Untestable into the finding `not tested`, with the reason as its note."""

    @functools.wraps(test)
    def wrapped(*args, **kwargs) -> Finding:
        try:
            return test(*args, **kwargs)
        except Untestable as reason:
            return untested(str(reason))

    return wrapped


def untested(reason: str) -> Finding:
    """The finding `not tested`, with the reason as its note."""
    return Finding(np.nan, np.nan, np.nan, np.nan, NOT_TESTED, reason)
