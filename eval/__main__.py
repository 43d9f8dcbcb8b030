"""`python -m eval report|slopes|pareto|compare|compare-studies|fit|predict|allocate|next|chain`: what records say.

Exit codes: 0 done; 2 bad input, told in one line. A list option takes several values and may be
given several times.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from eval.analyses.settings import Options
from eval.data.run_table import Columns
from eval.report.neutral import printable
from train import command_line
from train.ranges import Level
from train.records import InputError

if TYPE_CHECKING:
    import pandas as pd

    from eval.report.grid import Grid

Format = Literal["table", "csv", "json"]
_Path = Annotated[Path, tyro.conf.Positional]
_Flat = tyro.conf.arg(name="")
_Columns = Annotated[Columns, _Flat]
_Options = Annotated[Options, _Flat]


@dataclasses.dataclass(frozen=True)
class Report:
    """Writes every table, figure and the HTML page of a study.

    Attributes:
      runs: a study's directory (runs/<study>), or a table of runs (.csv, .tsv, .jsonl or .parquet,
        compressed or not).
      out: directory to write to.
    """

    runs: _Path
    out: Path = Path("reports")
    columns: _Columns = Columns()
    options: _Options = Options()

    def run(self) -> None:
        """Writes the report; prints what to read first, table 1 and where the page is."""
        with _progress() as progress:
            from eval.report import summary, tables, write

            study = write.load(self.runs, self.columns)
            analysis = write.write(study, self.out, self.options, progress)
        for warning in summary.warnings(analysis):
            _say("warning", warning)
        _show(tables.table1(analysis.study))
        for sentence in summary.sentences(analysis):
            print(f"- {printable(sentence)}")
        print(f"report: {self.out / 'write.html'}")


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Slopes of quality on FLOPs and parameters, and of downstream on upstream, per architecture.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      pairs: what to fit, x then y: FU is the slope of upstream on FLOPs.
      links: semilog (nats, percent), loglog, or both.
      format: how to print.
    """

    table: _Path
    pairs: tuple[str, ...] = ("FU", "FD", "UD", "PU", "PD")
    links: tuple[str, ...] = ("semilog", "loglog")
    format: Format = "table"
    columns: _Columns = Columns()
    options: _Options = Options()

    def run(self) -> None:
        """Prints table 2."""
        from eval.analyses.slopes import slopes
        from eval.report import tables

        table, axes, _ = _open(self.table, self.columns, self.options)
        level, spread = (
            self.options.level,
            {"errors": self.options.errors, "variance": self.options.variance},
        )
        result = slopes(table, pairs=self.pairs, links=self.links, axes=axes, level=level, **spread)
        _print({"slopes": result}, self.format, lambda: [tables.table2(result, level)])


@dataclasses.dataclass(frozen=True)
class Pareto:
    """Pareto frontiers: which cells are on them, how surely, and how far behind the others are.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      cost: F (FLOPs), P (parameters) or S (speed).
      quality: U (upstream) or D (downstream).
      format: how to print.
    """

    table: _Path
    cost: Literal["F", "P", "S"] = "F"
    quality: Literal["U", "D"] = "U"
    format: Format = "table"
    columns: _Columns = Columns()
    options: _Options = Options()

    def run(self) -> None:
        """Prints the frontier, who is on it, the gaps and the hypervolume."""
        from eval.analyses import pareto

        table, axes, _ = _open(self.table, self.columns, self.options)
        chosen: dict[str, Any] = {"cost": self.cost, "y": self.quality, "axes": axes}
        chosen["seed"] = self.options.resampling_seed
        level = self.options.level
        results = {
            "frontier": pareto.frontier(table, **chosen),
            "membership": pareto.membership(table, **chosen),
            "gaps": pareto.gaps(table, **chosen, level=level),
            "hypervolume": pareto.hypervolume(table, **chosen, level=level),
        }
        _print(results, self.format)


@dataclasses.dataclass(frozen=True)
class Compare:
    """Every architecture against a reference: slopes, levels, cost multipliers, equivalence, crossovers.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      x: F (FLOPs) or P (parameters).
      y: U (upstream) or D (downstream).
      link: semilog (nats, percent) or loglog.
      format: how to print.
    """

    table: _Path
    x: Literal["F", "P"] = "F"
    y: Literal["U", "D"] = "U"
    link: Literal["semilog", "loglog"] = "semilog"
    format: Format = "table"
    columns: _Columns = Columns()
    options: _Options = Options()

    def run(self) -> None:
        """Prints the tests and contrasts."""
        from eval.analyses import comparison, crossover

        table, axes, reference = _open(self.table, self.columns, self.options, compared=True)
        chosen: dict[str, Any] = {"x": self.x, "y": self.y, "link": self.link, "axes": axes}
        seed: dict[str, Any] = {"seed": self.options.resampling_seed}
        against: dict[str, Any] = chosen | {
            "reference": reference,
            "variance": self.options.variance,
        }
        against |= {"errors": self.options.errors, "level": self.options.level}
        over: dict[str, Any] = {"support": self.options.support}
        results = {
            "equal_slopes": comparison.equal_slopes(table, **chosen, **seed, **over),
            "contrasts": comparison.contrasts(table, **against, **seed, **over),
            "equivalence": comparison.equivalence(table, **against, **over),
            "level_differences": comparison.level_difference(table, **against),
            "multipliers": comparison.multiplier(table, **against),
            "crossovers": crossover.crossovers(table, **against, **seed),
        }
        _print(results, self.format)


@dataclasses.dataclass(frozen=True)
class CompareStudies:
    """Compares two studies cell by cell: before and after a change, or on two clusters.

    Attributes:
      first: a study's directory.
      second: another one; differences are this one minus the first.
      level: of the intervals.
      format: table, csv or json.
    """

    first: _Path
    second: _Path
    level: Level = 0.95
    format: Format = "table"

    def run(self) -> None:
        """Prints the mean differences, those of each cell, the cells that one side lacks, and changed settings."""
        from eval.analyses import two_studies
        from eval.data.study import read_study

        for path in (self.first, self.second):
            for warning in read_study(path).warnings:
                _say("warning", f"{path}: {warning}")
        _print(two_studies.compare_studies(self.first, self.second, level=self.level), self.format)


VERBS: dict[str, type] = {
    "report": Report,
    "slopes": Slopes,
    "pareto": Pareto,
    "compare": Compare,
    "compare-studies": CompareStudies,
}


def _verbs(first: str) -> dict[str, tuple[type, Callable[[Any], int | None]]]:
    """Every verb: its options and what runs it. Those of the scaling laws are slow to import, hence only when asked."""
    verbs: dict[str, tuple[type, Callable[[Any], int | None]]] = {
        name: (kind, lambda options: options.run()) for name, kind in VERBS.items()
    }
    if first not in verbs:
        from eval.commands import chain_verb, law_verbs

        verbs |= law_verbs.VERBS | chain_verb.VERBS
    return verbs


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    return command_line.run(lambda: _run(sys.argv[1:] if arguments is None else arguments))


def parse(arguments: Sequence[str]) -> tuple[Any, Callable[[Any], int | None]]:
    """The verb that was typed, with its options, and what runs it."""
    verbs = _verbs(arguments[0] if arguments else "")
    kinds = {name: kind for name, (kind, _) in verbs.items()}
    options = command_line.parse(arguments, kinds, "python -m eval", __doc__)
    return options, next(run for kind, run in verbs.values() if type(options) is kind)


def _run(arguments: Sequence[str]) -> int | None:
    options, run = parse(arguments)
    return run(options)


def _open(
    path: Path, columns: Columns, options: Options, compared: bool = False
) -> "tuple[pd.DataFrame, Any, str]":
    """The table, its axes and its reference; warnings go to stderr, also of what stands in for an absent reference."""
    from eval.analyses import everything
    from eval.data.cells import main_protocol, other_protocols
    from eval.report import summary, write

    study = write.load(path, columns)
    for warning in study.warnings:
        _say("warning", warning)
    if study.runs.empty:
        raise InputError(f"{path}: no run is finished, so there is nothing to analyse")
    table, axes = everything.with_counts(study, options)
    main = main_protocol(table)
    reference = everything.reference_of(main, options.reference)
    if compared and not options.reference and (stand_in := summary.stand_in(main, reference)):
        _say("warning", stand_in)
    if left_out := other_protocols(table, main):
        _say("warning", left_out)
    return table, axes, reference


def _say(word: str, text: str) -> None:
    """One line on stderr, whatever names from files hold."""
    print(f"{word}: {printable(text)}", file=sys.stderr)


def _print(
    results: "dict[str, pd.DataFrame]",
    form: Format,
    grids: "Callable[[], list[Grid]] | None" = None,
) -> None:
    """Prints tidy tables for a person (`table`) or for a program (`csv`: one after the other; `json`: one object)."""
    if form == "json":
        from eval.report.listing import finite

        tables = {name: finite(frame.to_dict("records")) for name, frame in results.items()}
        print(json.dumps(tables if len(tables) > 1 else next(iter(tables.values())), indent=1))
    elif form == "csv":
        from eval.report import neutral

        for name, frame in results.items():
            print(f"# {name}" if len(results) > 1 else "", end="\n" if len(results) > 1 else "")
            print(neutral.csv(frame), end="")
    else:
        from eval.report.listing import heading, listing, visible

        made = [
            listing(name, heading(name), frame, visible(frame)) for name, frame in results.items()
        ]
        for grid in grids() if grids else made:
            _show(grid)


def _show(grid: "Grid") -> None:
    """Prints a grid; in a log, where there is no terminal to ask, lines are as long as they must be."""
    from rich.console import Console

    from eval.report.grid import terminal

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(terminal(grid))


@contextlib.contextmanager
def _progress():
    """A line that changes on a terminal; in a log a plain line, at most one every five seconds."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("reading") as status:
            yield lambda name: status.update(f"report: {name}")
        return
    last = time.monotonic()

    def plain(name: str) -> None:
        nonlocal last
        if time.monotonic() - last > 5:
            last = time.monotonic()
            print(f"report: {name}", file=sys.stderr, flush=True)

    yield plain


if __name__ == "__main__":
    sys.exit(main())
