"""Evaluators: functions of the parameters that yield rows for evals.jsonl, one file each.

A stage has those that it is always evaluated by (`train.run.stages`), and `StageConfig.measures`
asks for more. One more measure is one more file here and its name in EVALUATORS.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from train.data.corpus import Corpus
from train.records import Row
from train.run.evaluators.heldout import Heldout
from train.run.evaluators.memorisation import Memorisation
from train.run.evaluators.probe import ProbeScore
from train.run.evaluators.representation import Representation
from train.run.evaluators.separation import Separation
from train.run.evaluators.tasks import Tasks
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig
from train.tasks.scoring import HEADLINE


class Evaluator(Protocol):
    """Called with parameters, it gives rows with task, split, metric, value, n and stderr."""

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        """The rows; the last evaluation of a stage may have baselines, too.

        `before` are the rows of the evaluators before it, with the same parameters.
        """
        ...


Maker = Callable[[Corpus, StageConfig, int, Model, Strategy], Evaluator]
EVALUATORS: dict[str, Maker] = {
    "heldout": Heldout,
    "tasks": Tasks,
    "representation": Representation,
    "memorisation": Memorisation,
    "separation": Separation,
    "probe": ProbeScore,
}
"""Makes each evaluator from corpus, stage, the run's seed, model and strategy."""


def kept_by(rows: Iterable[Row]) -> dict[str, float]:
    """The values that the best checkpoints are chosen by: `nll`, and each task's headline."""
    chosen = [
        row for row in rows if row["metric"] in ("nll", HEADLINE) and math.isfinite(row["value"])
    ]
    return {"nll" if row["metric"] == "nll" else row["task"]: row["value"] for row in chosen}
