"""A user's own downstream task in a table: read and checked without TensorFlow."""

import dataclasses
import math
import re
from typing import Any

from train.data.text import formats, text_files
from train.records import InputError, Row
from train.tasks.metrics import METRICS

_MOST_LABELS = 100  # a task with more distinct targets has free text
_HELD_OUT = 0.1
# Names of suites, pretraining texts and other entries next to tasks in records. A user's task must
# not use them.
SUITES = ("python", "glue", "super_glue", "squad", "dpr")
RESERVED = frozenset({*SUITES, "text", "c4", "corpus", "mean"})
ALLOWED = tuple(
    name for name in METRICS if name not in ("mnli", "wsc")
)  # these need fields that only their own data sets have


@dataclasses.dataclass(frozen=True)
class TaskTable:
    """A downstream task in files, as on the command line: NAME=GLOB:METRIC,METRIC.

    The files (TSV, CSV, JSON lines, Parquet) have columns "inputs" and "targets". They may have
    "split" ("train" or "validation"; without it a tenth of the inputs is held out by hash) and, in
    JSON lines and Parquet, "answers": a list of all correct texts.
    """

    name: str
    patterns: tuple[str, ...]
    metrics: tuple[str, ...]

    @classmethod
    def parse(cls, given: str) -> "TaskTable":
        """Parses NAME=GLOB:METRICS.

        Raises:
          InputError: it does not have that form, its name is taken, or there is no such metric.
        """
        match = re.fullmatch(r"(\w+)=(.+):([\w,]+)", given)
        if not match:
            raise InputError(
                f"tasks: {given!r} is not NAME=FILES:METRIC, as in "
                "reviews=data/reviews.tsv:accuracy"
            )
        suite = next(
            (s for s in SUITES if match[1].startswith(f"{s}_")), ""
        )  # it would be included in the suite's mean
        if match[1].lower() in RESERVED or suite:
            taken = (
                f"names that begin with {suite}_ are its own tasks'"
                if suite
                else "that name is taken"
            )
            raise InputError(
                f"tasks: {given!r}: a task of your own cannot be called {match[1]!r}: {taken}"
            )
        metrics = tuple(match[3].split(","))
        if len(set(metrics)) < len(metrics):
            raise InputError(f"tasks: {given!r}: a metric is given twice")
        for metric in metrics:
            if metric not in ALLOWED:
                raise InputError(
                    f"tasks: {given!r}: metric {metric!r} is not one of {', '.join(ALLOWED)}"
                )
        return cls(match[1], (match[2],), metrics)

    def read(
        self, lost: text_files.Lost | None = None
    ) -> tuple[dict[str, list[Row]], tuple[str, ...]]:
        """Reads the files.

        Args:
          lost: counts the characters "replaced" by U+FFFD.

        Returns:
          Examples by split, and the labels: every distinct target, or none if targets are free
            text.

        Raises:
          InputError: a column is missing or empty, a split has no rows, or the targets do not fit
            the metrics. Names file and row.
        """
        lost = text_files.Lost() if lost is None else lost
        splits: dict[str, list[Row]] = {"train": [], "validation": []}
        for path in text_files.expand(self.patterns, "tasks"):
            for number, found in formats.rows(path, ("inputs", "targets")):
                row = {name: _clean(value, lost) for name, value in found.items()}
                split = row.get("split") or ("validation" if _drawn(row) else "train")
                if split not in splits:
                    raise InputError(
                        f"{path}: row {number}: split = {split!r} is not train or validation"
                    )
                splits[split].append(self._checked(row, f"{path}: row {number}"))
        for split, rows in splits.items():
            if not rows:
                files = ", ".join(self.patterns)
                raise InputError(
                    f"tasks: {self.name}: no row of {files} is for {split}; a column 'split' can "
                    "say so"
                )
        targets = sorted({row["targets"] for rows in splits.values() for row in rows})
        labels = tuple(targets) if len(targets) <= _MOST_LABELS else ()
        self._check_metrics(labels)
        return splits, labels

    def _checked(self, row: Row, where: str) -> Row:
        for column in ("inputs", "targets"):
            if not isinstance(row.get(column), str):
                raise InputError(
                    f"{where} has no text {column!r}; it has {', '.join(map(str, row))}"
                )
            if not row[column].strip():
                raise InputError(f"{where}: {column} is empty")
        kept = {column: row[column].strip() for column in ("inputs", "targets")}
        if {"pearson", "spearman"} & set(self.metrics) and not _is_number(row["targets"]):
            raise InputError(
                f"{where}: targets = {row['targets']!r} is no number, which {self.metrics[0]} needs"
            )
        if "squad" in self.metrics:
            answers = row.get("answers") or [row["targets"]]
            if not isinstance(answers, list) or not all(
                isinstance(answer, str) for answer in answers
            ):
                raise InputError(f"{where}: answers = {answers!r} is not a list of texts")
            kept["answers"] = answers
        if "multirc" in self.metrics:
            if "group" not in row:
                raise InputError(
                    f"{where} has no 'group', which multirc needs: the question that an answer "
                    "belongs to"
                )
            kept["group"] = str(row["group"])
        return kept

    def _check_metrics(self, labels: tuple[str, ...]) -> None:
        """Refuses metrics over classes if the targets are not such classes."""
        for metric in self.metrics:
            two, few = metric in ("f1", "multirc"), metric in ("macro_f1", "matthews")
            if (two and len(labels) != 2) or (few and not labels):
                wanted = (
                    "two different targets" if two else f"at most {_MOST_LABELS} different targets"
                )
                found = ", ".join(map(repr, labels[:4])) + (", ..." if len(labels) > 4 else "")
                raise InputError(
                    f"tasks: {self.name}: {metric} needs {wanted}, there are {found or 'more'}"
                )


def _clean(value: Any, lost: text_files.Lost) -> Any:
    """A cell, or a list of answers, with U+FFFD in place of invalid characters."""
    if isinstance(value, list):
        return [_clean(item, lost) for item in value]
    if isinstance(value, str):
        value, count = formats.clean(value)
        lost["replaced"] += count
    return value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _drawn(row: Row) -> bool:
    return text_files.held_out(str(row.get("inputs")), _HELD_OUT)
