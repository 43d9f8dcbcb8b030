"""The verbs `rank-heads`, `extract` and `context-rank`.

Each verb is a dataclass whose fields are its options, with a method `run`. It prints a row of JSON
for each measured value.
"""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from train.measures.settings import ContextRank, Extraction, RankLimited
from train.records import Row

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
        from train.measures.finished import open_finished

        run = open_finished(self.run_directory, open_corpus(self.corpus))
        rows = measure(run)
        run.keep(rows)
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
    """

    corpus: Path = Path("corpora/python")

    def run(self) -> int:
        """Prints the rows; returns the exit code."""
        from train.data.corpus import open_corpus
        from train.measures import context_rank

        return _printed(context_rank.measure(open_corpus(self.corpus), self))


def _printed(rows: Iterable[Row]) -> int:
    for row in rows:
        print(json.dumps(row))
    return 0


VERBS = {"rank-heads": RankHeadsVerb, "extract": ExtractVerb, "context-rank": ContextRankVerb}
