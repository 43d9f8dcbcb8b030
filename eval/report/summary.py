"""A summary of the study in sentences. Every number in them is computed from the analyses."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from eval.analyses.everything import Analysis
from eval.analyses.question import REFERENCE
from eval.data.cells import DEFAULT_PROTOCOLS, main_protocol, other_protocols
from eval.data.study import task_columns
from eval.report.grid import fixed, interval, number, probability, scaled
from eval.report.tables import baselines, cells, size_order


def sentences(analysis: Analysis) -> list[str]:
    """The most important results in a few sentences, the most important first."""
    parts = (_scope, _upstream, _downstream, _scaling, _frontier, _crossings, _agreement, _claims)
    return [sentence for part in parts for sentence in part(analysis)]


def warnings(analysis: Analysis) -> list[str]:
    """The study's own warnings, then warnings about what the analyses could not do."""
    slopes = analysis.results["slopes"]
    found = list(analysis.study.warnings)
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
    return found


def stand_in(main: pd.DataFrame, reference: str) -> str:
    """A sentence if the reference is not the vanilla Transformer; empty if it is."""
    if REFERENCE in set(main.architecture):
        return ""
    return (
        f"There is no {REFERENCE} among the runs compared; everything is compared with {reference}."
    )


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
        span = (
            f"; {scaled(flops.min())} to {scaled(flops.max())} FLOPs, "
            f"{flops.max() / flops.min():,.0f}-fold"
        )
    more = len(analysis.table) - len(table)
    yield (
        f"{_count(len(table), 'finished run')}: "
        f"{_count(table.architecture.nunique(), 'architecture')} at "
        f"{_count(len(sizes), 'size')} ({_list(sizes)}{span}), {count} "
        f"seed{'s' if count != '1' else ''} per cell"
        + (f", and {more} runs of other scaling protocols." if more else ".")
    )


def _upstream(analysis: Analysis) -> Iterator[str]:
    table, base = cells(analysis.study).dropna(subset="upstream_nll"), baselines(analysis.study)
    plain = table[table.protocol.isin(main_protocol(analysis.table).protocol.unique())]
    if plain.empty:
        return
    sizes = [size for size in size_order(analysis.study.runs) if size in set(plain["size"])]
    lowest = (
        plain.sort_values("upstream_nll", kind="stable").drop_duplicates("size").set_index("size")
    )
    words = _list(
        f"{lowest.architecture[size]} at {size} ({fixed(lowest.upstream_nll[size], 3)} nats)"
        for size in dict.fromkeys((sizes[0], sizes[-1]))
    )
    yield f"Lowest held-out loss: {words}."
    if "upstream_nll" in base:
        above = table[table.upstream_nll >= base["upstream_nll"]]
        unigram = f"the unigram entropy of the held-out text, {fixed(base['upstream_nll'], 3)} nats"
        names = _list((f"{row['architecture']}-{row['size']}" for row in _records(above)), 4)
        yield (
            f"{len(above)} of {len(table)} cells are not below {unigram}: {names}."
            if names
            else f"The held-out loss of every cell is below {unigram}."
        )


def _downstream(analysis: Analysis) -> Iterator[str]:
    table, base = cells(analysis.study), baselines(analysis.study)
    table = table[table.architecture == analysis.reference].sort_values(
        "params_total", kind="stable"
    )
    tasks = [task for task in task_columns(analysis.study.runs) if task in base]
    if table.empty or not tasks:
        return
    row = _records(table)[-1]
    margins = {}
    for task in tasks:
        errors = [row[f"{task}_se_eval"], row[f"{task}_se"]]
        error = max((e for e in errors if not math.isnan(e)), default=math.nan)
        margins[task] = (row[task] - base[task]) / error if error else math.nan
    beaten = [task for task, margin in margins.items() if margin > 2]
    unsure = sum(math.isnan(margin) for margin in margins.values())
    yield (
        f"Downstream, the largest {analysis.reference} ({row['size']}) beats the majority class by "
        "more than two "
        f"standard errors on {len(beaten)} of {len(tasks)} tasks"
        + (f" ({unsure} have no score or no standard error)." if unsure else ".")
    )


def _scaling(analysis: Analysis) -> Iterator[str]:
    slopes, reference, base = (
        analysis.results["slopes"],
        analysis.reference,
        analysis.settings.log_base,
    )
    step = "per tenfold FLOPs" if base == 10 else f"per factor {number(base)} of FLOPs"
    for alpha, where, unit in (("F,U", "Upstream", "nats"), ("F,D", "Downstream", "points")):
        part = slopes[(slopes.alpha == alpha) & (slopes.link == "semilog")].dropna(subset="slope")
        if part.empty:
            continue
        gains = {
            row[
                "architecture"
            ]: f"{number(row['slope'])} {unit} {interval(row['ci_low'], row['ci_high'])}".strip()
            for row in _records(part.sort_values("slope", ascending=False, kind="stable"))
        }
        steepest = next(iter(gains))
        words = f"{where}, {steepest} gains most {step}: {gains[steepest]}"
        if reference in gains and steepest != reference:
            words += f", against {gains[reference]} for {reference}"
        yield f"{words}; {_told_apart(analysis, alpha)}."


def _told_apart(analysis: Analysis, alpha: str) -> str:
    """Names the architectures that scale differently from the reference."""
    contrasts, reference = analysis.results["contrasts"], analysis.reference
    if contrasts.empty:
        return "no difference in slope could be tested"
    tested = contrasts[(contrasts.alpha == alpha) & (contrasts.verdict != "not tested")]
    if tested.empty:
        return "no difference in slope could be tested"
    named = {
        word: tested.architecture[tested.verdict == f"scales {word}"]
        for word in ("better", "worse")
    }
    sides = [f"{_list(names)} {word}" for word, names in named.items() if len(names)]
    if not sides:
        return f"none of the {len(tested)} others is told apart from {reference} after correction"
    return f"after correction, these scale differently from {reference}: {'; '.join(sides)}"


def _frontier(analysis: Analysis) -> Iterator[str]:
    members = analysis.results["pareto_membership"]
    if members.empty:
        return
    here = members[
        (members.cost_axis == analysis.quantities.flops.column) & (members.cells_on_frontier > 0)
    ]
    here = here.sort_values(["cells_on_frontier", "architecture"], ascending=[False, True])
    sides = []
    for y, where in zip(analysis.qualities, ("upstream", "downstream"), strict=True):
        part = here[here.y_axis.str.contains(y.column, regex=False)]
        names = [f"{row['architecture']} ({row['cells_on_frontier']})" for row in _records(part)]
        sides += [f"{where} through {_list(names, 5)}"] if names else []
    if sides:
        through = "; ".join(sides)
        yield f"The Pareto frontier against FLOPs runs {through} (in brackets: sizes on it)."


def _crossings(analysis: Analysis) -> Iterator[str]:
    table, reference = analysis.results["crossovers"], analysis.reference
    if table.empty:
        return
    sure = table[(table.interval == "bounded") & (table.position == "inside")]
    shown = []
    for row in _records(sure):
        other = (
            row["architecture_b"] if row["architecture_a"] == reference else row["architecture_a"]
        )
        where = "upstream" if row["alpha"].endswith("U") else "downstream"
        shown.append(f"{other} at {scaled(row['crossing'])} FLOPs ({where})")
    yield (
        f"Of {len(table)} pairs of lines with {reference} (upstream and downstream), {len(sure)} "
        "cross inside the "
        "measured range with a bounded interval" + (f": {_list(shown, 3)}." if shown else ".")
    )


def _agreement(analysis: Analysis) -> Iterator[str]:
    table, pairs = analysis.results["rank_correlation"], analysis.results["discordant_pairs"]
    if table.empty:
        return
    part = table[
        (table.method == "spearman") & table.scope.isin(["overall", "given log F"])
    ].dropna(subset="estimate")
    values = []
    for row in _records(part):
        p = probability(row["p"])
        error = interval(row["ci_low"], row["ci_high"], 2)
        tail = f"(n = {row['n']}, p {'' if p.startswith('<') else '= '}{p.replace('<', '< ')})"
        values.append(
            " ".join(filter(None, (fixed(row["estimate"], 2), error, row["scope"], tail)))
        )
    if not values:
        return
    compared = pairs.drop_duplicates("size").n_pairs.sum() if len(pairs) else 0
    tail = (
        f"; {len(pairs)} pairs of architectures of one size stand in opposite order"
        if compared
        else ""
    )
    yield f"Upstream and downstream agree with a rank correlation of {_list(values)}{tail}."


def _claims(analysis: Analysis) -> Iterator[str]:
    claims = analysis.results["claims"]
    if len(claims):
        words = _list(f"{n} {verdict}" for verdict, n in claims.verdict.value_counts().items())
        yield f"Of {len(claims)} claims (and parts) of the paper: {words}."
