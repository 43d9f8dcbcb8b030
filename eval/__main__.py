"""The analysis: `python -m eval report|slopes|pareto|compare|compare-studies|fit|predict|...`.

Exit codes: 0 done; 2 bad input, told in one line. A list option takes several values and may be
given several times.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from eval.analyses.settings import Settings
from eval.commands.progress import progress
from eval.data.neutral import printable
from eval.data.run_table import RunColumns
from train import command_line
from train.command_line import Format
from train.ranges import Level
from train.records import InputError

if TYPE_CHECKING:
    import pandas as pd

    from eval.analyses.question import Question
    from eval.data.cells import RunTable
    from eval.report.grid import Grid

_Path = Annotated[Path, tyro.conf.Positional]
_Flat = tyro.conf.arg(name="")
_Columns = Annotated[RunColumns, _Flat]
_Settings = Annotated[Settings, _Flat]


@dataclasses.dataclass(frozen=True)
class ReportVerb:
    """Writes every table, figure and the HTML page of a study.

    Attributes:
      runs: a study's directory (runs/<study>), or a table of runs (.csv, .tsv, .jsonl or .parquet,
        compressed or not).
      out: directory to write to.
    """

    runs: _Path
    out: Path = Path("reports")
    columns: _Columns = RunColumns()
    settings: _Settings = Settings()

    def run(self) -> None:
        """Writes the report; prints what to read first, table 1 and where the page is."""
        with progress("report") as step:
            from eval.report import summary, tables, write

            study = write.load(self.runs, self.columns)
            analysis = write.write(study, self.out, self.settings, step)
        for warning in summary.warnings(analysis):
            _say("warning", warning)
        _show(tables.table1(analysis.study))
        for sentence in summary.sentences(analysis):
            print(f"- {printable(sentence)}")
        print(f"report: {self.out / 'report.html'}")


@dataclasses.dataclass(frozen=True)
class SlopesVerb:
    """Slopes of quality on FLOPs and parameters, and of downstream on upstream, per architecture.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      pairs: what to fit, x then y: FU is the slope of upstream on FLOPs.
      links: semilog (nats, percent), loglog, or both.
      format: table for a person, csv or json for a program.
    """

    table: _Path
    pairs: tuple[str, ...] = ("FU", "FD", "UD", "PU", "PD")
    links: tuple[Literal["semilog", "loglog"], ...] = ("semilog", "loglog")
    format: Format = "table"
    columns: _Columns = RunColumns()
    settings: _Settings = Settings()

    def run(self) -> None:
        """Prints table 2."""
        from eval.analyses.slopes import Slopes
        from eval.report import tables

        runs, question = _open(self.table, self.columns, self.settings)
        result = Slopes(runs, question).table(self.pairs, self.links)
        _print({"slopes": result}, self.format, lambda: [tables.table2(result, question.level)])


@dataclasses.dataclass(frozen=True)
class ParetoVerb:
    """Pareto frontiers: which cells are on them, how surely, and how far behind the others are.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      cost: F (FLOPs), P (parameters) or S (speed).
      quality: U (upstream) or D (downstream).
      format: table for a person, csv or json for a program.
    """

    table: _Path
    cost: Literal["F", "P", "S"] = "F"
    quality: Literal["U", "D"] = "U"
    format: Format = "table"
    columns: _Columns = RunColumns()
    settings: _Settings = Settings()

    def run(self) -> None:
        """Prints the frontier, who is on it, the gaps and the hypervolume."""
        from eval.analyses.pareto import Frontier

        runs, question = _open(self.table, self.columns, self.settings)
        x, y = question.quantities[self.cost], question.quantities[self.quality]
        found = Frontier(runs, question.ask(x=x, y=y, draws=1000))
        results = {
            "frontier": found.frontier(),
            "membership": found.membership(),
            "gaps": found.gaps(),
            "hypervolume": found.hypervolume(),
        }
        _print(results, self.format)


@dataclasses.dataclass(frozen=True)
class CompareVerb:
    """Compares every architecture with a reference: slopes, levels, multipliers, crossovers.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      x: F (FLOPs) or P (parameters).
      y: U (upstream) or D (downstream).
      link: semilog (nats, percent) or loglog.
      format: table for a person, csv or json for a program.
    """

    table: _Path
    x: Literal["F", "P"] = "F"
    y: Literal["U", "D"] = "U"
    link: Literal["semilog", "loglog"] = "semilog"
    format: Format = "table"
    columns: _Columns = RunColumns()
    settings: _Settings = Settings()

    def run(self) -> None:
        """Prints the tests and contrasts."""
        from eval.analyses.comparison import Comparison

        runs, question = _open(self.table, self.columns, self.settings, compared=True)
        x, y = question.quantities[self.x], question.quantities[self.y]
        found = Comparison(runs, question.ask(x=x, y=y, link=self.link))
        results = {
            "equal_slopes": found.equal_slopes(),
            "contrasts": found.contrasts(),
            "equivalence": found.equivalence(),
            "level_differences": found.levels(),
            "multipliers": found.multipliers(),
            "crossovers": found.crossovers(),
        }
        _print(results, self.format)


@dataclasses.dataclass(frozen=True)
class CompareStudiesVerb:
    """Compares two studies cell by cell: before and after a change, or on two clusters.

    Attributes:
      first: a study's directory.
      second: another one; differences are this one minus the first.
      level: of the intervals.
      format: table for a person, csv or json for a program.
    """

    first: _Path
    second: _Path
    level: Level = 0.95
    format: Format = "table"

    def run(self) -> None:
        """Prints mean differences, differences of cells, missing cells and changed settings."""
        from eval.analyses import two_studies
        from eval.data.study import read_study

        for path in (self.first, self.second):
            for warning in read_study(path).warnings:
                _say("warning", f"{path}: {warning}")
        _print(two_studies.compare_studies(self.first, self.second, level=self.level), self.format)


VERBS: dict[str, type] = {
    "report": ReportVerb,
    "slopes": SlopesVerb,
    "pareto": ParetoVerb,
    "compare": CompareVerb,
    "compare-studies": CompareStudiesVerb,
}


def _verbs(first: str) -> dict[str, type]:
    """Every verb; those of the scaling laws are imported only when needed, which is slow."""
    if first in VERBS:
        return VERBS
    from eval.commands import chain_verb, law_verbs

    return VERBS | law_verbs.VERBS | chain_verb.VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    return command_line.run(lambda: parse(sys.argv[1:] if arguments is None else arguments).run())


def parse(arguments: Sequence[str]) -> Any:
    """The verb that was typed, with its options."""
    verbs = _verbs(arguments[0] if arguments else "")
    return command_line.parse(arguments, verbs, "python -m eval", __doc__)


def _open(
    path: Path, columns: RunColumns, settings: Settings, *, compared: bool = False
) -> "tuple[RunTable, Question]":
    """The checked runs, and the settings as a question.

    Warnings go to stderr, also of what stands in for an absent reference.
    """
    from eval.analyses import everything
    from eval.data.cells import other_protocols
    from eval.report import summary, write

    study = write.load(path, columns)
    for warning in study.warnings:
        _say("warning", warning)
    if study.runs.empty:
        raise InputError(f"{path}: no run is finished, so there is nothing to analyse")
    runs, quantities = everything.with_counts(study, settings)
    table, main = runs.frame, runs.main().frame
    reference = everything.reference_of(main, settings.reference)
    if compared and not settings.reference and (stand_in := summary.stand_in(main, reference)):
        _say("warning", stand_in)
    if left_out := other_protocols(table, main):
        _say("warning", left_out)
    return runs, everything.question_of(settings, reference, quantities)


def _say(word: str, text: str) -> None:
    """One line on stderr, whatever names from files hold."""
    print(f"{word}: {printable(text)}", file=sys.stderr)


def _print(
    results: "dict[str, pd.DataFrame]",
    form: Format,
    grids: "Callable[[], list[Grid]] | None" = None,
) -> None:
    """Prints tables as text (`table`), one after the other (`csv`), or as one object (`json`)."""
    if form == "json":
        from eval.report.listing import finite

        tables = {name: finite(frame.to_dict("records")) for name, frame in results.items()}
        print(json.dumps(tables if len(tables) > 1 else next(iter(tables.values())), indent=1))
    elif form == "csv":
        from eval.data import neutral

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
    """Prints a grid; without a terminal, lines may be up to 200 characters long."""
    from rich.console import Console

    from eval.report.grid import terminal

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(terminal(grid))


if __name__ == "__main__":
    sys.exit(main())
