"""Turns text and tasks into a corpus that the trainer maps into memory: seqio reads, SentencePiece tokenizes.

The work is cut into parts (see `parts`), each a pure function of the configuration, so that a
killed run continues, damage is repaired part by part, and several workers share the work. The index
is written last, by whoever finishes. Importing this module is light; seqio and TensorFlow are
imported when there is something to make.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from train import ranges
from train.data import part_files, shards
from train.data.corpus import FORMAT, INDEX, Corpus, open_corpus
from train.data.text import overlap, python_text, text_files
from train.data.text.vocabulary import NUM_SENTINELS, Vocabulary
from train.ranges import CountOrZero, Range
from train.records import InputError, read_json, write_json
from train.tasks import python_suite
from train.tasks.table import Table

if TYPE_CHECKING:
    from train.tasks.registry import Definition

Say = Callable[[str], None]

_OFFICIAL_VERSION = (
    2  # to be raised when the form of GLUE, SuperGLUE or SQuAD changes: what is prepared is redone
)
_READER_VERSION = 2  # likewise, of how files of a user's own are read, cut and sampled

COUNTS = (
    "tokens",
    "text_bytes",
    "duplicates",
    "documents",
    "unknown",
    "changed",
    "piece_bytes",
)  # of a shard


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and where.

    Attributes:
      out: directory of the corpus; made if missing.
      source: the pretraining text: "python" (the running Python installation's), "c4", "text" (your
        own files), or a seqio task or mixture that `modules` register, whose "targets" are text.
      text: globs of your own files: plain text, JSON lines, Parquet, TSV and CSV, told by their
        content; also packed by gzip or zstd. A path with a bracket that exists is itself. Implies
        source "text".
      text_key: the column or field of tables that holds the text; empty for "text". Refused where a
        file is plain text.
      modules: Python modules to import first.
      tasks: downstream suites ("python", "glue", "super_glue", "squad"), single tasks
        ("glue_cola"), or your own as NAME=FILES:METRIC, where a table (TSV, CSV, JSON lines,
        Parquet) has columns "inputs" and "targets".
      data_dir: where TFDS keeps its data, which `tfds build` makes; empty for its default.
      python_root: library whose text "python" is; empty takes that of the running interpreter.
      vocabulary: an existing SentencePiece model; empty trains one on the pretraining text (a
        sample over all files of your own).
      vocab_size: ids of a trained vocabulary, sentinels included; 0 takes 2,048 for "python" and
        32,128 for others.
      num_sentinels: ids at the top that mark spans.
      num_shards: files of the train split; 0 takes 2 for "python", 64 for others, and no more than
        there are files of your own text: of fewer files each shard would read all.
      max_tokens: stop after about this many tokens of the train split; 0 for all.
      vocabulary_characters: text a vocabulary is trained on; 0 takes a million for "python" and 50
        million for others.
      decontaminate: leave out training documents that share 13 words in a row with a downstream
        validation example, or 20 characters of a script without spaces between words; the index
        counts them as "duplicates".
      worker: "i/n" makes every n-th part, from the i-th; run n of them on one directory, on any
        machines.
      patience: seconds without a sign of life from another worker after which the rest make its
        parts.
      num_threads: for tokenizing; 0 for all cores.
    """

    out: str = "corpora/python"
    source: str = "python"
    text: tuple[str, ...] = ()
    text_key: str = ""
    modules: tuple[str, ...] = ()
    data_dir: str = ""
    tasks: tuple[str, ...] = ("python",)
    python_root: str = ""
    vocabulary: str = ""
    vocab_size: Annotated[int, Range(0, 2**24)] = 0
    num_sentinels: Annotated[int, Range(0, 2**16)] = NUM_SENTINELS
    num_shards: Annotated[int, Range(0, 100_000)] = 0
    max_tokens: CountOrZero = 0
    vocabulary_characters: CountOrZero = 0
    decontaminate: bool = True
    worker: str = "0/1"
    patience: Annotated[int, Range(0, 10_000_000)] = 300
    num_threads: Annotated[int, Range(0, 1024)] = 0

    def __post_init__(self):
        """Checks ranges.

        Raises:
          InputError: a value is out of range.
        """
        ranges.check(self)
        if self.text:
            object.__setattr__(self, "source", "text")
        elif self.source == "text":
            raise InputError("source = 'text' needs text: globs of the files")
        if self.text_key and self.source != "text":
            raise InputError(
                f"text_key = {self.text_key!r} is for files of your own, which text names"
            )
        for key in ("vocab_size", "vocabulary_characters") if self.vocabulary else ():
            if getattr(self, key):
                given = f"and vocabulary = {self.vocabulary!r} is given"
                raise InputError(
                    f"{key} = {getattr(self, key)} is for training a vocabulary, {given}"
                )
        _ = self.share
        names = [Table.parse(task).name if "=" in task else task for task in self.tasks]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"tasks: {name!r} is given twice")
            if name == self.source and "=" in self.tasks[names.index(name)]:
                raise InputError(f"tasks: {name!r} is the name of the pretraining text")

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
        most = len(text_files.expand(self.text)) if self.text else 64
        train = self.num_shards or (2 if self.source == "python" else min(64, most))
        return {"train": train, "validation": max(1, train // 64)}

    @property
    def text_identity(self) -> dict[str, Any]:
        """What the pretraining text and the vocabulary follow from."""
        files = text_files.expand(self.text)
        kept = Path(self.out) / "parts" / "digests.json"
        return {
            "format": 1,  # of what is in the shards, which is older than that of the index
            **({"reader": _READER_VERSION} if files else {}),
            "source": self.source,
            "python": python_text.fingerprint(self.python_root)
            if self.source == "python"
            else None,
            "text": [(Path(file).name, text_files.digest(file, kept)) for file in files],
            "text_key": self.text_key or "text",
            "vocabulary": shards.describe(Path(self.vocabulary)) if self.vocabulary else None,
            "vocab_size": self.vocab_size,
            "num_sentinels": self.num_sentinels,
            "vocabulary_characters": self.vocabulary_characters,
        }

    @property
    def tasks_identity(self) -> dict[str, Any]:
        """What the downstream tasks follow from, beside the vocabulary."""
        tables = [
            path for task in self.tasks if "=" in task for path in text_files.table_files(task)
        ]
        python = any(task.startswith("python") for task in self.tasks)
        official = any(
            task.startswith(("glue", "super_glue", "squad", "dpr")) for task in self.tasks
        )
        return {
            **({"official": _OFFICIAL_VERSION} if official else {}),
            **({"reader": _READER_VERSION} if tables else {}),
            "tasks": self.tasks,
            "python": [python_suite.VERSION, python_text.fingerprint(self.python_root)]
            if python
            else None,
            "tables": [shards.describe(Path(path)) for path in tables],
        }


def prepare(config: PrepareConfig, say: Say | None = None) -> Corpus:
    """Makes what is missing or damaged of a corpus; does nothing, and imports nothing heavy, where all is there.

    Args:
      config: what and where.
      say: takes each line of progress; None prints them to stderr.

    Returns:
      The open corpus. A worker waits for the parts of the others.

    Raises:
      InputError: something in the configuration, or in the text it names, is wrong.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    root = Path(config.out)
    try:
        (root / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out = {config.out!r} cannot be written ({error.strerror})") from None
    if config.vocabulary:
        Vocabulary(Path(config.vocabulary), config.num_sentinels)
    text_files.check_key(text_files.expand(config.text), config.text_key)
    shards.remove_leftovers(root, config.patience if config.share[1] > 1 else 0)
    key = part_files.key(
        config.text_identity,
        config.tasks_identity,
        config.shard_counts,
        config.max_tokens,
        config.decontaminate,
    )
    corpus = _finished(root, key, say)
    if corpus is None:
        corpus = _make(config, root, key, say)
    return corpus


def _finished(root: Path, key: str, say: Say) -> Corpus | None:
    if not (root / INDEX).exists() or read_json(root / INDEX).get("key") != key:
        return None
    try:
        return open_corpus(root)
    except InputError as error:
        say(f"prepare: repairing: {error}")
        return None


def _make(config: PrepareConfig, root: Path, key: str, say: Say) -> Corpus:
    say("prepare: loading seqio and TensorFlow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet():
        from train.tasks import catalog, registry

    catalog.load(config.modules)
    text, definitions = catalog.pretraining(config), catalog.downstream(config)
    for definition in (text, *definitions):
        if definition.source is not None:  # otherwise a user's module has registered it
            registry.register(definition)
    with part_files.Team(root, *config.share, config.patience) as team:
        facts = _make_parts(config, root, say, team, text, definitions)
    index = _index(config, key, facts, definitions)
    write_json(root / INDEX, index)
    train = index["pretrain"]["train"]
    for line in _lost(index):
        say(f"prepare: {line}")
    say(
        f"prepare: {train['duplicates']:,} documents left out that hold text of downstream validation examples"
    )
    say(f"prepare: {root}: {train['tokens']:,} tokens, fingerprint {index['fingerprint'][:12]}")
    return open_corpus(root, verify=False)


def _make_parts(
    config: PrepareConfig,
    root: Path,
    say: Say,
    team: part_files.Team,
    text: "Definition",
    definitions: list["Definition"],
) -> dict[str, part_files.Facts]:
    """Makes, or waits for, the vocabulary and then every other part; returns their facts by name."""
    from train.data import builders
    from train.tasks import catalog, registry

    vocabulary = builders.vocabulary(config, text)
    if config.source == "text" and team.number == 0 and vocabulary.done(root) is None:
        size = sum(os.path.getsize(file) for file in text_files.expand(config.text)) / 1e6
        say(
            f"prepare: text: reading {size:,.1f} MB once, to check them and to draw what the vocabulary is trained on"
        )
    facts = {"vocabulary": _one(root, vocabulary, say, team)}
    pieces = Vocabulary(root / "vocabulary.model", config.num_sentinels)
    made_from = facts["vocabulary"]["files"]
    if found := facts["vocabulary"].get("survey"):
        for line in text_files.Survey(**found).said(
            text_files.piece_size(text_files.expand(config.text))
        ):
            say(f"prepare: {line}")
        text = catalog.pretraining(config, found["share"])
        registry.register(text)
    held_out = (
        builders.held_out_passages(definitions) if config.decontaminate else overlap.Passages([])
    )
    plan = [
        *builders.pretraining(config, text, pieces, held_out, made_from),
        *builders.tasks(config, definitions, pieces, made_from),
    ]
    for place in team.order(len(plan)):
        facts[plan[place].name] = _one(
            root, plan[place], say, team, place, f" ({place + 1}/{len(plan)})"
        )
    return facts


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what native code writes to stderr: TensorFlow's greetings heed no setting."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _one(
    root: Path,
    part: part_files.Part,
    say: Say,
    team: part_files.Team,
    place: int = 0,
    where: str = "",
) -> part_files.Facts:
    """A part's facts: found, made, or waited for where it is another worker's that is alive."""
    facts, owner = part.done(root), place % team.count
    if facts is None and owner != team.number:
        if team.alive(owner):
            say(f"prepare: waiting for {part.name}{where} of worker {owner}")
        while team.alive(owner) and (facts := part.done(root)) is None:
            time.sleep(1)
        if facts is None:
            say(
                f"prepare: worker {owner} gave no sign of life for {team.patience} s: {part.name} is made here"
            )
    if facts is None:
        start = time.monotonic()
        facts = part.finish(root)
        size = "".join(
            f" {facts[unit]:,} {unit}" for unit in ("tokens", "examples") if unit in facts
        )
        say(f"prepare: {part.name}{where}:{size} in {time.monotonic() - start:.1f} s")
    return facts


def _index(
    config: PrepareConfig,
    key: str,
    facts: dict[str, part_files.Facts],
    definitions: list["Definition"],
) -> dict[str, Any]:
    pretrain = {}
    for split, count in config.shard_counts.items():
        found = [facts[f"pretrain/{split}-{shard:05d}"] for shard in range(count)]
        pretrain[split] = {name: sum(part[name] for part in found) for name in COUNTS}
        pretrain[split]["shards"] = [file for part in found for file in part["files"]]
        if not pretrain[split]["tokens"]:
            raise InputError(f"source = {config.source!r}: there is no text for {split}")
    files = part_files.files(facts)
    names = ("sentencepiece", "seqio", "tensorflow", "tensorflow-datasets", "numpy")
    return {
        "format": FORMAT,
        "name": config.source,
        "fingerprint": part_files.key(
            FORMAT, {file: found["sha256"] for file, found in files.items()}
        ),
        "key": key,
        "vocab_size": Vocabulary(
            Path(config.out) / "vocabulary.model", config.num_sentinels
        ).vocab_size,
        "num_sentinels": config.num_sentinels,
        "pretrain": pretrain,
        "text": facts["vocabulary"].get("survey", {}).get("counts"),
        "tasks": {
            d.name: {
                "metrics": d.metrics,
                "labels": d.labels,
                "examples": {
                    split: facts[f"tasks/{d.name}/{split}"]["examples"] for split in d.splits
                },
                "majority_class": facts.get(f"tasks/{d.name}/validation", {}).get("majority_class"),
                "replaced": d.replaced,
                **{
                    name: sum(facts[f"tasks/{d.name}/{split}"][name] for split in d.splits)
                    for name in ("pieces", "unknown", "changed")
                },
            }
            for d in definitions
        },
        "files": files,
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in names},
    }


def _lost(index: dict[str, Any]) -> Iterator[str]:
    """What of the text the tokens do not hold, a line for each split and task that has lost any."""

    def told(about: str, found: dict[str, Any], of: str, pieces: int) -> Iterator[str]:
        if found["changed"]:
            share = f"{found['unknown'] / pieces:.1%} of the pieces are unknown to it"
            yield f"{about}: the vocabulary does not give back {found['changed']:,} of {of} as they were; {share}"

    for split, found in index["pretrain"].items():
        yield from told(
            "text", found, f"{found['documents']:,} documents of {split}", found["tokens"]
        )
    for name, found in index["tasks"].items():
        texts = 2 * sum(found["examples"].values())
        yield from told(f"tasks: {name}", found, f"{texts:,} inputs and targets", found["pieces"])
        if found["replaced"]:
            yield f"tasks: {name}: {text_files.REPLACED.format(found['replaced'])}"
