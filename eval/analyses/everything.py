"""Every analysis of a study in one pass: a dictionary of tidy tables, which tables, figures and pages only render."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from eval.analyses import claims, comparison, crossover, pareto, protocols, rank
from eval.analyses.settings import DEFAULTS, Options
from eval.analyses.slopes import slopes
from eval.data.cells import DEFAULT_PROTOCOLS, Axes, main_protocol
from eval.data.study import Study
from eval.laws import study_laws as law_study
from train.records import InputError

TOKENS_PER_BATCH = 65_536  # the study's batch: 128 sequences of 512 tokens

_COST_PAIRS = [(x, y) for x in ("F", "P") for y in ("U", "D")]
_COSTS = [(cost, y) for cost in ("F", "P", "S") for y in ("U", "D")]


@dataclasses.dataclass(frozen=True)
class Analysis:
    """A study with everything computed from it.

    Attributes:
      study: what was analysed.
      table: its runs, with the column of FLOPs that was chosen.
      axes: which columns were meant.
      reference: the architecture that the others were compared with.
      options: what was chosen.
      results: tidy tables by name; the columns are in the docstrings of the functions that make
        them.
      laws: the scaling law of every architecture whose records support one.
    """

    study: Study
    table: pd.DataFrame
    axes: Axes
    reference: str
    options: Options
    results: dict[str, pd.DataFrame]
    laws: law_study.StudyLaws


def analyse(
    study: Study, options: Options = DEFAULTS, progress: Callable[[str], None] = lambda name: None
) -> Analysis:
    """Computes every table of the report.

    Args:
      study: from `eval.data.study.read_study` or `eval.data.run_table.read_table`.
      options: choices.
      progress: called with the name of each table before it is computed.

    Raises:
      InputError: the study has no finished run, or a column or architecture that was asked for is
        not there.
    """
    if study.runs.empty:
        raise InputError(f"study {study.name!r}: no run is finished, so there is nothing to report")
    table, axes = with_counts(study, options)
    reference = reference_of(main_protocol(table), options.reference)
    results = {}
    for name, compute in _plan(table, axes, reference, options):
        progress(name)
        results[name] = compute()
    progress("scaling laws")
    laws = law_study.laws(table, axes, options.level, options.resampling_seed)
    results |= {"laws": laws.parameters, "law_tests": laws.tests, "law_checklist": laws.checklist}
    return Analysis(study, table, axes, reference, options, results, laws)


def with_counts(study: Study, options: Options) -> tuple[pd.DataFrame, Axes]:
    """The runs with a column for the FLOPs that are meant, and the axes that name what F, P and D mean.

    Raises:
      InputError: the runs do not record what the convention needs.
    """
    table = study.runs
    if len(study.shapes):
        table = table.merge(study.shapes, on="run_id", how="left", validate="one_to_one")
    if options.score not in table:
        known = ", ".join(c for c in map(str, table.columns) if c.startswith("downstream_"))
        raise InputError(f"score {options.score!r}: no such column; the study has {known}")
    flops = {
        "forward": "flops_forward",
        "without_head": "flops_forward_without_head",
        "train_total": "flops_train_total",
        "per_batch": "flops_forward_per_65536_tokens",
    }[options.count_flops]
    if options.count_flops == "without_head":
        parts = study.flops_by_part
        head = parts[parts.part.str.split("/").str[0] == "head"].groupby("run_id").flops.sum()
        table = table.assign(**{flops: table.flops_forward - table.run_id.map(head).astype(float)})
    elif options.count_flops == "per_batch":
        lengths = study.settings[study.settings.setting == "pretrain.input_length"]
        if len(lengths) != 1:
            raise InputError(
                "count_flops per_batch: the runs do not record one pretrain.input_length"
            )
        table = table.assign(
            **{flops: table.flops_forward * TOKENS_PER_BATCH / float(lengths.value.iloc[0])}
        )
    params = f"params_{options.count_params}"
    for key, column in (("count_flops", flops), ("count_params", params)):
        # The defaults may be empty in a table from elsewhere: then the analyses say so themselves.
        chosen = getattr(options, key)
        if chosen != getattr(DEFAULTS, key) and not np.isfinite(table[column]).any():
            raise InputError(f"{key} {chosen}: no run records {column}")
    return table, Axes(
        flops=flops, params=params, downstream=options.score, log_base=options.log_base
    )


def reference_of(table: pd.DataFrame, wanted: str = "") -> str:
    """The architecture that the others are compared with.

    Args:
      table: the runs that are compared: those of one scaling protocol.
      wanted: its name; empty takes the vanilla transformer, or the first by name.

    Raises:
      InputError: `wanted` is not in the table.
    """
    names = sorted(table.architecture.unique())
    if wanted and wanted not in names:
        raise InputError(
            f"reference {wanted!r} is not among the architectures compared: {', '.join(names)}"
        )
    return wanted or (comparison.REFERENCE if comparison.REFERENCE in names else names[0])


def _plan(
    table: pd.DataFrame, axes: Axes, reference: str, options: Options
) -> Iterator[tuple[str, Callable[[], pd.DataFrame]]]:
    """Name and computation of every table, in the order of the report."""
    level: dict[str, Any] = {"axes": axes, "level": options.level}
    seed: dict[str, Any] = {"axes": axes, "seed": options.resampling_seed}
    both: dict[str, Any] = level | seed
    spread: dict[str, Any] = {"errors": options.errors, "variance": options.variance}
    against: dict[str, Any] = spread | {"reference": reference}
    over_what: dict[str, Any] = {"support": options.support}

    quality = main_protocol(table)

    def known(*quantities: str) -> bool:
        """Whether some run has all of them; without any, an analysis has nothing to say."""
        return bool(np.isfinite(quality[[axes.column(q) for q in quantities]]).all(axis=1).any())

    def over(pairs, keys: tuple[str, ...], function, **options) -> Callable[[], pd.DataFrame]:
        pairs = [pair for pair in pairs if known(*pair)]
        return lambda: _stack(
            function(table, **dict(zip(keys, pair, strict=True)), **options) for pair in pairs
        )

    xy, cost, flops = ("x", "y"), ("cost", "y"), [("F", "U"), ("F", "D")]
    yield "slopes", lambda: slopes(table, **level, **spread)
    yield "equal_slopes", over(_COST_PAIRS, xy, comparison.equal_slopes, **seed, **over_what)
    yield "contrasts", over(_COST_PAIRS, xy, comparison.contrasts, **both, **against, **over_what)
    yield (
        "equivalence",
        over(_COST_PAIRS, xy, comparison.equivalence, **level, **against, **over_what),
    )
    yield (
        "level_differences",
        over(_COST_PAIRS, xy, comparison.level_difference, **level, **against),
    )
    yield "multipliers", over(_COST_PAIRS, xy, comparison.multiplier, **level, **against)
    yield "crossovers", over(flops, xy, crossover.crossovers, **both, **against)
    yield "pareto", over(_COSTS, cost, pareto.frontier, **seed)
    yield "pareto_membership", over(_COSTS, cost, pareto.membership, **seed)
    yield "pareto_gaps", over(_COSTS, cost, pareto.gaps, **both)
    yield "hypervolume", over(_COSTS, cost, pareto.hypervolume, **both)
    yield "attainment", over(_COSTS, cost, pareto.attainment, axes=axes)
    together = [()] if known("F", "U", "D") else []
    yield (
        "rank_correlation",
        lambda: _stack(rank.up_down_correlation(table, **both) for _ in together),
    )
    yield "rank_stability", over([("U",), ("D",)], ("y",), rank.rank_stability, **both)
    yield "probability_best", over(flops, xy, rank.probability_best, **seed)
    yield "discordant_pairs", lambda: _stack(rank.discordant_pairs(table, **seed) for _ in together)
    yield "protocols", lambda: protocols.protocol_slopes(table, **level, **spread)
    ladders = protocol_pairs(table)
    sides = [(x, y, first, second) for x, y in flops if known(x, y) for first, second in ladders]
    yield (
        "protocol_differences",
        lambda: _stack(
            protocols.protocol_differences(
                table, x=x, y=y, first=first, second=second, **level, **spread, **over_what
            )
            for x, y, first, second in sides
        ),
    )
    yield "width_depth", over([("U",), ("D",)], ("y",), protocols.width_depth_grid, axes=axes)
    # The claims are about the vanilla transformer: where it is missing, another first name does not
    # stand in for it.
    vanilla = options.reference or comparison.REFERENCE
    yield (
        "claims",
        lambda: claims.scorecard(table, reference=vanilla, **level, **spread, **over_what),
    )


def protocol_pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Every two named scaling protocols of the table, depth and width (the paper's) first."""
    named = set(table.protocol.dropna().astype(str)) - set(DEFAULT_PROTOCOLS)
    order = [
        *(name for name in ("depth", "width") if name in named),
        *sorted(named - {"depth", "width"}),
    ]
    return list(itertools.combinations(order, 2)) or [("depth", "width")]


def _stack(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table under another; an empty one gives its columns and no types, none at all an empty note."""
    every = list(tables)
    filled = [table for table in every if len(table)]
    if filled:
        return pd.concat(filled, ignore_index=True)
    return every[0] if every else pd.DataFrame(columns=["note"])
