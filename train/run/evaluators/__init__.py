"""Evaluators: functions of the parameters that yield rows for evals.jsonl, one file each.

A stage names its evaluators (`train.run.stages`). To add one, add a file here and its name in
EVALUATORS.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from train.data.corpus import Corpus
from train.records import Row
from train.run.evaluators.heldout import Heldout
from train.run.evaluators.tasks import Tasks
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig
from train.tasks.scoring import HEADLINE


class Evaluator(Protocol):
    """Called with parameters, it returns rows with task, split, metric, value, n and stderr."""

    def __call__(self, params: Any, *, final: bool) -> list[Row]:
        """The rows; with `final` there may be baselines too."""
        ...


Maker = Callable[[Corpus, StageConfig, int, Model, Strategy], Evaluator]
EVALUATORS: dict[str, Maker] = {"heldout": Heldout, "tasks": Tasks}
"""Makes each evaluator from the corpus, the stage, the run's seed, the model and the strategy."""


def kept_by(rows: Iterable[Row]) -> dict[str, float]:
    """The values by which checkpoints are best.

    "nll", and each task's headline score by its name.
    """
    chosen = [
        row for row in rows if row["metric"] in ("nll", HEADLINE) and math.isfinite(row["value"])
    ]
    return {"nll" if row["metric"] == "nll" else row["task"]: row["value"] for row in chosen}
