"""The answer to each question of a report: one test, its correction, and its power beside it.

Which test answers which question is fixed here, before any data are seen:

* Do architectures scale differently from the reference? The t tests of `Comparison.contrasts`, with
  Holm's correction over the architectures.
* Does the family of an architecture matter? The same two tests, of its decoder-only models against
  its encoder-decoders, in `Families.differences`.
* Are architectures better or worse at equal cost? The t tests of `Comparison.levels` in the middle
  of the range that an architecture has in common with the reference, with Holm's correction.

Every sentence and table uses these. A claim of the paper that asks something else (a sign, or all
of several budgets) uses the same t tests of the same lines. Other tests of the same questions
(`Comparison.equal_slopes`, `p_permutation`) are further information and decide nothing.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from train.power import POWER

PRIMARY_POSITION = "middle"
"""Where on the common range the levels of two architectures are compared."""

_MOST_TIMES = 10  # the reference's slope is no measure of differences that are larger than this
WORDS = {"slope": ("scales better", "scales worse"), "level": ("better", "worse")}
"""The verdicts on a difference of slopes and of levels."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer about all architectures, for one pair of quantities.

    Attributes:
      reference: the architecture that the others are compared with.
      better: architectures that differ from it for the better, after correction.
      worse: those that differ for the worse.
      open: those that were tested and are not told apart.
      untested: those without a test.
      detectable: the smallest differences that this design finds with probability POWER, from the
        smallest to the largest among `open`; NaN if there is none.
      df: the degrees of freedom of the tests in `open`, from the smallest to the largest.
      against: the quantity of the reference that `detectable` may be compared with, such as its
        slope; NaN if there is none.
    """

    reference: str
    better: tuple[str, ...]
    worse: tuple[str, ...]
    open: tuple[str, ...]
    untested: tuple[str, ...]
    detectable: tuple[float, float]
    df: tuple[float, float]
    against: float

    @property
    def tested(self) -> int:
        """The number of architectures that were tested."""
        return len(self.better) + len(self.worse) + len(self.open)

    @property
    def differs(self) -> tuple[str, ...]:
        """The architectures that differ from the reference."""
        return self.better + self.worse


def of_slopes(contrasts: pd.DataFrame, alpha: str) -> Verdict | None:
    """The answer of `Comparison.contrasts` about one slope, such as `F,U`; None without a row."""
    rows = contrasts[contrasts["alpha"] == alpha] if len(contrasts) else contrasts
    if not len(rows):
        return None
    return _verdict(rows, *WORDS["slope"], float(rows["slope_reference"].abs().median()))


def of_levels(levels: pd.DataFrame, alpha: str) -> Verdict | None:
    """The answer of `Comparison.levels` in the middle of the range; None without a row."""
    rows = primary(levels, alpha)
    return _verdict(rows, *WORDS["level"], np.nan) if len(rows) else None


def of_families(families: pd.DataFrame, alpha: str, measure: str) -> Verdict | None:
    """The answer of `Families.differences` about one measure of WORDS; None without a row."""
    if not len(families):
        return None
    rows = families[(families["alpha"] == alpha) & (families["measure"] == measure)]
    return _verdict(rows, *WORDS[measure], np.nan) if len(rows) else None


def primary(levels: pd.DataFrame, alpha: str) -> pd.DataFrame:
    """The rows of `Comparison.levels` that decide about one pair of quantities."""
    if not len(levels):
        return levels
    return levels[(levels["alpha"] == alpha) & (levels["position"] == PRIMARY_POSITION)]


def _verdict(rows: pd.DataFrame, better: str, worse: str, against: float) -> Verdict:
    def named(*verdicts: str) -> tuple[str, ...]:
        return tuple(map(str, rows.loc[rows["verdict"].isin(verdicts), "architecture"]))

    left = rows[rows["verdict"] == "not told apart"]
    return Verdict(
        reference=str(rows["reference"].iloc[0]),
        better=named(better),
        worse=named(worse),
        open=named("not told apart"),
        untested=named("not tested"),
        detectable=_ends(left["detectable"]),
        df=_ends(left["df"]),
        against=against,
    )


def _ends(values: pd.Series) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)


def crossings(crossovers: pd.DataFrame, contrasts: pd.DataFrame, reference: str) -> pd.DataFrame:
    """The crossings that are established: the rows of `Comparison.crossovers` that may be named.

    The two slopes differ after correction, and the whole interval of the crossing lies inside the
    range that both lines cover. Lines that are identical cross somewhere in every study.
    """
    if not len(crossovers):
        return crossovers.assign(other="")
    differ = {
        (alpha, name)
        for alpha in crossovers["alpha"].unique()
        if (verdict := of_slopes(contrasts, alpha))
        for name in verdict.differs
    }
    a, b = crossovers["architecture_a"], crossovers["architecture_b"]
    other = a.where(a != reference, b)
    named = pd.Series(
        [pair in differ for pair in zip(crossovers["alpha"], other, strict=True)],
        index=crossovers.index,
    )
    inside = (crossovers["range_low"] <= crossovers["ci_low"]) & (
        crossovers["ci_high"] <= crossovers["range_high"]
    )
    sure = named & inside & (crossovers["interval"] == "bounded")
    return crossovers.assign(other=other)[sure]


def power_clause(verdict: Verdict, unit: str, number: Callable[[float], str]) -> str:
    """What the tests in `open` could have found, as a clause; empty if all differ.

    Args:
      verdict: the answer.
      unit: the unit of a difference, such as `nats`.
      number: formats a number.
    """
    low, high = verdict.detectable
    if not np.isfinite(high):
        return ""
    df = _span([f"{end:.1f}".removesuffix(".0") for end in verdict.df])
    found = _span([number(end) for end in (low, high)])
    share = ""
    if high < _MOST_TIMES * verdict.against:
        percent = _span([f"{100 * end / verdict.against:.0f}" for end in (low, high)])
        share = f" ({percent} % of the slope of {verdict.reference})"
    return (
        f"with {df} degrees of freedom, this design finds differences of {found} {unit}{share} "
        f"with a probability of {100 * POWER:.0f} %"
    )


def _span(ends: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(ends))
