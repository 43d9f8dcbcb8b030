"""The study's two tables: table 1, the cost and quality of every cell; table 2, the slopes."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eval.analyses.paired import PairedErrors
from eval.analyses.question import REFERENCE
from eval.data.cells import CELL, RunTable, seed_averages
from eval.data.chance import at_chance, baselines
from eval.data.quantity import FLOPS, LOSS, SCORE
from eval.data.study import BITS_PER_BYTE, GROUP_COLUMNS, Study, task_columns
from eval.report import words
from eval.report.grid import (
    DASH,
    Column,
    Grid,
    GridCell,
    GridRow,
    bounds,
    fixed,
    interval,
    number,
    probability,
    scaled,
    supported,
)
from eval.report.listing import listing
from eval.stats.decision import NOT_TESTED
from eval.stats.regression import least_difference

_LOSSES = ("upstream_nll", BITS_PER_BYTE)
_LEVEL = 0.95  # of the test by which two cells are told apart
COMMON = "this error is common to all cells and is not for comparing them"
"""What must stand beside every error over held-out examples, which all cells share."""
UNPAIRED = PairedErrors(REFERENCE, pd.DataFrame())
"""Of runs that did not keep the values of every example."""
_COSTS = ["params_total", "params_active", "flops_forward", "state_size", "steps_per_second"]


def size_order(table: pd.DataFrame) -> list[str]:
    """Sizes from cheapest to most expensive, by the median FLOPs of their runs.

    Parameters are used if FLOPs are unknown.
    """
    cost = table.flops_forward.fillna(table.params_total)
    return list(cost.groupby(table["size"]).median().sort_values(kind="stable").index.astype(str))


def quality_columns(table: pd.DataFrame) -> list[str]:
    """The upstream loss (also per byte, if known), averages of several tasks, then every task."""
    tasks = task_columns(table)
    averages = [c for c in GROUP_COLUMNS if c not in tasks and table[c].notna().any()]
    in_bytes = (
        [BITS_PER_BYTE] if BITS_PER_BYTE in table and table[BITS_PER_BYTE].notna().any() else []
    )
    return ["upstream_nll", *in_bytes, *reversed(averages), *tasks]


def cells(study: Study, paired: PairedErrors = UNPAIRED) -> pd.DataFrame:
    """Table 1 as numbers: one row per cell, averaged over its seeds.

    Args:
          study: the study.
          paired: the errors of the differences from the reference, see `Analysis.paired_errors`.

    Returns:
      Columns architecture, size, protocol, n_seeds (finished runs), the costs (params_total,
      params_active, flops_forward, state_size, steps_per_second), flops_train_over_6nd
      (counted training FLOPs over 6 x params_total x tokens_seen, the usual estimate),
      params_over_reference (parameters outside the embedding over the reference's at the same
      size and protocol, NaN if it was not run), and for upstream_nll (nats per token),
      upstream_bits_per_byte and every downstream column (percent) its mean,
      `at_chance_<column>` (scores only: no better than the majority class), `<column>_n`
      (runs that have it), `<column>_se` (standard error over seeds, NaN with one),
      `<column>_se_eval` (standard error over held-out examples, root mean square over the
      seeds) and, if the runs kept the values of every example, `<column>_se_paired` (standard
      error over held-out examples of the difference from the reference at the same size and
      protocol).
      Ordered by size, then by architecture.
    """
    runs = study.runs
    by_rule = 6 * runs.params_total * runs.tokens_seen
    runs = runs.assign(ratio=runs.flops_train_total / by_rule.where(by_rule > 0))
    qualities = quality_columns(runs)
    squares = study.evaluation_errors.reindex(columns=qualities) ** 2
    runs = runs.join(squares.add_suffix("_square"))
    costs = [*_COSTS, "ratio", "params_non_embedding"]
    means = seed_averages(runs, [*costs, *qualities, *(f"{q}_square" for q in qualities)])
    table = means[_COSTS].assign(
        n_seeds=runs.groupby(list(CELL), sort=False).size(),
        flops_train_over_6nd=means["ratio"],
        params_over_reference=_over_reference(means["params_non_embedding"], paired.reference),
    )
    found = {}
    for column in qualities:
        found[column] = means[column]
        for suffix in ("_n", "_se"):
            found[column + suffix] = means[column + suffix]
        found[f"{column}_se_eval"] = np.sqrt(means[f"{column}_square"])
        if paired.known(column):
            found[f"{column}_se_paired"] = paired.table[column].reindex(means.index)
        if column not in _LOSSES:
            low = runs[list(CELL)].assign(low=at_chance(study, column))
            low = low.drop_duplicates(list(CELL)).set_index(list(CELL)).low
            found[f"at_chance_{column}"] = low.reindex(means.index)
    table = pd.concat([table, pd.DataFrame(found, index=means.index)], axis=1)
    table = table.reset_index()
    place = {size: i for i, size in enumerate(size_order(runs))}
    order = (
        table.assign(place=table["size"].map(place))
        .sort_values(["protocol", "place", "architecture"])
        .index
    )
    first = [*CELL, "n_seeds"]
    return table.loc[order, first + [c for c in table if c not in first]].reset_index(drop=True)


def _over_reference(params: pd.Series, name: str) -> pd.Series:
    """Each cell's parameters over those of the architecture `name` at its size and protocol.

    `params` is indexed by cell.
    """
    of_cells = params.rename("own").reset_index()
    reference = of_cells[of_cells.architecture == name].drop(columns="architecture")
    both = of_cells.merge(reference, "left", on=["size", "protocol"], suffixes=("", "_reference"))
    return pd.Series((both.own / both.own_reference).to_numpy(), index=params.index)


def label(column: str) -> str:
    """The heading of a column."""
    names = {
        "params_total": "Params",
        "params_active": "Active",
        "flops_forward": "FLOPs",
        "state_size": "State",
        "steps_per_second": "Steps/s",
        "upstream_nll": "Loss \N{DOWNWARDS ARROW}",
        BITS_PER_BYTE: "Bits/byte \N{DOWNWARDS ARROW}",
        "downstream_mean": "Mean \N{UPWARDS ARROW}",
        "downstream_glue": "GLUE",
        "downstream_super_glue": "SuperGLUE",
        "downstream_squad": "SQuAD",
    }
    task = column.removeprefix("downstream_").removeprefix("python_")
    task = task.replace("super_glue_", "SG ").replace("glue_", "").replace("_", " ")
    return names.get(column, task)


def table1(
    study: Study, paired: PairedErrors = UNPAIRED, regrets: pd.DataFrame | None = None
) -> Grid:
    """Table 1 as it is shown: the best of each size in bold, baselines first.

    Args:
      study: the study.
      paired: the errors of the differences from the reference, see `Analysis.paired_errors`.
      regrets: of the learning rates, from `eval.analyses.tuning_runs.used`; adds a column.
    """
    table, base = cells(study, paired), baselines(study)
    of_rates = {} if regrets is None else _regrets(regrets)
    qualities = quality_columns(study.runs)
    noise = _noise(study, qualities)
    several = table.protocol.nunique() > 1
    names = ["size", "architecture"] + (["protocol"] if several else [])
    tasks = [c for c in qualities if c in task_columns(study.runs)]
    means = [c for c in qualities if c not in tasks]
    costs = [c for c in _COSTS if table[c].notna().any()]
    if "params_active" in costs and np.allclose(
        table.params_active, table.params_total, equal_nan=True
    ):
        costs.remove("params_active")
    columns = [Column(name.capitalize(), numeric=False) for name in names]
    columns += [Column(label(c), title=words.column(c)) for c in (*means, *costs)]
    if of_rates:
        columns.append(Column("Regret", title="of the learning rate, nats"))
    columns += [Column("Seeds"), *(Column(label(c), title=words.column(c)) for c in tasks)]
    counts = table[[f"{c}_n" for c in qualities]].to_numpy()
    mixed = bool((counts == 1).any() and (counts > 1).any())
    blank = [*costs, "regret"] if of_rates else costs
    rows = [_baseline_row(base, names, means, blank, tasks)] if base else []
    for key, group in table.groupby(["protocol", "size"], sort=False):
        best = {
            c: _best(_told(group, c), c, noise.get(c, 0.0))
            for c in ("steps_per_second", *qualities)
        }
        for index, record in zip(group.index, group.to_dict("records"), strict=True):
            line = [
                GridCell(str(record[name]) or "plain", value=str(record[name])) for name in names
            ]
            of = {c: _quality(record, c, bold=index in best[c], mixed=mixed) for c in qualities}
            line += [of[c] for c in means]
            line += [_cost(record[c], c, index in best.get(c, ())) for c in costs]
            if of_rates:
                cell = (record["architecture"], record["size"], record["protocol"])
                line.append(of_rates.get(cell, GridCell(DASH)))
            line.append(GridCell(str(record["n_seeds"]), value=record["n_seeds"]))
            line += [of[c] for c in tasks]
            rows.append(GridRow(tuple(line), record["architecture"], "/".join(map(str, key))))
    title = "Table 1. Cost and quality of every architecture at every size"
    return Grid(
        "table1",
        title,
        tuple(columns),
        tuple(rows),
        (*_notes(table, base, counts, paired), *((_OF_REGRETS,) if of_rates else ())),
        fixed=len(names),
    )


_OF_REGRETS = (
    "Regret: how much higher the loss is at the learning rate that was used than at the best one "
    "of a sweep, in nats, with its interval."
)


def _regrets(regrets: pd.DataFrame) -> dict[tuple[str, str, str], GridCell]:
    """The regret of each cell (architecture, size, protocol) with its interval."""
    found = {}
    for row in regrets.to_dict("records"):
        value = row["regret"]
        if not math.isfinite(value):
            continue
        ends = (row["ci_low"], row["ci_high"])
        at_least = not math.isfinite(ends[1])
        text = f"at least {number(value)}" if at_least else number(value)
        detail = "" if at_least or math.isnan(ends[0]) else interval(*ends)
        cell = (row["architecture"], row["size"], row["protocol"])
        found[cell] = GridCell(text, value=value, detail=detail)
    return found


def _best(values: pd.Series, column: str, noise: float) -> set:
    """The indices of the best value and of those not told from it; none with fewer than two."""
    values = values.dropna()
    if len(values) < 2:
        return set()
    behind = values - values.min() if column in _LOSSES else values.max() - values
    return set(values.index[behind <= noise])


def _told(group: pd.DataFrame, column: str) -> pd.Series:
    """The values of a column that take part in comparisons: not those at chance."""
    at_chance = f"at_chance_{column}"
    return (
        group[column].mask(group[at_chance].astype(bool)) if at_chance in group else group[column]
    )


def _noise(study: Study, qualities: list[str]) -> dict[str, float]:
    """The difference of two cells that can be told, for every quality; see `least_difference`."""
    runs, found = RunTable(study.runs), {}
    for column in qualities:
        quantity = LOSS.of(column) if column in _LOSSES else SCORE.of(column)
        cells = runs.cells([q.axis() for q in (FLOPS, quantity)], ("architecture", "protocol"))
        found[column] = float(np.nan_to_num(least_difference(cells.along_x(), _LEVEL)))
    return found


def _cost(value: float, column: str, bold: bool) -> GridCell:
    return GridCell(
        number(value) if column == "steps_per_second" else scaled(value), value=value, bold=bold
    )


def error_of(record: Mapping, column: str) -> tuple[float, bool]:
    """The error that is shown beside the mean of a cell.

    It is the one over seeds or, with one seed, the one of its difference from the reference. Only
    if no cell has such a difference, it is the error that all cells share.

    Args:
      record: a row of `cells`.
      column: a quality.

    Returns:
      The error, NaN if there is none to show, and whether it is over examples (not over seeds).
    """
    seeds = float(record.get(f"{column}_se", np.nan))
    if not math.isnan(seeds):
        return seeds, False
    paired = f"{column}_se_paired"
    return float(record.get(paired if paired in record else f"{column}_se_eval", np.nan)), True


def _quality(record: dict, column: str, *, bold: bool, mixed: bool) -> GridCell:
    decimals = 3 if column in _LOSSES else 1
    se, own = error_of(record, column)
    detail = "" if math.isnan(se) else f"\N{PLUS-MINUS SIGN}{fixed(se, decimals)}"
    detail += "\N{DEGREE SIGN}" if detail and own and mixed else ""
    if 0 < record[f"{column}_n"] < record["n_seeds"]:
        detail = f"{detail} ({record[f'{column}_n']} of {record['n_seeds']})".strip()
    mark = "\N{DOUBLE DAGGER}" if record.get(f"at_chance_{column}") else ""
    return GridCell(fixed(record[column], decimals) + mark, detail, record[column], bold)


def _baseline_row(
    base: dict[str, float],
    names: list[str],
    means: list[str],
    costs: list[str],
    tasks: list[str],
) -> GridRow:
    def scores(columns: list[str]) -> list[GridCell]:
        return [
            GridCell(fixed(base[c], 3 if c in _LOSSES else 1), value=base[c])
            if c in base
            else GridCell(DASH, value=math.nan)
            for c in columns
        ]

    first = [
        GridCell("baseline"),
        GridCell("unigram, majority"),
        *(GridCell("") for _ in names[2:]),
    ]
    blank = [GridCell("", value="") for _ in (*costs, "seeds")]
    return GridRow((*first, *scores(means), *blank, *scores(tasks)), "", "baseline")


def _notes_on_sizes(table: pd.DataFrame, reference: str) -> list[str]:
    """A note on how the parameters of architectures differ at the same size name."""
    others = table[table.architecture != reference].dropna(subset="params_over_reference")
    ranges = others.groupby("architecture").params_over_reference.agg(["min", "max"])
    if ranges.empty:
        return []
    texts = []
    for architecture, (low, high) in zip(ranges.index, ranges.to_numpy(), strict=True):
        ends = dict.fromkeys((fixed(low, 2), fixed(high, 2)))
        texts.append(f"{architecture} {' to '.join(ends)}")
    return [
        "A size is not the same number of parameters in every architecture. Outside the embedding, "
        "over those of "
        f"{reference} at the same size: {', '.join(texts)}."
    ]


def _notes(
    table: pd.DataFrame, base: dict[str, float], counts: np.ndarray, paired: PairedErrors
) -> list[str]:
    notes = [
        "Loss: held-out pretraining loss in nats per target token, lower is better. Downstream: "
        "percent, higher is better. FLOPs: one forward pass of one sequence. Bold: the best of its "
        "size, and all that the noise does not separate from it: that of seeds or, with one seed, "
        "of sizes around their lines."
    ]
    if table.filter(regex="^at_chance_").to_numpy(dtype=bool).any():
        notes.append(
            "\N{DOUBLE DAGGER}: no better than chance, the majority class; such means are in no "
            "comparison."
        )
    notes += _notes_on_sizes(table, paired.reference)
    if BITS_PER_BYTE in table:
        notes.append(
            "Bits/byte: the same loss over the bytes of the text, by which other tokenizers can be "
            "compared."
        )
    if ((counts > 0) & (counts < table.n_seeds.to_numpy()[:, None])).any():
        notes.append("(1 of 3): the mean of one seed of three; the others have no such value.")
    if not table.filter(regex="_se(_eval)?$").notna().to_numpy().any():
        return [
            *notes,
            "The table has no standard errors: one seed per cell, and none for the evaluation "
            "itself.",
        ]
    notes += _notes_on_errors(table, counts, paired)
    if base:
        notes.append(
            "Baseline: unigram entropy of the held-out text; majority class (or best constant "
            "answer) of each task: "
            "what a model reaches without reading its input."
        )
    return notes


def over_examples(paired: PairedErrors, columns: Sequence[str]) -> tuple[str, str]:
    """What the errors over held-out examples are, and where they are the ones that cells share.

    Args:
      paired: the errors of the differences from the reference.
      columns: the qualities whose errors are shown.

    Returns:
      A clause for the errors of differences and one for the shared errors; one may be empty.
    """
    shared = [c for c in columns if not paired.known(c)]
    clause = (
        f"standard error of the difference from {paired.reference} at the same size, on the same "
        "held-out examples"
    )
    common = f"standard error over held-out examples; {COMMON}"
    if shared and len(shared) < len(columns):
        scores = {column for column in columns if column.startswith("downstream_")}
        named = ["all scores"] if scores == {*shared} else map(words.column, shared)
        common = f"for {', '.join(named)}: {common}"
    return clause if len(shared) < len(columns) else "", common if shared else ""


def _notes_on_errors(table: pd.DataFrame, counts: np.ndarray, paired: PairedErrors) -> list[str]:
    """Notes that say exactly what the errors of table 1 are."""
    errors = [f"{c}_se_eval" for c in table if f"{c}_se_eval" in table]
    columns = [e.removesuffix("_se_eval") for e in errors if table[e].notna().any()]
    several = counts.max() > 1
    notes = ["\N{PLUS-MINUS SIGN}: standard error over seeds."] if several else []
    if (counts == 1).any():
        start = "\N{DEGREE SIGN}: where a cell has one seed," if several else "\N{PLUS-MINUS SIGN}:"
        of_difference, common = over_examples(paired, columns)
        if of_difference:
            notes.append(
                f"{start} {of_difference} (paired); it does not contain the noise between "
                f"trainings. {paired.reference} has none: the others are compared with it."
            )
        notes += [f"{start} {common}."] if common else []
    if not several:
        notes.append("There is one seed per cell, so the spread between seeds is unknown.")
    return notes


def table2(
    slopes: pd.DataFrame,
    level: float = 0.95,
    contrasts: pd.DataFrame | None = None,
    no_scores: str = "",
) -> Grid:
    """Table 2 as it is shown: slopes with t intervals, semilog and log-log.

    Args:
      slopes: from `eval.analyses.slopes.Slopes.table`.
      level: the level of its intervals.
      contrasts: from `Comparison.contrasts`: slopes that are better than the reference's after
        correction are bold. Without it none is, because the steepest of many is often a chance.
      no_scores: a clause that says why no downstream slope is known, if so.
    """
    better = set()
    if contrasts is not None and len(contrasts):
        rows = contrasts[contrasts.verdict == "scales better"]
        better = set(zip(rows.architecture, rows.alpha, rows.link, strict=True))
    links = list(slopes.link.unique())
    known = slopes.groupby("alpha", sort=False).slope.count() > 0
    alphas = [alpha for alpha, has in known.items() if has] or list(known.index)
    columns = [Column("Form", numeric=False), Column("Architecture", numeric=False)]
    columns += [
        Column(
            words.slope(a).capitalize().replace("flops", "FLOPs"),
            rf"$\alpha_{{{a}}}$",
            f"slope of {words.slope(a)}",
        )
        for a in map(str, alphas)
    ]
    columns.append(Column("Sizes"))
    rows, notes = [], []
    for link in links:
        part = slopes[slopes.link == link]
        for architecture, group in part.groupby("architecture", sort=False):
            records = {record["alpha"]: record for record in group.to_dict("records")}
            line = [
                _slope_cell(records.get(alpha), bold=(architecture, alpha, link) in better)
                for alpha in alphas
            ]
            name, n = str(architecture), int(group.n_sizes.max())
            rows.append(
                GridRow(
                    (
                        GridCell(link, value=link),
                        GridCell(name, value=name),
                        *line,
                        GridCell(str(n), value=n),
                    ),
                    name,
                    link,
                )
            )
        axes = [
            f"{words.axis(g.y_axis.iloc[0])} on {words.axis(g.x_axis.iloc[0])}"
            for alpha, g in part.groupby("alpha", sort=False)
            if alpha in alphas
        ]
        notes.append(f"{link}: slopes of " + "; ".join(axes) + ".")
    notes += [
        f"In brackets: {level:.0%} interval, not corrected for the number of architectures. A "
        "slope without one has too few sizes for it."
        + (
            f" Bold: scales better than {contrasts.reference.iloc[0]}, after correction."
            if better and contrasts is not None
            else ""
        ),
        "In the log-log form the upstream loss falls: of slopes with upstream in them, the more "
        "negative are the better.",
    ]
    lost = [words.slope(str(alpha)) for alpha in known.index if alpha not in alphas]
    if lost:
        why = f", because {no_scores}" if no_scores and all("downstream" in w for w in lost) else ""
        notes.append(f"Not known for any architecture, hence not shown: {', '.join(lost)}{why}.")
    shown = slopes[slopes.alpha.isin(alphas)]
    short = shown[shown.ci_low.isna()]
    if len(short):
        counts = "; ".join(
            f"{note} ({n} of them)" if n < len(short) else str(note)
            for note, n in short.note.replace("", "no interval").value_counts().items()
        )
        notes.append(f"{len(short)} of {len(shown)} slopes have no interval: {counts}.")
    return Grid(
        "table2",
        "Table 2. Slopes of the fitted lines",
        tuple(columns),
        tuple(rows),
        tuple(notes),
        fixed=2,
    )


def _slope_cell(record: dict | None, *, bold: bool) -> GridCell:
    if record is None:
        return GridCell("\N{EN DASH}", value=math.nan)
    span = interval(record["ci_low"], record["ci_high"])
    return GridCell(number(record["slope"]), span, record["slope"], bold=bold)


def claims_grid(claims: pd.DataFrame) -> Grid:
    """The scorecard of the claims as it is shown.

    Args:
      claims: from `eval.analyses.claims.scorecard`.
    """
    rows, before = [], None
    for record in claims.to_dict("records"):
        first, before = record["claim"] != before, record["claim"]
        rows.append(GridRow(_claim_line(record, first), group=str(record["claim"])))
    notes = [
        "Where a claim is about several architectures, p is corrected for their number; the "
        "interval in brackets is that of the effect alone, not corrected."
    ]
    if claims["exact"].any():
        notes.append(
            "Exact: the effect is counted, not estimated, so there is no p value; beside it stands "
            "its range over the sizes."
        )
    if (claims["verdict"] == NOT_TESTED).any():
        notes.append(
            "Not tested: the runs lack what the claim is about; the column Note says what."
        )
    return Grid(
        "claims",
        "Claims of arXiv 2207.10551 against these runs",
        _CLAIM_COLUMNS,
        tuple(rows),
        tuple(notes),
        fixed=2,
    )


def sources_grid(claims: pd.DataFrame) -> Grid:
    """The scorecard of the other sources as it is shown, grouped by source.

    A source of which these runs test no claim is one line under the table.

    Args:
      claims: from `eval.analyses.sources.scorecard.scorecard`.
    """
    tested = claims["verdict"] != NOT_TESTED
    shown = claims[claims["source"].isin(claims.loc[tested, "source"])]
    several = shown.loc[shown["verdict"] != NOT_TESTED, "architecture"].nunique() > 1
    rows, source, claim = [], None, None
    for record in shown.to_dict("records"):
        new, source = record["source"] != source, record["source"]
        first, claim = record["claim"] != claim, record["claim"]
        named = [GridCell(source if new else "", value=source)]
        if several:
            of_it = record["architecture"] or DASH
            named.append(GridCell(of_it, value=of_it))
        line = (*named, *_claim_line(record, first))
        rows.append(GridRow(line, record["architecture"], group=source))
    title = "Claims of the other sources against these runs"
    left = "; ".join(f"of {name} {of_it}" for name, of_it in untested_sources(claims))
    heads = ("Source", "Architecture") if several else ("Source",)
    columns = (*(Column(head, numeric=False) for head in heads), *_CLAIM_COLUMNS)
    if not rows:
        why = f"These runs test no claim of the other sources. Studies that would: {left}."
        return Grid("sources", title, columns, (), (why,))
    notes = [
        "Each architecture is tested alone, and p is corrected for their number; the interval in "
        "brackets is that of the effect alone, not corrected."
        if several
        else "The interval in brackets is that of the effect.",
        "What a study costs here: python -m train plan, followed by its name.",
    ]
    if left:
        notes.append(f"Not tested at all are claims that need other studies: {left}.")
    return Grid(
        "sources",
        title,
        columns,
        tuple(rows),
        tuple(notes),
        fixed=len(heads) + 1,
    )


def untested_sources(claims: pd.DataFrame) -> list[tuple[str, str]]:
    """The sources without a tested claim, each with the studies that would test its claims."""
    found = []
    for name, of_it in claims.groupby("source", sort=False):
        if (of_it["verdict"] == NOT_TESTED).all():
            named = dict.fromkeys(", ".join(of_it["study"]).split(", "))
            found.append((str(name), ", ".join(named)))
    return found


_CLAIM_COLUMNS = tuple(
    Column(text, numeric=text in ("Effect", "p"))
    for text in (
        "Claim",
        "What the paper says",
        "Verdict here",
        "Effect",
        "p",
        "Tested as",
        "Measure",
        "What would settle it",
        "Note",
    )
)


def _claim_line(record: dict, first: bool) -> tuple[GridCell, ...]:
    """The cells of one row of a scorecard; only a claim's first row repeats what the paper says."""
    verdict, said = record["verdict"], record["text"] if first else ""
    return (
        GridCell(f"{record['claim']}{record['part'] or ''}", value=record["claim"]),
        GridCell(said, value=said),
        GridCell(verdict, value=verdict, bold=verdict in ("supported", "contradicted")),
        _effect(record),
        GridCell("exact" if record["exact"] else probability(record["p"]), value=record["p"]),
        *(
            GridCell(record[key], value=record[key])
            for key in ("hypothesis", "measure", "would_settle", "note")
        ),
    )


def _effect(record: dict) -> GridCell:
    """The effect of a claim with its unit and its interval, or its range if it is exact."""
    effect, low, high = (float(record[key]) for key in ("effect", "ci_low", "ci_high"))
    if math.isnan(effect):
        return GridCell(DASH, value=effect)
    text, detail = number(effect), interval(low, high)
    if record["exact"]:
        detail = f"{number(low)} to {number(high)}"
    elif record["unit"] == "times":
        text, detail = supported(effect, low, high), bounds(low, high)
    if not math.isfinite(low + high) and not math.isnan(low):
        detail = ""  # the text itself says what is not bounded
    unit = record["unit"] if _has_digit(text) else ""
    return GridCell(text, detail, effect, unit=unit)


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def capacity_grid(capacity: pd.DataFrame) -> Grid:
    """The table of `eval.analyses.capacity.Capacity` as it is shown."""
    return listing(
        "capacity",
        "Bits memorised per parameter",
        capacity,
        "architecture bits_per_param ci_low..ci_high points gain converged",
        notes=(
            "Not converged: a lower bound, because twice the steps or more text memorise more (or "
            "were not tried). The interval comes from the scatter of the points on the plateaus.",
        ),
    )
