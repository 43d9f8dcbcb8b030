"""A summary of the study in sentences. Every number in them is computed from the analyses."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from eval.analyses import verdicts
from eval.analyses.claim_tests import UNITS
from eval.analyses.everything import Analysis
from eval.analyses.probes import MEAN, short_names
from eval.analyses.question import REFERENCE
from eval.data.cells import CELL, DEFAULT_PROTOCOLS, main_protocol, other_protocols
from eval.data.chance import AT_CHANCE, at_chance, baselines
from eval.data.families import DECODER_ONLY, several
from eval.report.grid import bounds, fixed, interval, number, probability, scaled, supported
from eval.report.listing import TIMES
from eval.report.tables import cells, size_order
from eval.stats.decision import NOT_TESTED

_UNTUNED = (
    "The records name no learning rate that was tuned for each architecture: if all were trained "
    "with one untuned rate, their slopes are partly slopes of the rate."
)
_REMEDY = (
    "More sizes or seeds do not change that: train longer or larger models, or take easier tasks."
)
_ALPHAS = ("F,U", "F,D")


def sentences(analysis: Analysis) -> list[str]:
    """The most important results in a few sentences, the most important first.

    Differences between architectures are named only if they are significant after correction, by
    the tests of `eval.analyses.verdicts`.
    """
    parts = (
        _scope,
        _probes,
        _slopes,
        _levels,
        _families,
        _crossings,
        _frontier,
        _floor,
        _agreement,
        _claims,
        _sources,
    )
    chosen = (_probes,) if only_probes(analysis) else parts
    return [sentence for part in chosen for sentence in part(analysis)]


def only_probes(analysis: Analysis) -> bool:
    """Whether all runs are on probes, so that there is no loss and no score to compare."""
    columns = [quality.column for quality in analysis.qualities]
    return "probes" in analysis.results and bool(analysis.table[columns].isna().all(axis=None))


def warnings(analysis: Analysis) -> list[str]:
    """The study's own warnings, then warnings about what the analyses could not do."""
    slopes = analysis.results["slopes"]
    found = list(analysis.study.warnings)
    if only_probes(analysis):
        return found
    bare = slopes[(slopes.alpha == "F,U") & (slopes.link == "semilog") & slopes.ci_low.isna()]
    if len(bare):
        notes = ", ".join(sorted({note for note in bare.note if note}))
        found.append(
            f"{len(bare)} of {slopes.architecture.nunique()} architectures have no interval on "
            "their upstream slope "
            f"({notes}): whether they scale differently cannot be told from this study."
        )
    table = analysis.table
    main = main_protocol(table)
    if not set(main.protocol) & set(DEFAULT_PROTOCOLS) and (
        left_out := other_protocols(table, main)
    ):
        found.append(left_out)
    if said := stand_in(main, analysis.reference):
        found.append(said)
    if _in_warmup(analysis):
        found.append(
            "Pretraining ended before its learning rate was warmed up: every slope is one of the "
            "first steps of training."
        )
    if main.architecture.nunique() > 1:
        found.append(_tuning(analysis))
    return found


def _tuning(analysis: Analysis) -> str:
    """What the learning rates cost, as far as a sweep says."""
    regrets = analysis.results.get("regrets")
    if regrets is None:
        return _UNTUNED
    known = regrets.dropna(subset="regret")
    if known.empty:
        why = regrets["note"].mode().iloc[0]
        return f"The sweep of learning rates says nothing of these cells: {why}. {_UNTUNED}"
    worst = known.sort_values("regret").iloc[-1]
    ends = (float(worst["ci_low"]), float(worst["ci_high"]))
    size = f"{number(float(worst['regret']))} nats" + (
        f" {interval(*ends)}" if all(map(math.isfinite, ends)) else ""
    )
    said = (
        f"The learning rates that were used cost up to {size} (regret of {worst['architecture']} "
        f"at {worst['size']}): smaller differences may be tuning."
    )
    if tilts := _tilts(analysis, known):
        low, high = min(tilts, key=tilts.__getitem__), max(tilts, key=tilts.__getitem__)
        said += (
            f" They move upstream slopes by {number(tilts[low])} ({low}) to {number(tilts[high])} "
            f"({high}) {Pair('F,U', log_base=analysis.settings.log_base).unit_of_slope}."
        )
    if missing := len(regrets) - len(known):
        said += f" The regret of {missing} of {len(regrets)} cells is not known."
    return said


def _tilts(analysis: Analysis, regrets: pd.DataFrame) -> dict[str, float]:
    """How much steeper the regrets make each architecture's upstream slope."""
    flops = analysis.quantities.flops.column
    main = main_protocol(analysis.table).groupby(list(CELL))[flops].mean().reset_index(name="x")
    table = regrets.merge(main, on=list(CELL))
    found = {}
    for name, part in table.groupby("architecture", sort=True):
        x = np.log(part["x"].to_numpy(float)) / np.log(analysis.settings.log_base)
        if len(part) > 1 and np.ptp(x) > 0:
            tilt = -float(np.polyfit(x, part["regret"].to_numpy(float), 1)[0])
            found[str(name)] = round(tilt, 4) + 0.0  # nats; regrets are not known more closely
    return found


def _in_warmup(analysis: Analysis) -> bool:
    """Whether no run took more steps of pretraining than its warm-up has."""
    rows = analysis.study.settings
    values = {
        key: pd.to_numeric(rows.value[rows.setting == f"pretrain.{key}"], errors="coerce")
        for key in ("steps", "optimizer.warmup_steps")
    }
    steps, warmup = values.values()
    return bool(len(steps) and len(warmup) and steps.max() <= warmup.min())


def stand_in(main: pd.DataFrame, reference: str) -> str:
    """A sentence if the reference is not the vanilla Transformer; empty if it is."""
    if REFERENCE in set(main.architecture):
        return ""
    return (
        f"There is no {REFERENCE} among the runs compared; everything is compared with {reference}."
    )


def no_scores(analysis: Analysis) -> str:
    """Why nothing is compared downstream, as a clause; empty if something is."""
    if analysis.table[analysis.settings.score].notna().any():
        return ""
    low = analysis.table[AT_CHANCE].any()
    return "the score of every cell is at chance" if low else "no run has a downstream score"


def _list(names: Iterable, limit: int = 0) -> str:
    names = [str(name) for name in names]
    if limit and len(names) > limit:
        names = [*names[:limit], f"{len(names) - limit} more"]
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n != 1 else ''}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _scope(analysis: Analysis) -> Iterator[str]:
    table, columns = main_protocol(analysis.table), analysis.quantities
    sizes, flops = size_order(table), table[columns.flops.column].dropna()
    seeds = table.groupby(["architecture", "size"]).size()
    count = str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    span = ""
    if len(flops):
        span = f"; {_range(flops)} over all architectures"
        own = table.loc[table.architecture == analysis.reference, columns.flops.column].dropna()
        if len(own) and len(own) < len(flops):
            span += f", {_range(own)} for {analysis.reference} alone"
    more = len(analysis.table) - len(table)
    yield (
        f"{_count(len(table), 'finished run')}: "
        f"{_architectures(table)} at "
        f"{_count(len(sizes), 'size')} ({_list(sizes)}{span}), {count} "
        f"seed{'s' if count != '1' else ''} per cell"
        + (f", and {more} runs of other scaling protocols." if more else ".")
    )


def _architectures(table: pd.DataFrame) -> str:
    """How many architectures there are, and of which family, if there are several."""
    if not several(table):
        return _count(table.architecture.nunique(), "architecture")
    alone = table.family == DECODER_ONLY
    counts = [table.architecture[rows].nunique() for rows in (~alone, alone)]
    return (
        f"{_count(counts[0], 'architecture')} as encoder-decoders and {counts[1]} as decoder-only "
        "models"
    )


def _range(flops: pd.Series) -> str:
    times = f"{flops.max() / flops.min():,.0f}-fold"
    return f"{scaled(flops.min())} to {scaled(flops.max())} FLOPs ({times})"


@dataclasses.dataclass(frozen=True)
class Pair:
    """How sentences name a slope of one quantity on another.

    Attributes:
      alpha: the slope, such as `F,U`.
      link: `semilog` or `loglog`.
      log_base: base of the logarithms.
    """

    alpha: str
    link: str = "semilog"
    log_base: float = 10.0

    @property
    def where(self) -> str:
        """The quality that is compared, as the start of a sentence."""
        return "Upstream" if self.alpha.endswith("U") else "Downstream"

    @property
    def cost(self) -> str:
        """The cost that is on the x-axis."""
        return {"F": "FLOPs", "P": "parameters"}[self.alpha[0]]

    @property
    def unit(self) -> str:
        """The unit of a difference of qualities."""
        if self.link == "loglog":
            return f"log{number(self.log_base).removesuffix('.0')} units"
        return UNITS[self.alpha[-1]]

    @property
    def unit_of_slope(self) -> str:
        """The unit of a difference of slopes."""
        if self.link == "loglog":
            return "in the exponent"
        base = self.log_base
        step = "tenfold" if base == 10 else f"factor {number(base)} of"
        return f"{self.unit} per {step} {self.cost}"

    def slope(self, reference: str, slopes: pd.DataFrame) -> str:
        """A clause about the reference's own slope, from the table of slopes; empty if unknown."""
        own = slopes[(slopes["alpha"] == self.alpha) & (slopes["link"] == self.link)]
        own = own[own["architecture"] == reference].dropna(subset="slope")
        for row in _records(own):
            ends = interval(row["ci_low"], row["ci_high"])
            if self.link == "loglog":
                return f"{reference} has an exponent of {number(row['slope'])} {ends}".strip()
            per = self.unit_of_slope.removeprefix(f"{self.unit} ")
            gain = f"{number(row['slope'])} {self.unit} {ends}".strip()
            return f"{reference} gains {gain} {per}"
        return ""


def of_slopes(pair: Pair, contrasts: pd.DataFrame, slopes: pd.DataFrame) -> str:
    """The sentence that answers whether architectures scale differently; empty without a row."""
    verdict = verdicts.of_slopes(contrasts, pair.alpha)
    if verdict is None:
        return ""
    reference, own = verdict.reference, pair.slope(verdict.reference, slopes)
    start = f"{pair.where}, {own}; " if own else f"{pair.where}, "
    if not verdict.tested:
        return f"{start}no other slope could be tested against it."
    correction = f"after correction for {_count(verdict.tested, 'comparison')}"
    named = [
        f"{_list(names)} {_verb(names, 'scales', 'scale')} {word}"
        for word, names in (("better", verdict.better), ("worse", verdict.worse))
        if names
    ]
    found = "; ".join(named) or f"no slope is found to differ from that of {reference}"
    return f"{start}{correction}, {found}.{_power(verdict, pair.unit_of_slope)}"


def of_levels(pair: Pair, levels: pd.DataFrame, multipliers: pd.DataFrame) -> str:
    """The sentence on which architectures are better at equal cost; empty without a test."""
    verdict = verdicts.of_levels(levels, pair.alpha)
    if verdict is None or not verdict.tested:
        return ""
    gap = verdicts.primary(levels, pair.alpha).set_index("architecture").difference.to_dict()
    cost = _multipliers(pair, multipliers)
    named = [
        f"{word} than {verdict.reference}: "
        + _list(f"{name} ({number(gap[name])}{cost.get(name, '')})" for name in names)
        for word, names in (("better", verdict.better), ("worse", verdict.worse))
        if names
    ]
    found = "; ".join(named) or f"no difference from {verdict.reference} is found"
    return (
        f"{pair.where} at equal {pair.cost} (the middle of the common range, in {pair.unit}), "
        f"after correction for {_count(verdict.tested, 'comparison')}, {found}."
        f"{_power(verdict, pair.unit)}"
    )


def guessing(chance: float) -> str:
    """The score of guessing, in percent; what is practically nothing is 0."""
    return f"{chance:.2g}" if chance >= 0.01 else "0"


def of_probes(analysis: Analysis) -> str:
    """What can be said about probes and scaling; empty without a study of scaling."""
    relation = analysis.results.get("probe_relation")
    if relation is None:
        return (
            "Whether these scores predict how architectures scale needs a study of slopes beside "
            "this one: --with runs/NAME."
        )
    if relation.empty or not (relation["architectures"] >= 3).any():
        return "The two studies have fewer than three architectures in common: nothing can be said."
    alpha = 1 - analysis.settings.level
    found = relation[relation["p_holm"] < alpha]
    count = int(relation["architectures"].max())
    tested = int(relation["p"].notna().sum())
    text = f"{tested} rank correlations over at most {count} architectures were tested. "
    if len(found):
        names = ", ".join(
            f"{row['probe']} with the {row['measure']} ({row['spearman']:.2f})"
            for row in found.to_dict("records")
        )
        return f"{text}After correction, these differ from zero: {names}."
    text += "After correction, none differs from zero."
    mean = relation[(relation["probe"] == MEAN) & (relation["measure"] == "slope")]
    ends = mean[["ci_low", "ci_high"]].to_numpy(float).ravel()
    if len(ends) and np.isfinite(ends).all():
        open_ = ": so few architectures leave nearly everything open" if np.ptp(ends) > 1 else ""
        text += (
            " The correlation of the mean rank over all probes with the slope is "
            f"{mean['spearman'].iloc[0]:.2f}, between {ends[0]:.2f} and {ends[1]:.2f}{open_}."
        )
    return text


def of_families(pair: Pair, families: pd.DataFrame, multipliers: pd.DataFrame) -> str:
    """The sentence on whether decoder-only models differ from encoder-decoders.

    It starts with what is significant after correction. Empty without a row.

    Args:
      pair: the quantities.
      families: from `Families.differences`.
      multipliers: from `Families.multipliers`.
    """
    level, slope = (verdicts.of_families(families, pair.alpha, m) for m in ("level", "slope"))
    if level is None or slope is None:
        return ""
    start = (
        f"Decoder-only models against encoder-decoders of the same architecture, {_twins(pair)}: "
    )
    tested = max(level.tested, slope.tested)
    if not tested:
        return f"{start}no architecture has enough sizes in both families for a test."
    said = _found(pair, families, multipliers)
    nothing = (
        "no difference is found in the middle of the common range" if not level.differs else "",
        "no difference of slope is found" if not slope.differs else "",
    )
    return (
        f"{start}after correction for {_count(tested, 'comparison')}, "
        f"{'; '.join(filter(None, (*said, *nothing)))}."
        f"{_power(level, pair.unit, 'in level')}{_power(slope, pair.unit_of_slope, 'in slope')}"
    )


def families_in_short(analysis: Analysis, alphas: Sequence[str]) -> str:
    """What is significant between the families of these slopes, then where nothing is."""
    tables = [analysis.results[name] for name in ("families", "family_multipliers")]
    pairs = [Pair(alpha, log_base=analysis.settings.log_base) for alpha in alphas]
    found, without = [], []
    for pair in pairs:
        answers = [verdicts.of_families(tables[0], pair.alpha, m) for m in verdicts.WORDS]
        if not any(answer is not None and answer.tested for answer in answers):
            continue
        said = "; ".join(_found(pair, *tables))
        if said:
            found.append(f"{_twins(pair)}, {said}")
        else:
            without.append(_twins(pair))
    if not (found or without):
        return "No architecture has enough sizes in both families for a test."
    sentences = [f"{said[0].upper()}{said[1:]}." for said in found]
    if found:
        sentences[0] = f"Decoder-only models, after correction: {found[0]}."
    if without:
        sentences.append(f"No difference is found {' or '.join(without)}.")
    return " ".join(sentences)


def _twins(pair: Pair) -> str:
    """The quality that is compared and the cost that is equal."""
    cost = pair.cost if pair.cost == "FLOPs" else f"{pair.cost} outside the embedding"
    return f"{pair.where.lower()} at equal {cost}"


def _found(pair: Pair, families: pd.DataFrame, multipliers: pd.DataFrame) -> list[str]:
    """Clauses on the significant differences between the families, levels first."""
    level, slope = (verdicts.of_families(families, pair.alpha, m) for m in ("level", "slope"))
    if level is None or slope is None:
        return []
    rows = families[(families["alpha"] == pair.alpha) & (families["measure"] == "level")]
    gap = rows.set_index("architecture").difference.abs().to_dict()
    times = _multipliers(pair, multipliers)
    upstream = pair.alpha.endswith("U")
    good, bad = ("lower loss", "higher loss") if upstream else ("higher score", "lower score")
    levels = [
        f"{word} for "
        + _list(f"{name} (by {number(gap[name])} {pair.unit}{times.get(name, '')})" for name in own)
        for word, own in ((good, level.better), (bad, level.worse))
        if own
    ]
    slopes = [
        f"{_list(own)} {_verb(own, 'scales', 'scale')} {word}"
        for word, own in (("better", slope.better), ("worse", slope.worse))
        if own
    ]
    return [*levels, *slopes]


def _probes(analysis: Analysis) -> Iterator[str]:
    """The best score on each probe, and what the scores say about scaling."""
    if "probes" not in analysis.results:
        return
    table = analysis.results["probes"]
    if only_probes(analysis):
        yield (
            f"{len(analysis.study.runs)} finished runs on {table['probe'].nunique()} probes: "
            f"{table['architecture'].nunique()} architectures, at most {table['rates'].max()} "
            f"learning rates and {table['seeds'].max()} seeds each."
        )
    best = table.loc[table.groupby("probe", sort=False)["score"].idxmax()]
    names = short_names(best["probe"])
    said = [
        f"{names[row['probe']]}: {row['architecture']} {row['score']:.0f} % "
        f"(guessing {guessing(row['chance'])} %)"
        for row in best.to_dict("records")
    ]
    yield f"The highest score on each probe, at its own best rate: {'; '.join(said)}."
    yield of_probes(analysis)


def _families(analysis: Analysis) -> Iterator[str]:
    """Whether the family of an architecture matters, at equal FLOPs."""
    tables = [analysis.results[name] for name in ("families", "family_multipliers")]
    for alpha in _ALPHAS:
        pair = Pair(alpha, log_base=analysis.settings.log_base)
        yield from filter(None, [of_families(pair, *tables)])


def _slopes(analysis: Analysis) -> Iterator[str]:
    """The reference's slopes, and which architectures have others."""
    contrasts, slopes = analysis.results["contrasts"], analysis.results["slopes"]
    for alpha in _ALPHAS:
        pair = Pair(alpha, log_base=analysis.settings.log_base)
        yield from filter(None, [of_slopes(pair, contrasts, slopes)])


def _levels(analysis: Analysis) -> Iterator[str]:
    """Which architectures are better or worse at equal FLOPs."""
    for alpha in _ALPHAS:
        tables = (analysis.results[name] for name in ("level_differences", "multipliers"))
        yield from filter(None, [of_levels(Pair(alpha), *tables)])


def _multipliers(pair: Pair, multipliers: pd.DataFrame) -> dict[str, str]:
    """The cost at which an architecture has the reference's quality, where that is known.

    That is where the multiplier has an interval and lies inside the architecture's own range.
    """
    rows = verdicts.primary(multipliers, pair.alpha)
    return {
        row[
            "architecture"
        ]: f", {supported(row['multiplier'], row['ci_low'], row['ci_high'])} times the {pair.cost} "
        f"for the same quality {bounds(row['ci_low'], row['ci_high'], *TIMES)}"
        for row in _records(rows)
        if row["inside"] and row["interval"] == "bounded"
    }


def _power(verdict: verdicts.Verdict, unit: str, told: str = "") -> str:
    """A sentence on what the tests that found nothing could have found.

    Args:
      verdict: the answer.
      unit: of a difference.
      told: in what the architectures are not told apart, if that must be said.
    """
    clause = verdicts.power_clause(verdict, unit, number)
    if not clause:
        return ""
    left = f"{_count(len(verdict.open), 'architecture')} {_verb(verdict.open, 'is', 'are')}"
    none = f" Not tested: {_list(verdict.untested)}." if verdict.untested else ""
    return f" {left} not told apart{f' {told}' if told else ''}: {clause}.{none}"


def _verb(names: Sequence[object], one: str, several: str) -> str:
    return one if len(names) == 1 else several


def _crossings(analysis: Analysis) -> Iterator[str]:
    """Crossings of lines whose slopes differ after correction, inside the range."""
    table, reference = analysis.results["crossovers"], analysis.reference
    if table.empty:
        return
    shown = []
    for row in _records(verdicts.crossings(table, analysis.results["contrasts"], reference)):
        where = "upstream" if row["alpha"].endswith("U") else "downstream"
        low, high = row["ci_low"], row["ci_high"]
        place, span = (
            supported(row["crossing"], low, high),
            f"{scaled(low, 2)} to {scaled(high, 2)}",
        )
        shown.append(f"{row['other']} at {place} FLOPs ({span}; {where})")
    if shown:
        yield f"The line of {reference} crosses that of {_list(shown, 3)}."
    else:
        yield (
            f"No crossing with {reference} is established: that takes slopes that differ after "
            "correction, and an interval inside the measured range."
        )


def _frontier(analysis: Analysis) -> Iterator[str]:
    table = analysis.results["pareto"]
    if table.empty:
        return
    here = table[table.cost_axis == analysis.quantities.flops.column]
    for y, where in zip(analysis.qualities, ("Upstream", "Downstream"), strict=True):
        part = here[here.y_axis.str.contains(y.column, regex=False)]
        on, tied = part[part.on_frontier], part[part.tied & ~part.on_frontier]
        if on.empty:
            continue
        counts = on.architecture.value_counts(sort=False).sort_index()
        names = [f"{name} ({n})" for name, n in counts.items()]
        words = f"{where}, these cells are on the Pareto frontier against FLOPs (number of sizes): "
        words += _list(names, 6)
        if len(tied):
            also = sorted(set(tied.architecture) - set(on.architecture))
            words += f"; {_count(len(tied), 'more cell')} may be on it too"
            words += f", some of them of {_list(also, 6)}" if also else ""
        yield f"{words}."


def _floor(analysis: Analysis) -> Iterator[str]:
    """How many cells are no better than a model that reads nothing."""
    study = analysis.study
    table, base = cells(study), baselines(study)
    known = table.dropna(subset="upstream_nll")
    if "upstream_nll" in base and len(known):
        above = known[known.upstream_nll >= base["upstream_nll"]]
        unigram = (
            f"the unigram entropy of the held-out text, {fixed(base['upstream_nll'], 3)} nats "
            "(reached by knowing only how frequent each token is)"
        )
        names = _list((f"{row['architecture']}-{row['size']}" for row in _records(above)), 4)
        yield (
            f"{len(above)} of {_count(len(known), 'cell')} have a loss that is not below {unigram}"
            f": {names}."
            if names
            else f"The held-out loss of every cell is below {unigram}."
        )
    score = analysis.settings.score
    scored = study.runs.dropna(subset=score).drop_duplicates(list(CELL))
    if score in base and len(scored):
        low = scored[at_chance(study, score).loc[scored.index]]
        yield (
            f"The score of {len(low)} of {_count(len(scored), 'cell')} is no better than chance "
            f"({fixed(base[score], 1)} percent, the majority class); "
            f"{'it is' if len(low) == 1 else 'they are'} left out of every comparison downstream. "
            f"{_REMEDY}"
            if len(low)
            else f"The score of every cell is above chance ({fixed(base[score], 1)} percent, the "
            "majority class)."
        )


def _agreement(analysis: Analysis) -> Iterator[str]:
    table = analysis.results["rank_correlation"]
    if table.empty:
        return
    part = table[(table.method == "spearman") & (table.scope == "given log F")]
    for row in _records(part.dropna(subset="estimate")):
        error = interval(row["ci_low"], row["ci_high"], 2)
        p = probability(row["p"])
        test = f", p {'' if p.startswith('<') else '= '}{p.replace('<', '< ')}" if row["p"] else ""
        tail = f"n = {_count(row['n'], 'cell')}{test if math.isfinite(row['p']) else ''}"
        yield (
            "Given FLOPs, upstream and downstream quality have a rank correlation of "
            f"{' '.join(filter(None, (fixed(row['estimate'], 2), error)))} ({tail})."
        )


def _claims(analysis: Analysis) -> Iterator[str]:
    claims = analysis.results["claims"]
    if len(claims):
        words = _list(f"{n} {verdict}" for verdict, n in claims.verdict.value_counts().items())
        whose = ", tested on encoder-decoders alone" if several(analysis.table) else ""
        yield f"Of {len(claims)} claims (and parts) of the paper{whose}: {words}."


def _sources(analysis: Analysis) -> Iterator[str]:
    claims = analysis.results["sources"]
    tested = claims[claims.verdict != NOT_TESTED]
    if len(tested):
        words = _list(f"{n} {verdict}" for verdict, n in tested.verdict.value_counts().items())
        names = _list(tested.source.unique())
        yield f"Of {len(tested)} claims (and parts) of {names} that these runs test: {words}."
