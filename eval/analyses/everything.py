"""Runs every analysis of a study in one pass.

The result is a dictionary of tidy tables. Reports, figures and pages only render them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from eval.analyses import claims, tuning, tuning_runs
from eval.analyses.capacity import Capacity
from eval.analyses.comparison import Comparison
from eval.analyses.families import EQUAL_PARAMETERS, Families
from eval.analyses.paired import Paired, PairedErrors
from eval.analyses.pareto import Frontier
from eval.analyses.probes import Probes
from eval.analyses.protocols import DepthWidth, Protocols
from eval.analyses.question import REFERENCE, Question
from eval.analyses.rank import Ranking
from eval.analyses.settings import DEFAULTS, Settings
from eval.analyses.slopes import Slopes
from eval.analyses.sources.scorecard import scorecard
from eval.data.cells import CELL, DEFAULT_PROTOCOLS, RunTable
from eval.data.chance import AT_CHANCE, at_chance
from eval.data.families import DECODER_ONLY
from eval.data.quantity import Quantities, Quantity
from eval.data.study import BITS_PER_BYTE, Study, learning_curves
from eval.laws import study_laws
from train.records import InputError

TOKENS_PER_BATCH = 65_536  # the study's batch: 128 sequences of 512 tokens
_FLOPS_COLUMNS = {
    "forward": "flops_forward",
    "without_head": "flops_forward_without_head",
    "train_total": "flops_train_total",
    "per_batch": "flops_forward_per_65536_tokens",
}
_DRAWS = 1000  # for frontiers and ranks, which run many bootstraps

Computation = tuple[str, Callable[[], pd.DataFrame]]  # the name of a table, and what computes it


@dataclasses.dataclass(frozen=True)
class Analysis:
    """A study together with everything computed from it.

    Attributes:
      study: what was analysed.
      runs: its runs, checked, with the column of FLOPs that was chosen.
      quantities: the columns that the quantities were read from.
      reference: the architecture that the others were compared with.
      settings: the settings of the analyses.
      results: tidy tables by name; the functions that make them document the columns.
      laws: the scaling law of every architecture with enough records for one.
      sweep: the loss against the learning rate, of cells that were trained at three or more.
    """

    study: Study
    runs: RunTable
    quantities: Quantities
    reference: str
    settings: Settings
    results: dict[str, pd.DataFrame]
    laws: study_laws.StudyLaws
    sweep: tuple[tuning.Curve, ...] = ()

    @property
    def one_seed(self) -> bool:
        """Whether no cell was run with a second seed, so that nothing about seeds is known."""
        return bool(self.table.groupby(list(CELL)).size().max() == 1)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        """How every run learned; see `eval.data.study.learning_curves`. Read when first asked."""
        return learning_curves(self.study)

    @functools.cached_property
    def paired_errors(self) -> PairedErrors:
        """The errors of the differences from the reference, of every quality of the study."""
        columns = [c for c in self.study.runs if str(c).startswith("downstream_")]
        losses = [self.quantities.loss]
        runs = self.study.runs
        if BITS_PER_BYTE in runs:
            losses.append(self.quantities.loss.of(BITS_PER_BYTE))
        scores = [self.quantities.score.of(str(column)) for column in columns]
        # The records' own scores: those at chance are shown as well, though never compared.
        return PairedErrors.of(self.runs.take(runs), self.reference, [*losses, *scores])

    @property
    def table(self) -> pd.DataFrame:
        """The runs, one row each."""
        return self.runs.frame

    @property
    def qualities(self) -> tuple[Quantity, Quantity]:
        """The two qualities that the study measures: the loss upstream and the score downstream."""
        return self.quantities.loss, self.quantities.score


def analyse(
    study: Study,
    settings: Settings = DEFAULTS,
    progress: Callable[[str], None] = lambda name: None,
    scaling: Study | None = None,
) -> Analysis:
    """Computes every table of the report.

    Args:
      study: from `eval.data.study.read_study` or `eval.data.run_table.read_table`.
      settings: the settings of the analyses.
      progress: called with the name of each table before it is computed.
      scaling: a study of slopes, which the scores of probes are related to.

    Raises:
      InputError: the study has no finished run, or a column or architecture that the settings name
        does not exist.
    """
    if study.runs.empty:
        raise InputError(
            f"study {study.name!r}: no run is finished, so there is nothing to report"
            f"{study.not_finished}"
        )
    probes = Probes(study.told_apart(), settings.level)
    swept = tuning_runs.swept(study)
    study = tuning_runs.at_best(study.told_apart())
    runs, quantities = with_counts(study, settings)
    reference = reference_of(runs.main().frame, settings.reference)
    question = question_of(settings, reference, quantities)
    results = {}
    for name, compute in _plan(runs, question, settings):
        progress(name)
        results[name] = compute()
    progress("scaling laws")
    laws = study_laws.laws(runs, question)
    results |= {"laws": laws.parameters, "law_checklist": laws.checklist}
    progress("claims of the sources")
    # These claims are about each architecture alone, so the reference does not matter.
    results["sources"] = scorecard(study, question)
    sweep = tuning.curves(swept, settings.level)
    if sweep:
        results["best_rates"] = tuning.optima(sweep)
        results["rate_exponents"] = tuning.exponents(sweep)
        results["rate_regrets"] = tuning.regrets(sweep)
        results["at_best_rates"] = tuning.at_best(swept, reference, settings.level)
        results["expected_best"] = tuning.expected_best(swept, settings.level)
    # A study's own file may be missing where its report is written.
    own = study.tuning if study.tuning and Path(study.tuning).is_file() else ""
    if file := settings.tuning or own:
        results["regrets"] = tuning_runs.used(study, tuning_runs.read(Path(file)))
    capacity = Capacity(study, settings.level).table()
    if len(capacity):
        results["capacity"] = capacity
    table = probes.table()
    if len(table):
        results |= {"probes": table, "probe_curves": probes.curves()}
        if len(means := probes.by_task()):
            results["probe_means"] = means
        if scaling is not None:
            others, counted = with_counts(tuning_runs.at_best(scaling.told_apart()), settings)
            # Only the order of its architectures matters, so any reference will do.
            asked = question_of(settings, reference_of(others.main().frame), counted)
            results["probe_relation"] = probes.relation(others, asked)
    return Analysis(study, runs, quantities, reference, settings, results, laws, tuple(sweep))


def question_of(
    settings: Settings,
    reference: str | None = REFERENCE,
    quantities: Quantities | None = None,
) -> Question:
    """Turns the settings into a question about upstream loss on FLOPs."""
    quantities = quantities or Quantities()
    return Question(
        x=quantities.flops,
        y=quantities.loss,
        quantities=quantities,
        reference=reference,
        log_base=settings.log_base,
        errors=settings.errors,
        variance=settings.variance,
        support=settings.support,
        level=settings.level,
        seed=settings.resampling_seed,
    )


def with_counts(study: Study, settings: Settings) -> tuple[RunTable, Quantities]:
    """Adds the column of the FLOPs asked for, and says which columns F, P and D mean.

    Scores at chance are left out: they say that nothing was learned, not how much.

    Raises:
      InputError: the runs do not record what the convention needs.
    """
    study = study.told_apart()
    table = study.runs
    if len(study.shapes):
        table = table.merge(study.shapes, on="run_id", how="left", validate="one_to_one")
    if settings.score not in table:
        known = ", ".join(c for c in map(str, table.columns) if c.startswith("downstream_"))
        raise InputError(f"score {settings.score!r}: no such column; the study has {known}")
    low = table.run_id.isin(study.runs.run_id[at_chance(study, settings.score)])
    table = table.assign(**{settings.score: table[settings.score].mask(low), AT_CHANCE: low})
    flops = _FLOPS_COLUMNS[settings.count_flops]
    if settings.count_flops == "without_head":
        parts = study.flops_by_part
        head = parts[parts.part.str.split("/").str[0] == "head"].groupby("run_id").flops.sum()
        without = table.flops_forward - table.run_id.map(head).astype(float)
        table = table.assign(**{flops: without})
    elif settings.count_flops == "per_batch":
        lengths = study.settings[study.settings.setting == "pretrain.input_length"]
        alone = int((table.family == DECODER_ONLY).sum())
        if alone:
            raise InputError(
                f"count_flops per_batch: it counts input tokens, and {alone} of {len(table)} runs "
                "are of decoder-only models, which read inputs and targets in one sequence; "
                "--where family=encoder_decoder leaves them out"
            )
        if len(lengths) != 1:
            raise InputError(
                "count_flops per_batch: the runs do not record one pretrain.input_length"
            )
        table = table.assign(
            **{flops: table.flops_forward * TOKENS_PER_BATCH / float(lengths.value.iloc[0])}
        )
    params = f"params_{settings.count_params}"
    for key, column in (("count_flops", flops), ("count_params", params)):
        # In a table from another source the default columns may be empty. The analyses then report
        # that themselves.
        chosen = getattr(settings, key)
        if chosen != getattr(DEFAULTS, key) and not np.isfinite(table[column]).any():
            raise InputError(f"{key} {chosen}: no run records {column}")
    usual = Quantities()
    quantities = Quantities(
        flops=usual.flops.of(flops),
        params=usual.params.of(params),
        score=usual.score.of(settings.score),
    )
    return RunTable(study).take(table), quantities


def reference_of(table: pd.DataFrame, wanted: str = "") -> str:
    """Chooses the architecture that the others are compared with.

    Args:
      table: the runs that are compared, all of one scaling protocol.
      wanted: its name. If empty, the vanilla transformer is taken, or else the first by name.

    Raises:
      InputError: `wanted` is not in the table.
    """
    names = sorted(table.architecture.unique())
    if wanted and wanted not in names:
        known = ", ".join(names)
        raise InputError(f"reference {wanted!r} is not among the architectures compared: {known}")
    return wanted or (REFERENCE if REFERENCE in names else names[0])


def _plan(runs: RunTable, question: Question, settings: Settings) -> Iterator[Computation]:
    """Yields the name and the computation of every table, in the order of the report."""
    main, few, quantities = runs.main().frame, question.ask(draws=_DRAWS), question.quantities
    flops, params = quantities.flops, quantities.params
    qualities = (quantities.loss, quantities.score)

    def known(*wanted: Quantity) -> bool:
        """Whether at least one run has all of these quantities."""
        return bool(np.isfinite(main[[q.column for q in wanted]]).all(axis=1).any())

    def pairs(costs: Iterable[Quantity]) -> list[tuple[Quantity, Quantity]]:
        return [pair for pair in itertools.product(costs, qualities) if known(*pair)]

    comparisons = [Comparison(runs, question.ask(x=x, y=y)) for x, y in pairs((flops, params))]
    costs = (flops, params, quantities.speed, quantities.state)
    frontiers = [Frontier(runs, few.ask(x=x, y=y)) for x, y in pairs(costs)]
    rankings = [Ranking(runs, question.ask(x=x, y=y)) for x, y in pairs((flops,))]
    on_flops = [c for c in comparisons if c.question.x == flops]
    together = rankings[:1] if known(flops, *qualities) else []

    yield "slopes", lambda: Slopes(runs, question).table()
    yield "equal_slopes", lambda: _stack(c.equal_slopes() for c in comparisons)
    yield "contrasts", lambda: _stack(c.contrasts() for c in comparisons)
    yield "equivalence", lambda: _stack(c.equivalence() for c in comparisons)
    yield "level_differences", lambda: _stack(c.levels() for c in comparisons)
    paired = [Paired(runs, question.ask(x=flops, y=y)) for _, y in pairs((flops,))]
    yield "paired_differences", lambda: _stack(p.differences() for p in paired)
    yield "multipliers", lambda: _stack(c.multipliers() for c in comparisons)
    yield "crossovers", lambda: _stack(c.crossovers() for c in on_flops)
    yield "pareto", lambda: _stack(f.frontier() for f in frontiers)
    yield "pareto_membership", lambda: _stack(f.membership() for f in frontiers)
    yield "pareto_gaps", lambda: _stack(f.gaps() for f in frontiers)
    yield "hypervolume", lambda: _stack(f.hypervolume() for f in frontiers)
    yield "attainment", lambda: _stack(f.attainment() for f in frontiers)
    yield "rank_correlation", lambda: _stack(r.agreement(quantities.score) for r in together)
    ordered = [Ranking(runs, few.ask(x=flops, y=y)) for y in qualities if known(y)]
    yield "rank_stability", lambda: _stack(r.stability() for r in ordered)
    yield "probability_best", lambda: _stack(r.probability_best() for r in rankings)
    yield "discordant_pairs", lambda: _stack(r.discordant_pairs(quantities.score) for r in together)
    pairs_of_flops = [flops.symbol + y.symbol for y in qualities]
    yield "protocols", lambda: Protocols(runs, question).table(pairs_of_flops)
    ladders = protocol_pairs(runs.frame)
    yield (
        "protocol_differences",
        lambda: _stack(
            Protocols(runs, c.question).differences(first, second)
            for c in on_flops
            for first, second in ladders
        ),
    )
    grids = [question.ask(x=flops, y=y) for y in qualities if known(y)]
    yield "width_depth", lambda: _stack(DepthWidth(runs, asked).grid() for asked in grids)
    outside = params.of("params_non_embedding")  # what twins of equal parameters agree in
    twins = [
        (Families(runs, question.ask(x=x, y=y)), protocol)
        for x, protocol in ((flops, None), (outside, EQUAL_PARAMETERS))
        for y in qualities
        if outside.column in main and known(x, y)
    ]
    yield "families", lambda: _stack(f.differences(protocol) for f, protocol in twins)
    yield "family_multipliers", lambda: _stack(f.multipliers(protocol) for f, protocol in twins)
    # The claims are about the vanilla transformer: if it is missing, no other reference can replace
    # it.
    vanilla = question.ask(reference=settings.reference or REFERENCE)
    yield "claims", lambda: claims.scorecard(runs, vanilla)


def protocol_pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Every two named scaling protocols of the table, depth and width (the paper's) first."""
    named = set(table.protocol.dropna().astype(str)) - set(DEFAULT_PROTOCOLS)
    order = [
        *(name for name in ("depth", "width") if name in named),
        *sorted(named - {"depth", "width"}),
    ]
    return list(itertools.combinations(order, 2)) or [("depth", "width")]


def _stack(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Concatenates tables.

    If all are empty, the first one gives the columns; if there is none, the result is an empty
    table with the column `note`.
    """
    every = list(tables)
    filled = [table for table in every if len(table)]
    if filled:
        return pd.concat(filled, ignore_index=True)
    return every[0] if every else pd.DataFrame(columns=["note"])
