"""Batches of a probe's examples, and what stands for a corpus in a run that is trained on one."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.data import counter_random
from train.data.batch_shape import BatchShape
from train.data.batches import BatchSource
from train.data.corpus import FORMAT, Corpus, open_corpus
from train.data.layouts import HostBatch
from train.probes.probe import FRESH, TEST, TRAIN, VALIDATION, Probe, Rows
from train.records import InputError
from train.study.config import RunConfig, digest, identity

_TOGETHER = 4096  # examples made at once


class ProbeExamples(BatchSource):
    """Training batches of a probe.

    A training set is read in a new order in every epoch; the order depends on the seed, the
    examples do not. Without a training set, examples are new at every step, and depend on the seed.

    Attributes:
      num_windows: examples in an epoch; without a training set, those of all steps.
      epoch_tokens: tokens in an epoch.
    """

    def __init__(self, probe: Probe, shape: BatchShape, seed: int, steps: int):
        """Takes the probe, the shape of the global batch, the run's seed and its steps."""
        super().__init__(shape.batch_size)
        self._probe, self._seed = probe, seed
        self.num_windows = probe.train_examples or steps * shape.batch_size
        self.epoch_tokens = self.num_windows * probe.length

    def _make(self, index_B: np.ndarray) -> HostBatch:
        if not self._probe.train_examples:
            return batch(self._probe.examples(FRESH + self._seed, index_B), self._probe)
        epoch_B, place_B = np.divmod(index_B, self.num_windows)
        chosen_B = counter_random.permute(self._seed, epoch_B, place_B, self.num_windows)
        every = _every(self._probe, TRAIN)
        chosen = every.tokens[chosen_B], every.labels[chosen_B], every.scored[chosen_B]
        return batch(Rows(*chosen), self._probe)


def batch(rows: Rows, probe: Probe) -> HostBatch:
    """The features of a batch of training.

    Where only some positions of a row have an answer, the head is applied to those.
    """
    weights_BL = (rows.labels > 0).astype(np.float32)
    features = {
        "decoder_input_tokens": rows.tokens,
        "decoder_target_tokens": rows.labels,
        "decoder_loss_weights": weights_BL,
    }
    if probe.most_answers < probe.length:
        features["decoder_target_positions"] = positions(rows.labels > 0, probe.most_answers)
    return features


def positions(chosen_BL: np.ndarray, most: int) -> np.ndarray:
    """The chosen positions of each row, int32 [B, most]; L where a row has fewer."""
    length = chosen_BL.shape[1]
    return np.sort(np.where(chosen_BL, np.arange(length), length))[:, :most].astype(np.int32)


class ScoredSet(NamedTuple):
    """Examples that a probe is scored by.

    Attributes:
      rows: the examples, padded to the longest.
      seen: how many of them are also in the training set; 0 if that is never repeated.
    """

    rows: Rows
    seen: int


def scored_set(probe: Probe, split: str) -> ScoredSet:
    """The examples of `validation`, made like those of training, or of `test`."""
    rows = _every(probe, {"validation": VALIDATION, "test": TEST}[split])
    if not probe.train_examples:
        return ScoredSet(rows, 0)
    train = {row.tobytes() for row in _padded(_every(probe, TRAIN).tokens, probe.longest)}
    return ScoredSet(rows, sum(row.tobytes() in train for row in rows.tokens))


@functools.lru_cache(maxsize=8)
def _every(probe: Probe, seed: int) -> Rows:
    """All examples of a set: the training set, or one of the others padded to the longest."""
    count = probe.train_examples if seed == TRAIN else probe.test_examples
    parts = [
        probe.examples(seed, np.arange(first, min(first + _TOGETHER, count)), test=seed == TEST)
        for first in range(0, count, _TOGETHER)
    ]
    sizes = [part.size for part in parts if part.size is not None]
    size = np.concatenate(sizes) if sizes else None
    tokens = np.concatenate([part.tokens for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    scored = np.concatenate([part.scored for part in parts])
    if seed == VALIDATION:
        tokens, labels, scored = (_padded(x, probe.longest) for x in (tokens, labels, scored))
    return Rows(tokens, labels, scored, size)


def _padded(x_NL: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x_NL, ((0, 0), (0, length - x_NL.shape[1])))


def corpus_of(config: RunConfig, corpus: Corpus) -> Corpus:
    """What a run is trained on: its probe, described as a corpus without files, or the corpus."""
    if not config.pretrain.probe:
        if corpus.path == _NOTHING.path:
            raise InputError(f"{config.run_id}: needs a corpus, which the study does not have")
        return corpus
    probe = config.pretrain.made_probe()
    first = probe.examples(TRAIN, np.arange(8))
    known = {
        **{"task": probe.name, **identity(probe)},
        # Another definition of the probe has other examples.
        "examples": hashlib.sha256(first.tokens.tobytes() + first.labels.tobytes()).hexdigest(),
    }
    index = {
        "format": FORMAT,
        "name": f"probe {probe.name}",
        "fingerprint": digest(known),
        "vocab_size": probe.vocab_size,
    }
    return Corpus(Path(f"probe {probe.name}"), {**_NOTHING.index, **index})


_NOTHING = Corpus(
    Path("no corpus"),
    {
        "format": FORMAT,
        "name": "none",
        "fingerprint": "",
        "vocab_size": 0,
        "num_sentinels": 0,
        "pretrain": {"train": {}, "validation": {}},
        "tasks": {},
    },
)


def open_for(cells: Sequence[RunConfig], path: Path, *, verify: bool = True) -> Corpus:
    """Opens the corpus that runs are trained on; none is needed if all have a probe.

    Raises:
      InputError: see `open_corpus`.
    """
    if all(cell.pretrain.probe for cell in cells):
        return _NOTHING
    return open_corpus(path, verify=verify)
