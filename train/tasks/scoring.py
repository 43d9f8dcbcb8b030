"""Scores of a task from predicted texts, and averages over tasks. Defines all headline scores."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from train.tasks.metrics import METRICS, References, Score

HEADLINE = "score"
BEST = "best_score"  # the highest headline score of all evaluations of a run
BENCHMARKS = ("glue", "super_glue", "squad", "python")


def score(
    metrics: Sequence[str],
    predictions: Sequence[str],
    references: References,
    labels: Sequence[str] = (),
) -> dict[str, Score]:
    """Scores the predictions of one task.

    Args:
      metrics: names in `metrics.METRICS`, as in `Task.metrics`.
      predictions: decoded texts.
      references: one object per example, as `batches.evaluation` yields them.
      labels: `Task.labels`.

    Returns:
      Every metric under its own name, and "score", their mean: the headline score, in percent. Its
      standard error is the mean of theirs; this is an upper bound, since the metrics of a task are
      correlated.
    """
    scores = {}
    for name in metrics:
        scores |= METRICS[name](predictions, references, labels)
    parts = list(scores.values())
    headline = Score(
        _mean([s.value for s in parts]), _mean([s.stderr for s in parts]), min(s.n for s in parts)
    )
    return {**scores, HEADLINE: headline}


def majority_class(
    metrics: Sequence[str], references: References, labels: Sequence[str] = ()
) -> float:
    """Headline score of always giving the most frequent target (or answer), in percent."""
    answers = collections.Counter(_answer(reference) for reference in references)
    constant = min(answers, key=lambda answer: (-answers[answer], answer))
    return score(metrics, [constant] * len(references), references, labels)[HEADLINE].value


def averages(headlines: Mapping[str, float]) -> dict[str, float]:
    """Means over the tasks of each benchmark, and over all tasks ("mean").

    Args:
      headlines: headline scores by task name, for example {"glue_cola": 51.0, "squad": 80.0}.

    Returns:
      For example {"glue": 51.0, "squad": 80.0, "mean": 65.5}; only benchmarks that have tasks.
    """
    members = {
        b: [v for task, v in headlines.items() if task == b or task.startswith(f"{b}_")]
        for b in BENCHMARKS
    }
    return {b: _mean(v) for b, v in members.items() if v} | (
        {"mean": _mean(list(headlines.values()))} if headlines else {}
    )


def _answer(reference: Mapping[str, Any]) -> str:
    return reference["answers"][0] if reference.get("answers") else reference["target"]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
