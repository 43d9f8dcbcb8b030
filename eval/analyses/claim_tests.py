"""The statistical tests behind `eval.analyses.claims`.

Each function tests one kind of claim. It takes the evidence (the runs and the lines fitted to them)
and returns a finding.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from eval.analyses.protocols import Protocols
from eval.analyses.question import Inquiry, Question
from eval.data.cells import RunTable, supported
from eval.data.chance import AT_CHANCE
from eval.data.quantity import PARAMS, Quantities
from eval.stats.bootstrap import join
from eval.stats.decision import (
    CONTRADICTED,
    SUPPORTED,
    Finding,
    Untestable,
    all_must,
    judge,
    one_enough,
    testable,
)
from eval.stats.regression import Estimate, Lines, divide, fieller, fit

UNITS = {"U": "nats", "D": "points of score"}  # of differences of a quality
MATCH = {"U": 0.02, "D": 1.0}  # in these units: this far behind still counts as matching
ALIKE = 0.25  # slopes that differ by less than this share look alike
_THINGS = {
    "F": "a count of FLOPs",
    "P": "a count of parameters",
    "S": "a speed",
    "M": "what decoding keeps",
    "U": "a held-out loss",
    "D": "a downstream score",
}
WARPED = 1.5  # a factor on FLOPs per parameter that counts as warping the relation


@dataclasses.dataclass(frozen=True)
class NamedLines:
    """Fitted lines for one pair of quantities, which can be looked up by architecture.

    Attributes:
      lines: the lines, one per architecture.
      place: the index of each architecture's line.
      question: the settings of the fit.
    """

    lines: Lines
    place: dict[str, int]
    question: Question

    def over(self, *names: str, others: Sequence[str] = ()) -> "NamedLines":
        """Refits the lines over the sizes at which these architectures can be compared.

        Args:
          *names: architectures that must be kept.
          others: further architectures to compare with. One of them is dropped, also from `place`,
            if the rest then have more sizes in common.
        """
        needed, rest = ([self.place[name] for name in some] for some in (names, others))
        cells = supported(self.lines.cells, needed + rest, self.question.support, needed)
        if cells is self.lines.cells:
            return self
        place = {
            name: i
            for name, i in self.place.items()
            if name not in others or (cells.group == i).any()
        }
        return dataclasses.replace(self, lines=fit(cells, *self.lines.made), place=place)

    def at(self, name: str, x: float = np.inf) -> np.ndarray:
        """Weights that give an architecture's line at x, or its slope if x is not given."""
        return self.lines.value_weights(self.place[name], x)

    def span(self, *names: str) -> tuple[float, float]:
        """The range of x that all these architectures cover.

        Raises:
          Untestable: there is no such range.
        """
        groups = [self.place[name] for name in names]
        low, high = self.lines.low[groups].max(), self.lines.high[groups].min()
        if not low < high:
            raise Untestable(f"{' and '.join(names)} have no range in common")
        return float(low), float(high)

    def test(self, weights: np.ndarray) -> tuple[Estimate, float, float]:
        """The estimate, and one-sided p values: above 0 by chance, below 0 by chance."""
        found = self.lines.combine(weights)
        return found, float(found.p_above), float(found.p_below)

    def finding(
        self, weights: np.ndarray, p_for: float, p_against: float, note: str = ""
    ) -> Finding:
        """A finding with this combination as its effect, judged by two one-sided p values."""
        found = self.lines.combine(weights)
        low, high = found.interval(self.question.level)
        verdict, p = judge(p_for, p_against, self.question.level)
        used = np.flatnonzero((weights != 0).any(axis=1))
        return Finding(
            float(found.value),
            float(low),
            float(high),
            p,
            verdict,
            join(note, self.lines.explain(used)),
        )


class Evidence(Inquiry):
    """A study, with lines that are fitted when a claim first asks for them.

    Attributes:
      everything: all runs; `runs` holds those of the protocol under which architectures are
        compared.
      known: letters of the quantities that at least one run has.
      names: the table's names for the zoo's architectures, where the two differ.
    """

    def _admitted(self, question: Question) -> Question:
        return question.ask(link="semilog")

    def _chosen(self, everything: RunTable) -> RunTable:
        """Checks those quantities that the table has, and picks the runs of the protocol."""
        self.everything, self.names = everything, dict[str, str]()
        self._lines: dict[tuple, NamedLines] = {}
        known = [q for q in self.question.quantities if everything.knows(q)]
        self.known = {quantity.symbol for quantity in known}
        everything.check(known)
        return everything.main(self.question.protocol)

    @functools.cached_property
    def at_chance(self) -> np.ndarray:
        """For each run whether its score was left out because it is at chance, [R]."""
        table = self.everything.frame
        return table[AT_CHANCE].to_numpy(bool) if AT_CHANCE in table else np.zeros(len(table), bool)

    @property
    def quantities(self) -> Quantities:
        """The quantities behind the letters F, P, S, U and D, with their columns."""
        return self.question.quantities

    @property
    def reference(self) -> str:
        """The architecture that the others are compared with."""
        return str(self.question.reference)

    def name(self, zoo: str) -> str:
        """The table's name for an architecture of the zoo."""
        return self.names.get(zoo, zoo)

    def rival(self, zoo: str) -> str:
        """Like `name`, for an architecture that is to be compared with the reference.

        Raises:
          Untestable: it is the reference itself.
        """
        name = self.name(zoo)
        if name == self.reference:
            raise Untestable(f"{name} is the reference here: there is nothing to compare it with")
        return name

    def need(self, quantities: str, *architectures: str, runs: RunTable | None = None) -> None:
        """Checks that the table has these quantities and architectures.

        Raises:
          Untestable: one is missing.
        """
        for symbol in quantities:
            if symbol not in self.known:
                if symbol == "D" and self.at_chance.all():
                    raise Untestable("the score of every run is at chance")
                raise Untestable(f"no run has {_THINGS[symbol]}")
        present = set((runs or self.runs).frame["architecture"].astype(str))
        for name in architectures:
            if name not in present:
                raise Untestable(f"no runs of {name}")

    def fit(self, x: str, y: str, *architectures: str, protocol: str | None = None) -> NamedLines:
        """Lines of all architectures, fitted to the main ladder or to the ladder of one protocol.

        Args:
          x: letter of the quantity on the first axis.
          y: letter of the quantity on the second axis.
          *architectures: those that must have a line.
          protocol: the protocol whose runs are used; None takes the main ladder.

        Raises:
          Untestable: a quantity, an architecture or one of the required lines is missing.
        """
        if (x, y, protocol) not in self._lines:
            runs = self.runs if protocol is None else self.ladder(protocol)
            self.need(x + y)
            question = self.question.ask(x=self.quantities[x], y=self.quantities[y])
            cells = runs.cells(question.axes).along_x()
            lines = fit(cells, question.errors, question.variance)
            slopes = lines.coefficients[:, 1]
            place = {g[0]: i for i, g in enumerate(cells.groups) if np.isfinite(slopes[i])}
            self._lines[x, y, protocol] = NamedLines(lines, place, question)
        found = self._lines[x, y, protocol]
        for name in architectures:
            if name not in found.place:
                runs = self.runs if protocol is None else self.ladder(protocol)
                self.need("", name, runs=runs)
                chance = " above chance" if "D" in (x, y) and self.at_chance.any() else ""
                both = f"both {_THINGS[x]} and {_THINGS[y]}{chance}"
                raise Untestable(f"no line for {name}: fewer than two sizes with {both}")
        return found

    def ladder(self, protocol: str) -> RunTable:
        """The runs of one protocol.

        Raises:
          Untestable: there are none.
        """
        table = self.everything.frame
        if "protocol" in table.columns:
            own = table[table["protocol"] == protocol]
            if len(own):
                return self.everything.take(own)
        raise Untestable(f"no runs under the protocol {protocol!r}")


def _others(f: NamedLines, reference: str) -> list[str]:
    others = [name for name in f.place if name != reference]
    if not others:
        raise Untestable("no other architecture has a line to compare with")
    return others


def _flops(e: Evidence, place: float) -> float:
    """The number of FLOPs at a position on the axis of FLOPs."""
    return float(e.question.axis(e.quantities.flops).unread(place))


@testable
def steepest(e: Evidence, y: str) -> Finding:
    """The reference's slope is above every other slope.

    For: all comparisons must hold. Against: one steeper architecture is enough.
    """
    whole = e.fit("F", y, e.reference)
    fits = {name: whole.over(e.reference, name) for name in _others(whole, e.reference)}
    tests = {name: f.test(f.at(e.reference) - f.at(name)) for name, f in fits.items()}
    # The rival whose comparison decides; one without a test comes last.
    rival = max(fits, key=lambda name: np.nan_to_num(tests[name][1], nan=-1.0))
    p_for = all_must([t[1] for t in tests.values()])
    p_against = one_enough([t[2] for t in tests.values()])
    f, untested = fits[rival], [name for name, test in tests.items() if np.isnan(test[1])]
    note = f"closest rival: {rival}"
    note = join(
        note,
        f"no test against {', '.join(untested)}" if len(untested) < len(tests) and untested else "",
    )
    return f.finding(f.at(e.reference) - f.at(rival), p_for, p_against, note)


@testable
def not_always_best(e: Evidence, y: str) -> Finding:
    """Some other architecture is ahead of the reference at some budget.

    For: one architecture at one budget is enough. Against: all must be behind everywhere.
    """
    f = e.fit("F", y, e.reference)
    leads = []
    for name in _others(f, e.reference):
        try:
            low, high = f.span(name, e.reference)
        except Untestable:
            continue
        for x in (low, (low + high) / 2, high):
            weights = f.at(name, x) - f.at(e.reference, x)
            leads.append((weights, f.test(weights), f"{name} at {_flops(e, x):.2g} FLOPs"))
    if not leads:
        raise Untestable(f"no architecture covers a range of FLOPs with {e.reference}")
    # A p value of NaN sorts last.
    weights, _, where = min(leads, key=lambda lead: np.nan_to_num(lead[1][1], nan=2.0))
    p_for, p_against = (
        one_enough([lead[1][1] for lead in leads]),
        all_must([lead[1][2] for lead in leads]),
    )
    return f.finding(weights, p_for, p_against, where)


@testable
def best_moves(e: Evidence, y: str) -> Finding:
    """No architecture is best at both ends of the range that all of them cover.

    For: every architecture is beaten by another at one of the ends. Against: some architecture
    beats every other at both ends.
    """
    f = e.fit("F", y)
    names = list(f.place)
    if len(names) < 2:
        raise Untestable("only one architecture has a line")
    ends = f.span(*names)
    p = np.full((2, len(names), len(names)), np.nan)  # [end, a, b]: small where a is surely above b
    for i, x in enumerate(ends):
        for a in range(len(names)):
            for b in range(len(names)):
                if a != b:
                    p[i, a, b] = f.test(f.at(names[a], x) - f.at(names[b], x))[1]
    others = ~np.eye(len(names), dtype=bool)
    p_for = all_must([one_enough(p[:, others[c], c].ravel()) for c in range(len(names))])
    p_against = one_enough([all_must(p[:, c, others[c]].ravel()) for c in range(len(names))])
    first, last = (max(names, key=lambda n, x=x: f.lines.combine(f.at(n, x)).value) for x in ends)
    low, high = (f"{_flops(e, x):.2g} FLOPs" for x in ends)
    note = f"by the lines {first} is best at {low} and {last} at {high}"
    if first == last:
        verdict, two_sided = judge(p_for, p_against, e.question.level)
        return Finding(0.0, np.nan, np.nan, two_sided, verdict, note)
    return f.finding(f.at(last, ends[1]) - f.at(first, ends[1]), p_for, p_against, note)


@testable
def slope_against(
    e: Evidence, zoo: str, y: str, sign: int, against: str | None = "reference"
) -> Finding:
    """The slope minus the reference's (or minus 0) has the claimed sign."""
    if not against:
        f = e.fit("F", y, e.name(zoo))
        return _signed(f, f.at(e.name(zoo)), sign)
    name = e.rival(zoo)
    f = e.fit("F", y, e.reference, name).over(e.reference, name)
    return _signed(f, f.at(name) - f.at(e.reference), sign)


def _signed(f: NamedLines, weights: np.ndarray, sign: int, note: str = "") -> Finding:
    """Judges a combination that is claimed to be above 0 (1), below 0 (-1), or just not 0 (0)."""
    _, above, below = f.test(weights)
    if sign == 0:
        return f.finding(weights, float(np.fmin(above, below)), np.nan, note)
    return f.finding(weights, *((above, below) if sign > 0 else (below, above)), note)


@testable
def gain_against(
    e: Evidence,
    zoo: str,
    step: tuple[str, str],
    later: tuple[str, str] | None = None,
    y: str = "U",
    sign: int = -1,
) -> Finding:
    """The gain over a step in size, minus the reference's gain over the same step.

    If `later` is given, the same difference over that later step is subtracted. The error comes
    from the seeds (Welch).
    """
    name = e.rival(zoo)
    e.need(y, name, e.reference)
    cells = e.runs.cells([e.question.axis(e.quantities[y])])
    place = {
        (size, cells.groups[g][0]): c
        for c, (size, g) in enumerate(zip(cells.size, cells.group, strict=True))
    }
    weights = {(step[0], name): -1.0, (step[1], name): 1.0}
    if later:
        weights = {
            key: w - (key[0] == later[1]) + (key[0] == later[0]) for key, w in weights.items()
        }
        weights.setdefault((later[1], name), -1.0)
    weights |= {(size, e.reference): -w for (size, _), w in list(weights.items())}
    total, variance, parts = 0.0, 0.0, []
    for (size, architecture), w in weights.items():
        if (size, architecture) not in place:
            raise Untestable(f"no runs of {architecture} at {size}")
        cell = place[size, architecture]
        seeds = cells.values[cells.cell == cell, 0]
        total += w * cells.mean[cell, 0]
        v = w**2 * seeds.var(ddof=1) / len(seeds) if len(seeds) > 1 else np.nan
        variance, parts = variance + v, [*parts, (v, len(seeds) - 1)]
    df = variance**2 / sum(v**2 / d for v, d in parts) if variance > 0 else np.nan
    found = Estimate(np.array(total), np.array(np.sqrt(variance)), np.array(df))
    above, below = float(found.p_above), float(found.p_below)
    verdict, p = judge(*((above, below) if sign > 0 else (below, above)), e.question.level)
    low, high = found.interval(e.question.level)
    return Finding(
        total,
        float(low),
        float(high),
        p,
        verdict,
        "" if df > 0 else "one seed per size: no interval",
    )


@testable
def transfer_gap(e: Evidence, zoo: str) -> Finding:
    """The downstream score is below the reference's at equal upstream quality."""
    name = e.rival(zoo)
    f = e.fit("U", "D", e.reference, name)
    x = sum(f.span(name, e.reference)) / 2
    return _signed(f, f.at(name, x) - f.at(e.reference, x), -1)


@testable
def wider_gap(e: Evidence, zoo: str, others: Sequence[str]) -> Finding:
    """The downstream score is below the mean of others at equal upstream quality."""
    name, rest = e.name(zoo), [e.name(other) for other in others]
    f = e.fit("U", "D", name, *rest)
    x = sum(f.span(name, *rest)) / 2
    return _signed(f, f.at(name, x) - sum(f.at(other, x) for other in rest) / len(rest), -1)


@testable
def fades(e: Evidence, zoo: str, y: str) -> Finding:
    """Level with the reference (within MATCH) at the low end, behind it at the high end.

    For: both must hold.
    """
    name = e.rival(zoo)
    f = e.fit("F", y, e.reference, name)
    low, high = (f.at(name, x) - f.at(e.reference, x) for x in f.span(name, e.reference))
    start, end = f.lines.combine(low), f.lines.combine(high)
    shifted = dataclasses.replace(start, value=start.value + MATCH[y])
    p_for = all_must([float(shifted.p_above), float(end.p_below)])
    p_against = one_enough([float(shifted.p_below), float(end.p_above)])
    return f.finding(high, p_for, p_against, f"at the low end {float(start.value):+.3g} {UNITS[y]}")


@testable
def mixed(e: Evidence, zoo: str, y: str) -> Finding:
    """Ahead of the reference at one of three budgets and behind it at another.

    Both must hold, each with Bonferroni's correction over the budgets.
    """
    name = e.rival(zoo)
    f = e.fit("F", y, e.reference, name)
    low, high = f.span(name, e.reference)
    places = (low, (low + high) / 2, high)
    weights = [f.at(name, x) - f.at(e.reference, x) for x in places]
    tests = [f.test(w) for w in weights]
    above, below = [t[1] for t in tests], [t[2] for t in tests]
    p_for = all_must([one_enough(above), one_enough(below)])
    p_against = one_enough([all_must(above), all_must(below)])
    farthest = int(np.argmax([float(t[0].value) for t in tests]))
    values = (
        f"{t[0].value:+.3g} {UNITS[y]} at {_flops(e, x):.2g} FLOPs"
        for t, x in zip(tests, places, strict=True)
    )
    note = "differences: " + ", ".join(values)
    return f.finding(weights[farthest], p_for, p_against, note)


@testable
def warped(e: Evidence, zoo: str, sign: int) -> Finding:
    """FLOPs per parameter over the reference's, at the sizes that both have.

    All parameters count. The counts are exact, so there is no p value, and one size where the
    hypothesis is false is enough against it.
    """
    name = e.rival(zoo)
    e.need("FP", name, e.reference)
    # Count all parameters here, even if the other analyses count only the active ones: a model is
    # sparse precisely because a token does not use all of its parameters.
    params = PARAMS if e.runs.knows(PARAMS) else e.quantities.params
    table = e.runs.frame
    flops, params = (quantity.values(table) for quantity in (e.quantities.flops, params))
    values = pd.DataFrame(
        {
            "architecture": table["architecture"].astype(str),
            "size": table["size"].astype(str),
            "ratio": np.log(flops) - np.log(params),
        }
    )
    ratios = values.dropna().groupby(["architecture", "size"])["ratio"].mean()
    both = (ratios.loc[[name]].droplevel(0) - ratios.loc[[e.reference]].droplevel(0)).dropna()
    if both.empty:
        raise Untestable(f"{name} and {e.reference} have no size in common")
    short = both.index[sign * both < np.log(WARPED)]
    verdict = CONTRADICTED if len(short) else SUPPORTED
    note = f"{WARPED} times or more at {len(both) - len(short)} of {len(both)} sizes"
    note += f", not at {', '.join(short)}" if 0 < len(short) < len(both) else ""
    effect, low, high = (float(np.exp(v)) for v in (both.mean(), both.min(), both.max()))
    return Finding(effect, low, high, np.nan, verdict, note, exact=True)


@testable
def depth_over_width(e: Evidence) -> Finding:
    """The downstream slope under depth minus the slope under width, averaged over architectures."""
    e.need("FD")
    for protocol in ("depth", "width"):
        e.ladder(protocol)
    question = e.question.ask(x=e.quantities.flops, y=e.quantities.score)
    table = Protocols(e.everything, question).differences()
    if table.empty:
        raise Untestable("no architecture has both a depth and a width ladder")
    row = table.iloc[-1]
    half = row["p"] / 2
    p_for, p_against = (half, 1 - half) if row["difference"] > 0 else (1 - half, half)
    verdict, p = judge(p_for, p_against, e.question.level)
    return Finding(row["difference"], row["ci_low"], row["ci_high"], p, verdict, row["note"])


@testable
def alike_under_width(e: Evidence) -> Finding:
    """Under width scaling, every slope is within ALIKE of the reference's.

    For: two one-sided tests per architecture, all must hold. Against: one slope outside is enough.
    """
    whole = e.fit("F", "U", e.reference, protocol="width")
    fits = {name: whole.over(e.reference, name) for name in _others(whole, e.reference)}
    base = whole.at(e.reference)
    tests, ratio = [], {}
    for name, f in fits.items():
        own, other = f.lines.coefficients[[f.place[name], f.place[e.reference]], 1]
        ratio[name] = divide(own, other)
        margins = (
            np.sign(other) * (f.at(name) - (1 + side * ALIKE) * base) * side for side in (-1, 1)
        )
        tests += [f.test(weights) for weights in margins]  # above 0: outside
    p_for, p_against = all_must([t[2] for t in tests]), one_enough([t[1] for t in tests])
    verdict, p = judge(p_for, p_against, e.question.level)
    farthest = max(fits, key=lambda name: np.nan_to_num(abs(ratio[name] - 1), nan=-1.0))
    f = fits[farthest]
    low, high, kind = fieller(f.lines, f.at(farthest), base, e.question.level)
    lacking = f.lines.explain((f.place[farthest], f.place[e.reference]))
    note = join(f"farthest: {farthest}", "" if kind == "bounded" else f"interval {kind}", lacking)
    low, high = (np.nan, np.nan) if kind == "outside" else (low, high)
    return Finding(ratio[farthest], low, high, p, verdict, note)


@testable
def stands_out(e: Evidence, zoo: str, y: str, protocol: str, sign: int) -> Finding:
    """The slope under a protocol minus the mean slope of the other architectures under it."""
    name = e.name(zoo)
    whole = e.fit("F", y, name, protocol=protocol)
    f = whole.over(name, others=_others(whole, name))
    others = _others(f, name)
    left_out = [other for other in whole.place if other not in f.place]
    note = f"without {', '.join(left_out)}, elsewhere on the axis" if left_out else ""
    return _signed(f, f.at(name) - sum(f.at(other) for other in others) / len(others), sign, note)
