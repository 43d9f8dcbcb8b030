"""The tables of the page, section by section, each with a sentence on its purpose."""

import base64
import dataclasses
import functools
import io
from collections.abc import Callable

import matplotlib
import pandas as pd

from eval.analyses.everything import Analysis
from eval.data.cells import main_protocol
from eval.data.families import several
from eval.report import probe_report, source_figures, summary, sweep, words
from eval.report.figures import STYLE
from eval.report.grid import Grid
from eval.report.listing import listing
from eval.report.source_figures import Drawn
from eval.report.summary import Pair, no_scores
from eval.report.tables import capacity_grid, claims_grid, sources_grid, table1, table2
from eval.stats.decision import NOT_TESTED

_MOST_ROWS = 2000
_DPI = 130  # of pictures inside the page
_NO_PAIR = "no run has both a count of FLOPs and a quality"
_OF_TABLE = "The table is empty, because these runs come from a table, which does not record this."
_GAPS = "Units of gaps: nats upstream, points of score downstream."
_ONE_SEED = (
    "Each cell was run with one seed, so probabilities over seeds, their intervals and what the "
    "study attains when it is repeated are unknown and not shown."
)
# What only seeds can tell. With one seed per cell these columns are empty or mean nothing.
_OF_SEEDS = (
    "seed_low..seed_high",
    "reliability",
    "reliability_corrected",
    "deming",
    "deming_low..deming_high",
    "probability_any",
    "probability_on_frontier",
    "probability_discordant",
    "quality_gap_low..quality_gap_high",
    "cost_multiplier_low..cost_multiplier_high",
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure inside the page.

    Attributes:
      caption: what it shows.
      png: its pixels, in base64.
    """

    caption: str
    png: str


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      anchor: the name for links to it.
      title: the heading.
      intro: the introduction.
      grids: the tables.
      chart: the name of its chart, if any.
      folded: whether it starts closed.
      pictures: figures that stand after the first table.
    """

    anchor: str
    title: str
    intro: str
    grids: tuple[Grid, ...]
    chart: str = ""
    folded: bool = False
    pictures: tuple[Picture, ...] = ()


def claims_count(analysis: Analysis) -> list[tuple[str, int]]:
    """How many claims have each verdict."""
    claims = analysis.results["claims"]
    return (
        [(str(verdict), int(n)) for verdict, n in claims.verdict.value_counts().items()]
        if len(claims)
        else []
    )


def sections(analysis: Analysis) -> list[Section]:
    """Every section after the summary: first the answers, then what they are made of."""
    probes = (_probes,) if "probes" in analysis.results else ()
    first = summary.only_probes(analysis)
    makers = (
        *(probes if first else ()),
        _claims,
        _sources,
        _slopes,
        _comparison,
        *((_families,) if several(analysis.table) else ()),
        *((_capacity,) if "capacity" in analysis.results else ()),
        *(() if first else probes),
        *((_rates,) if analysis.sweep else ()),
        _crossovers,
        _cells,
        _curves,
        _pareto,
        _ranks,
        _protocols,
        _laws,
        _runs,
        _settings,
    )
    return [_shortened(make(analysis)) for make in makers]


def _nothing(analysis: Analysis, downstream: bool = False) -> str:
    """Why a table of comparisons has no row.

    Args:
      analysis: the analysis.
      downstream: whether the table needs scores.
    """
    if downstream and (why := no_scores(analysis)):
        return f"The table is empty, because {why}."
    table = main_protocol(analysis.table)
    if table.architecture.nunique() < 2:
        return "The table is empty, because there is only one architecture to compare."
    qualities = table[[q.column for q in analysis.qualities]].notna().any(axis=1)
    if not (qualities & table[analysis.quantities.flops.column].notna()).any():
        return f"The table is empty, because {_NO_PAIR}."
    return "The table is empty, because no two architectures have the values that it compares."


def _units(analysis: Analysis, frame: pd.DataFrame, of_slopes: bool) -> list[str]:
    """A note on the units of a table of slopes or of differences of qualities."""
    if "alpha" not in frame:
        return []
    pairs = [
        Pair(str(alpha), log_base=analysis.settings.log_base) for alpha in frame.alpha.unique()
    ]
    if of_slopes:
        said = [f"{words.slope(pair.alpha)} in {pair.unit_of_slope}" for pair in pairs]
        return [f"Units of slopes: {'; '.join(said)}."]
    said = {f"{pair.where.lower()} in {pair.unit}": None for pair in pairs}
    return [f"Units of differences: {', '.join(said)}."]


def _known(analysis: Analysis, columns: str) -> str:
    """These columns, without those that need several seeds if there is one."""
    if not analysis.one_seed:
        return columns
    return " ".join(c for c in columns.split() if c not in _OF_SEEDS)


def _shortened(section: Section) -> Section:
    """Limits the rows of the tables, because browsers cannot sort hundreds of thousands quickly."""
    return dataclasses.replace(section, grids=tuple(map(_at_most, section.grids)))


def _at_most(grid: Grid) -> Grid:
    if len(grid.rows) <= _MOST_ROWS:
        return grid
    note = f"{_MOST_ROWS} of {len(grid.rows)} rows; all of them are in the CSV files."
    return dataclasses.replace(grid, rows=grid.rows[:_MOST_ROWS], notes=(*grid.notes, note))


def _cells(analysis: Analysis) -> Section:
    intro = (
        "What every cell cost and reached. One point is one cell: an architecture at one size, "
        "averaged over its seeds. Point at a cell to see the band of its architecture's line."
    )
    grids = (table1(analysis.study, analysis.paired_errors, analysis.results.get("regrets")),)
    return Section("cells", "Quality against cost", intro, grids, chart="main")


def _curves(analysis: Analysis) -> Section:
    if analysis.curves.empty:
        intro = "These runs come from a table, which has no learning curves."
        return Section("curves", "Learning curves", intro, ())
    intro = (
        "How every run learned: the loss while it was pretrained, and the scores while it was "
        "fine-tuned. A run that had not finished learning, or became worse, shows here."
    )
    return Section("curves", "Learning curves", intro, (), chart="curves")


def _slopes(analysis: Analysis) -> Section:
    slopes = analysis.results["slopes"]
    everything = (
        "architecture alpha link slope ci_low..ci_high p n_sizes n_runs r2 se_hc3 "
        "seed_low..seed_high method note"
    )
    measured = (
        "architecture link slope theil_sen theil_sen_low..theil_sen_high deming "
        "deming_low..deming_high "
        "reliability note"
    )
    why = no_scores(analysis)
    missing = [f"Slopes with downstream in them are not known, because {why}."] if why else []
    grids = [
        table2(slopes, analysis.settings.level, analysis.results["contrasts"], why),
        listing("slopes-all", "Every fit in full", slopes, _known(analysis, everything), missing),
    ]
    downstream = slopes[slopes.alpha == "U,D"]
    if downstream.slope.notna().any():
        title = "Downstream on upstream, where x is measured too"
        grids.append(listing("slopes-ud", title, downstream, _known(analysis, measured)))
    intro = (
        "How much quality an architecture gains along the logarithmic axis. The line goes through "
        "the means of the "
        "sizes; the interval says how firmly these sizes fix it."
    )
    return Section("slopes", "Scaling slopes", intro, tuple(grids), chart="slopes")


def _comparison(analysis: Analysis) -> Section:
    results, reference = analysis.results, analysis.reference
    grids = (
        listing(
            "contrasts",
            f"Slope minus that of {reference}",
            results["contrasts"],
            "architecture alpha difference ci_low..ci_high p_holm verdict detectable df slope "
            "slope_reference note",
            _units(analysis, results["contrasts"], True),
            empty=_nothing(analysis),
        ),
        listing(
            "equivalence",
            f"The same slope as {reference}, to within the margin?",
            results["equivalence"],
            "architecture alpha ratio ratio_low..ratio_high p_holm equivalent margin note",
            empty=_nothing(analysis),
        ),
        listing(
            "levels",
            f"Quality minus that of {reference}, at equal cost",
            results["level_differences"],
            "architecture alpha position budget difference ci_low..ci_high p_holm verdict "
            "detectable df note",
            _units(analysis, results["level_differences"], False),
            empty=_nothing(analysis),
        ),
        listing(
            "multipliers",
            f"Cost of reaching the quality that {reference} has at a budget",
            results["multipliers"],
            "architecture alpha position multiplier ci_low..ci_high interval budget note",
            empty=_nothing(analysis),
        ),
    )
    if len(results["paired_differences"]):
        paired = listing(
            "paired",
            f"Trained models against {reference}'s of the same size, on the same held-out examples",
            results["paired_differences"],
            "architecture size y_axis difference ci_low..ci_high se p_holm n_examples note",
            ["The error is over held-out examples only: another training would differ as well."],
        )
        grids = (*grids, paired)
    intro = (
        f"Every architecture against {reference}, with p values corrected for the number of "
        "comparisons; the intervals are not corrected. \u201cNot told apart\u201d does not mean "
        "equal: \u201cSmallest detectable\u201d is the smallest difference that this design finds "
        "with a probability of 80 %, and the equivalence test says whether two slopes are equal. "
        "Further tests of the same questions, which decide nothing here, are in "
        "analyses/equal_slopes.csv."
    )
    return Section("comparison", "Between architectures", intro, grids)


def _families(analysis: Analysis) -> Section:
    results = analysis.results
    found = summary.families_in_short(analysis, ("F,U", "F,D", "P,U", "P,D"))
    base = analysis.settings.log_base
    step = "tenfold" if base == 10 else f"factor {base:g} of"
    empty = "The table is empty, because no architecture has runs of both families."
    grids = (
        listing(
            "families",
            "Decoder-only models minus encoder-decoders of the same architecture",
            results["families"],
            "architecture alpha measure difference ci_low..ci_high p_holm verdict detectable df "
            "budget note",
            [
                "Differences are of the loss (nats; negative: decoder-only is better) and of the "
                "score (points; positive: decoder-only is better). Level: in the middle of the "
                f"common range. Slope: per {step} cost."
            ],
            empty=empty,
        ),
        listing(
            "family-multipliers",
            "Cost at which decoder-only models reach the quality of encoder-decoders",
            results["family_multipliers"],
            "architecture alpha multiplier ci_low..ci_high interval budget note",
            empty=empty,
        ),
    )
    intro = (
        "Every architecture that was trained in both families is compared with itself. Its "
        "decoder-only models are twins of equal FLOPs, or under the protocol params of equal "
        "parameters. The figure is analyses/families.png."
    )
    return Section("families", "Families", f"{found} {intro}", grids)


def _crossovers(analysis: Analysis) -> Section:
    columns = (
        "architecture_a architecture_b alpha crossing ci_low..ci_high interval position "
        "better_below better_above "
        "probability_inside bootstrap_low..bootstrap_high note"
    )
    grid = listing(
        "crossovers",
        "Where two lines meet, in FLOPs",
        analysis.results["crossovers"],
        columns,
        empty=_nothing(analysis),
    )
    intro = (
        "Where an architecture overtakes the reference. \u201cAnywhere\u201d is a result too: the "
        "slopes cannot be told apart, so the lines may cross at any budget or at none."
    )
    return Section("crossovers", "Crossovers", intro, (grid,))


def _pareto(analysis: Analysis) -> Section:
    results = analysis.results
    main = results["pareto"]
    main = main[main.cost_axis == analysis.quantities.flops.column] if len(main) else main
    empty = f"The table is empty, because {_NO_PAIR}."
    axes, known = "cost_axis y_axis", functools.partial(_known, analysis)
    grids = (
        listing(
            "members",
            "Who is on the frontier",
            results["pareto_membership"],
            known(
                f"architecture {axes} cells cells_on_frontier sizes_on_frontier probability_any "
                "note"
            ),
            empty=empty,
        ),
        listing(
            "frontier",
            "Every cell against FLOPs",
            main,
            known(
                "architecture size y_axis cost quality n_seeds on_frontier "
                "probability_on_frontier quality_gap cost_multiplier note"
            ),
            [_GAPS, "Against parameters, speed and state: pareto.csv."],
            empty=empty,
        ),
        listing(
            "gaps",
            "How far behind the frontier of the others",
            results["pareto_gaps"],
            known(
                f"architecture {axes} quality_gap quality_gap_low..quality_gap_high "
                "cost_multiplier cost_multiplier_low..cost_multiplier_high note"
            ),
            [_GAPS],
            empty=empty,
        ),
        listing(
            "hypervolume",
            "Hypervolume, and what each architecture adds to it",
            results["hypervolume"],
            f"architecture {axes} reference_cost reference_quality hypervolume contribution share "
            + ("note" if analysis.one_seed else "ci_low..ci_high note"),
            empty=empty,
        ),
    )
    intro = "A cell is on the frontier when no other is at once cheaper and better."
    if analysis.one_seed:
        return Section("pareto", "Pareto frontiers", f"{intro} {_ONE_SEED}", grids)
    intro += (
        " Probabilities draw the seeds again. The chart shows what the study attains at a budget: "
        "in 95 %, half and 5 % of its repetitions (seeds)."
    )
    return Section("pareto", "Pareto frontiers", intro, grids, chart="attainment")


def _ranks(analysis: Analysis) -> Section:
    results = analysis.results
    grids = (
        listing(
            "agreement",
            "Upstream against downstream",
            results["rank_correlation"],
            _known(
                analysis,
                "scope group method estimate ci_low..ci_high p reliability_corrected n note",
            ),
            empty=_nothing(analysis, downstream=True),
        ),
        listing(
            "stability",
            "Does the ranking hold from size to size?",
            results["rank_stability"],
            "y_axis size_a size_b statistic value "
            + ("" if analysis.one_seed else "ci_low..ci_high ")
            + "p n_architectures note",
            empty="The table is empty, because there are no two sizes of which each has at least "
            "two architectures in common.",
        ),
        listing(
            "discordant",
            "Pairs that upstream and downstream put in opposite order",
            results["discordant_pairs"],
            _known(
                analysis,
                "size architecture_a architecture_b upstream_difference downstream_difference "
                "probability_discordant note",
            ),
            ["A is the better one upstream, B downstream."],
            limit=60,
            empty="The table is empty, because there is no such pair."
            if len(results["rank_correlation"])
            else _nothing(analysis, downstream=True),
        ),
    )
    intro = (
        "Whether the best stays the best, and whether upstream quality predicts downstream quality."
    )
    chart = "" if analysis.one_seed else "best"
    return Section("ranks", "Ranks and agreement", intro, grids, chart=chart)


def _protocols(analysis: Analysis) -> Section:
    intro = "Whether an architecture gains more from more layers or from wider ones."
    if analysis.table.protocol.nunique() < 2:
        intro += (
            " All runs of this report have one scaling protocol, so there is nothing to compare "
            "here."
        )
        return Section("protocols", "Depth and width", intro, ())
    grids = (
        listing(
            "protocol-differences",
            "Slope under the first protocol minus slope under the second",
            analysis.results["protocol_differences"],
            "architecture first second alpha slope_first slope_second difference ci_low..ci_high "
            "p_holm verdict note",
            _units(analysis, analysis.results["protocol_differences"], True),
            empty="The table is empty, because no architecture has lines under two protocols.",
        ),
        listing(
            "protocol-slopes",
            "Slope under each protocol",
            analysis.results["protocols"],
            "architecture protocol alpha link n_sizes slope ci_low..ci_high note",
        ),
    )
    return Section("protocols", "Depth and width", intro, grids, chart="grid")


def _laws(analysis: Analysis) -> Section:
    laws, results = analysis.laws, analysis.results
    grids = (
        listing(
            "laws",
            "The law of each architecture",
            laws.parameters,
            "architecture form symbol value lower..upper points note",
            empty="The table is empty, because no architecture has enough cells for a law.",
        ),
        listing(
            "law-checklist",
            "How each law was fitted: the checklist of (Mis)Fitting",
            results["law_checklist"],
            "architecture part question answer",
            empty="The table is empty, because no law was fitted.",
        ),
    )
    without = laws.parameters.architecture.nunique() - len(laws.pages)
    intro = (
        "Loss as a law of cost, fitted to the means of the cells, in the richest form that these "
        "records support."
    )
    intro += " Whether architectures scale differently is answered by their slopes, above."
    if without:
        intro += (
            f" {without} of {without + len(laws.pages)} architectures have too few or too similar "
            "cells for a law."
        )
    shaky = sum(bool(page.warnings) for page in laws.pages.values())
    if shaky:
        intro += (
            f" WARNING: the data barely determine {shaky} of {len(laws.pages)} laws; their notes "
            "say why."
        )
    return Section("laws", "Scaling laws", intro, grids, chart="law" if laws.pages else "")


def _claims(analysis: Analysis) -> Section:
    claims = analysis.results["claims"]
    grids = (claims_grid(claims),) if len(claims) else ()
    intro, title = "Each claim as a hypothesis, against these runs.", "Claims of the paper"
    none = bool((claims["verdict"] == NOT_TESTED).all())
    if none and grids:
        intro += " These runs test none of them; the table says what each would need."
    return Section("claims", title, intro, grids, folded=none)


def _sources(analysis: Analysis) -> Section:
    grid = sources_grid(analysis.results["sources"])
    title = "Claims of other sources"
    pictures = _pictures(analysis, source_figures.of_claims)
    if not grid.rows:
        return Section("sources", title, " ".join(grid.notes), (), pictures=pictures)
    intro = (
        "What other papers say about size, data, shape, memorisation and the softmax, each claim "
        "as a hypothesis that was fixed before these runs were looked at."
    )
    return Section("sources", title, intro, (grid,), pictures=pictures)


def _pictures(
    analysis: Analysis, draw: Callable[[Analysis], dict[str, Drawn]]
) -> tuple[Picture, ...]:
    found = []
    with matplotlib.rc_context({**STYLE, "savefig.dpi": _DPI}):
        for one in draw(analysis).values():
            pixels = io.BytesIO()
            one.figure.savefig(pixels, format="png", metadata={"Software": None})
            found.append(Picture(one.caption, base64.b64encode(pixels.getvalue()).decode()))
    return tuple(found)


def _rates(analysis: Analysis) -> Section:
    intro = (
        "The loss against the learning rate, of cells that were trained at three rates or more. "
        "The best rate is the lowest point of a parabola near the lowest loss."
    )
    pictures = _pictures(analysis, sweep.both)
    return Section("rates", "Learning rates", intro, sweep.grids(analysis), pictures=pictures)


def _capacity(analysis: Analysis) -> Section:
    grid = capacity_grid(analysis.results["capacity"])
    intro = (
        "On uniform random tokens nothing can be learned but the tokens themselves. The bits that "
        "a model knows of them rise with their number, up to a plateau: its capacity."
    )
    pictures = _pictures(analysis, source_figures.of_capacity)
    return Section("capacity", "Capacity", intro, (grid,), pictures=pictures)


def _probes(analysis: Analysis) -> Section:
    intro = (
        "Probes are small tasks that say what an architecture can learn. Each architecture is "
        f"shown at its own best learning rate. {summary.of_probes(analysis)}"
    )
    pictures = _pictures(analysis, probe_report.figures)
    return Section("probes", "Probes", intro, probe_report.grids(analysis), pictures=pictures)


def _runs(analysis: Analysis) -> Section:
    study = analysis.study
    columns = list(study.unfinished.columns)
    if not several(pd.concat([study.runs[["family"]], study.unfinished[["family"]]])):
        columns.remove("family")
    grids = (
        listing(
            "unfinished",
            "Runs that are in no table",
            study.unfinished,
            " ".join(columns),
            empty="The table is empty, because every run of the study is finished.",
        ),
        listing(
            "provenance",
            "What made each run",
            study.provenance,
            " ".join(study.provenance.columns),
            limit=500,
            empty=_OF_TABLE,
        ),
    )
    intro = (
        "Every run of the study: those that are not used, and why; and for each that is, where it "
        "comes from."
    )
    return Section("runs", "Runs and provenance", intro, grids, folded=True)


def _settings(analysis: Analysis) -> Section:
    options = dataclasses.asdict(analysis.settings) | {"reference": analysis.reference}
    chosen = pd.DataFrame(
        [(f"report.{k}", str(v)) for k, v in options.items()], columns=["setting", "value"]
    )
    grids = (
        listing(
            "settings",
            "How the runs were made",
            analysis.study.settings,
            "setting value runs",
            empty=_OF_TABLE,
        ),
        listing("options", "How this report was made", chosen, "setting value"),
    )
    return Section(
        "settings", "Settings", "Every value that occurs, and in how many runs.", grids, folded=True
    )
