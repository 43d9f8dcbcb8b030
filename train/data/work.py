"""The work of `prepare`: what each part of a corpus is made of. Imports TensorFlow, through the registry."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.data import overlap, parts, shards
from train.data.parts import Part
from train.data.prepare import PrepareConfig
from train.data.vocabulary import EOS_ID, Vocabulary
from train.data.vocabulary import train as train_vocabulary
from train.records import InputError
from train.tasks import registry, scoring
from train.tasks.registry import Definition

_DOCUMENT_SAMPLE = 20_000  # characters of one document in the vocabulary's sample
_CHUNK = 4_000_000  # characters tokenized at a time


def vocabulary(config: PrepareConfig, text: Definition) -> Part:
    """The part that trains a vocabulary, or copies a given one."""

    def make(root: Path) -> parts.Facts:
        if config.vocabulary:
            content = Vocabulary(Path(config.vocabulary)).path.read_bytes()
        else:
            small = config.source == "python"
            size = config.vocab_size or (2048 if small else 32_128)
            characters = config.vocabulary_characters or (1_000_000 if small else 50_000_000)
            sample = _sample(_documents(text, "train", 0, 1), characters)
            content = train_vocabulary(sample, size, config.num_sentinels, exact=config.vocab_size > 0)
        return {"files": {"vocabulary.model": shards.write_bytes(root / "vocabulary.model", content)}}

    return Part("vocabulary", parts.key(config.text_identity), make)


def pretraining(
    config: PrepareConfig, text: Definition, pieces: Vocabulary, held_out: overlap.Passages, made_from: Any
) -> Iterator[Part]:
    """One part for each shard of the pretraining text.

    Args:
      config: what to prepare.
      text: the registered pretraining text.
      pieces: the vocabulary.
      held_out: passages of downstream validation examples; a training document with one of them is left out.
      made_from: description of the vocabulary.
    """
    for split, count in config.shard_counts.items():
        key = parts.key(config.text_identity, made_from, split, count, config.max_tokens, held_out.key)
        for shard in range(count):

            def make(root: Path, split=split, shard=shard, count=count) -> parts.Facts:
                budget = config.max_tokens // count if split == "train" else 0
                stream = Stream(pieces, budget, held_out if split == "train" else None)
                stream.read(_documents(text, split, shard, count), config.num_threads or os.cpu_count() or 1)
                file = f"pretrain/{split}-{shard:05d}.npy"
                return {"files": {file: shards.write_array(root / file, stream.tokens)}, **stream.counts}

            yield Part(f"pretrain/{split}-{shard:05d}", key, make)


def tasks(
    config: PrepareConfig, definitions: Sequence[Definition], pieces: Vocabulary, made_from: Any
) -> Iterator[Part]:
    """One part for each split of each downstream task.

    Args:
      config: what to prepare.
      definitions: the registered tasks.
      pieces: the vocabulary.
      made_from: description of the vocabulary.
    """
    for definition, split in [(d, split) for d in definitions for split in d.splits]:

        def make(root: Path, definition=definition, split=split) -> parts.Facts:
            found = examples(definition, split)
            stem, written = f"tasks/{definition.name}/{split}", {}
            for feature in ("inputs", "targets"):
                arrays = _ragged([example[feature] for example in found], pieces, config.num_threads or 1)
                for suffix, array in zip(("", ".lengths"), arrays, strict=True):
                    file = f"{stem}.{feature}{suffix}.npy"
                    written[file] = shards.write_array(root / file, array)
            references = [_reference(example) for example in found]
            lines = "".join(json.dumps(reference, ensure_ascii=False) + "\n" for reference in references)
            written[f"{stem}.references.jsonl"] = shards.write_bytes(root / f"{stem}.references.jsonl", lines.encode())
            baseline = None
            if split == "validation":
                baseline = scoring.majority_class(definition.metrics, references, definition.labels)
            return {"files": written, "examples": len(found), "majority_class": baseline}

        key = parts.key(config.tasks_identity, definition.name, made_from)
        yield Part(f"tasks/{definition.name}/{split}", key, make)


def examples(definition: Definition, split: str) -> list[dict[str, Any]]:
    """The examples of a split of a registered task.

    Raises:
      InputError: there are none.
    """
    sources = definition.splits[split].split("+")
    found = []
    for source in sources:
        rows = (row for row in registry.read(definition.name, source) if row.pop("only", "") in ("", split))
        found += [{**row, "source": source} for row in rows] if len(sources) > 1 else rows
    if not found:
        raise InputError(f"tasks: {definition.name} has no {split} examples")
    return found


def held_out_passages(definitions: Sequence[Definition]) -> overlap.Passages:
    """The passages of all validation examples."""
    scored = [definition for definition in definitions if "validation" in definition.splits]
    return overlap.Passages(example["inputs"] for d in scored for example in examples(d, "validation"))


class Stream:
    """Tokens of documents one after another, each ended by EOS.

    Attributes:
      counts: numbers of tokens, of bytes of text, and of documents left out as duplicates.
    """

    def __init__(self, pieces: Vocabulary, budget: int, left_out: overlap.Passages | None):
        """Starts empty.

        Args:
          pieces: the vocabulary.
          budget: stop at about this many tokens; 0 for all.
          left_out: passages that no document may hold.
        """
        self._pieces, self._budget, self._left_out = pieces, budget, left_out
        self._found = [np.zeros(0, _dtype(pieces))]
        self.counts = {"tokens": 0, "text_bytes": 0, "duplicates": 0}

    @property
    def tokens(self) -> np.ndarray:
        """The stream so far."""
        return np.concatenate(self._found)

    def read(self, documents: Iterable[str], num_threads: int) -> None:
        """Adds documents until they end or the budget is reached."""
        for chunk in _chunks(documents):
            kept = [document for document in chunk if self._left_out is None or document not in self._left_out]
            self.counts["duplicates"] += len(chunk) - len(kept)
            for document, row in zip(kept, self._pieces.encode(kept, num_threads), strict=True):
                self._found.append(np.array([*row, EOS_ID], _dtype(self._pieces)))
                self.counts["tokens"] += len(row) + 1
                self.counts["text_bytes"] += len(document.encode())
                if self._budget and self.counts["tokens"] >= self._budget:
                    return


def _ragged(texts: list[str], pieces: Vocabulary, num_threads: int) -> tuple[np.ndarray, np.ndarray]:
    """All tokens, each text ended by EOS, and the lengths."""
    rows = [np.array([*row, EOS_ID], _dtype(pieces)) for row in pieces.encode(texts, num_threads)]
    return np.concatenate(rows), np.array([len(row) for row in rows], np.int32)


def _reference(example: Mapping[str, Any]) -> dict[str, Any]:
    return {"target": example["targets"]} | {k: v for k, v in example.items() if k not in ("inputs", "targets")}


def _documents(text: Definition, split: str, shard: int, num_shards: int) -> Iterator[str]:
    for example in registry.read(text.name, text.splits[split], shard, num_shards):
        if not isinstance(example["targets"], str):
            raise InputError(
                f"source = {text.name!r}: its targets are not text but {type(example['targets']).__name__}"
            )
        yield example["targets"]


def _sample(documents: Iterable[str], characters: int) -> Iterator[str]:
    for document in documents:
        document = document[:_DOCUMENT_SAMPLE]
        yield document
        characters -= len(document)
        if characters <= 0:
            return


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    chunk, size = [], 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _dtype(pieces: Vocabulary) -> type[np.unsignedinteger]:
    return np.uint16 if pieces.vocab_size <= 1 << 16 else np.uint32
