"""Text and tables in a user's own files: plain text, JSON lines, Parquet, TSV; plain, gzip or zstd. No TensorFlow.

The kind of a file follows from its name: `.jsonl`, `.parquet`, `.tsv`, anything else is plain text; `.gz` and `.zst`
behind it are unpacked on the way.
"""

import csv
import functools
import glob
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from train.records import InputError

Row = dict[str, Any]

VALIDATION_SHARE = 0.05
_ROW_GROUP = 1024
_LARGE, _END = 1 << 26, 1 << 20  # bytes: files above the first are known by their first and last of the second


def expand(patterns: Iterable[str], key: str = "text") -> list[str]:
    """Files that match glob patterns (`**` crosses folders), sorted, each once.

    Args:
      patterns: globs.
      key: the setting that they come from, for the error.

    Raises:
      InputError: a pattern matches no file.
    """
    found = set()
    for pattern in patterns:
        files = [path for path in glob.glob(pattern, recursive=True) if Path(path).is_file()]
        if not files:
            raise InputError(f"{key}: {pattern!r} matches no file")
        found.update(files)
    return sorted(found)


def digest(path: str) -> str:
    """A checksum of a file's size and content; of a large file, of the size and of how it begins and ends."""
    status = Path(path).stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _digest(path: str, size: int, changed: int) -> str:
    found = hashlib.sha256(str(size).encode())
    try:
        with open(path, "rb") as file:
            found.update(file.read(_END))
            if size > _LARGE:
                file.seek(-_END, io.SEEK_END)
            while block := file.read(_END):
                found.update(block)
    except OSError as error:
        raise InputError(f"text: {path} cannot be read ({error.strerror})") from None
    return found.hexdigest()


def table_files(given: str) -> list[str]:
    """The files of a task given as NAME=FILES:METRIC.

    Raises:
      InputError: the pattern matches no file.
    """
    return expand([given.partition("=")[2].rpartition(":")[0]], "tasks")


def documents(path: str, key: str, size: int) -> Iterator[str]:
    """The documents of a file: rows of a table, or pieces of plain text cut at empty lines.

    Args:
      path: the file.
      key: the column or field that holds the text.
      size: plain text is cut at the first empty line after this many characters.

    Raises:
      InputError: the file cannot be read; names it and the row.
    """
    if kind(path) != "text":
        for number, row in enumerate(rows(path), start=1):
            if not isinstance(row.get(key), str):
                raise InputError(f"{path}: row {number} has no text {key!r}; it has {', '.join(map(str, row))}")
            yield row[key]
        return
    piece, length = [], 0
    for line in _lines(path):
        if length >= size and not line.strip():
            yield "".join(piece).strip("\n")
            piece, length = [], 0
        piece.append(line)
        length += len(line)
    if "".join(piece).strip():
        yield "".join(piece).strip("\n")


def held_out(document: str, share: float = VALIDATION_SHARE) -> bool:
    """Whether a text belongs to validation: a share of all, drawn by hash, so that copies stay together."""
    return int.from_bytes(hashlib.sha256(document.encode()).digest()[:8]) < share * 2**64


def kind(path: str) -> str:
    """One of "jsonl", "parquet", "tsv" and "text"."""
    suffix = Path(path.removesuffix(".gz").removesuffix(".zst")).suffix
    return {".jsonl": "jsonl", ".parquet": "parquet", ".tsv": "tsv"}.get(suffix, "text")


def rows(path: str) -> Iterator[Row]:
    """The rows of a table.

    Raises:
      InputError: the file is no table, or a row cannot be read; names the file and the row.
    """
    if kind(path) == "parquet":
        yield from _parquet(path)
    elif kind(path) == "jsonl":
        for number, line in enumerate(_lines(path), start=1):
            if line.strip():
                yield _json_object(path, number, line)
    elif kind(path) == "tsv":
        yield from _tsv(path)
    else:
        raise InputError(f"{path}: a table is a .tsv, .jsonl or .parquet file")


def _json_object(path: str, number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: row {number} is not a JSON object: {line.strip()[:60]!r}")
    return value


def _tsv(path: str) -> Iterator[Row]:
    reader = csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(reader, [])
    for number, cells in enumerate(reader, start=1):
        if not cells:  # an empty line
            continue
        if len(cells) != len(header):
            raise InputError(f"{path}: row {number} has {len(cells)} cells, the header has {len(header)}")
        yield dict(zip(header, cells, strict=True))


def _parquet(path: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROW_GROUP):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None


def _lines(path: str) -> Iterator[str]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):  # noqa: B007  the error names the row after the last good one
                yield line
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: row {number + 1} cannot be read ({error})") from None


def _open(path: str) -> TextIO:
    """Opens a file for reading; a byte order mark is no text."""
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    if path.endswith(".zst"):
        import pyarrow

        return io.TextIOWrapper(pyarrow.input_stream(path, compression="zstd"), encoding="utf-8-sig")
    return open(path, encoding="utf-8-sig")
