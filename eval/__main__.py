"""Analyses studies and tables of runs: reports, slopes, frontiers, comparisons, scaling laws.

Exit codes: 0 done; 2 bad input, explained in one line. A list option takes several values and may
be given several times.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from eval.analyses import saturation, tuning, tuning_runs
from eval.analyses.saturation import CheckpointColumns
from eval.analyses.settings import Settings
from eval.analyses.tuning_runs import SweepColumns
from eval.commands.progress import progress
from eval.data import archive
from eval.data.neutral import printable
from eval.data.run_table import RunColumns
from train import command_line
from train.command_line import Format
from train.ranges import Level, NotNegative
from train.records import InputError

if TYPE_CHECKING:
    import pandas as pd

    from eval.analyses.question import Question
    from eval.data.cells import RunTable
    from eval.report.grid import Grid

_Path = Annotated[Path, tyro.conf.Positional]
_Flat = tyro.conf.arg(name="")
_MOST_ROWS = 60  # of a table that a report prints
_Columns = Annotated[RunColumns, _Flat]
_Settings = Annotated[Settings, _Flat]


@dataclasses.dataclass(frozen=True)
class ReportVerb:
    """Writes every table, figure and the HTML page of a study.

    Attributes:
      runs: a study's directory (runs/<study>) or archive (.tar.gz), or a table of runs (.csv, .tsv,
        .jsonl or .parquet, compressed or not).
      out: directory to write to.
      scaling: another study's directory or table, whose slopes the scores of probes are related to.
    """

    runs: _Path
    out: Path = Path("reports")
    scaling: Annotated[Path | None, tyro.conf.arg(name="with")] = None
    columns: _Columns = RunColumns()
    settings: _Settings = Settings()

    def run(self) -> None:
        """Writes the report; prints its warnings, main sentences, table 1 if short, and paths."""
        with progress("report") as step:
            # Matplotlib and the analyses take seconds to import, and other verbs need neither.
            from eval.report import summary, tables, write

            study = write.load(self.runs, self.columns)
            beside = None if self.scaling is None else write.load(self.scaling)
            analysis = write.write(study, self.out, self.settings, step, beside)
        for warning in summary.warnings(analysis):
            _say("warning", warning)
        for sentence in summary.sentences(analysis):
            print(f"- {printable(sentence)}")
        table = tables.table1(
            analysis.study, analysis.paired_errors, analysis.results.get("regrets")
        )
        if len(table.rows) <= _MOST_ROWS:  # more would push the sentences off the screen
            _show(table)
        print(f"table of all cells: {self.out / 'table1.csv'}")
        print(f"report: {self.out / 'report.html'}")


@dataclasses.dataclass(frozen=True)
class SlopesVerb:
    """Fits slopes of quality on FLOPs and parameters, and of downstream on upstream quality.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      pairs: the slopes to fit, as letters of x and y: FU is the slope of upstream on FLOPs.
      links: semilog (quality in nats or percent), loglog, or both.
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
    """Finds the Pareto frontier: which cells are on it, how surely, and how far off the rest is.

    Attributes:
      table: a table of runs (.csv, .tsv, .jsonl or .parquet, compressed or not), or a study's
        directory.
      cost: F (FLOPs), P (parameters), S (speed) or M (what decoding keeps of a sequence); auto is
        F, or P where no run has FLOPs.
      quality: U (upstream) or D (downstream).
      format: table for a person, csv or json for a program.
    """

    table: _Path
    cost: Literal["auto", "F", "P", "S", "M"] = "auto"
    quality: Literal["U", "D"] = "U"
    format: Format = "table"
    columns: _Columns = RunColumns()
    settings: _Settings = Settings()

    def run(self) -> None:
        """Prints the frontier, each architecture's place on it, the gaps and the hypervolume."""
        from eval.analyses.pareto import Frontier

        runs, question = _open(self.table, self.columns, self.settings)
        cost = _cost(runs) if self.cost == "auto" else self.cost
        x, y = question.quantities[cost], question.quantities[self.quality]
        # As many draws as a report takes for its frontiers.
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
      x: F (FLOPs) or P (parameters); auto is F, or P where no run has FLOPs.
      y: U (upstream) or D (downstream).
      link: semilog (quality in nats or percent) or loglog.
      all_tests: also print further tests of the same questions, which decide nothing.
      format: table for a person, csv or json for a program; these two have all tests.
    """

    table: _Path
    x: Literal["auto", "F", "P"] = "auto"
    y: Literal["U", "D"] = "U"
    link: Literal["semilog", "loglog"] = "semilog"
    all_tests: bool = False
    format: Format = "table"
    columns: _Columns = RunColumns()
    settings: _Settings = Settings()

    def run(self) -> None:
        """Prints the verdicts in sentences, then the tables behind them."""
        from eval.analyses.comparison import Comparison
        from eval.analyses.slopes import Slopes
        from eval.report import summary

        runs, question = _open(self.table, self.columns, self.settings, compared=True)
        cost = _cost(runs) if self.x == "auto" else self.x
        x, y = question.quantities[cost], question.quantities[self.y]
        found = Comparison(runs, question.ask(x=x, y=y, link=self.link))
        results = {
            "contrasts": found.contrasts(),
            "level_differences": found.levels(),
            "multipliers": found.multipliers(),
            "equivalence": found.equivalence(),
            "crossovers": found.crossovers(),
            "equal_slopes": found.equal_slopes(),
        }
        if self.format == "table":
            pair = summary.Pair(f"{cost},{self.y}", self.link, question.log_base)
            slopes = Slopes(runs, question).table((cost + self.y,), (self.link,))
            _sentences(
                [
                    summary.of_slopes(pair, results["contrasts"], slopes),
                    summary.of_levels(pair, results["level_differences"], results["multipliers"]),
                ]
            )
        _print(results, self.format, lambda: self._grids(results))

    def _grids(self, results: "dict[str, pd.DataFrame]") -> "list[Grid]":
        """The tables that decide, and with `all_tests` the further ones, labelled as such."""
        from eval.report.listing import heading, listing, visible

        further = ["p_permutation"]
        tables = {name: t for name, t in results.items() if name != "equal_slopes"}
        grids = [
            listing(name, heading(name), t, visible(t.drop(columns=further, errors="ignore")))
            for name, t in tables.items()
        ]
        if not self.all_tests:
            return grids
        title = "Further tests of the same questions, which decide nothing"
        permuted = results["contrasts"].dropna(subset=further)
        nested = results["equal_slopes"]
        return [
            *grids,
            listing("equal_slopes", f"{title}: nested models", nested, visible(nested)),
            listing(
                "p_permutation", f"{title}: permutations", permuted, "architecture p_permutation"
            ),
        ]


@dataclasses.dataclass(frozen=True)
class CompareStudiesVerb:
    """Compares two studies cell by cell: before and after a change, or on two clusters.

    Attributes:
      first: a study's directory.
      second: another study's directory; differences are second minus first.
      level: confidence level of the intervals.
      format: table for a person, csv or json for a program.
    """

    first: _Path
    second: _Path
    level: Level = 0.95
    format: Format = "table"

    def run(self) -> None:
        """Prints mean differences, differences per cell, missing cells and changed settings."""
        from eval.analyses import two_studies
        from eval.data.study import read_study

        for path in (self.first, self.second):
            for warning in read_study(path).warnings:
                _say("warning", f"{path}: {warning}")
        results = two_studies.compare_studies(self.first, self.second, level=self.level)
        if self.format == "table":
            _sentences([two_studies.sentence(results, self.level)])
            results = results | {"missing": two_studies.counted(results["missing"])}
        _print(results, self.format)


@dataclasses.dataclass(frozen=True)
class SaturationVerb:
    """Finds the best and the last checkpoint of every run: did it become worse late in training?

    Attributes:
      path: a study's directory, whose held-out losses are taken; or a table (.csv, .tsv, .jsonl or
        .parquet, compressed or not) with one row per checkpoint.
      level: confidence level of the intervals.
      format: table for a person, csv or json for a program.
    """

    path: _Path
    columns: Annotated[CheckpointColumns, _Flat] = CheckpointColumns()
    level: Level = 0.95
    format: Format = "table"

    def run(self) -> None:
        """Prints a row for each run."""
        if self.path.is_dir():
            default = dataclasses.replace(CheckpointColumns(), where=self.columns.where)
            if self.columns != default:
                raise InputError(
                    "run-id, step, value and higher-is-better name what a table holds; of a "
                    "study's directory the held-out losses are taken"
                )
            courses = saturation.of_study(self.path, self.columns.where)
        else:
            courses = saturation.of_table(self.path, self.columns)
        if courses.left_out:
            _say("warning", f"{self.path}: rows without a value, left out: {courses.left_out}")
        _print({"saturation": courses.table(self.level)}, self.format)


@dataclasses.dataclass(frozen=True)
class TuneVerb:
    """Finds the best learning rate of each architecture and size, and what other rates cost.

    Attributes:
      path: the directory of a study that varies the rate (`train.study.declare.sweep`), or a table
        (.csv, .tsv, .jsonl or .parquet, compressed or not) with one row per run.
      reference: the architecture that others are compared with at their best rates; the first one
        where the sweep does not have it.
      used: print the regret of this rate alone, not of every rate that was tried; 0 for all.
      out: also write the best rates to this JSON file, for `train.study.declare.tuned`.
      level: confidence level of the intervals.
      format: table for a person, csv or json for a program.
    """

    path: _Path
    columns: Annotated[SweepColumns, _Flat] = SweepColumns()
    reference: str = "transformer"
    used: NotNegative = 0.0
    out: Path | None = None
    level: Level = 0.95
    format: Format = "table"

    def run(self) -> None:
        """Prints best rates, their exponents in N, regrets, and the expected best of n tries."""
        if self.path.is_dir():
            if self.columns != SweepColumns(where=self.columns.where):
                raise InputError("options that name columns are for a table, not for a directory")
            runs = tuning_runs.of_directory(self.path, self.columns.where)
        else:
            runs = tuning_runs.of_table(self.path, self.columns, lambda line: _say("warning", line))
        found = tuning.curves(runs, self.level)
        if self.out:
            tuning_runs.write(found, str(self.path), self.out)
        results = {
            "at_best_rates": tuning.at_best(runs, self.reference, self.level),
            "best_rates": tuning.optima(found),
            "exponents": tuning.exponents(found),
            "regrets": tuning.regrets(found, self.used or None),
            "expected_best": tuning.expected_best(runs, self.level),
        }
        _print(results, self.format)


@dataclasses.dataclass(frozen=True)
class ArchiveVerb:
    """Writes the records of a study into one file, to share or keep, without its checkpoints.

    Every verb that reads a study's directory reads the file as well. The same records give the same
    bytes.

    Attributes:
      runs: a study's directory (runs/<study>).
      out: the file to write, which ends in .tar.gz.
    """

    runs: _Path
    out: Path

    def run(self) -> None:
        """Writes the file; prints its path, size and hash."""
        count = archive.write(self.runs, self.out)
        content = self.out.read_bytes()
        found = hashlib.sha256(content).hexdigest()
        print(f"{self.out}: {count} runs, {len(content):,} bytes, sha256 {found}")


VERBS: dict[str, type] = {
    "report": ReportVerb,
    "slopes": SlopesVerb,
    "pareto": ParetoVerb,
    "compare": CompareVerb,
    "compare-studies": CompareStudiesVerb,
    "saturation": SaturationVerb,
    "tune": TuneVerb,
    "archive": ArchiveVerb,
}


def _verbs(first: str) -> dict[str, type]:
    """The verbs that `first` may be; importing those of the scaling laws takes time."""
    if first in VERBS:
        return VERBS
    from eval.commands import chain_verb, law_verbs

    return VERBS | law_verbs.VERBS | chain_verb.VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""

    def run() -> None:
        verb = parse(sys.argv[1:] if arguments is None else arguments)
        (verb if isinstance(verb, ArchiveVerb) else archive.with_opened(verb)).run()

    return command_line.run(run)


def parse(arguments: Sequence[str]) -> Any:
    """The verb that was typed, with its options."""
    verbs = _verbs(arguments[0] if arguments else "")
    return command_line.parse(arguments, verbs, "python -m eval", __doc__)


def _open(
    path: Path, columns: RunColumns, settings: Settings, *, compared: bool = False
) -> "tuple[RunTable, Question]":
    """Reads and checks the runs, and turns the settings into a question.

    Warnings go to stderr.

    Args:
      path: a table of runs, or a study's directory.
      columns: the columns that the user named.
      settings: the settings of the analysis.
      compared: whether the analysis needs a reference; it then warns if the usual reference is
        missing and another architecture takes its place.

    Raises:
      InputError: the table is malformed, or no run is finished.
    """
    from eval.analyses import everything
    from eval.data.cells import other_protocols
    from eval.report import summary, write

    study = tuning_runs.at_best(write.load(path, columns))
    for warning in study.warnings:
        _say("warning", warning)
    if study.runs.empty:
        raise InputError(f"{path}: no run is finished, so there is nothing to analyse")
    runs, quantities = everything.with_counts(study, settings)
    table, main = runs.frame, runs.main().frame  # every protocol, and the one that is analysed
    reference = everything.reference_of(main, settings.reference)
    if compared and not settings.reference and (stand_in := summary.stand_in(main, reference)):
        _say("warning", stand_in)
    if left_out := other_protocols(table, main):
        _say("warning", left_out)
    return runs, everything.question_of(settings, reference, quantities)


def _cost(runs: "RunTable") -> Literal["F", "P"]:
    """FLOPs, or parameters if no run has FLOPs."""
    from eval.data.quantity import FLOPS, PARAMS

    flops, params = (runs.frame.get(quantity.column) for quantity in (FLOPS, PARAMS))
    if (flops is None or flops.isna().all()) and params is not None and params.notna().any():
        _say("warning", "no run has FLOPs, so costs are parameters (--flops names a column)")
        return "P"
    return "F"


def _sentences(sentences: Sequence[str]) -> None:
    """Prints the answer in words, before the tables; lines are wrapped at the terminal's width."""
    from rich.text import Text

    for sentence in filter(None, sentences):
        text, whole = Text(printable(sentence)), not sys.stdout.isatty()
        _console().print(text, soft_wrap=whole)


def _console():
    """A console for stdout; without a terminal, tables may be up to 200 characters wide."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def _say(word: str, text: str) -> None:
    """Prints one line on stderr; names from files cannot add control characters to it."""
    print(f"{word}: {printable(text)}", file=sys.stderr)


def _print(
    results: "dict[str, pd.DataFrame]",
    form: Format,
    grids: "Callable[[], list[Grid]] | None" = None,
) -> None:
    """Prints tables as text (`table`), one after the other (`csv`), or as one object (`json`)."""
    if form == "json":
        from eval.data.neutral import finite

        # NaN is not JSON, so `finite` replaces it by null.
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
    """Prints a grid as wide as the terminal is, with an empty line before it."""
    from eval.report.grid import terminal

    console = _console()
    console.print()
    for part in terminal(grid, console.width):
        console.print(part, crop=False)  # on a very narrow terminal lines go on, digits stay


if __name__ == "__main__":
    sys.exit(main())
