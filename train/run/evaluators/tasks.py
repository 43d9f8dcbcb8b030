"""Downstream evaluation: the scores of every task, with their standard errors."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from arch_zoo import decoding
from train.data import batches
from train.data.corpus import Corpus, Task
from train.records import EXAMPLES, InputError, Row
from train.run import lengths
from train.run.evaluators.heldout import make_nll
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig
from train.tasks import scoring
from train.tasks.scoring import BEST, HEADLINE

RANKED = "rank_"  # prefix of the metrics of rank classification


class Tasks:
    """The scores of every task: call it with parameters for its rows.

    It is compiled when it is first called.

    Attributes:
      tasks: the tasks of the stage that have validation examples; the others are only trained on.
    """

    def __init__(
        self, corpus: Corpus, stage: StageConfig, seed: int, model: Model, strategy: Strategy
    ):
        """Checks that every task can be scored as `stage.scoring` asks; scores need no seed.

        Raises:
          InputError: a task has more labels than a batch has rows, or a label is cut.
        """
        self._corpus, self._stage, self._family = corpus, stage, model.family
        self.tasks = scored(corpus, stage)
        lengths.check_labels(corpus, stage.tasks or tuple(corpus.tasks), stage)
        self._decode = strategy.compile_evaluation(
            make_decode(model, stage.decode_length or stage.target_length)
        )
        self._nll = strategy.compile_evaluation(make_nll(model))
        most = max((len(corpus.tasks[task].labels) for task in self.tasks), default=0)
        if stage.scoring != "decode" and most > stage.eval_batch_size:
            raise InputError(
                f"eval_batch_size = {stage.eval_batch_size} is too small to rank {most} labels"
            )

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        """The rows; with `final` also the majority class and the score of every example."""
        return [row for task in self.tasks for row in self._score(params, task, final=final)]

    def _score(self, params: Any, task: str, *, final: bool) -> Iterator[Row]:
        about, how = self._corpus.tasks[task], self._stage.scoring
        common = {"task": task, "split": "validation"}
        if how != "rank" or not about.labels:
            found = predict(
                self._decode, params, self._corpus, task, self._stage, family=self._family
            )
            rows = downstream(about, task, *found)
            yield from rows[:-1]
            yield rows[-1] | (_examples(about, rows[-1]["value"], *found) if final else {})
        if how != "decode" and about.labels:
            found = predict(
                self._nll,
                params,
                self._corpus,
                task,
                self._stage,
                family=self._family,
                ranked=True,
            )
            rows = downstream(about, task, *found, prefix=RANKED)
            yield from rows
            if how == "rank":  # the headline score has the same name for both ways of scoring
                examples = _examples(about, rows[-1]["value"], *found) if final else {}
                yield {**rows[-1], "metric": HEADLINE, **examples}
        if final:
            majority = {
                "metric": "majority_class",
                "value": about.majority_class,
                "n": rows[-1]["n"],
                "stderr": None,
            }
            yield {**common, **majority}


def make_decode(model: Model, max_length: int) -> Callable[..., Any]:
    """A function (params, batch) -> greedily decoded ids [B, max_length]."""

    def decode(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        return decoding.greedy(model.merge(params), batch, max_length)

    return decode


def scored(corpus: Corpus, stage: StageConfig) -> tuple[str, ...]:
    """The tasks of a stage that have validation examples."""
    return tuple(
        t for t in stage.tasks or tuple(corpus.tasks) if "validation" in corpus.tasks[t].examples
    )


def predict(
    function: Callable[..., Any],
    params: Any,
    corpus: Corpus,
    task: str,
    stage: StageConfig,
    *,
    family: str = "encoder_decoder",
    ranked: bool = False,
) -> tuple[list[str], list[Mapping[str, Any]]]:
    """The answers of a model to the validation examples of a task, and their references.

    Args:
      function: compiled from `make_decode`, or from `make_nll` for rank classification.
      params: the parameters of the model.
      corpus: an open corpus.
      task: a name in `corpus.tasks`.
      stage: sets the lengths, the batch size and the number of examples.
      family: of the model.
      ranked: takes the most likely of the task's labels as the answer.
    """
    predictions, references = [], []
    shape = stage.evaluated(stage.task_shape(family))
    parts = (batches.ranking if ranked else batches.evaluation)(
        corpus, task, shape, limit=stage.eval_examples or None
    )
    for part in parts:
        if ranked:
            nll_B, _ = function(params, part.batch)
            labels = corpus.tasks[task].labels
            predictions += batches.ranked(labels, np.asarray(nll_B), len(part.references))
        else:
            ids = np.asarray(function(params, part.batch))
            predictions += [corpus.decode(row) for row in ids[: len(part.references)]]
        references += part.references
    return predictions, references


def downstream(
    about: Task,
    task: str,
    predictions: Sequence[str],
    references: Sequence[Mapping[str, Any]],
    prefix: str = "",
) -> list[Row]:
    """Scores the answers to one task; every value is in percent.

    Args:
      about: the task.
      task: its name.
      predictions: from `predict`.
      references: from `predict`.
      prefix: of the names of the metrics.

    Returns:
      A row for each of the task's metrics. The last is the headline score, `score`: their mean.
    """
    scores = scoring.score(about.metrics, predictions, references, about.labels)
    common = {"task": task, "split": "validation"}
    return [
        {**common, "metric": prefix + k, "value": s.value, "n": s.n, "stderr": s.stderr}
        for k, s in scores.items()
    ]


def _examples(
    about: Task,
    value: float,
    predictions: Sequence[str],
    references: Sequence[Mapping[str, Any]],
) -> Row:
    """The headline score of every example, if the task's score is their mean; else nothing.

    A correlation or an F1 over all examples is no mean.
    """
    each = [
        scoring.score(about.metrics, [prediction], [reference], about.labels)[HEADLINE].value
        for prediction, reference in zip(predictions, references, strict=True)
    ]
    if not each or not math.isclose(math.fsum(each) / len(each), value, abs_tol=1e-6):
        return {}
    return {EXAMPLES: [{"score": score} for score in each]}


def best(rows: Iterable[Mapping[str, Any]], stage: str) -> list[Row]:
    """The best headline of each task over all evaluations, the newest of equals, as T5 reports.

    Args:
      rows: of evals.jsonl.
      stage: the one whose evaluations count.

    Returns:
      Rows like those of the best evaluations, with metric `best_score`, the step of the checkpoint
      as `best_step`, and the number of evaluations as `evaluations`.
    """
    found: dict[str, Mapping[str, Any]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        if row["stage"] == stage and row["metric"] == HEADLINE and row["value"] is not None:
            counts[row["task"]] = counts.get(row["task"], 0) + 1
            old = found.get(row["task"])
            if old is None or row["value"] >= old["value"]:
                found[row["task"]] = row
    kept = ("task", "split", "value", "n", "stderr")
    return [
        {
            **{k: row[k] for k in kept},
            "metric": BEST,
            "best_step": row["step"],
            "evaluations": counts[task],
        }
        for task, row in found.items()
    ]
