"""A user's own text and tables as tasks. TensorFlow: `prepare` only."""

import dataclasses
import functools
import re
from pathlib import Path

import seqio
import tensorflow as tf

from train.data import text_files
from train.records import InputError
from train.tasks import registry
from train.tasks.metrics import METRICS

_WHOLE = 10_000  # characters after which plain text is cut at an empty line
_PIECES = 400  # a small text is cut into about this many, so that some are held out
_MOST_LABELS = 100  # a task with more distinct targets has free text
_TABLE_SHARE = 0.1


def text(patterns: tuple[str, ...], key: str) -> registry.Definition:
    """Pretraining text from files; each file goes to one shard, or, where files are few, every n-th document does.

    Args:
      patterns: globs.
      key: the column or field of tables that holds the text.

    Raises:
      InputError: a pattern matches no file.
    """
    files = text_files.expand(patterns)
    size = min(_WHOLE, max(500, sum(Path(file).stat().st_size for file in files) // _PIECES))
    return registry.Definition("text", _TextSource(files, key, size), ())


class _TextSource(seqio.FileDataSource):
    """Files whose documents are dealt to train and validation by hash."""

    def __init__(self, files: list[str], key: str, size: int):
        super().__init__(functools.partial(_read, key=key, size=size), dict.fromkeys(("train", "validation"), files))

    def get_dataset(self, split: str = "train", *args, **kwargs) -> tf.data.Dataset:
        """The documents of a split."""
        dataset = super().get_dataset(split, *args, **kwargs)
        mine = dataset.filter(lambda row: row["held_out"] == (split == "validation"))
        return mine.map(lambda row: {"targets": row["targets"]})


def _read(path: tf.Tensor, key: str, size: int) -> tf.data.Dataset:
    def rows(name: bytes):
        for document in text_files.documents(name.decode(), key, size):
            yield {"targets": document, "held_out": text_files.held_out(document)}

    spec = {"targets": tf.TensorSpec((), tf.string), "held_out": tf.TensorSpec((), tf.bool)}
    return tf.data.Dataset.from_generator(rows, args=(path,), output_signature=spec)


@dataclasses.dataclass(frozen=True)
class Table:
    """A downstream task in files, as the command line gives it: NAME=GLOB:METRIC,METRIC.

    The files have columns "inputs" and "targets", and may have "split" ("train" or "validation"; otherwise a tenth of
    the inputs is held out by hash) and, in JSON lines and Parquet, "answers": a list of texts that are all right.
    """

    name: str
    patterns: tuple[str, ...]
    metrics: tuple[str, ...]

    @classmethod
    def parse(cls, given: str) -> "Table":
        """Reads NAME=GLOB:METRICS.

        Raises:
          InputError: it is not of that form, or there is no such metric.
        """
        match = re.fullmatch(r"(\w+)=(.+):([\w,]+)", given)
        if not match:
            raise InputError(f"tasks: {given!r} is not NAME=FILES:METRIC, as in reviews=data/reviews.tsv:accuracy")
        metrics = tuple(match[3].split(","))
        for metric in metrics:
            if metric not in METRICS:
                raise InputError(f"tasks: {given!r}: metric {metric!r} is not one of {', '.join(METRICS)}")
        return cls(match[1], (match[2],), metrics)

    def definition(self) -> registry.Definition:
        """Reads the files.

        Raises:
          InputError: a column is missing or empty, or a split has no rows; names file and row.
        """
        splits: dict[str, list[dict]] = {"train": [], "validation": []}
        for path in text_files.expand(self.patterns):
            for number, row in enumerate(text_files.rows(path), start=1):
                split = row.get("split") or ("validation" if _drawn(row) else "train")
                if split not in splits:
                    raise InputError(f"{path}: row {number}: split = {split!r} is not train or validation")
                splits[split].append(self._checked(row, f"{path}: row {number}"))
        for split, rows in splits.items():
            if not rows:
                raise InputError(f"tasks: {self.name}: no row of {', '.join(self.patterns)} is for {split}")
        targets = sorted({row["targets"] for rows in splits.values() for row in rows})
        labels = tuple(targets) if len(targets) <= _MOST_LABELS else ()
        return registry.Definition(self.name, registry.in_memory(splits), (), self.metrics, labels)

    def _checked(self, row: text_files.Row, where: str) -> text_files.Row:
        for column in ("inputs", "targets"):
            if not isinstance(row.get(column), str):
                raise InputError(f"{where} has no text {column!r}; it has {', '.join(map(str, row))}")
        kept = {column: row[column] for column in ("inputs", "targets")}
        if "squad" in self.metrics:
            kept["answers"] = list(row.get("answers") or [row["targets"]])
        if "multirc" in self.metrics:
            kept["group"] = str(row.get("group", ""))
        return kept


def _drawn(row: text_files.Row) -> bool:
    return text_files.held_out(str(row.get("inputs")), _TABLE_SHARE)
