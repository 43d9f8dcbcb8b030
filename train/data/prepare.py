"""Turns text and tasks into a corpus that the trainer maps into memory: seqio reads, SentencePiece tokenizes.

The work is cut into parts (see `parts`), each a pure function of the configuration, so that a killed run continues,
damage is repaired part by part, and several workers share the work. The index is written last, by whoever finishes.
Importing this module is light; seqio and TensorFlow are imported when there is something to make.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from train.data import parts, python_text, shards
from train.data.corpus import FORMAT, INDEX, SPLITS, Corpus, open_corpus
from train.data.vocabulary import EOS_ID, NUM_SENTINELS, Vocabulary
from train.data.vocabulary import train as train_vocabulary
from train.records import InputError, read_json, write_json

if TYPE_CHECKING:
    from train.tasks.registry import Definition

Say = Callable[[str], None]

_DOCUMENT_SAMPLE = 20_000  # characters of one document in the vocabulary's sample
_CHUNK = 4_000_000  # characters tokenized at a time


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and where.

    Attributes:
      out: directory of the corpus; made if missing.
      source: the pretraining text; "python" is the text of the running Python installation.
      tasks: downstream tasks or suites; "python" is the offline suite.
      python_root: library whose text "python" is; empty takes that of the running interpreter.
      vocabulary: an existing SentencePiece model; empty trains one on the pretraining text.
      vocab_size: ids of a trained vocabulary, sentinels included; 0 takes 2,048 for "python" and 32,128 for others.
      num_sentinels: ids at the top that mark spans.
      num_shards: files of the train split; 0 takes 2 for "python" and 64 for others.
      max_tokens: stop after about this many tokens of the train split; 0 for all.
      vocabulary_characters: text a vocabulary is trained on.
      worker: "i/n" makes every n-th part, from the i-th; run n of them on one directory, on any machines.
      num_threads: for tokenizing; 0 for all cores.
    """

    out: str = "data/python"
    source: str = "python"
    tasks: tuple[str, ...] = ("python",)
    python_root: str = ""
    vocabulary: str = ""
    vocab_size: int = 0
    num_sentinels: int = NUM_SENTINELS
    num_shards: int = 0
    max_tokens: int = 0
    vocabulary_characters: int = 1_000_000
    worker: str = "0/1"
    num_threads: int = 0

    def __post_init__(self):
        """Checks ranges.

        Raises:
          InputError: a value is out of range.
        """
        for key in ("vocab_size", "num_shards", "max_tokens", "num_threads", "num_sentinels"):
            if getattr(self, key) < 0:
                raise InputError(f"{key} = {getattr(self, key)} must not be negative")
        _ = self.share

    @property
    def share(self) -> tuple[int, int]:
        """This worker's number and the number of workers."""
        number, _, count = self.worker.partition("/")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise InputError(f"worker = {self.worker!r} is not i/n with 0 <= i < n")
        return int(number), int(count)

    @property
    def shard_counts(self) -> dict[str, int]:
        """Number of shards by split."""
        train = self.num_shards or (2 if self.source == "python" else 64)
        return {"train": train, "validation": max(1, train // 64)}


def prepare(config: PrepareConfig, say: Say | None = None) -> Corpus:
    """Makes what is missing or damaged of a corpus; does nothing, and imports nothing heavy, where all is there.

    Args:
      config: what and where.
      say: takes each line of progress; None prints them to stderr.

    Returns:
      The open corpus. A worker that is not the last to finish waits for the others.

    Raises:
      InputError: something in the configuration, or in the text it names, is wrong.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    root = Path(config.out)
    try:
        (root / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out = {config.out!r} cannot be written ({error.strerror})") from None
    key = _key(_identity(config), config.shard_counts, config.max_tokens, config.tasks)
    corpus = _finished(root, key, say)
    return corpus or _make(config, root, key, say)


def _finished(root: Path, key: str, say: Say) -> Corpus | None:
    if not (root / INDEX).exists() or read_json(root / INDEX).get("key") != key:
        return None
    try:
        return open_corpus(root)
    except InputError as error:
        say(f"prepare: repairing: {error}")
        return None


def _make(config: PrepareConfig, root: Path, key: str, say: Say) -> Corpus:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    say("prepare: loading seqio and TensorFlow")
    from train.tasks import catalog, registry

    text = catalog.pretraining(config)
    registry.register(text)
    number, count = config.share
    identity = _identity(config)
    trained = _vocabulary_part(config, text)
    vocabulary_facts = _one(root, trained, _key(identity, "vocabulary"), say, "", wait=number > 0)
    pieces = Vocabulary(root / "vocabulary.model", config.num_sentinels)
    made_from = _key(identity, vocabulary_facts["files"], config.shard_counts, config.max_tokens)
    work = [*_pretrain_parts(config, text, pieces)]
    definitions = catalog.downstream(config)
    for definition in definitions:
        registry.register(definition)
        work += _task_parts(config, definition, pieces)
    mine = {part.name for part in work[number::count]}
    facts = {}
    for place, part in sorted(enumerate(work, 1), key=lambda item: item[1].name not in mine):
        facts[part.name] = _one(root, part, made_from, say, f" ({place}/{len(work)})", wait=part.name not in mine)
    index = _index(config, key, {"vocabulary": vocabulary_facts, **facts}, definitions, pieces)
    write_json(root / INDEX, index)
    say(f"prepare: {root}: {index['pretrain']['train']['tokens']:,} tokens, fingerprint {index['fingerprint'][:12]}")
    return open_corpus(root, verify=False)


def _one(root: Path, part: parts.Part, key: str, say: Say, place: str, wait: bool) -> parts.Facts:
    """A part's facts: found, made, or waited for where it is another worker's."""
    facts = parts.done(root, part.name, key)
    if facts is None and wait:
        say(f"prepare: waiting for {part.name}{place}")
        while (facts := parts.done(root, part.name, key)) is None:
            time.sleep(1)
    if facts is None:
        start = time.monotonic()
        facts = parts.make(root, part, key)
        size = "".join(f" {facts[unit]:,} {unit}" for unit in ("tokens", "examples") if unit in facts)
        say(f"prepare: {part.name}{place}:{size} in {time.monotonic() - start:.1f} s")
    return facts


def _vocabulary_part(config: PrepareConfig, text: "Definition") -> parts.Part:
    def make(root: Path) -> parts.Facts:
        if config.vocabulary:
            content = Vocabulary(Path(config.vocabulary)).path.read_bytes()
        else:
            size = config.vocab_size or (2048 if config.source == "python" else 32_128)
            sample = _sample(_documents(text, "train", 0, 1), config.vocabulary_characters)
            content = train_vocabulary(sample, size, config.num_sentinels, exact=config.vocab_size > 0)
        return {"files": {"vocabulary.model": shards.write_bytes(root / "vocabulary.model", content)}}

    return parts.Part("vocabulary", make)


def _pretrain_parts(config: PrepareConfig, text: "Definition", pieces: Vocabulary) -> Iterator[parts.Part]:
    for split, count in config.shard_counts.items():
        for shard in range(count):
            budget = config.max_tokens // count if split == "train" else 0

            def make(root: Path, split=split, shard=shard, count=count, budget=budget) -> parts.Facts:
                documents = _documents(text, split, shard, count)
                tokens, text_bytes = _tokenize(documents, pieces, budget, config.num_threads or os.cpu_count() or 1)
                file = f"pretrain/{split}-{shard:05d}.npy"
                return {
                    "files": {file: shards.write_array(root / file, tokens)},
                    "tokens": len(tokens),
                    "text_bytes": text_bytes,
                }

            yield parts.Part(f"pretrain/{split}-{shard:05d}", make)


def _task_parts(config: PrepareConfig, definition: "Definition", pieces: Vocabulary) -> Iterator[parts.Part]:
    for split in SPLITS:

        def make(root: Path, split=split) -> parts.Facts:
            from train.tasks import registry, scoring

            rows = registry.read(definition.name, definition.splits[split])
            examples = [row for row in rows if row.pop("only", "") in ("", split)]
            if not examples:
                raise InputError(f"tasks: {definition.name} has no {split} examples")
            stem, written = f"tasks/{definition.name}/{split}", {}
            for feature in ("inputs", "targets"):
                texts = [example[feature] for example in examples]
                ids = [np.array([*row, EOS_ID]) for row in pieces.encode(texts, config.num_threads or 1)]
                arrays = {
                    "": np.concatenate(ids).astype(_dtype(pieces)),
                    ".lengths": np.array([len(r) for r in rows], np.int32),
                }
                for suffix, array in arrays.items():
                    file = f"{stem}.{feature}{suffix}.npy"
                    written[file] = shards.write_array(root / file, array)
            references = [_reference(example) for example in examples]
            lines = "".join(json.dumps(reference, ensure_ascii=False) + "\n" for reference in references)
            written[f"{stem}.references.jsonl"] = shards.write_bytes(root / f"{stem}.references.jsonl", lines.encode())
            baseline = scoring.majority_class(definition.metrics, references, definition.labels)
            return {"files": written, "examples": len(examples), "majority_class": baseline}

        yield parts.Part(f"tasks/{definition.name}/{split}", make)


def _reference(example: dict[str, Any]) -> dict[str, Any]:
    return {"target": example["targets"]} | {k: v for k, v in example.items() if k not in ("inputs", "targets")}


def _documents(text: "Definition", split: str, shard: int, num_shards: int) -> Iterator[str]:
    from train.tasks import registry

    return (example["targets"] for example in registry.read(text.name, text.splits[split], shard, num_shards))


def _sample(documents: Iterable[str], characters: int) -> Iterator[str]:
    for document in documents:
        document = document[:_DOCUMENT_SAMPLE]
        yield document
        characters -= len(document)
        if characters <= 0:
            return


def _tokenize(documents: Iterable[str], pieces: Vocabulary, budget: int, num_threads: int) -> tuple[np.ndarray, int]:
    """The token stream, each document ended by EOS, and the bytes of its text; stops at `budget` tokens unless 0."""
    found, tokens, text_bytes = [], 0, 0
    for chunk in _chunks(documents):
        for document, row in zip(chunk, pieces.encode(chunk, num_threads), strict=True):
            found.append(np.array([*row, EOS_ID], _dtype(pieces)))
            tokens += len(row) + 1
            text_bytes += len(document.encode())
            if budget and tokens >= budget:
                return np.concatenate(found), text_bytes
    return np.concatenate(found) if found else np.zeros(0, _dtype(pieces)), text_bytes


def _chunks(documents: Iterable[str]) -> Iterator[list[str]]:
    documents = iter(documents)
    while first := list(itertools.islice(documents, 1)):
        size = len(first[0])
        while size < _CHUNK and (more := list(itertools.islice(documents, 1))):
            first += more
            size += len(more[0])
        yield first


def _dtype(pieces: Vocabulary) -> type[np.unsignedinteger]:
    return np.uint16 if pieces.vocab_size <= 1 << 16 else np.uint32


def _index(
    config: PrepareConfig,
    key: str,
    facts: dict[str, parts.Facts],
    definitions: list["Definition"],
    pieces: Vocabulary,
) -> dict[str, Any]:
    pretrain = {}
    for split, count in config.shard_counts.items():
        found = [facts[f"pretrain/{split}-{shard:05d}"] for shard in range(count)]
        pretrain[split] = {name: sum(part[name] for part in found) for name in ("tokens", "text_bytes")}
        pretrain[split]["shards"] = [file for part in found for file in part["files"]]
    files = parts.files(facts)
    return {
        "format": FORMAT,
        "name": config.source,
        "fingerprint": _key({file: found["sha256"] for file, found in files.items()}),
        "key": key,
        "vocab_size": pieces.vocab_size,
        "num_sentinels": config.num_sentinels,
        "pretrain": pretrain,
        "tasks": {
            d.name: {
                "metrics": d.metrics,
                "labels": d.labels,
                "examples": {split: facts[f"tasks/{d.name}/{split}"]["examples"] for split in SPLITS},
                "majority_class": facts[f"tasks/{d.name}/validation"]["majority_class"],
            }
            for d in definitions
        },
        "files": files,
        "versions": _versions(),
    }


def _identity(config: PrepareConfig) -> dict[str, Any]:
    """What the content follows from, apart from the number of shards and the tasks."""
    python = "python" in (config.source, *config.tasks)
    return {
        "format": FORMAT,
        "source": config.source,
        "python": python_text.fingerprint(config.python_root) if python else None,
        "vocabulary": shards.describe(Path(config.vocabulary)) if config.vocabulary else None,
        "vocab_size": config.vocab_size,
        "num_sentinels": config.num_sentinels,
        "vocabulary_characters": config.vocabulary_characters,
    }


def _versions() -> dict[str, str]:
    import importlib.metadata
    import platform

    names = ("sentencepiece", "seqio", "tensorflow", "tensorflow-datasets", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def _key(*things: Any) -> str:
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()
