"""A finished run with its parameters, for measures that need more than its records."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train import records
from train.data import batches
from train.data.batch_shape import BatchShape
from train.data.corpus import Corpus
from train.records import InputError
from train.run import finished
from train.run.step import Model
from train.study.config import StageConfig, from_dict


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run whose pretraining is finished.

    Attributes:
      record: its records.
      corpus: the corpus that it was trained on.
      stage: its pretraining stage.
      model: the model.
      params: its parameters after the last step.
      step: the number of that step.
    """

    record: records.Run
    corpus: Corpus
    stage: StageConfig
    model: Model
    params: Any
    step: int

    @property
    def shape(self) -> BatchShape:
        """Of an evaluation batch of text."""
        return self.stage.evaluated(self.stage.text_shape(self.model.family))

    def seen(self) -> batches.Pretrain:
        """Its training text in the order in which it was read, in batches of that shape."""
        seed, stage = self.record.config["seed"], self.stage
        return batches.Pretrain(
            self.corpus, "train", self.shape, seed, stage.text, stage.unique_tokens, stage.sources
        )

    def heldout(self) -> list[batches.HostBatch]:
        """The held-out batches that its loss was measured on."""
        return batches.heldout(self.corpus, self.shape, self.stage.eval_batches, self.stage.text)


def keep(record: records.Run, step: int, rows: list[records.Row]) -> None:
    """Adds rows of a step to a run's file of measures, in place of those of the same measure."""
    path, measures = record.path / records.MEASURES, {row["measure"] for row in rows}
    kept = [row for row in records.read_jsonl(path) if row["measure"] not in measures]
    lines = [*kept, *({"step": step, **row} for row in rows)]
    with records.replacing(path) as file:
        file.write("".join(json.dumps(row) + "\n" for row in lines).encode())


def open_run(directory: Path, corpus: Corpus) -> records.Run:
    """The records of a run that was trained on a corpus.

    Raises:
      InputError: it is no run, or was trained on another corpus.
    """
    record = finished.read(directory)
    fingerprint = record.config["data"]["fingerprint"]
    if fingerprint != corpus.fingerprint:
        raise InputError(
            f"run: {directory} was trained on the corpus {fingerprint[:12]}, and {corpus.path} is "
            f"{corpus.fingerprint[:12]}"
        )
    return record


def open_finished(directory: Path, corpus: Corpus) -> FinishedRun:
    """Opens a run with the parameters of its last pretraining step.

    Raises:
      InputError: it is no run, has not finished pretraining, has no checkpoint left, or was trained
        on another corpus.
    """
    record = open_run(directory, corpus)
    restored = finished.restore(record, "pretrain")
    stage = from_dict(StageConfig, record.config["pretrain"], "pretrain")
    return FinishedRun(record, corpus, stage, *restored)


def features(
    run: FinishedRun, source: Iterator[batches.HostBatch]
) -> tuple[np.ndarray, np.ndarray]:
    """What the head reads at every target of some batches, [N, D], and the targets [N]."""

    @jax.jit
    def hidden(params: Any, batch: Any) -> jax.Array:
        return run.model.merge(params).hidden(batch)[0]

    states, targets = [], []
    for batch in source:
        real_BT = batch["decoder_loss_weights"] > 0
        states.append(np.asarray(hidden(run.params, batch), np.float32)[real_BT])
        targets.append(batch["decoder_target_tokens"][real_BT])
    return np.concatenate(states), np.concatenate(targets)
