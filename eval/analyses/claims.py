"""The study's claims as hypotheses: an effect, an interval, a verdict, and what would decide it.

Each claim is one question fixed in advance and is judged on its own. Where a claim is about all
architectures, or about one among many, its p value is already corrected for that: the largest p
where all must hold, Bonferroni's where one is enough. The tests are in `eval.analyses.claim_tests`
and the rules in `eval.stats.decision`; this file lists the claims.
"""

import dataclasses
from collections.abc import Callable, Mapping

import pandas as pd

from eval.analyses import claim_tests as ev
from eval.analyses.claim_tests import Evidence
from eval.analyses.question import Question
from eval.data.cells import RunTable
from eval.data.families import PLAIN
from eval.data.study import Study
from eval.stats.decision import (
    CANNOT_BE_TOLD,
    CONTRADICTED,
    NOT_TESTED,
    SUPPORTED,
    Finding,
    untested,
)

VERDICTS = (SUPPORTED, CONTRADICTED, CANNOT_BE_TOLD, NOT_TESTED)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper, or one part of a claim.

    Attributes:
      number: the number of the claim, 1 to 9.
      part: a letter, if the claim has several parts.
      text: what the paper says.
      hypothesis: what is tested here.
      measure: what the effect is.
      unit: the unit of the effect.
      would_settle: the runs that would decide it.
      test: computes the finding from the evidence.
    """

    number: int
    part: str
    text: str
    hypothesis: str
    measure: str
    unit: str
    would_settle: str
    test: Callable[[Evidence], Finding]


_SIDE = {"U": "upstream", "D": "downstream"}
_MORE = "five or more sizes with three seeds each, of"
_WHOLE = f"{_MORE} every architecture, over one common range of FLOPs"
_TIMES = "times"
_LEARNED = "scores above chance: train longer or larger models, or take easier tasks"
_SCORED = "runs that are fine-tuned and scored on tasks"


def _claims(e: Evidence) -> list[Claim]:
    """All claims in the paper's order, with the table's names for the architectures."""
    return [
        *_scaling(e),
        *_performer(e),
        *_transfer(e),
        *_single_models(e),
        *_costs(e),
        *_protocols(e),
    ]


def _of_slope(e: Evidence, y: str) -> str:
    """The unit of a slope of a quality on log FLOPs."""
    base = e.question.log_base
    return f"{ev.UNITS[y]} per {'tenfold' if base == 10 else f'factor {base:g} of'} FLOPs"


def _scaling(e: Evidence) -> list[Claim]:
    reference, paper = e.reference, e.name("transformer")
    best = (
        f"{paper} has the best scaling slope of all, although not the best quality at every budget."
    )
    claims = [
        Claim(
            1,
            part,
            best,
            f"the {_SIDE[y]} slope of {reference} on log FLOPs is above that of every other "
            "architecture",
            f"slope of {reference} minus that of its closest rival",
            _of_slope(e, y),
            _WHOLE,
            lambda e, y=y: ev.steepest(e, y),
        )
        for part, y in (("a", "U"), ("b", "D"))
    ]
    claims += [
        Claim(
            1,
            part,
            best,
            f"at some budget another architecture is better {_SIDE[y]} than {reference}",
            f"the surest lead over {reference} at the low, middle or high end of a common range",
            ev.UNITS[y],
            _WHOLE,
            lambda e, y=y: ev.not_always_best(e, y),
        )
        for part, y in (("c", "U"), ("d", "D"))
    ]
    return claims + [
        Claim(
            2,
            part,
            "The best model differs between compute regions.",
            f"no single architecture is best {_SIDE[y]} at both ends of the range that all cover",
            "lead of the best at the high end over the best at the low end, at the high end",
            ev.UNITS[y],
            _WHOLE,
            lambda e, y=y: ev.best_moves(e, y),
        )
        for part, y in (("a", "U"), ("b", "D"))
    ]


def _performer(e: Evidence) -> list[Claim]:
    reference, paper, name = e.reference, e.name("transformer"), e.name("performer")
    flat = (
        f"{name} barely scales upstream: base to large, its perplexity falls 2.7 % against 8.4 % "
        f"for {paper}."
    )
    return [
        Claim(
            3,
            "a",
            flat,
            f"the upstream slope of {name} on log FLOPs is below that of {reference}",
            f"slope of {name} minus that of {reference}",
            _of_slope(e, "U"),
            f"{_MORE} {name} and {reference}",
            lambda e: ev.slope_against(e, "performer", "U", -1),
        ),
        Claim(
            3,
            "b",
            flat,
            f"from base to large {name} gains less upstream than {reference}",
            f"gain of {name} minus that of {reference}",
            ev.UNITS["U"],
            f"base and large, three seeds each, of {name} and {reference}",
            lambda e: ev.gain_against(e, "performer", ("base", "large")),
        ),
    ]


def _transfer(e: Evidence) -> list[Claim]:
    reference = e.reference
    funnel, lconv, performer = (e.name(zoo) for zoo in ("funnel", "lconv", "performer"))
    text = (
        f"{funnel} and {lconv} do well upstream and worse downstream; the gap of {performer} is "
        "larger still."
    )
    settle = f"more sizes and seeds whose upstream quality overlaps that of {reference}, of"
    return [
        *(
            Claim(
                4,
                part,
                text,
                f"at equal upstream quality {e.name(zoo)} scores below {reference} downstream",
                f"downstream score minus that of {reference} at equal upstream quality, middle of "
                "the common range",
                ev.UNITS["D"],
                f"{settle} {e.name(zoo)}",
                lambda e, zoo=zoo: ev.transfer_gap(e, zoo),
            )
            for part, zoo in (("a", "funnel"), ("b", "lconv"), ("c", "performer"))
        ),
        Claim(
            4,
            "d",
            text,
            f"the gap of {performer} at equal upstream quality exceeds the mean gap of {funnel} "
            f"and {lconv}",
            f"downstream score of {performer} minus the mean of theirs at equal upstream quality",
            ev.UNITS["D"],
            f"{settle} all three",
            lambda e: ev.wider_gap(e, "performer", ("funnel", "lconv")),
        ),
    ]


def _single_models(e: Evidence) -> list[Claim]:
    reference, paper = e.reference, e.name("transformer")
    lconv, evolved, mos = (e.name(zoo) for zoo in ("lconv", "evolved", "mos"))
    fades = (
        f"{lconv} and {evolved} match or beat {paper} at small budgets but do not keep up at large "
        "ones."
    )
    mixed = f"{mos} beats {paper} in some regions and not in others."
    negative = f"{e.name('albert')} scales negatively downstream; {e.name('mixer')} too."
    pairs = [(zoo, y) for zoo in ("lconv", "evolved") for y in "UD"]
    return [
        *(
            Claim(
                5,
                part,
                fades,
                f"{e.name(zoo)} is within {ev.MATCH[y]:g} {ev.UNITS[y]} of {reference} or ahead "
                f"{_SIDE[y]} at the low end of the common range, and behind at the high end",
                f"{e.name(zoo)} minus {reference} at the high end",
                ev.UNITS[y],
                f"{_MORE} {e.name(zoo)} and {reference}",
                lambda e, zoo=zoo, y=y: ev.fades(e, zoo, y),
            )
            for part, (zoo, y) in zip("abcd", pairs, strict=True)
        ),
        Claim(
            5,
            "e",
            f"{fades} {evolved} does so downstream from tiny to small only.",
            f"the downstream gain of {evolved} over that of {reference} is larger from tiny to "
            "small than from small to base",
            "difference of the two relative gains",
            ev.UNITS["D"],
            f"tiny, small and base, three seeds each, of {evolved} and {reference}",
            lambda e: ev.gain_against(e, "evolved", ("tiny", "small"), ("small", "base"), "D", +1),
        ),
        *(
            Claim(
                6,
                part,
                mixed,
                f"{mos} is ahead of {reference} {_SIDE[y]} at some budget and behind at another",
                f"{mos} minus {reference} at the budget where it is farthest ahead",
                ev.UNITS[y],
                f"{_MORE} {mos} and {reference}",
                lambda e, y=y: ev.mixed(e, "mos", y),
            )
            for part, y in (("a", "U"), ("b", "D"))
        ),
        *(
            Claim(
                7,
                part,
                negative,
                f"the downstream slope of {e.name(zoo)} on log FLOPs is below 0",
                "slope",
                _of_slope(e, "D"),
                f"{_MORE} {e.name(zoo)}",
                lambda e, zoo=zoo: ev.slope_against(e, zoo, "D", -1, against=None),
            )
            for part, zoo in (("a", "albert"), ("b", "mixer"))
        ),
    ]


def _costs(e: Evidence) -> list[Claim]:
    models = (
        ("a", "universal", "more", 1),
        ("b", "albert", "more", 1),
        ("c", "switch", "less", -1),
    )
    universal, albert, switch = (e.name(zoo) for _, zoo, *_ in models)
    text = (
        f"Sharing ({universal}, {albert}) and sparsity ({switch}) warp the relation between "
        "parameters, FLOPs and speed."
    )
    return [
        Claim(
            8,
            part,
            text,
            f"at every size {e.name(zoo)} spends {word} FLOPs on a parameter than {e.reference}, "
            f"by {ev.WARPED} times or more",
            f"FLOPs per parameter over those of {e.reference}, geometric mean over sizes",
            _TIMES,
            f"any size that both {e.name(zoo)} and {e.reference} have",
            lambda e, zoo=zoo, sign=sign: ev.warped(e, zoo, sign),
        )
        for part, zoo, word, sign in models
    ]


def _protocols(e: Evidence) -> list[Claim]:
    lconv, evolved = e.name("lconv"), e.name("evolved")
    text = (
        "Depth scaling moves downstream more than width scaling; upstream, trends under width "
        f"scaling look alike; {lconv} is the exception under depth; {evolved} gains slightly from "
        "width."
    )
    ladders = "depth and width ladders of four or more sizes, three seeds each, of"
    return [
        Claim(
            9,
            "a",
            text,
            "the downstream slope under depth is above that under width, on average over "
            "architectures",
            "depth minus width, mean over architectures",
            _of_slope(e, "D"),
            f"{ladders} several architectures",
            ev.depth_over_width,
        ),
        Claim(
            9,
            "b",
            text,
            f"under width every upstream slope is within {ev.ALIKE:.0%} of that of {e.reference}",
            f"slope over that of {e.reference}, of the architecture farthest from it",
            _TIMES,
            f"{ladders} several architectures",
            ev.alike_under_width,
        ),
        Claim(
            9,
            "c",
            text,
            f"under depth the upstream slope of {lconv} differs from the mean of the others",
            f"{lconv} minus the mean of the others",
            _of_slope(e, "U"),
            f"{ladders} {lconv} and others",
            lambda e: ev.stands_out(e, "lconv", "U", "depth", 0),
        ),
        Claim(
            9,
            "d",
            text,
            f"under width the upstream slope of {evolved} is above the mean of the others",
            f"{evolved} minus the mean of the others",
            _of_slope(e, "U"),
            f"{ladders} {evolved} and others",
            lambda e: ev.stands_out(e, "evolved", "U", "width", +1),
        ),
    ]


def _remedy(claim: Claim, facts: Evidence) -> str:
    """What would decide an open claim. Scores at chance stay there with more sizes and seeds."""
    if not claim.unit.startswith(ev.UNITS["D"]):
        return claim.would_settle
    if facts.at_chance.all():
        return _LEARNED
    if "D" not in facts.known:
        return f"{_SCORED}; {claim.would_settle}"
    return f"{_LEARNED}; {claim.would_settle}" if facts.at_chance.any() else claim.would_settle


def _encoder_decoders(runs: RunTable) -> tuple[RunTable, str]:
    """The runs that the claims are about, and why nothing can be tested, if so."""
    table = runs.frame
    if "family" not in table:
        return runs, ""
    kept = table["family"].fillna("").isin(PLAIN)
    if not kept.any():
        return runs, "the claims are about encoder-decoders, and no run is of one"
    return runs.take(table[kept]), ""


def scorecard(
    study: Study | pd.DataFrame | RunTable,
    question: Question | None = None,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Tests every claim of Tay et al. (2022, arXiv 2207.10551) against these runs.

    The claims are about encoder-decoders, so decoder-only runs take no part.

    Args:
      study: a study, or a table of runs.
      question: the settings. Each claim sets its own axes.
      names: the table's names for the architectures of the claims, where they differ from the zoo's
        (`{"mos": "my-mos"}`).

    Returns:
      One row per claim or part of a claim, in the paper's order, with columns
        claim (1 to 9), part (`a`, `b`, ...), text (what the paper says), hypothesis (what was
        tested here), measure (what `effect` is), unit (of `effect` and its interval), effect,
        ci_low, ci_high, p (two-sided, of the verdict), exact (whether the effect is counted: then
        it has no p, and ci_low and ci_high are its range), verdict (of VERDICTS), would_settle
        (what would decide it, in words), note.

    Raises:
      InputError: see `eval.data.cells.RunTable`. If the architectures, sizes or scores of a claim
        are missing, its verdict is `not tested` and nothing is raised.
    """
    runs, why = _encoder_decoders(RunTable(study))
    facts = Evidence(runs, question)
    facts.names = dict(names or {})
    rows = []
    for claim in _claims(facts):
        found = untested(why) if why else claim.test(facts)
        rows.append(
            {
                "claim": claim.number,
                "part": claim.part,
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
                "would_settle": _remedy(claim, facts)
                if found.verdict in (CANNOT_BE_TOLD, NOT_TESTED)
                else "",
                "note": found.note,
            }
        )
    return pd.DataFrame(rows)
