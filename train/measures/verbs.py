"""The verbs `rank-heads`, `extract`, `context-rank` and `coordinates`.

Each verb is a dataclass whose fields are its options, with a method `run`. It prints a row of JSON
for each measured value; `coordinates` prints a table.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from train.command_line import EXIT_FAILED
from train.measures.settings import ContextRank, Coordinates, Extraction, RankLimited
from train.records import InputError, Row

if TYPE_CHECKING:
    from train.measures.finished import FinishedRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfRun:
    """A finished run.

    Attributes:
      run_directory: the directory of a run whose pretraining is finished.
      corpus: the corpus that it was trained on.
    """

    run_directory: tyro.conf.Positional[Path]
    corpus: Path = Path("corpora/python")

    def keep(self, measure: Callable[["FinishedRun"], list[Row]]) -> int:
        """Measures the run, keeps the rows and prints them; returns the exit code."""
        from train.data.corpus import open_corpus
        from train.measures.finished import keep, open_finished

        run = open_finished(self.run_directory, open_corpus(self.corpus))
        rows = measure(run)
        keep(run.record, run.step, rows)
        return _printed(rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankHeadsVerb(RankLimited, _OfRun):
    """Trains heads of limited rank on a run's frozen states; keeps the rows with its records."""

    def run(self) -> int:
        """Prints the rows; returns the exit code."""
        from train.measures import rank_limited

        return self.keep(lambda run: rank_limited.measure(run, self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractVerb(Extraction, _OfRun):
    """Asks a run to continue text that it was trained on; keeps the rows with its records."""

    def run(self) -> int:
        """Prints the rows; returns the exit code."""
        from train.measures import extraction

        return self.keep(lambda run: extraction.measure(run, self))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextRankVerb(ContextRank):
    """Measures what rank the next token of a corpus needs.

    Attributes:
      corpus: a directory that `prepare` wrote.
      run_directory: a run that was trained on the corpus. Its records keep the rows, and the report
        of its study judges what the source claims.
    """

    corpus: Path = Path("corpora/python")
    run_directory: Path | None = None

    def run(self) -> int:
        """Prints the rows; returns the exit code."""
        from train.data.corpus import open_corpus
        from train.measures import context_rank
        from train.measures.finished import keep, open_run

        corpus = open_corpus(self.corpus)
        record = self.run_directory and open_run(self.run_directory, corpus)
        rows = context_rank.measure(corpus, self)
        if record:
            keep(record, 0, rows)  # no step of the run changes it
        return _printed(rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoordinatesVerb(Coordinates):
    """Checks that a training step changes activations by as much at all widths or depths.

    Exit codes: 0 no module fails; 1 some module does.

    Attributes:
      figure: writes the figure to this PNG file.
    """

    figure: Path | None = None

    def run(self) -> int:
        """Prints a row for each module; returns the exit code."""
        from train.measures import coordinates, coordinates_figure

        if self.figure and self.figure.suffix != ".png":
            raise InputError(f"figure = {str(self.figure)!r}: must end in .png")
        found = coordinates.check(self)
        print("\n".join(coordinates.table(found)))
        if self.figure:
            coordinates_figure.draw(found).savefig(self.figure)
        return EXIT_FAILED if any(one.verdict == "fails" for one in found) else 0


def _printed(rows: Iterable[Row]) -> int:
    for row in rows:
        print(json.dumps(row))
    return 0


VERBS = {
    "rank-heads": RankHeadsVerb,
    "extract": ExtractVerb,
    "context-rank": ContextRankVerb,
    "coordinates": CoordinatesVerb,
}
