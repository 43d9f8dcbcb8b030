"""The configuration of `prepare`, which determines every part of a corpus. It is fast to import."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from train import ranges
from train.data import shards
from train.data.text import python_text, text_files
from train.data.text.vocabulary import NUM_SENTINELS
from train.ranges import CountOrZero, NotNegative, Range
from train.records import InputError
from train.tasks import python_suite
from train.tasks.task_table import TaskTable

_OFFICIAL_VERSION = (
    2  # raise it when the form of GLUE, SuperGLUE or SQuAD changes, so that they are made again
)
_READER_VERSION = 2  # the same for the way users' files are read, cut and sampled

NEVER_DRAWN = 3  # ids of random tokens that are never drawn: padding, end and unknown
_RANDOM_SIZES = (5, 20_979)  # ids of such a vocabulary, with two symbols and with the most

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
      out: directory of the corpus; created if missing.
      source: the pretraining text: "python" (from the running Python installation), "c4", "text"
        (your own files), "random" (uniform random tokens, without tasks), or a seqio task or
        mixture that `modules` register, whose "targets" are text.
      text: globs of your own files: plain text, JSON lines, Parquet, TSV and CSV, recognised by
        their content; also compressed with gzip or zstd. A path that contains a bracket and exists
        is taken literally. Implies source "text".
      text_key: the column or field of tables that holds the text; empty for "text". Refused if a
        file is plain text.
      modules: Python modules to import first.
      tasks: downstream suites ("python", "glue", "super_glue", "squad"), single tasks
        ("glue_cola"), or your own as NAME=FILES:METRIC, where a table (TSV, CSV, JSON lines,
        Parquet) has columns "inputs" and "targets".
      data_dir: where TFDS stores its data, which `tfds build` makes; empty for its default.
      python_root: the library that "python" reads; empty takes that of the running interpreter.
      vocabulary: an existing SentencePiece model; empty trains one on the pretraining text (on a
        sample from all of your own files).
      vocab_size: ids of a trained vocabulary, including sentinels; 0 takes 2,048 for "python", 67
        for "random" (64 symbols) and 32,128 for others.
      num_sentinels: number of ids at the top that mark spans.
      num_shards: files of the train split; 0 takes 2 for "python" and 64 for others, but at most
        the number of your own text files, because with fewer files each shard would read all of
        them.
      max_tokens: stop after about this many tokens of the train split; 0 for all, and for 131,072
        of "random".
      vocabulary_characters: number of characters that a vocabulary is trained on; 0 takes a million
        for "python" and 50 million for others.
      decontaminate: leave out training documents that share 13 words in a row with a downstream
        validation example, or 20 characters of a script without spaces between words; the index
        counts them as "duplicates".
      worker: "i/n" makes every n-th part, from the i-th; run n of them on one directory, on any
        machines.
      patience: seconds without a heartbeat of another worker after which the others make its parts.
      num_threads: threads for tokenizing; 0 for all cores.
      log_every: seconds between two lines about finished parts; 0 prints a line for every part.
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
    log_every: NotNegative = 10.0
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
        if self.source == "random":
            if self.tasks not in ((), PrepareConfig.tasks):
                raise InputError(f"tasks = {list(self.tasks)}: random tokens have no tasks")
            if self.vocabulary:
                raise InputError(f"vocabulary = {self.vocabulary!r}: random tokens have their own")
            least, most = _RANDOM_SIZES
            if self.vocab_size and not least <= self.vocab_size <= most:
                raise InputError(
                    f"vocab_size = {self.vocab_size}: random tokens need {least} to {most}, of "
                    f"which {NEVER_DRAWN} are never drawn"
                )
            object.__setattr__(self, "tasks", ())
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
        names = [TaskTable.parse(task).name if "=" in task else task for task in self.tasks]
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
    def random_size(self) -> tuple[int, int]:
        """Of random tokens, the number of symbols and of training tokens."""
        return (self.vocab_size or 67) - NEVER_DRAWN, self.max_tokens or 2**17

    @property
    def shard_counts(self) -> dict[str, int]:
        """The number of shards of each split."""
        most = len(text_files.expand(self.text)) if self.text else 64
        train = self.num_shards or (2 if self.source == "python" else min(64, most))
        return {"train": train, "validation": max(1, train // 64)}

    @property
    def text_identity(self) -> dict[str, Any]:
        """Everything that affects the pretraining text and the vocabulary."""
        files = text_files.expand(self.text)
        kept = Path(self.out) / "parts" / "digests.json"
        return {
            "format": 1,  # format of the shards, which is older than that of the index
            **({"reader": _READER_VERSION} if files else {}),
            "source": self.source,
            "python": [python_text.VERSION, python_text.fingerprint(self.python_root)]
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
        """Everything besides the vocabulary that affects the downstream tasks."""
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
