"""Recognises a user's file by its content: plain text, JSON lines, table cells, Parquet.

Does not need TensorFlow. The name only decides what the content leaves open: a `.tsv` or `.csv` is
a table for any header. Text is UTF-8. Other bytes are refused with file and line, because the rest
of the file would be misread too. Invalid characters (half an emoji in a JSON escape, NUL) become
U+FFFD and are counted.
"""

import contextlib
import csv
import functools
import gzip
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

from train.records import InputError, Row

FileKind = Literal["text", "jsonl", "cells", "parquet"]

_ROW_GROUP = 1024
_HEAD = 1 << 16  # number of bytes from which the kind is recognised
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {  # formats that are refused, by their first bytes
    b"BZh": "compressed with bzip2; only gzip and zstd are read",
    b"\xfd7zXZ": "compressed with xz; only gzip and zstd are read",
    b"PK\x03\x04": "a ZIP archive (or a document of an office program); unpack it",
    b"%PDF": "a PDF; extract its text first",
    b"\xff\xfe": "UTF-16; `iconv -f UTF-16 -t UTF-8` converts it",
    b"\xfe\xff": "UTF-16; `iconv -f UTF-16 -t UTF-8` converts it",
}
_NO_CHARACTER = re.compile("[\ud800-\udfff\0]")
_NOT_UTF8 = re.compile(
    "[\udc80-\udcff]"
)  # how Python's "surrogateescape" decodes bytes that are not UTF-8


def kind(path: str, columns: tuple[str, ...] = ()) -> FileKind:
    """The kind of content of a file.

    Args:
      path: the file.
      columns: columns that a table must have; a file of any name is a table if its header has all
        of them.

    Raises:
      InputError: the file cannot be read, or has an unsupported format. Names it.
    """
    return _shape(path, columns)[0]


def rows(path: str, columns: tuple[str, ...] = ()) -> Iterator[tuple[int, Row]]:
    """The numbered rows of a table, counted from 1.

    These are lines of JSON, rows of cells below the header, or rows of Parquet.

    Raises:
      InputError: the file is not a table, or a row cannot be read. Names the file and the row.
    """
    found, delimiter = _shape(path, columns)
    if found == "parquet":
        yield from _parquet(path)
    elif found == "jsonl":
        for number, line in enumerate(lines(path), start=1):
            if line.strip():
                yield number, _json_object(path, number, line)
    elif found == "cells":
        yield from _cells(path, delimiter)
    else:
        wanted = f" with the columns {', '.join(columns)}" if columns else ""
        raise InputError(
            f"{path}: a table is JSON lines, Parquet, TSV or CSV{wanted}; this is plain text"
        )


def lines(path: str, newline: str | None = None) -> Iterator[str]:
    """The lines of a file, decompressed and without a byte order mark.

    Raises:
      InputError: the file cannot be read or is not UTF-8. Names it and the line.
    """
    number = 0
    try:
        with _open(path) as binary:
            file = io.TextIOWrapper(
                binary, encoding="utf-8-sig", errors="surrogateescape", newline=newline
            )
            for number, line in enumerate(file, start=1):
                if not line.isascii() and (bad := _NOT_UTF8.search(line)):
                    what = f"byte 0x{ord(bad[0]) - 0xDC00:02x}, character {bad.start() + 1}"
                    raise InputError(
                        f"{path}: line {number} is not UTF-8 ({what}); `iconv -f ENCODING -t "
                        "UTF-8` converts a file"
                    )
                yield line
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read after line {number} ({error})") from None


def clean(text: str) -> tuple[str, int]:
    """A text with U+FFFD in place of invalid characters, and the number of replacements."""
    return _NO_CHARACTER.subn("\ufffd", text)


def _shape(path: str, columns: tuple[str, ...]) -> tuple[FileKind, str]:
    """The kind of a file and the delimiter of its cells, cached until the file changes."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return _told(path, columns, status.st_size, status.st_mtime_ns)


@functools.cache
def _told(path: str, columns: tuple[str, ...], size: int, changed: int) -> tuple[FileKind, str]:
    suffix = Path(path.removesuffix(".gz").removesuffix(".zst")).suffix.lower()
    try:
        with _open(path) as file:
            head = file.read(_HEAD)
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if head.startswith(b"PAR1") or suffix == ".parquet":
        return "parquet", ""
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is {what}")
    if head.count(0) > len(head) / 16:  # single NULs are replaced
        raise InputError(
            f"{path}: holds as many NUL bytes as UTF-16 or binary data do; text is read as UTF-8"
        )
    text = head.decode("utf-8-sig", errors="replace").lstrip()
    cells = suffix in (".tsv", ".csv")
    if not cells and (
        suffix in (".jsonl", ".ndjson", ".json") or re.match(r'\{\s*"|\[\s*\{\s*"', text)
    ):
        if text.startswith("["):
            raise InputError(
                f"{path}: is one JSON array; `jq -c '.[]'` writes an object a line, which is read"
            )
        return "jsonl", ""
    header, _, rest = text.partition("\n")
    delimiter = _delimiter(header.strip("\r"), columns)
    if cells:
        return "cells", "\t" if suffix == ".tsv" else delimiter or ","
    if delimiter and columns and delimiter in rest.partition("\n")[0]:
        return "cells", delimiter
    return "text", ""


def _delimiter(header: str, columns: tuple[str, ...]) -> str:
    """The delimiter of a header that has all the columns; empty if it does not."""
    for delimiter in "\t,;":
        cells = [cell.strip('"') for cell in header.split(delimiter)]
        if len(cells) > 1 and set(columns) <= set(cells):
            return delimiter
    return ""


def _open(path: str) -> IO[bytes]:
    """Opens a file for reading, decompressed if its first bytes say so."""
    with open(path, "rb") as file:
        head = file.read(len(_ZSTD))
    packed = next(
        (name for name, magic in ((".gz", _GZIP), (".zst", _ZSTD)) if head.startswith(magic)), ""
    )
    named = next((name for name in (".gz", ".zst") if path.endswith(name)), "")
    if named and packed != named:
        raise InputError(
            f"{path}: is not packed as its name says: it does not begin as a {named} file does"
        )
    if packed == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if packed == ".zst":
        import pyarrow

        return pyarrow.input_stream(path, compression="zstd")
    return open(path, "rb")


def _json_object(path: str, number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: row {number} is not a JSON object: {line.strip()[:60]!r}")
    return value


def _cells(path: str, delimiter: str) -> Iterator[tuple[int, Row]]:
    records = (
        _quoted(path, delimiter) if delimiter != "\t" or _has_quoting(path) else _unquoted(path)
    )
    header: list[str] = []
    for number, cells in enumerate(records):
        if number == 0:
            header = [cell.strip() for cell in cells]
            if twice := {name for name in header if header.count(name) > 1}:
                raise InputError(f"{path}: the header has {min(twice)!r} twice")
        elif cells:  # not an empty line
            if len(cells) != len(header):
                raise InputError(
                    f"{path}: row {number} has {len(cells)} cells, the header has {len(header)}"
                )
            yield number, dict(zip(header, cells, strict=True))


def _unquoted(path: str) -> Iterator[list[str]]:
    """Rows of cells in which a quote is an ordinary character."""
    for line in lines(path):
        text = line.rstrip("\n")
        yield text.split("\t") if text else []


def _quoted(path: str, delimiter: str) -> Iterator[list[str]]:
    """Rows of cells as spreadsheets and pandas write them.

    Quotes are around a cell and doubled inside it; a quoted cell may contain line ends.
    """
    csv.field_size_limit(
        sys.maxsize
    )  # the default is 131,072 characters; this affects the whole process
    number = 0
    try:
        for cells in csv.reader(lines(path, newline=""), delimiter=delimiter, strict=True):
            yield [cell.replace("\r\n", "\n") for cell in cells]
            number += 1
    except csv.Error as error:
        raise InputError(
            f"{path}: row {number} cannot be read: a quote that opens or ends badly ({error})"
        ) from None


def _has_quoting(path: str) -> bool:
    """Whether quotes at the start of cells of a TSV enclose them; many tools write them as text."""
    status = Path(path).stat()
    return _find_quoting(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _find_quoting(path: str, size: int, changed: int) -> bool:
    """Reads the whole file, since one cell such as `"Yes," he said` shows that quotes are text."""
    if not any(line.startswith('"') or '\t"' in line for line in lines(path)):
        return False
    (plain, plain_rows), (quoted, quoted_rows) = (
        _count_rows(_unquoted(path)),
        _count_rows(_quoted(path, "\t")),
    )
    if plain and quoted and plain_rows != quoted_rows:
        where = next(
            n for n, cells in enumerate(_quoted(path, "\t")) if any("\n" in cell for cell in cells)
        )
        raise InputError(
            f"{path}: row {where}: a quote begins a cell; does its text go on in the next line, or "
            "is the quote text? "
            "JSON lines leave no doubt"
        )
    return quoted or (not plain and quoted_rows >= plain_rows)


def _count_rows(records: Iterator[list[str]]) -> tuple[bool, int]:
    """Whether all rows can be read and are equally long, and how many are before one fails."""
    count, width = 0, None
    with contextlib.suppress(InputError):
        for cells in records:
            if cells:
                width = width or len(cells)
                if len(cells) != width:
                    return False, count
                count += 1
        return True, count
    return False, count


def _parquet(path: str) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with _open(path) as binary, pyarrow.parquet.ParquetFile(_seekable(binary)) as file:
            for batch in file.iter_batches(_ROW_GROUP):
                for row in _plain_rows(batch):
                    number += 1
                    yield number, row
    except UnicodeDecodeError as error:
        bad = error.object[error.start]
        raise InputError(f"{path}: row {number + 1} is not UTF-8 (byte 0x{bad:02x})") from None
    except (OSError, EOFError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from None


def _plain_rows(batch: Any) -> Iterator[Row]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # one by one, to raise the error at its row
        for i in range(batch.num_rows):
            yield from batch.slice(i, 1).to_pylist()


def _seekable(binary: IO[bytes]) -> IO[bytes]:
    """A file that can be read from its end, as Parquet needs; decompressed in memory."""
    return binary if isinstance(binary, io.BufferedReader) else io.BytesIO(binary.read())
