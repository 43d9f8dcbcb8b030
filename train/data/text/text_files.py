"""A user's own text: files, fingerprint, and documents. Does not need TensorFlow."""

import collections
import dataclasses
import functools
import glob
import hashlib
import heapq
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from train.data.text import formats
from train.records import InputError, read_json, write_json

VALIDATION_SHARE = 0.05
_LARGE = 1 << 26  # bytes; digests of larger files are stored with the corpus
_BLOCK = 1 << 20
_LONGEST = 2  # without empty lines, a piece ends at the end of a line at this many times its size
_WHOLE, _PIECES = (
    10_000,
    400,
)  # largest number of characters in a piece, and about how many pieces a small text has
_NAMES = {"text": "plain text", "jsonl": "JSON lines", "cells": "TSV or CSV", "parquet": "Parquet"}

REPLACED = "replaced by U+FFFD, as they are no characters (half an emoji, NUL): {:,}"

Lost = collections.Counter[str]


def expand(patterns: Iterable[str], key: str = "text") -> list[str]:
    """Files that match glob patterns (`**` crosses folders), sorted, each once even if linked.

    A pattern that is the name of an existing file is that file, whatever characters it contains.

    Args:
      patterns: globs.
      key: the setting that the patterns come from, for the error.

    Raises:
      InputError: a pattern matches no file.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        files = (
            [pattern]
            if os.path.isfile(pattern)
            else [p for p in _matches(pattern) if os.path.isfile(p)]
        )
        if not files:
            hint = (
                f" is a folder; {os.path.join(pattern, '**')!r} takes its files"
                if os.path.isdir(pattern)
                else ""
            )
            raise InputError(f"{key}: {pattern!r}{hint or ' matches no file'}")
        for path in files:
            real = os.path.realpath(path)
            found[real] = min(path, found.get(real, path), key=lambda name: (len(name), name))
    return sorted(found.values())


def _matches(pattern: str) -> list[str]:
    """Paths that match; unlike in `glob`, `**` enters each folder once, even if linked."""
    parts = given = pattern.split(os.sep)
    # A part with a bracket is literal if a file or folder with exactly that name exists.
    parts = [
        glob.escape(part) if "[" in part and os.path.exists(os.sep.join(given[: i + 1])) else part
        for i, part in enumerate(given)
    ]
    if "**" not in parts:
        return glob.glob(os.sep.join(parts))
    where = parts.index("**")
    rest = parts[where + 1 :] or ["*"]
    heads = glob.glob(os.sep.join([*parts[:where], ""])) if where else [""]
    return [
        path
        for folder in _folders(heads)
        for path in _matches(os.path.join(glob.escape(folder), *rest))
    ]


def _folders(heads: Sequence[str]) -> Iterator[str]:
    """The folders and all below them, each real one once; like `glob`, leaves out hidden ones."""
    seen: set[str] = set()
    waiting = sorted(heads, reverse=True)
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder or ".")
        if real not in seen and os.path.isdir(real):
            seen.add(real)
            yield folder
            inside = sorted(
                (e.name for e in os.scandir(real) if e.is_dir() and e.name[0] != "."), reverse=True
            )
            waiting += [os.path.join(folder, name) for name in inside]


def digest(path: str, kept: Path | None = None) -> str:
    """A checksum of a file's size and whole content.

    Args:
      path: the file.
      kept: a JSON file that stores the checksums of large files; they are valid while size and
        times do not change.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"text: {path} cannot be read ({error.strerror})") from None
    # The inode's change time is included, because unlike the content's it cannot be set back.
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if kept is None or status.st_size <= _LARGE:
        return _digest(path, *stamp)
    name = os.path.realpath(path)
    try:
        known = read_json(kept, missing={})
    except InputError:  # an unreadable file counts as empty
        known = {}
    if (old := known.get(name)) and old[:-1] == list(stamp):
        return old[-1]
    found = _digest(path, *stamp)
    if kept.parent.is_dir():
        write_json(kept, {**known, name: [*stamp, found]})
    return found


@functools.cache
def _digest(path: str, size: int, *times: int) -> str:
    found = hashlib.sha256(str(size).encode())
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
    except OSError as error:
        raise InputError(f"text: {path} cannot be read ({error.strerror})") from None
    return found.hexdigest()


def check_key(files: Sequence[str], key: str) -> None:
    """Refuses a key that would be ignored.

    Raises:
      InputError: the key is given although a file is plain text.
    """
    for file in files if key else ():
        if formats.kind(file, (key,)) == "text":
            raise InputError(
                f"text_key = {key!r}: {file} is plain text, which has no columns; leave one of "
                "them out"
            )


def piece_size(files: Sequence[str]) -> int:
    """The number of characters after which plain text is cut.

    A small text is cut into about 400 pieces, so that some can be held out.
    """
    return min(_WHOLE, max(500, sum(os.path.getsize(file) for file in files) // _PIECES))


def table_files(given: str) -> list[str]:
    """The files of a task given as NAME=FILES:METRIC.

    Raises:
      InputError: the pattern matches no file.
    """
    return expand([given.partition("=")[2].rpartition(":")[0]], "tasks")


def documents(path: str, key: str, size: int, lost: Lost | None = None) -> Iterator[str]:
    """The documents of a file: rows of a table, or pieces of plain text.

    Plain text is cut at the first empty line after `size` characters. If there is none within as
    many again, it is cut at the end of a line, and if no line ends there, between words.

    Args:
      path: the file.
      key: the column or field that holds the text.
      size: size of pieces of plain text, in characters.
      lost: counts characters and documents that were changed or left out, by what happened to them.

    Raises:
      InputError: the file cannot be read. Names it and the row.
    """
    lost = Lost() if lost is None else lost
    plain = formats.kind(path, (key,)) == "text"
    for text in _pieces(path, size, lost) if plain else _texts(path, key):
        text, replaced = formats.clean(text)
        lost["replaced"] += replaced
        if text.strip():
            yield text
        elif not plain:
            lost["empty"] += 1


def _texts(path: str, key: str) -> Iterator[str]:
    for number, row in formats.rows(path, (key,)):
        if key not in row:
            raise InputError(
                f"{path}: row {number} has no text {key!r}; it has {', '.join(map(str, row))} "
                "(--text-key chooses one)"
            )
        if not isinstance(row[key], str):
            raise InputError(
                f"{path}: row {number}: {key!r} is no text: "
                f"{json.dumps(row[key], default=str)[:60]}"
            )
        yield row[key]


def _pieces(path: str, size: int, lost: Lost) -> Iterator[str]:
    piece, length = [], 0
    for line in _short_lines(formats.lines(path), _LONGEST * size):
        if length >= size and (not line.strip() or length + len(line) > _LONGEST * size):
            lost["cut"] += bool(line.strip())
            yield "".join(piece).strip("\n")
            piece, length = [], 0
        piece.append(line)
        length += len(line)
    yield "".join(piece).strip("\n")


def _short_lines(lines: Iterator[str], most: int) -> Iterator[str]:
    """The lines; one much longer than `most` is cut between words into parts of that length."""
    for line in lines:
        while len(line) > 2 * most:
            end = line.rfind(" ", most // 2, most) + 1 or most
            yield line[:end]
            line = line[end:]
        yield line


def held_out(document: str, share: float = VALIDATION_SHARE) -> bool:
    """Whether a text belongs to validation.

    Decided by its hash, so copies of a text are on the same side.
    """
    return _draw(document)[0] < share * 2**64


def _draw(document: str) -> tuple[int, int]:
    """Two numbers below 2**64 that depend only on the text."""
    drawn = hashlib.sha256(document.encode()).digest()
    return int.from_bytes(drawn[:8]), int.from_bytes(drawn[8:16])


@dataclasses.dataclass(frozen=True)
class Survey:
    """The result of a first pass over all files, before any work is done.

    Attributes:
      share: the share of held-out documents: VALIDATION_SHARE, or more if that would hold out none
        of a small text.
      counts: numbers of "documents", and of those "held_out"; of documents "cut" without an empty
        line, and left out as "empty"; of characters "replaced" by U+FFFD.
      kinds: number of files of each kind.
      sample: documents of the train split, drawn evenly from all files, for a vocabulary.
    """

    share: float
    counts: dict[str, int]
    kinds: dict[str, int]
    sample: list[str]

    @classmethod
    def of(cls, files: Sequence[str], key: str, size: int, sample: int, longest: int) -> "Survey":
        """Reads all files.

        Args:
          files: files of text.
          key: the column or field of tables that holds the text; empty for "text".
          size: see `documents`.
          sample: number of characters to draw.
          longest: largest number of characters from one document.

        Raises:
          InputError: a file or a row cannot be read, or there are too few documents for a train and
            a validation split.
        """
        column = key or "text"
        kinds = collections.Counter(formats.kind(file, (column,)) for file in files)
        lost, drawn = Lost(), _Sample(sample, longest)
        places: collections.Counter[str] = collections.Counter()
        lowest, copies, highest = 2**64, 0, -1
        for file in files:
            for document in documents(file, column, size, lost):
                place, order = _draw(document)
                drawn.add(document, place, order)
                copies = 0 if place < lowest else copies
                lowest, highest = min(lowest, place), max(highest, place)
                copies += place == lowest
                places["documents"] += 1
                places["held_out"] += place < VALIDATION_SHARE * 2**64
        if lowest >= highest:  # no document, one, or copies of one
            names = ", ".join(files[:3]) + ", ..." * (len(files) > 3)
            raise InputError(
                f"text: {names}: there is {'only one document' if copies else 'no text'}; at least "
                "two that "
                "differ are needed, one of them for validation (plain text is cut at empty lines, "
                "or at line ends)"
            )
        share = VALIDATION_SHARE
        if places["held_out"] in (
            0,
            places["documents"],
        ):  # in a small text only the lowest number is held out
            share = math.nextafter(lowest / 2**64, 1)
            places["held_out"] = copies
        return cls(share, {**places, **lost}, dict(kinds), drawn.texts(share))

    def said(self, size: int) -> list[str]:
        """What the user must know about the text, as lines."""
        n = self.counts
        kinds = ", ".join(
            f"{count} of {_NAMES[kind]}" for kind, count in sorted(self.kinds.items())
        )
        told = [
            f"text: files: {kinds}; {n['documents']:,} documents, {n['held_out']:,} of them for "
            "validation"
        ]
        if n.get("cut"):
            where = f"as no empty line came within {_LONGEST * size:,} characters"
            told.append(
                f"text: {n['cut']:,} documents are cut at the end of a line, or between words, "
                f"{where}"
            )
        if n.get("empty"):
            told.append(f"text: {n['empty']:,} rows are left out, as their text is empty")
        if n.get("replaced"):
            told.append(f"text: {REPLACED.format(n['replaced'])}")
        return told


class _Sample:
    """The documents with the lowest numbers, up to a given total of characters."""

    def __init__(self, characters: int, longest: int):
        self._room, self._longest = characters, longest
        self._heap: list[tuple[int, int, int, str]] = []  # the highest number first
        self._count = 0

    def add(self, document: str, place: int, order: int) -> None:
        """Adds a document, or of a long one a part whose start is drawn by its number."""
        if self._room <= 0 and not (self._heap and order < -self._heap[0][0]):
            return
        start = order % (len(document) - self._longest + 1) if len(document) > self._longest else 0
        text = document[start : start + self._longest]
        self._count += 1
        heapq.heappush(self._heap, (-order, self._count, place, text))
        self._room -= len(text)
        while self._heap and self._room + len(self._heap[0][3]) <= 0:
            self._room += len(heapq.heappop(self._heap)[3])

    def texts(self, share: float) -> list[str]:
        """The drawn texts that are not held out, in the order of their numbers."""
        return [
            text for _, _, place, text in sorted(self._heap, reverse=True) if place >= share * 2**64
        ]
