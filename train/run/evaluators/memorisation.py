"""How much better a model predicts text that it was trained on: seen loss, gap, memorised bits."""

import math
from collections.abc import Sequence
from typing import Any

from train.data import batches
from train.data.corpus import Corpus
from train.records import Row
from train.run.evaluators.heldout import make_nll, sums_of, upstream
from train.run.parallel import Strategy
from train.run.step import Model
from train.study.config import StageConfig


class Memorisation:
    """The loss on the first examples of training: call it with parameters for its rows.

    All of them have been trained on by the first evaluation, and there are no more of them than of
    held-out examples. Span corruption hides the same tokens as in the first epoch.
    """

    def __init__(
        self, corpus: Corpus, stage: StageConfig, seed: int, model: Model, strategy: Strategy
    ):
        """Reads the examples."""
        self._nll, self._corpus = strategy.compile_evaluation(make_nll(model)), corpus
        self._seen, self._all = seen_examples(corpus, stage, seed, model)

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        """Rows about the seen examples.

        `seen_nll`, and `gap`, the held-out loss less the seen one, if that was taken: in nats per
        target token, with standard errors over sequences. If the text is random tokens and all of
        an epoch is measured, also `memorised_bits`: the bits of its tokens less the bits that the
        model needs for them.
        """
        common = {"task": "memorisation", "split": "train"}
        sums_3N = sums_of(self._nll, params, self._corpus, self._seen)
        seen, *_ = upstream(sums_3N)
        rows = [seen | common | {"metric": "seen_nll"}]
        if self._corpus.symbols and seen["n"] == self._all:
            losses_N, tokens_N, _ = sums_3N
            bits = tokens_N.sum() * math.log2(self._corpus.symbols) - losses_N.sum() / math.log(2)
            about = {"value": float(bits), "n": self._all, "stderr": None}
            rows.append({**common, "metric": "memorised_bits", **about})
        for row in before:
            if (row["task"], row["metric"]) == ("corpus", "nll"):
                gap = {"value": row["value"] - seen["value"], "n": min(row["n"], seen["n"])}
                error = math.hypot(row["stderr"], seen["stderr"])
                rows.append({**common, "metric": "gap", **gap, "stderr": error})
        return rows


def seen_examples(
    corpus: Corpus, stage: StageConfig, seed: int, model: Model
) -> tuple[list[batches.HostBatch], int]:
    """The first examples of training, and the number of examples in an epoch.

    All have been trained on by the first evaluation, and there are no more than of held-out ones.
    """
    shape = stage.evaluated(stage.text_shape(model.family))
    source = batches.Pretrain(
        corpus, "train", shape, seed, stage.text, stage.unique_tokens, stage.sources
    )
    trained = (stage.eval_every or stage.steps) * stage.batch_size
    count = min(trained, source.num_windows, stage.eval_batches * stage.eval_batch_size)
    return batches.first(source, count), source.num_windows
