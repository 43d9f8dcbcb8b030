"""Batches as a pure function of the step: no iterator state, no shuffle buffer, numpy only.

Row r of the global batch of `step` is example number step * batch_size + r, and everything about it
depends only on that number and the seed. A host takes its slice of the rows, so the same batch is
made by any number of hosts, and a run can resume from its step alone.

Which features a batch has depends on the family of its models, see `train.data.layouts`.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from train.data import counter_random, layouts
from train.data.batch_shape import USUAL_TEXT, BatchShape, TextOptions
from train.data.corpus import Corpus, Examples
from train.data.layouts import LAYOUTS, HostBatch
from train.data.objectives import OBJECTIVES
from train.data.text.vocabulary import EOS_ID
from train.data.windows import Windows
from train.records import InputError

HELDOUT_SEED = 0  # fixed, so that all cells of a study have the same held-out set
_UNIQUE_SEED = (
    0  # fixed, so that all runs see the same limited text, and a smaller one is part of it
)
_ROWS_TOGETHER = 1024  # rows made at once, so that numpy's cost per call is small


def _rows(steps: range, batch_size: int, host: int, num_hosts: int) -> np.ndarray:
    """Example numbers of a host's rows in some steps."""
    if batch_size % num_hosts or not 0 <= host < num_hosts:
        raise InputError(f"batch_size = {batch_size} cannot be dealt to host {host} of {num_hosts}")
    local = batch_size // num_hosts
    first_of_step = np.arange(steps.start, steps.stop, dtype=np.int64)[:, None] * batch_size
    return (first_of_step + host * local + np.arange(local)).reshape(-1)


class BatchSource:
    """Batches by step. Rows are made by the hundred, because numpy has a cost per call."""

    def __init__(self, batch_size: int):
        """Takes the rows of a global batch."""
        self.batch_size = batch_size
        self._memo: tuple[tuple[int, int, int] | None, HostBatch] = (
            None,
            {},
        )  # the last rows made together

    def batch(self, step: int, host: int = 0, num_hosts: int = 1) -> HostBatch:
        """The rows of one host in the batch of a step; the arrays are read-only."""
        together = max(1, _ROWS_TOGETHER * num_hosts // self.batch_size)
        block, place = divmod(step, together)
        if self._memo[0] != (block, host, num_hosts):
            steps = range(block * together, (block + 1) * together)
            made = self._make(_rows(steps, self.batch_size, host, num_hosts))
            for rows in made.values():
                # The arrays are shared by later calls, so a caller must not change them.
                rows.flags.writeable = False
            self._memo = ((block, host, num_hosts), made)
        local = self.batch_size // num_hosts
        return {
            name: rows[place * local : (place + 1) * local] for name, rows in self._memo[1].items()
        }

    def _make(self, index_B: np.ndarray) -> HostBatch:
        """The examples with these numbers."""
        raise NotImplementedError


class _Mixture:
    """Items of several sources in fixed shares of an epoch, in one stateless permutation.

    A source continues where its last epoch ended, so after any number of epochs all of its items
    have been read equally often, give or take one.

    Attributes:
      num_rows: items in an epoch.
    """

    def __init__(self, sizes: np.ndarray, counts: np.ndarray, seed: int):
        """Takes the items of each source, and how many of them an epoch has."""
        self._sizes, self._counts, self._seed = sizes, counts, seed
        self._ends = np.cumsum(counts)
        self.num_rows = int(self._ends[-1])

    def locate(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The source, and the item of that source, at each of these row numbers."""
        epoch_B, position_B = np.divmod(np.asarray(index_B), self.num_rows)
        item_B = counter_random.permute(self._seed, epoch_B, position_B, self.num_rows)
        source_B = np.searchsorted(self._ends, item_B, side="right")
        slot_B = item_B - (self._ends - self._counts)[source_B] + epoch_B * self._counts[source_B]
        lap_B, place_B = np.divmod(slot_B, self._sizes[source_B])
        row_B = np.empty_like(item_B)
        for s in np.unique(source_B):
            here_B = source_B == s
            size = int(self._sizes[s])
            row_B[here_B] = counter_random.permute(
                self._seed + 1 + int(s), lap_B[here_B], place_B[here_B], size
            )
        return source_B, row_B


class Pretrain(BatchSource):
    """Denoising batches of the pretraining text.

    The token stream of a split, which is all of its shards one after another, is cut into windows.
    An epoch is a stateless permutation of all windows. In a corpus of format 1 each shard is cut
    separately, and its last tokens are in no window.

    With `sources`, each part of the corpus is such a stream of its own, and an epoch has as many
    windows as all of these parts, in the shares asked for.

    Attributes:
      num_windows: examples in an epoch.
      epoch_tokens: tokens of text in an epoch.
      num_tokens: tokens of the split.
      num_unread: tokens that are in no window.
    """

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        shape: BatchShape,
        seed: int,
        text: TextOptions = USUAL_TEXT,
        unique_tokens: int = 0,
        sources: Mapping[str, float] | None = None,
    ):
        """Plans the windows.

        Args:
          corpus: an open corpus.
          split: a split of its pretraining text.
          shape: B, S, T and family of the global batch.
          seed: seed of the shuffling and of the noise.
          text: how windows become examples.
          unique_tokens: limits the text to the first so many tokens of a fixed permutation of its
            windows, in whole windows; 0 for no limit.
          sources: weights of the corpus's parts; None for the text as it is.

        Raises:
          InputError: the lengths do not fit the objective, the text is shorter than one window,
            there are fewer tokens than `unique_tokens`, or the corpus has no such part.
        """
        if text.objective not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise InputError(f"objective = {text.objective!r} is not one of {known}")
        super().__init__(shape.batch_size)
        self.seed, self.vocab_size = seed, corpus.vocab_size
        self._objective = OBJECTIVES[text.objective](
            *shape.lengths,
            corpus.vocab_size,
            corpus.num_sentinels,
            text.noise_density,
            text.mean_span_length,
        )
        self._layout, self._by_document = LAYOUTS[shape.family], text.by_document
        length = self._objective.raw_length
        self._streams = _streams(corpus, split, length, sources)
        self._windows, self._mixture = self._streams[0], None
        self.num_windows = sum(stream.num_windows for stream in self._streams)
        self.num_tokens = sum(stream.num_tokens for stream in self._streams)
        self.num_unread = sum(stream.num_unread for stream in self._streams)
        if min(stream.num_windows for stream in self._streams) == 0:
            raise InputError(f"corpus: {corpus.path}: {split} has no {length} tokens in a row")
        if sources:
            sizes = np.array([stream.num_windows for stream in self._streams])
            self._mixture = _Mixture(sizes, _shares(sources, self.num_windows), seed)
        if unique_tokens:
            self.num_windows = unique_tokens // length
            if not 0 < self.num_windows <= self._windows.num_windows:
                raise InputError(
                    f"unique_tokens = {unique_tokens}: must be at least one window of {length} "
                    f"tokens and at most the {self._windows.num_windows * length:,} that "
                    f"{corpus.path} has in windows of {split}"
                )
        self.epoch_tokens = self.num_windows * length

    def _make(self, index_B: np.ndarray) -> HostBatch:
        batch = self._layout.batch(*self._objective(self._read(index_B), self.seed, index_B))
        return layouts.by_document(batch) if self._by_document else batch

    def _read(self, index_B: np.ndarray) -> np.ndarray:
        """The windows of these examples."""
        if self._mixture:
            source_B, row_B = self._mixture.locate(index_B)
            raw_BL = np.empty((len(index_B), self._objective.raw_length), np.int32)
            for s in np.unique(source_B):
                raw_BL[source_B == s] = self._streams[s].read(row_B[source_B == s])
            return raw_BL
        epoch_B, position_B = np.divmod(index_B, self.num_windows)
        window_B = counter_random.permute(self.seed, epoch_B, position_B, self.num_windows)
        if self.num_windows < self._windows.num_windows:
            window_B = counter_random.permute(
                _UNIQUE_SEED, np.zeros_like(window_B), window_B, self._windows.num_windows
            )
        return self._windows.read(window_B)


def _streams(
    corpus: Corpus, split: str, length: int, sources: Mapping[str, float] | None
) -> list[Windows]:
    """The windows of the text, or of each part that is named."""
    if not sources:
        return [Windows(corpus.tokens(split), length, one_stream=corpus.is_one_stream)]
    parts = corpus.parts(split)
    if unknown := sorted(set(sources) - set(parts)):
        raise InputError(
            f"sources: {unknown[0]!r} is no part of {corpus.path}; it has {', '.join(parts)}"
        )
    return [Windows([parts[name]], length, one_stream=True) for name in sources]


def _shares(sources: Mapping[str, float], rows: int) -> np.ndarray:
    """Whole numbers in the proportions of the weights, with the sum `rows`: largest remainders."""
    weights = np.array(list(sources.values()), float)
    exact = rows * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    for place in np.argsort(counts - exact, kind="stable")[: rows - counts.sum()]:
        counts[place] += 1
    return counts


class Finetune(BatchSource):
    """Training batches of a mixture of downstream tasks, in proportion to their sizes up to a cap.

    An epoch holds every task's examples, or `cap` of them, in one stateless permutation. So the
    mixing rates are exact in every epoch, and no example is repeated before all have been used
    once. A task over the cap continues where its last epoch ended.

    With packing, the same holds for rows. Which examples share a row is planned once, task by task,
    so after a restart at any step every row is known without going through the earlier epochs.
    """

    def __init__(
        self,
        corpus: Corpus,
        tasks: Sequence[str],
        shape: BatchShape,
        seed: int,
        cap: int | None = None,
        *,
        pack: bool = False,
        multiple: int = 1,
    ):
        """Plans the mixture.

        Args:
          corpus: an open corpus.
          tasks: names in `corpus.tasks`.
          shape: B, S and T of the global batch.
          seed: seed of the shuffling.
          cap: the largest number of examples of a task in an epoch (T5's mixing-rate maximum); None
            or 0 for no limit.
          pack: puts several examples into a row, with segment ids and positions.
          multiple: the packed inputs of an example start at multiples of this.

        Raises:
          InputError: there is no such task, it has no examples to train on, or there are no tasks.
        """
        if not tasks:
            raise InputError(f"tasks is empty; {corpus.path} has {', '.join(corpus.tasks)}")
        super().__init__(shape.batch_size)
        self.tasks, self.seed = tuple(tasks), seed
        self._lengths, self._multiple = shape.lengths, multiple
        self._layout = LAYOUTS[shape.family]
        self._examples = [corpus.examples(task, "train") for task in tasks]
        self._plans = (
            [_plan(examples, shape, seed, multiple) for examples in self._examples]
            if pack
            else None
        )
        examples_T = np.array([len(examples) for examples in self._examples])
        sizes_T = np.array([len(plan) for plan in self._plans]) if self._plans else examples_T
        capped_T = np.minimum(examples_T, cap) if cap else examples_T
        # The same share of the rows of each task, rounded up.
        counts_T = -(-sizes_T * capped_T // examples_T)
        self._mixture = _Mixture(sizes_T, counts_T, seed)
        self.num_rows = self._mixture.num_rows

    def locate(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The task, and the example (or packed row) of that task, at each of these row numbers."""
        return self._mixture.locate(index_B)

    def _make(self, index_B: np.ndarray) -> HostBatch:
        task_B, row_B = self.locate(index_B)
        if self._plans:
            return self._packed(self._plans, task_B, row_B)
        rows = [np.empty((len(task_B), length), np.int32) for length in self._lengths]
        for t in np.unique(task_B):
            here_B = task_B == t
            for row, chosen in zip(
                rows, _pad(self._examples[t], row_B[here_B], *self._lengths), strict=True
            ):
                row[here_B] = chosen
        return self._layout.batch(rows[0], rows[1])

    def _packed(
        self, plans: Sequence[Sequence[Sequence[int]]], task_B: np.ndarray, row_B: np.ndarray
    ) -> HostBatch:
        chosen = [(self._examples[t], plans[t][row]) for t, row in zip(task_B, row_B, strict=True)]
        inputs = [[examples.inputs[e] for e in members] for examples, members in chosen]
        targets = [[examples.targets[e] for e in members] for examples, members in chosen]
        return self._layout.packed(inputs, targets, self._lengths, self._multiple)


def _plan(examples: Examples, shape: BatchShape, seed: int, multiple: int) -> list[list[int]]:
    """The packed rows of a task, as lists of examples.

    Examples are first put into a random order, because neighbours in a file are often similar.
    """
    count = len(examples)
    order_N = counter_random.permute(seed, np.zeros(count, np.int64), np.arange(count), count)
    inputs_N, targets_N = (
        np.diff(ragged.ends, prepend=0)[order_N] for ragged in (examples.inputs, examples.targets)
    )
    rows = LAYOUTS[shape.family].plan((inputs_N, targets_N), shape.lengths, multiple)
    return [[int(order_N[i]) for i in row] for row in rows]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A batch to decode; `references` has one entry per real row, further rows are padding."""

    batch: HostBatch
    references: Sequence[dict[str, Any]]


def heldout(
    corpus: Corpus,
    shape: BatchShape,
    num_batches: int | None = None,
    text: TextOptions = USUAL_TEXT,
) -> list[HostBatch]:
    """The held-out set for the upstream loss: the same examples for every cell and every step.

    Args:
      corpus: an open corpus.
      shape: B, S and T of every batch; all are full, except that a split smaller than one batch is
        filled with empty rows.
      num_batches: the largest number of batches; None for the whole validation split, each window
        once.
      text: how windows become examples.
    """
    source = Pretrain(corpus, "validation", shape, HELDOUT_SEED, text)
    return first(source, min(source.num_windows, (num_batches or sys.maxsize) * shape.batch_size))


def first(source: Pretrain, count: int) -> list[HostBatch]:
    """The first `count` examples in full batches; if they fill none, one with empty rows."""
    whole, size = count // source.batch_size, source.batch_size
    if whole:
        return [source.batch(step) for step in range(whole)]
    empty = ((0, size - count), (0, 0))
    return [{name: np.pad(rows[:count], empty) for name, rows in source.batch(0).items()}]


def unigram_nll(
    train: Pretrain, batches: Sequence[HostBatch], num_train_batches: int = 64
) -> float:
    """Nats per target token of `batches` under the unigram distribution of training targets.

    This is the baseline without a model.
    """
    counts = np.ones(train.vocab_size)
    for step in range(num_train_batches):
        counts += np.bincount(_targets(train.batch(step)), minlength=len(counts))
    log_p = np.log(counts / counts.sum())
    return float(-np.mean(np.concatenate([log_p[_targets(batch)] for batch in batches])))


def _targets(batch: HostBatch) -> np.ndarray:
    return batch["decoder_target_tokens"][batch["decoder_loss_weights"] > 0]


def evaluation(
    corpus: Corpus,
    task: str,
    shape: BatchShape,
    split: str = "validation",
    limit: int | None = None,
) -> Iterator[Evaluation]:
    """Batches over a split of a task in order, for decoding and scoring.

    Args:
      corpus: an open corpus.
      task: a name in `corpus.tasks`.
      shape: B, S and T of every batch; the last one is filled with empty rows.
      split: a split of the task.
      limit: only the first examples; None for all.

    Yields:
      Batches with the references of their real rows.

    Raises:
      InputError: there is no such task or split.
    """
    examples = corpus.examples(task, split)
    for which_E in _parts(examples, limit, shape.batch_size):
        inputs, targets = _fill(shape.batch_size, *_pad(examples, which_E, *shape.lengths))
        batch = LAYOUTS[shape.family].prompts(inputs, targets)
        yield Evaluation(batch, [examples.references[example] for example in which_E])


def ranking(
    corpus: Corpus,
    task: str,
    shape: BatchShape,
    split: str = "validation",
    limit: int | None = None,
) -> Iterator[Evaluation]:
    """Batches for rank classification: each example once for every label, with the label as target.

    The answer is the label whose target has the highest likelihood; `ranked` finds it. The
    arguments are those of `evaluation`, but a batch needs a row for each label of the task.

    Yields:
      Batches with the references of their examples. With L labels, rows e * L to e * L + L - 1
      belong to example e; rows left over are empty.

    Raises:
      InputError: the task has no labels, or more than `shape.batch_size`.
    """
    examples, labels = corpus.examples(task, split), corpus.tasks[task].labels
    if not 0 < len(labels) <= shape.batch_size:
        raise InputError(
            f"task = {task!r} has {len(labels)} labels: no rank classification in batches of "
            f"{shape.batch_size}"
        )
    label_rows = corpus.vocabulary.encode(labels)
    targets_LT = np.zeros((len(labels), shape.target_length), np.int32)
    for row, ids in zip(targets_LT, label_rows, strict=True):
        row[: len(ids) + 1] = [*ids, EOS_ID][: shape.target_length]
    for which_E in _parts(examples, limit, shape.batch_size // len(labels)):
        inputs_ES = examples.inputs.padded(which_E, shape.input_length, EOS_ID)
        inputs_BS = np.repeat(inputs_ES, len(labels), axis=0)
        targets_BT = np.tile(targets_LT, (len(which_E), 1))
        batch = LAYOUTS[shape.family].batch(*_fill(shape.batch_size, inputs_BS, targets_BT))
        yield Evaluation(batch, [examples.references[example] for example in which_E])


def _parts(examples: Examples, limit: int | None, most: int) -> Iterator[np.ndarray]:
    """The numbers of the first `limit` examples, or of all, in order, at most `most` at a time."""
    total = min(len(examples), limit or len(examples))
    for start in range(0, total, most):
        yield np.arange(start, min(start + most, total))


def _fill(batch_size: int, *features: np.ndarray) -> tuple[np.ndarray, ...]:
    """These rows, and empty ones up to the batch size."""
    return tuple(np.pad(rows, ((0, batch_size - len(rows)), (0, 0))) for rows in features)


def ranked(labels: Sequence[str], nll_B: np.ndarray, num_examples: int) -> list[str]:
    """The most likely label of each example in a `ranking` batch, from the rows' summed nll."""
    nll_EL = np.asarray(nll_B)[: num_examples * len(labels)].reshape(num_examples, len(labels))
    return [labels[int(i)] for i in nll_EL.argmin(axis=1)]


def target_bytes(corpus: Corpus, batch: HostBatch) -> np.ndarray:
    """UTF-8 bytes of the text behind each row's targets, without sentinels and EOS, float64 [B].

    A loss summed over the same targets, divided by the sum of these bytes, can be compared between
    vocabularies. If a vocabulary lacks characters, its pieces stand for fewer bytes than the text
    has. The missing bytes of the whole held-out text are then spread over the pieces.
    """
    bytes_BT = corpus.vocabulary.bytes_per_piece[batch["decoder_target_tokens"]]
    known_B = np.where(batch["decoder_loss_weights"] > 0, bytes_BT, 0).sum(axis=1, dtype=np.float64)
    return known_B * corpus.byte_scale("validation")


def _pad(
    examples: Examples, which_B: np.ndarray, input_length: int, target_length: int
) -> tuple[np.ndarray, np.ndarray]:
    return (
        examples.inputs.padded(which_B, input_length, EOS_ID),
        examples.targets.padded(which_B, target_length, EOS_ID),
    )
