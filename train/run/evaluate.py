"""Evaluates upstream and downstream: rows for evals.jsonl, each with its n and standard error."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from arch_zoo import decoding
from train.data import batches
from train.data.corpus import Corpus
from train.records import InputError, Row
from train.run import lengths
from train.run.losses import sequence_sums
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig
from train.tasks import scoring
from train.tasks.scoring import BEST, HEADLINE

RANKED = "rank_"  # prefix of the metrics of rank classification


def make_nll(model: Model) -> Callable[..., Any]:
    """A function (params, batch) -> sums of nll and of weights for each sequence, both [B]."""

    def nll(
        params: dict[str, jax.Array], batch: dict[str, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return sequence_sums(model.merge(params).token_nll(batch), batch)

    return nll


def make_decode(model: Model, max_length: int) -> Callable[..., Any]:
    """A function (params, batch) -> greedily decoded ids [B, max_length]."""

    def decode(params: dict[str, jax.Array], batch: dict[str, jax.Array]) -> jax.Array:
        return decoding.greedy(model.merge(params), batch, max_length)

    return decode


class Pretraining:
    """Evaluates the held-out loss of pretraining: call it with parameters to get rows.

    It is compiled in the first call.
    """

    def __init__(
        self, corpus: Corpus, stage: StageConfig, seed: int, model: Model, strategy: Strategy
    ):
        """Reads the held-out set, which is the same for every cell of a study."""
        shape = (stage.input_length, stage.target_length)
        self._nll = strategy.compile_evaluation(make_nll(model))
        self._heldout = batches.heldout(
            corpus, stage.eval_batch_size, *shape, stage.eval_batches, **stage.noise
        )
        self._corpus, self._stage, self._seed = corpus, stage, seed

    def __call__(self, params: Any, *, final: bool) -> list[Row]:
        """The rows; with `final` also the baseline that ignores context."""
        rows = upstream(self._nll, params, self._corpus, self._heldout)
        return rows + (
            [unigram(self._corpus, self._stage, self._seed, self._heldout)] if final else []
        )


class Finetuning:
    """Evaluates the scores of every task: call it with parameters to get rows.

    It is compiled in the first call.

    Attributes:
      tasks: the tasks of the stage that have validation examples; the others are only trained on.
    """

    def __init__(self, corpus: Corpus, stage: StageConfig, model: Model, strategy: Strategy):
        """Checks that every task can be scored as `stage.scoring` asks.

        Raises:
          InputError: a task has more labels than a batch has rows, or a label is cut.
        """
        self._corpus, self._stage = corpus, stage
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

    def __call__(self, params: Any, *, final: bool) -> list[Row]:
        """The rows; with `final` also the majority class."""
        return [row for task in self.tasks for row in self._score(params, task, final=final)]

    def _score(self, params: Any, task: str, *, final: bool) -> Iterator[Row]:
        about, how = self._corpus.tasks[task], self._stage.scoring
        common = {"task": task, "split": "validation"}
        if how != "rank" or not about.labels:
            rows = downstream(self._decode, params, self._corpus, task, self._stage)
            yield from rows
        if how != "decode" and about.labels:
            rows = downstream(self._nll, params, self._corpus, task, self._stage, ranked=True)
            yield from rows
            if how == "rank":  # the headline score has the same name for both ways of scoring
                yield {**rows[-1], "metric": HEADLINE}
        if final:
            majority = {
                "metric": "majority_class",
                "value": about.majority_class,
                "n": rows[-1]["n"],
                "stderr": None,
            }
            yield {**common, **majority}


def scored(corpus: Corpus, stage: StageConfig) -> tuple[str, ...]:
    """The tasks of a stage that have validation examples."""
    return tuple(
        t for t in stage.tasks or tuple(corpus.tasks) if "validation" in corpus.tasks[t].examples
    )


def upstream(
    nll: Callable[..., Any], params: Any, corpus: Corpus, heldout: Iterable[batches.Batch]
) -> list[Row]:
    """The held-out loss with its standard error over sequences (that of a ratio of sums).

    Returns:
      Rows for `nll` (nats per target token), `perplexity` (its exponential), and `bits_per_byte`:
      the
      same loss per UTF-8 byte of the text behind the targets, which can be compared between
      vocabularies. All bytes of the text count, even those of characters that are not in the
      vocabulary.
    """
    sums = [(*nll(params, batch), batches.target_bytes(corpus, batch)) for batch in heldout]
    losses_N, weights_N, bytes_N = (
        np.concatenate([np.asarray(x, np.float64) for x in part])
        for part in zip(*sums, strict=True)
    )
    losses_N, weights_N, bytes_N = (
        x_N[weights_N > 0] for x_N in (losses_N, weights_N, bytes_N)
    )  # leaves out empty rows
    token, token_error = _ratio(losses_N, weights_N)
    byte, byte_error = _ratio(losses_N / math.log(2), bytes_N)
    found = {
        "nll": (token, token_error),
        "perplexity": (math.exp(min(token, 700.0)), math.exp(min(token, 700.0)) * token_error),
        "bits_per_byte": (byte, byte_error),
    }
    common = {"task": "corpus", "split": "validation"}
    return [
        {**common, "metric": k, "value": v, "n": len(losses_N), "stderr": e}
        for k, (v, e) in found.items()
    ]


def _ratio(x_N: np.ndarray, y_N: np.ndarray) -> tuple[float, float]:
    """The sum of x divided by the sum of y, and its standard error over the N pairs."""
    n, total = len(x_N), y_N.sum()
    if not total:
        return math.nan, math.nan
    value = x_N.sum() / total
    spread = math.sqrt(np.sum((x_N - value * y_N) ** 2) * n / (n - 1)) if n > 1 else math.nan
    return float(value), float(spread / total)


def unigram(corpus: Corpus, stage: StageConfig, seed: int, heldout: Sequence[batches.Batch]) -> Row:
    """The loss of the unigram distribution on the same held-out targets.

    It is the loss of a model that ignores context.
    """
    shape = (stage.input_length, stage.target_length)
    train = batches.Pretrain(corpus, "train", stage.batch_size, *shape, seed, **stage.noise)
    value = batches.unigram_nll(train, heldout)
    return {
        "task": "corpus",
        "split": "validation",
        "metric": "unigram_nll",
        "value": value,
        "n": None,
        "stderr": None,
    }


def downstream(
    function: Callable[..., Any],
    params: Any,
    corpus: Corpus,
    task: str,
    stage: StageConfig,
    split: str = "validation",
    *,
    ranked: bool = False,
) -> list[Row]:
    """Scores one task; every value is in percent.

    Args:
      function: compiled from `make_decode`, or from `make_nll` for rank classification.
      params: the parameters of the model.
      corpus: an open corpus.
      task: a name in `corpus.tasks`.
      stage: sets the lengths, the batch size and the number of examples.
      split: the split of the task.
      ranked: takes the most likely of the task's labels as the answer; metrics are named
        `rank_<metric>`.

    Returns:
      A row for each of the task's metrics. The last is the headline score, `score`: their mean.
    """
    about, predictions, references = corpus.tasks[task], [], []
    given = (corpus, task, stage.eval_batch_size, stage.input_length, stage.target_length, split)
    for part in (batches.ranking if ranked else batches.evaluation)(
        *given, limit=stage.eval_examples or None
    ):
        if ranked:
            nll_B, _ = function(params, part.batch)
            predictions += batches.ranked(about.labels, np.asarray(nll_B), len(part.references))
        else:
            ids = np.asarray(function(params, part.batch))
            predictions += [corpus.decode(row) for row in ids[: len(part.references)]]
        references += part.references
    scores = scoring.score(about.metrics, predictions, references, about.labels)
    common, prefix = {"task": task, "split": split}, RANKED if ranked else ""
    return [
        {**common, "metric": prefix + k, "value": s.value, "n": s.n, "stderr": s.stderr}
        for k, s in scores.items()
    ]


def kept_by(rows: Iterable[Row]) -> dict[str, float]:
    """The values by which checkpoints are best: "nll", and each task's headline score by name."""
    chosen = [
        row for row in rows if row["metric"] in ("nll", HEADLINE) and math.isfinite(row["value"])
    ]
    return {"nll" if row["metric"] == "nll" else row["task"]: row["value"] for row in chosen}


def best(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The best headline score of each task over a run's evaluations, as T5 and the study report it.

    Of equal scores the newest is taken.

    Args:
      rows: rows of evals.jsonl.

    Returns:
      Rows like those of the best evaluations, with metric `best_score`, the step of the checkpoint
      as `best_step`, and the number of evaluations as `evaluations`.
    """
    found: dict[str, Mapping[str, Any]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        if row["stage"] == "finetune" and row["metric"] == HEADLINE and row["value"] is not None:
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
