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
from eval.data.quantity import LOSS, SCORE
from eval.data.study import Study
from eval.stats.decision import CANNOT_BE_TOLD, CONTRADICTED, NOT_TESTED, SUPPORTED, Finding

VERDICTS = (SUPPORTED, CONTRADICTED, CANNOT_BE_TOLD, NOT_TESTED)


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim of the paper, or one part of a claim.

    Attributes:
      number: the number of the claim, 1 to 9.
      part: a letter, if the claim has several parts.
      text: what the paper says.
      hypothesis: what is tested here.
      measure: what the effect is, with its unit.
      would_settle: the runs that would decide it.
      test: computes the finding from the evidence.
    """

    number: int
    part: str
    text: str
    hypothesis: str
    measure: str
    would_settle: str
    test: Callable[[Evidence], Finding]


_UNIT = {quantity.symbol: quantity.unit for quantity in (LOSS, SCORE)}
_SIDE = {"U": "upstream", "D": "downstream"}
_MORE = "five or more sizes with three seeds each, of"
_WHOLE = f"{_MORE} every architecture, over one common range of FLOPs"


def _claims() -> list[Claim]:
    """All claims in the paper's order, with the zoo's names for the architectures."""
    return [*_scaling(), *_transfer(), *_single_models(), *_costs(), *_protocols()]


def _scaling() -> list[Claim]:
    best = (
        "The vanilla Transformer has the best scaling slope of all, although not the best quality "
        "at every budget."
    )
    moves = "The best model differs between compute regions."
    flat = (
        "Performer barely scales upstream: base to large, its perplexity falls 2.7 % against 8.4 % "
        "for vanilla."
    )
    claims = [
        Claim(
            1,
            part,
            best,
            f"vanilla's {_SIDE[y]} slope on log FLOPs is above that of every other architecture",
            f"vanilla's slope minus that of its closest rival, {_UNIT[y]} per unit of log FLOPs",
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
            f"at some budget another architecture is better {_SIDE[y]} than vanilla",
            "the surest lead over vanilla at the low, middle or high end of a common range, "
            f"{_UNIT[y]}",
            _WHOLE,
            lambda e, y=y: ev.not_always_best(e, y),
        )
        for part, y in (("c", "U"), ("d", "D"))
    ]
    claims += [
        Claim(
            2,
            part,
            moves,
            f"no single architecture is best {_SIDE[y]} at both ends of the range that all cover",
            "lead of the best at the high end over the best at the low end, at the high end, "
            f"{_UNIT[y]}",
            _WHOLE,
            lambda e, y=y: ev.best_moves(e, y),
        )
        for part, y in (("a", "U"), ("b", "D"))
    ]
    return [
        *claims,
        Claim(
            3,
            "a",
            flat,
            "Performer's upstream slope on log FLOPs is below vanilla's",
            "Performer's slope minus vanilla's, nats per unit of log FLOPs",
            f"{_MORE} performer and vanilla",
            lambda e: ev.slope_against(e, "performer", "U", -1),
        ),
        Claim(
            3,
            "b",
            flat,
            "from base to large Performer gains less upstream than vanilla",
            "Performer's gain minus vanilla's, nats",
            "base and large, three seeds each, of performer and vanilla",
            lambda e: ev.gain_against(e, "performer", ("base", "large")),
        ),
    ]


def _transfer() -> list[Claim]:
    text = (
        "Funnel and LConv do well upstream and worse downstream; Performer's gap is larger still."
    )
    measure = (
        "downstream score minus vanilla's at equal upstream quality, middle of the common range, "
        "percent"
    )
    settle = "more sizes and seeds whose upstream quality overlaps vanilla's, of"
    return [
        *(
            Claim(
                4,
                part,
                text,
                f"at equal upstream quality {name} scores below vanilla downstream",
                measure,
                f"{settle} {name}",
                lambda e, name=name: ev.transfer_gap(e, name),
            )
            for part, name in (("a", "funnel"), ("b", "lconv"), ("c", "performer"))
        ),
        Claim(
            4,
            "d",
            text,
            "performer's gap at equal upstream quality exceeds the mean gap of funnel and lconv",
            "performer's downstream score minus the mean of theirs at equal upstream quality, "
            "percent",
            f"{settle} all three",
            lambda e: ev.wider_gap(e, "performer", ("funnel", "lconv")),
        ),
    ]


def _single_models() -> list[Claim]:
    fades = (
        "LConv and Evolved match or beat vanilla at small budgets but do not keep up at large ones."
    )
    mixed = "Mixture of Softmaxes beats vanilla in some regions and not in others."
    negative = "ALBERT scales negatively downstream; MLP-Mixer too."
    pairs = [(name, y) for name in ("lconv", "evolved") for y in "UD"]
    return [
        *(
            Claim(
                5,
                part,
                fades,
                f"{name} is within {ev.MATCH[y]} {_UNIT[y]} of vanilla or ahead {_SIDE[y]} at the "
                "low end of the "
                "common range, and behind at the high end",
                f"{name} minus vanilla at the high end, {_UNIT[y]}",
                f"{_MORE} {name} and vanilla",
                lambda e, name=name, y=y: ev.fades(e, name, y),
            )
            for part, (name, y) in zip("abcd", pairs, strict=True)
        ),
        Claim(
            5,
            "e",
            fades + " Evolved does so downstream from tiny to small only.",
            "Evolved's downstream gain over vanilla's is larger from tiny to small than from small "
            "to base",
            "difference of the two relative gains, percent",
            "tiny, small and base, three seeds each, of evolved and vanilla",
            lambda e: ev.gain_against(e, "evolved", ("tiny", "small"), ("small", "base"), "D", +1),
        ),
        *(
            Claim(
                6,
                part,
                mixed,
                f"MoS is ahead of vanilla {_SIDE[y]} at some budget and behind at another",
                f"MoS minus vanilla at the budget where it is farthest ahead, {_UNIT[y]}",
                f"{_MORE} mos and vanilla",
                lambda e, y=y: ev.mixed(e, "mos", y),
            )
            for part, y in (("a", "U"), ("b", "D"))
        ),
        *(
            Claim(
                7,
                part,
                negative,
                f"{name}'s downstream slope on log FLOPs is below 0",
                "slope, percent per unit of log FLOPs",
                f"{_MORE} {name}",
                lambda e, name=name: ev.slope_against(e, name, "D", -1, against=None),
            )
            for part, name in (("a", "albert"), ("b", "mixer"))
        ),
    ]


def _costs() -> list[Claim]:
    text = (
        "Sharing (Universal, ALBERT) and sparsity (Switch) warp the relation between parameters, "
        "FLOPs and speed."
    )
    models = (
        ("a", "universal", "more", 1),
        ("b", "albert", "more", 1),
        ("c", "switch", "less", -1),
    )
    return [
        Claim(
            8,
            part,
            text,
            f"at every size {name} spends {word} FLOPs on a parameter than vanilla, by "
            f"{ev.WARPED} times or more",
            "FLOPs per parameter over vanilla's (geometric mean; the interval is the range over "
            "sizes)",
            f"any size that both {name} and vanilla have",
            lambda e, name=name, sign=sign: ev.warped(e, name, sign),
        )
        for part, name, word, sign in models
    ]


def _protocols() -> list[Claim]:
    text = (
        "Depth scaling moves downstream more than width scaling; upstream, trends under width "
        "scaling look alike; "
        "LConv is the exception under depth; Evolved gains slightly from width."
    )
    ladders = "depth and width ladders of four or more sizes, three seeds each, of"
    per = "per unit of log FLOPs"
    return [
        Claim(
            9,
            "a",
            text,
            "the downstream slope under depth is above that under width, on average over "
            "architectures",
            f"depth minus width, mean over architectures, percent {per}",
            f"{ladders} several architectures",
            ev.depth_over_width,
        ),
        Claim(
            9,
            "b",
            text,
            f"under width every upstream slope is within {ev.ALIKE:.0%} of vanilla's",
            "slope over vanilla's, of the architecture farthest from it",
            f"{ladders} several architectures",
            ev.alike_under_width,
        ),
        Claim(
            9,
            "c",
            text,
            "under depth LConv's upstream slope differs from the mean of the others",
            f"LConv minus the mean of the others, nats {per}",
            f"{ladders} lconv and others",
            lambda e: ev.stands_out(e, "lconv", "U", "depth", 0),
        ),
        Claim(
            9,
            "d",
            text,
            "under width Evolved's upstream slope is above the mean of the others",
            f"Evolved minus the mean of the others, nats {per}",
            f"{ladders} evolved and others",
            lambda e: ev.stands_out(e, "evolved", "U", "width", +1),
        ),
    ]


def scorecard(
    study: Study | pd.DataFrame | RunTable,
    question: Question | None = None,
    names: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Tests every claim of Tay et al. (2022, arXiv 2207.10551) against these runs.

    Args:
      study: a study, or a table of runs.
      question: the settings. Each claim sets its own axes.
      names: the table's names for the architectures of the claims, where they differ from the zoo's
        (`{"mos": "my-mos"}`).

    Returns:
      One row per claim or part of a claim, in the paper's order, with columns
        claim (1 to 9), part (`a`, `b`, ...), text (what the paper says), hypothesis (what was
        tested here), measure (what `effect` is, with its unit), effect, ci_low, ci_high, p
        (two-sided, of the verdict), verdict (of VERDICTS), would_settle (which runs would
        decide it, in words), note.

    Raises:
      InputError: see `eval.data.cells.RunTable`. If the architectures, sizes or scores of a claim
        are missing, its verdict is `not tested` and nothing is raised.
    """
    facts = Evidence(study, question)
    facts.names = dict(names or {})
    rows = []
    for claim in _claims():
        found = claim.test(facts)
        rows.append(
            {
                "claim": claim.number,
                "part": claim.part,
                "text": claim.text,
                "hypothesis": claim.hypothesis,
                "measure": claim.measure,
                "effect": found.effect,
                "ci_low": found.low,
                "ci_high": found.high,
                "p": found.p,
                "verdict": found.verdict,
                "would_settle": claim.would_settle
                if found.verdict in (CANNOT_BE_TOLD, NOT_TESTED)
                else "",
                "note": found.note,
            }
        )
    return pd.DataFrame(rows)
