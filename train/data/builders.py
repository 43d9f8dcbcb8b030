"""The parts of a corpus that `prepare` makes. Imports TensorFlow, through `seqio_tasks`."""

import collections
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.data import part_files, shards
from train.data.corpus import PARTS
from train.data.part_files import Part
from train.data.prepare_config import COUNTS, PrepareConfig
from train.data.text import overlap, text_files
from train.data.text.vocabulary import EOS_ID, UNK_ID, Vocabulary
from train.data.text.vocabulary import train as train_vocabulary
from train.records import InputError
from train.tasks import scoring, seqio_tasks
from train.tasks.seqio_tasks import Definition

_DOCUMENT_SAMPLE = 20_000  # largest number of characters of one document in the vocabulary's sample
_CHUNK = 4_000_000  # characters tokenized at a time
_LOST = ("pieces", "unknown", "changed")
_VERSION = 2  # version of the counts in the facts of a part

Document = tuple[str, str]  # its text, and the part of the corpus that it belongs to, if any


def vocabulary(config: PrepareConfig, text: Definition) -> Part:
    """The part that trains a vocabulary, or copies a given one.

    For a user's own text it first reads all files.
    """
    small = config.source == "python"
    size = config.vocab_size or (2048 if small else 32_128)
    characters = config.vocabulary_characters or (1_000_000 if small else 50_000_000)

    def make(root: Path) -> part_files.Facts:
        survey, sample = None, []
        if config.source == "text":
            files = text_files.expand(config.text)
            drawn = 0 if config.vocabulary else characters
            given = (config.text_key, text_files.piece_size(files), drawn, _DOCUMENT_SAMPLE)
            survey = text_files.Survey.of(files, *given)
            sample = survey.sample
        elif not config.vocabulary:
            documents = (document for document, _ in _documents(text, "train", 0, 1))
            sample = list(_sample(documents, characters))
        if config.vocabulary:
            content = Path(config.vocabulary).read_bytes()
        else:
            content = train_vocabulary(
                sample, size, config.num_sentinels, exact=config.vocab_size > 0
            )
        facts = {
            "files": {"vocabulary.model": shards.write_bytes(root / "vocabulary.model", content)}
        }
        found = (
            {"survey": dataclasses.asdict(dataclasses.replace(survey, sample=[]))} if survey else {}
        )
        return facts | found

    return Part("vocabulary", part_files.key(config.text_identity), make)


def pretraining(
    config: PrepareConfig,
    text: Definition,
    pieces: Vocabulary,
    held_out: overlap.Passages,
    made_from: Any,
) -> Iterator[Part]:
    """One part for each shard of the pretraining text.

    Args:
      config: what to prepare.
      text: the registered pretraining text.
      pieces: the vocabulary.
      held_out: passages of downstream validation examples; training documents that contain one are
        left out.
      made_from: description of the vocabulary.
    """
    for split, count in config.shard_counts.items():
        key = part_files.key(
            config.text_identity, made_from, split, count, config.max_tokens, held_out.key, _VERSION
        )
        for shard in range(count):

            def make(root: Path, split=split, shard=shard, count=count) -> part_files.Facts:
                budget = config.max_tokens // count if split == "train" else 0
                stream = Stream(pieces, budget, held_out if split == "train" else None)
                stream.read(
                    _documents(text, split, shard, count), config.num_threads or os.cpu_count() or 1
                )
                file = f"pretrain/{split}-{shard:05d}.npy"
                files = {file: shards.write_array(root / file, stream.tokens)}
                if stream.parts:
                    names = sorted(set(stream.parts))
                    numbers = np.array([names.index(part) for part in stream.parts], np.uint16)
                    labels = f"pretrain/{split}-{shard:05d}{PARTS}"
                    files[labels] = shards.write_array(root / labels, numbers)
                    return {"files": files, "parts": names, **stream.counts}
                return {"files": files, **stream.counts}

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

    Raises:
      InputError: see `check_labels`.
    """
    for definition in definitions:
        check_labels(definition, pieces)
    for definition, split in [(d, split) for d in definitions for split in d.splits]:

        def make(root: Path, definition=definition, split=split) -> part_files.Facts:
            found = examples(definition, split)
            stem, written, counts = (
                f"tasks/{definition.name}/{split}",
                {},
                collections.Counter[str](),
            )
            for feature in ("inputs", "targets"):
                texts = [example[feature] for example in found]
                encoded = pieces.encode(texts, config.num_threads or 1)
                counts.update(_losses(pieces, texts, encoded))
                arrays = _ragged(encoded, _dtype(pieces))
                for suffix, array in zip(("", ".lengths"), arrays, strict=True):
                    file = f"{stem}.{feature}{suffix}.npy"
                    written[file] = shards.write_array(root / file, array)
            references = [_reference(example) for example in found]
            lines = "".join(
                json.dumps(reference, ensure_ascii=False) + "\n" for reference in references
            )
            written[f"{stem}.references.jsonl"] = shards.write_bytes(
                root / f"{stem}.references.jsonl", lines.encode()
            )
            baseline = None
            if split == "validation":
                baseline = scoring.majority_class(definition.metrics, references, definition.labels)
            return {"files": written, "examples": len(found), "majority_class": baseline, **counts}

        key = part_files.key(config.tasks_identity, definition.name, made_from, _VERSION)
        yield Part(f"tasks/{definition.name}/{split}", key, make)


def examples(definition: Definition, split: str) -> list[dict[str, Any]]:
    """The examples of a split of a registered task.

    Raises:
      InputError: there are none.
    """
    sources = definition.splits[split].split("+")
    found = []
    for source in sources:
        rows = (
            row
            for row in seqio_tasks.read(definition.name, source)
            if row.pop("only", "") in ("", split)
        )
        found += [{**row, "source": source} for row in rows] if len(sources) > 1 else rows
    if not found:
        raise InputError(f"tasks: {definition.name} has no {split} examples")
    return found


def held_out_passages(definitions: Sequence[Definition]) -> overlap.Passages:
    """The passages of all validation examples."""
    scored = [definition for definition in definitions if "validation" in definition.splits]
    return overlap.Passages(
        example["inputs"] for d in scored for example in examples(d, "validation")
    )


class Stream:
    """The tokens of documents one after another, each ended by EOS.

    Attributes:
      counts: numbers of tokens, of bytes of text, of documents left out as duplicates, of documents
        included, of pieces unknown to the vocabulary, of documents that decoding does not restore,
        and of bytes that the pieces stand for.
      parts: the part of the corpus that each document belongs to; empty if it has no parts.
    """

    def __init__(self, pieces: Vocabulary, budget: int, left_out: overlap.Passages | None):
        """Starts empty.

        Args:
          pieces: the vocabulary.
          budget: stops at about this many tokens; 0 for all.
          left_out: passages; documents that contain one are left out.
        """
        self._pieces, self._budget, self._left_out = pieces, budget, left_out
        self._found = [np.zeros(0, _dtype(pieces))]
        self.counts = dict.fromkeys(COUNTS, 0)
        self.parts: list[str] = []

    @property
    def tokens(self) -> np.ndarray:
        """The stream so far."""
        return np.concatenate(self._found)

    def read(self, documents: Iterable[Document], num_threads: int) -> None:
        """Adds documents until there are no more or the budget is reached."""
        for chunk in _chunks(documents):
            kept = [
                (document, part)
                for document, part in chunk
                if self._left_out is None or document not in self._left_out
            ]
            self.counts["duplicates"] += len(chunk) - len(kept)
            encoded = self._pieces.encode([document for document, _ in kept], num_threads)
            decoded = self._pieces.decode_all(encoded, num_threads)
            for (document, part), row, back in zip(kept, encoded, decoded, strict=True):
                self.parts += [part] if part else []
                tokens = np.array([*row, EOS_ID], _dtype(self._pieces))
                self._found.append(tokens)
                self.counts["tokens"] += len(tokens)
                self.counts["text_bytes"] += len(document.encode())
                self.counts["piece_bytes"] += int(self._pieces.bytes_per_piece[tokens].sum())
                self.counts["documents"] += 1
                self.counts["changed"] += document != back
                self.counts["unknown"] += int((tokens == UNK_ID).sum())
                if self._budget and self.counts["tokens"] >= self._budget:
                    return


def _losses(
    pieces: Vocabulary, texts: Sequence[str], encoded: Sequence[Sequence[int]]
) -> dict[str, int]:
    """Numbers of pieces, of unknown pieces, and of texts that decoding does not restore."""
    changed = sum(
        text != back for text, back in zip(texts, pieces.decode_all(encoded), strict=True)
    )
    unknown = sum(list(row).count(UNK_ID) for row in encoded) if changed else 0
    return dict(zip(_LOST, (sum(map(len, encoded)), unknown, changed), strict=True))


def check_labels(definition: Definition, pieces: Vocabulary) -> None:
    """Refuses a vocabulary that cannot express all labels, so that no model could answer.

    Raises:
      InputError: decoding does not restore a label.
    """
    encoded = pieces.encode(definition.labels)
    for label, back in zip(definition.labels, pieces.decode_all(encoded), strict=True):
        if label.strip() != back.strip():
            raise InputError(
                f"tasks: {definition.name}: the vocabulary gives the label {label!r} back as "
                f"{back!r}: no model could "
                "answer it; use a vocabulary with its characters"
            )


def _ragged(
    encoded: Sequence[Sequence[int]], dtype: type[np.unsignedinteger]
) -> tuple[np.ndarray, np.ndarray]:
    """All tokens, each text ended by EOS, and the lengths."""
    rows = [np.array([*row, EOS_ID], dtype) for row in encoded]
    return np.concatenate(rows), np.array([len(row) for row in rows], np.int32)


def _reference(example: Mapping[str, Any]) -> dict[str, Any]:
    return {"target": example["targets"]} | {
        k: v for k, v in example.items() if k not in ("inputs", "targets")
    }


def _documents(text: Definition, split: str, shard: int, num_shards: int) -> Iterator[Document]:
    for example in seqio_tasks.read(text.name, text.splits[split], shard, num_shards):
        if not isinstance(example["targets"], str):
            raise InputError(
                f"source = {text.name!r}: its targets are not text but "
                f"{type(example['targets']).__name__}"
            )
        yield example["targets"], example.get("part", "")


def _sample(documents: Iterable[str], characters: int) -> Iterator[str]:
    for document in documents:
        document = document[:_DOCUMENT_SAMPLE]
        yield document
        characters -= len(document)
        if characters <= 0:
            return


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk, size = [], 0
    for document, part in documents:
        chunk.append((document, part))
        size += len(document)
        if size >= _CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _dtype(pieces: Vocabulary) -> type[np.unsignedinteger]:
    return np.uint16 if pieces.vocab_size <= 1 << 16 else np.uint32
