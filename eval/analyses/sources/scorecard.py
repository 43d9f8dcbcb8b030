"""The scorecard of every source: its claims, tested on each architecture of a study."""

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from eval.analyses.question import Question
from eval.analyses.sources import godey, hoffmann, kaplan, niu
from eval.analyses.sources.claim import Source, SourceClaim
from eval.analyses.sources.inference import Open, undecided
from eval.analyses.sources.measured import Measured, measured
from eval.data.study import Study
from eval.stats.decision import (
    CANNOT_BE_TOLD,
    CONTRADICTED,
    NOT_TESTED,
    SUPPORTED,
    Finding,
    Untestable,
    holm,
    untested,
)
from train.records import InputError

SOURCES = (
    Source("Kaplan et al. 2020", kaplan.CLAIMS),
    Source("Hoffmann et al. 2022", hoffmann.CLAIMS),
    Source("a survey of scaling laws", hoffmann.SURVEY),
    Source("Niu et al. 2024", niu.CLAIMS),
    Source("Godey et al. 2024", godey.CLAIMS),
)
COLUMNS = (
    "source",
    "claim",
    "part",
    "architecture",
    "text",
    "hypothesis",
    "measure",
    "unit",
    "effect",
    "ci_low",
    "ci_high",
    "p",
    "exact",
    "verdict",
    "study",
    "would_settle",
    "note",
)


def scorecard(
    study: Study, question: Question | None = None, sources: Sequence[Source] = SOURCES
) -> pd.DataFrame:
    """Tests every claim of the sources on every architecture that has the data for it.

    Args:
      study: from `eval.data.study.read_study`, or of a table, which has no evaluations during
        training.
      question: its level and seed are used, and its quantities where a claim is about tasks.
      sources: whose claims.

    Returns:
      One row per claim (or part of one) and architecture, in the order of the sources, with columns
        source, claim (K1), part, architecture (empty where no architecture has the data), text
        (what the source says), hypothesis (what was tested here), measure (what `effect` is), unit,
        effect, ci_low, ci_high, p (two-sided, of the verdict; corrected by Holm where several
        architectures were tested), exact (whether the effect is counted: then there is no p and
        the interval is the range over runs), verdict (of
        `eval.analyses.claims.VERDICTS`), study (the study that tests the claim), would_settle (what
        would decide an open claim), note.
    """
    question = question or Question()
    every = measured(study, question.level, question.seed)
    rows = []
    for source in sources:
        for claim in source.claims:
            rows += [_row(source, claim, *one) for one in _tested(claim, every)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _tested(claim: SourceClaim, every: list[Measured]) -> list[tuple[str, Finding]]:
    """The findings by architecture; a single one without a name if none could be tested."""
    found = {m.name: _finding(claim, m) for m in every}
    tested = {name: f for name, f in found.items() if f.verdict != NOT_TESTED}
    if not tested:
        reasons = list(dict.fromkeys(f.note for f in found.values()))
        return [("", untested("; ".join(reasons)))]
    level = every[0].level
    adjusted = holm([f.p for f in tested.values()])
    return [
        (name, _corrected(f, float(p), level))
        for (name, f), p in zip(tested.items(), adjusted, strict=True)
    ]


def _finding(claim: SourceClaim, m: Measured) -> Finding:
    try:
        return claim.test(m)
    except Untestable as reason:
        return untested(str(reason))
    except (Open, InputError) as reason:
        return undecided(str(reason))


def _corrected(found: Finding, p: float, level: float) -> Finding:
    """A finding with its p value corrected for the number of architectures."""
    if found.exact:
        return found
    sure = found.verdict in (SUPPORTED, CONTRADICTED)
    verdict = found.verdict if not sure or p < 1 - level else CANNOT_BE_TOLD
    return dataclasses.replace(found, p=p if math.isfinite(p) else found.p, verdict=verdict)


def _row(source: Source, claim: SourceClaim, architecture: str, found: Finding) -> dict:
    return {
        "source": source.name,
        "claim": claim.number,
        "part": claim.part,
        "architecture": architecture,
        "text": claim.text,
        "hypothesis": claim.hypothesis,
        "measure": claim.measure,
        "unit": claim.unit,
        "effect": found.effect,
        "ci_low": found.low,
        "ci_high": found.high,
        "p": found.p,
        "exact": found.exact,
        "verdict": found.verdict,
        "study": claim.study,
        "would_settle": _remedy(claim, found),
        "note": found.note,
    }


def _remedy(claim: SourceClaim, found: Finding) -> str:
    """What would decide an open claim: its study, or more of it."""
    if found.verdict == NOT_TESTED:
        return f"study {claim.study}"
    return f"study {claim.study} with more {claim.more}" if found.verdict == CANNOT_BE_TOLD else ""
