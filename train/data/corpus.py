"""A prepared corpus on disk, as `prepare` wrote it: checked when opened, and memory-mapped.

    corpus.json                             index: format, fingerprint, vocabulary, splits, tasks,
                                            every file's sha256
    vocabulary.model                        SentencePiece
    pretrain/<split>-NNNNN.npy              token stream, 1-D uint16 or uint32; EOS after documents
    pretrain/<split>-NNNNN.parts.npy        the part that each document belongs to, if there are
                                            parts: a number in the index's list of names
    tasks/<task>/<split>.inputs.npy         tokens of all examples, each ending in EOS
    tasks/<task>/<split>.inputs.lengths.npy their lengths; the same for targets
    tasks/<task>/<split>.references.jsonl   one object per example: what the metrics need

Everything is plain npy, JSON and JSONL: nothing is unpickled.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.data import shards
from train.data.text.vocabulary import EOS_ID, Vocabulary
from train.records import InputError, read_json, read_jsonl

FORMAT = 2  # format 1 is read shard by shard, so that runs on such a corpus keep their batches
_READ = (1, FORMAT)
INDEX = "corpus.json"
SPLITS = ("train", "validation")
PARTS = ".parts.npy"  # suffix of the files with the part that each document belongs to


@dataclasses.dataclass(frozen=True)
class Task:
    """A downstream task.

    Attributes:
      name: for example "python_package" or "glue_cola".
      metrics: names in `train.tasks.metrics.METRICS`; the headline score is the mean of their
        values.
      labels: the possible answers; empty for free text.
      examples: number of examples by split; a task without validation examples is only trained on.
      majority_class: headline score on validation of always giving the most frequent target, in
        percent.
    """

    name: str
    metrics: tuple[str, ...]
    labels: tuple[str, ...]
    examples: Mapping[str, int]
    majority_class: float | None


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Sequences of different lengths in one array: sequence i is flat[ends[i-1]:ends[i]]."""

    flat: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.ends)

    def __getitem__(self, i: int) -> np.ndarray:
        """Sequence i."""
        return self.flat[self.ends[i - 1] if i else 0 : self.ends[i]]

    def padded(self, which_B: np.ndarray, length: int, last: int) -> np.ndarray:
        """The chosen sequences, int32 [B, length], padded with 0; cut ones end in `last`."""
        ends_B = self.ends[which_B]
        starts_B = np.where(which_B > 0, self.ends[which_B - 1], 0)
        at_BL = starts_B[:, None] + np.arange(length)
        inside_BL = at_BL < ends_B[:, None]
        rows_BL = np.where(inside_BL, self.flat[np.where(inside_BL, at_BL, 0)], 0).astype(np.int32)
        rows_BL[ends_B - starts_B > length, -1] = last
        return rows_BL


@dataclasses.dataclass(frozen=True)
class Examples:
    """All examples of a split of a task."""

    inputs: Ragged
    targets: Ragged
    references: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.inputs)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """An open corpus.

    Attributes:
      path: its directory.
      index: the content of corpus.json.
    """

    path: Path
    index: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the pretraining text, for the records."""
        return self.index["name"]

    @property
    def fingerprint(self) -> str:
        """sha256 over the sha256 of every file, the vocabulary included."""
        return self.index["fingerprint"]

    @property
    def vocab_size(self) -> int:
        """Number of ids, sentinels included."""
        return self.index["vocab_size"]

    @property
    def num_sentinels(self) -> int:
        """The number of sentinels; sentinel k has the id vocab_size - 1 - k."""
        return self.index["num_sentinels"]

    @property
    def symbols(self) -> int:
        """The number of symbols if the text is uniform random tokens, else 0."""
        return self.index.get("symbols", 0)

    @functools.cached_property
    def tasks(self) -> dict[str, Task]:
        """Downstream tasks by name."""
        return {
            name: Task(
                name, tuple(t["metrics"]), tuple(t["labels"]), t["examples"], t["majority_class"]
            )
            for name, t in self.index["tasks"].items()
        }

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary; read when first used."""
        return Vocabulary(self.path / "vocabulary.model", self.num_sentinels)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of one sequence of ids up to its EOS."""
        return self.vocabulary.decode(ids)

    def tokens(self, split: str) -> list[np.ndarray]:
        """Token streams of the pretraining text, memory-mapped, one array per shard.

        Raises:
          InputError: there is no such split.
        """
        if split not in self.index["pretrain"]:
            raise InputError(
                f"split = {split!r}: {self.path} has {', '.join(self.index['pretrain'])}"
            )
        return [
            shards.read_array(self.path / name) for name in self.index["pretrain"][split]["shards"]
        ]

    def parts(self, split: str) -> dict[str, np.ndarray]:
        """The token stream of each part of the pretraining text: its documents, one after another.

        Raises:
          InputError: the corpus has no parts.
        """
        names = self.index["pretrain"][split].get("parts")
        if not names:
            raise InputError(f"corpus: {self.path} has no parts; prepare it again if it should")
        found: dict[str, list[np.ndarray]] = {}
        for tokens, file, of_shard in zip(
            self.tokens(split), self.index["pretrain"][split]["shards"], names, strict=True
        ):
            numbers_N = shards.read_array(self.path / (file.removesuffix(".npy") + PARTS))
            tokens = np.asarray(tokens)
            documents = np.split(tokens, np.flatnonzero(tokens == EOS_ID) + 1)[:-1]
            for number, document in zip(numbers_N, documents, strict=True):
                found.setdefault(of_shard[number], []).append(document)
        return {name: np.concatenate(found[name]) for name in sorted(found)}

    def num_tokens(self, split: str) -> int:
        """The number of tokens in the pretraining text of a split."""
        return self.index["pretrain"][split]["tokens"]

    @property
    def num_left_out(self) -> int:
        """Documents left out of the train split because they contain downstream validation text."""
        return self.index["pretrain"]["train"].get("duplicates", 0)

    @property
    def is_one_stream(self) -> bool:
        """Whether windows continue from one shard of a split to the next."""
        return self.index["format"] > 1

    def byte_scale(self, split: str) -> float:
        """Bytes of text per byte of its pieces.

        Not 1 if the vocabulary lacks characters or changes the text.
        """
        found = self.index["pretrain"][split]
        return (
            found["text_bytes"] / found["piece_bytes"]
            if found.get("changed") and found["piece_bytes"]
            else 1.0
        )

    def bytes_per_token(self, split: str) -> float:
        """Average number of UTF-8 bytes of text per token of a split."""
        found = self.index["pretrain"][split]
        return found["text_bytes"] / found["tokens"]

    def examples(self, task: str, split: str) -> Examples:
        """The examples of a downstream task.

        Raises:
          InputError: there is no such task or split.
        """
        if task not in self.tasks:
            raise InputError(f"task = {task!r}: {self.path} has {', '.join(self.tasks) or 'none'}")
        if split not in self.tasks[task].examples:
            raise InputError(
                f"split = {split!r}: {task} has {', '.join(self.tasks[task].examples)}"
            )
        return self._examples(task, split)

    @functools.cache  # noqa: B019  corpora live as long as the process
    def _examples(self, task: str, split: str) -> Examples:
        stem = self.path / "tasks" / task

        def ragged(feature: str) -> Ragged:
            lengths = shards.read_array(stem / f"{split}.{feature}.lengths.npy")
            return Ragged(
                shards.read_array(stem / f"{split}.{feature}.npy"),
                np.cumsum(lengths, dtype=np.int64),
            )

        return Examples(
            ragged("inputs"), ragged("targets"), read_jsonl(stem / f"{split}.references.jsonl")
        )

    def unigram_counts(self, split: str) -> np.ndarray:
        """The count of each id in the pretraining text of a split, int64 [vocab_size]."""
        counts = (np.bincount(tokens, minlength=self.vocab_size) for tokens in self.tokens(split))
        return np.sum(list(counts), axis=0)

    def unigram_nll(self, split: str = "validation") -> float:
        """Nats per token under the unigram distribution of the train split (counts plus one).

        This is for raw text; `batches.unigram_nll` is for the targets of an objective, with
        sentinels.
        """
        counts = self.unigram_counts("train") + 1.0
        held_out = self.unigram_counts(split)
        return float(-(held_out @ np.log(counts / counts.sum())) / held_out.sum())

    def __hash__(self) -> int:
        """Hashes the path and the fingerprint."""
        return hash((self.path, self.fingerprint))


def open_corpus(path: str | Path, *, verify: bool = True) -> Corpus:
    """Opens and checks a prepared corpus.

    Args:
      path: the directory that `prepare` wrote.
      verify: compares the sha256 of every file with the index; otherwise only checks that the files
        exist with the right size.

    Returns:
      The corpus; arrays are mapped when first used.

    Raises:
      InputError: the corpus is missing, unfinished or of another format, or a file is damaged.
        Names the file.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(
            f"corpus: {str(path)!r} is not a directory; `python -m train prepare` makes one"
        )
    if not (path / INDEX).exists():
        raise InputError(f"corpus: {path / INDEX} is missing; `prepare` has not finished there")
    index = read_json(path / INDEX)
    if index.get("format") not in _READ:
        reads = " and ".join(map(str, _READ))
        raise InputError(
            f"corpus: {path / INDEX}: format = {index.get('format')!r}, this version reads {reads}"
        )
    missing = {
        "name",
        "fingerprint",
        "vocab_size",
        "num_sentinels",
        "pretrain",
        "tasks",
        "files",
    } - set(index)
    if missing:
        raise InputError(f"corpus: {path / INDEX} has no {', '.join(sorted(missing))}")
    shards.verify(path, index["files"], hashes=verify)
    return Corpus(path, index)
