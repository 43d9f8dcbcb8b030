"""Reads the cells of a file, each row with its line number. Does not guess what cells mean.

Text stays as it is written: `None`, `NA` and `1e9` remain text until a number is asked for. An
empty cell is None.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from eval.data import neutral
from train.records import InputError

KINDS = ".csv, .tsv, .jsonl, .ndjson or .parquet, compressed or not (.gz, .bz2, .xz, .zst)"
ROW_NAMES = "row names"  # key of `attrs`, which maps row labels to the file's own row names
_PACKED = (".gz", ".bz2", ".xz", ".zst")
_SEPARATORS = ",;\t|"
_UNNAMED = re.compile(
    r"Unnamed: \d+(_level_\d+)?|__index_level_\d+__"
)  # pandas' names for an index without a name
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def read(path: Path) -> pd.DataFrame:
    """The cells of a file as objects; the index holds the line of each row (in Parquet its number).

    If the file has row names, that is a first column without a heading, `attrs[ROW_NAMES]` maps the
    label of a row to its name.

    Raises:
      InputError: the file does not exist, its ending is unknown, or its content is not a table. The
        message names the file and the line.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = next((suffix for suffix in reversed(suffixes) if suffix not in _PACKED), "")
    readers: dict[str, Callable[[bytes, Path], pd.DataFrame]] = {
        ".csv": _separated,
        ".tsv": _separated,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".parquet": _parquet,
    }
    if path.is_dir():
        raise InputError(f"{path}: is a directory; a table is a file that ends in {KINDS}")
    if kind not in readers:
        raise InputError(f"{path}: a table ends in {KINDS}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    content = _unpacked(content, path)
    if not content.strip():
        raise InputError(f"{path}: is empty")
    frame = readers[kind](content, path)
    if frame.empty:
        raise InputError(f"{path}: holds no rows")
    return frame


def _unpacked(content: bytes, path: Path) -> bytes:
    """Decompresses the content if it is compressed.

    Looks at the first bytes, not at the file's ending, because browsers and copying change endings.
    """
    try:
        if content[:2] == b"\x1f\x8b":
            return gzip.decompress(content)
        if content[:3] == b"BZh":
            return bz2.decompress(content)
        if content[:6] == b"\xfd7zXZ\x00":
            return lzma.decompress(content)
        if content[:4] == b"\x28\xb5\x2f\xfd":
            import pyarrow

            with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd") as stream:
                return stream.read()
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise InputError(f"{path}: is compressed and damaged ({error})") from None
    except Exception as error:  # zlib.error and pyarrow's own exceptions
        raise InputError(f"{path}: is compressed and damaged ({_line(error)})") from None
    return content


def _text(content: bytes, path: Path) -> str:
    """Decodes UTF-8, with or without a byte order mark."""
    if content[:4] == b"PAR1":
        raise InputError(f"{path}: is a Parquet file; let its name end in .parquet")
    if content[:2] == b"PK":
        raise InputError(f"{path}: is a spreadsheet or an archive; save the sheet as CSV (UTF-8)")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:200]:
        raise InputError(
            f"{path}: is UTF-16 or no text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 (byte {content[error.start]:#x}); save it as UTF-8"
        raise InputError(f"{path}: row {line} {what}") from None
    if "\0" in text:
        raise InputError(
            f"{path}: row {text.count(chr(10), 0, text.index(chr(0))) + 1} holds a NUL character"
        )
    return text


def _separated(content: bytes, path: Path) -> pd.DataFrame:
    text = _text(content, path)
    first, given = 1, re.match(r"sep=(.)\r?\n", text)  # Excel's way to declare the separator
    if given:
        text, first = text[given.end() :], 2
    separator = (
        given[1] if given else _separator(text, "\t" if ".tsv" in path.name.lower() else ",")
    )
    rows = list(_rows(text, separator, path, first))
    if not rows:
        raise InputError(f"{path}: is empty")
    (line, header), body = rows[0], rows[1:]
    columns = [name.strip() for name in header]
    if all(map(_NUMBER.fullmatch, filter(None, columns))):
        raise InputError(
            f"{path}: row {line} holds numbers where the names of the columns should stand: no "
            "header?"
        )
    body = [
        (line, _padded(cells, columns))
        for line, cells in body
        if any(cell.strip() for cell in cells)
    ]
    if _has_row_names(columns, [cells for _, cells in body]):
        columns = ["", *columns]
    for line, cells in body:
        if len(cells) != len(columns):
            more = (
                "a separator too many, or one inside a text without quotes?"
                if len(cells) > len(columns)
                else ""
            )
            counts = f"has {len(cells)} cells, the header {len(columns)}"
            raise InputError(f"{path}: row {line} {counts}{': ' * bool(more)}{more}")
    cells = [[neutral.uncell(cell.strip()) for cell in row] for _, row in body]
    return _frame(columns, cells, [line for line, _ in body], path)


def _separator(text: str, usual: str) -> str:
    """Guesses the separator from the header.

    Takes the one that occurs most often outside quotes, if possible as often in the next line.
    """
    lines = (line for line in io.StringIO(text) if line.strip())
    header, following = (re.sub(r'"[^"]*"', "", next(lines, "")) for _ in range(2))

    def likely(separator: str) -> tuple[bool, int, bool]:
        count = header.count(separator)
        return 0 < count == following.count(separator), count, separator == usual

    return max(_SEPARATORS, key=likely)


def _rows(text: str, separator: str, path: Path, first: int) -> Iterable[tuple[int, list[str]]]:
    """Yields the rows that are not blank, each with the line on which it starts.

    Parsing is strict, because otherwise an open quote would swallow the rest of the file.
    """
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    while True:
        line = reader.line_num + first
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}: row {line} cannot be read ({error}): is a quote left open?"
            ) from None
        if any(cell.strip() for cell in cells):
            yield line, cells


def _padded(cells: list[str], columns: list[str]) -> list[str]:
    """Drops empty cells beyond the header; adds missing cells of unnamed last columns."""
    while len(cells) > len(columns) and not cells[-1].strip():
        cells = cells[:-1]
    named = max((i for i, name in enumerate(columns, start=1) if name), default=0)
    return (
        cells + [""] * (len(columns) - len(cells)) if named <= len(cells) < len(columns) else cells
    )


def _has_row_names(columns: list[str], body: list[list[str]]) -> bool:
    """Whether each row starts with a name that has no heading, as R writes tables.

    If the names are numbers, they must count the rows. Otherwise this could be a table in which
    some other heading was forgotten, and all columns would be shifted by one.
    """
    if not body or not all(columns) or any(len(cells) != len(columns) + 1 for cells in body):
        return False
    names = [cells[0].strip() for cells in body]
    if len(set(names)) < len(names) or not all(names):
        return False
    if any(map(_NUMBER.fullmatch, names)):
        return any(names == [str(i) for i in range(start, start + len(names))] for start in (0, 1))
    return True


def _json_lines(content: bytes, path: Path) -> pd.DataFrame:
    rows, lines = [], []
    text = _text(content, path)
    if text.lstrip()[:1] == "[":
        raise InputError(f"{path}: is one JSON list; write one object on each line")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=_Object)
        except (ValueError, RecursionError):
            raise InputError(f"{path}: row {number} is not JSON: {line[:60]!r}") from None
        if not isinstance(pairs, _Object):
            raise InputError(
                f"{path}: row {number} is a {type(pairs).__name__}, expected an object"
            )
        row: dict[str, Any] = {}
        for key, value in pairs:
            if (name := key.strip()) in row:
                raise InputError(f"{path}: row {number} has {name!r} twice")
            row[name] = value
        rows.append(row)
        lines.append(number)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if "" in columns:
        raise InputError(f"{path}: a key is empty")
    return _frame(columns, [[row.get(name) for name in columns] for row in rows], lines, path)


class _Object(list):
    """The pairs of a JSON object as a list; a dictionary would drop the first of two equal keys."""


def _parquet(content: bytes, path: Path) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(pyarrow.BufferReader(content))
        cells = [column.to_pylist() for column in table.columns]
    except Exception as error:  # pyarrow raises many kinds of exception on a damaged file
        raise InputError(f"{path}: cannot be read as parquet ({_line(error)})") from None
    columns = [str(name).strip() for name in table.column_names]
    rows = [list(row) for row in zip(*cells, strict=True)]
    return _frame(columns, rows, list(range(1, len(rows) + 1)), path)


def _frame(columns: list[str], rows: list[list[Any]], lines: list[int], path: Path) -> pd.DataFrame:
    """The cells under their headings; a column without one has row names, or is dropped."""
    cells = {
        i: [_cell(row[i], path, line) for row, line in zip(rows, lines, strict=True)]
        for i in range(len(columns))
    }
    names: dict[int, str] = {}
    for i, name in enumerate(columns):
        if name and not _UNNAMED.fullmatch(name):
            continue
        if i == 0 or name:
            given = zip(lines, cells[i], strict=True)
            names = names or {line: str(value) for line, value in given if value is not None}
        elif any(value is not None for value in cells[i]):
            raise InputError(f"{path}: column {i + 1} has no name in the header")
        del cells[i]
    kept = [columns[i] for i in cells]
    for name in kept:
        if kept.count(name) > 1:
            places = " and ".join(str(i + 1) for i in cells if columns[i] == name)
            raise InputError(f"{path}: columns {places} are both called {name!r}")
        if not _is_text(name):
            raise InputError(
                f"{path}: the name of a column holds half a character: {neutral.printable(name)}"
            )
    frame = pd.DataFrame(
        {columns[i]: pd.Series(values, dtype=object, index=lines) for i, values in cells.items()}
    )
    frame.attrs[ROW_NAMES] = names
    return frame


def _cell(value: Any, path: Path, line: int) -> Any:
    if not isinstance(value, str):
        return None if isinstance(value, float) and value != value else value
    if not _is_text(value):
        raise InputError(
            f"{path}: row {line} holds half a character: {neutral.printable(value[:40])}"
        )
    return value.strip() or None


def _is_text(text: str) -> bool:
    """Whether UTF-8 can encode the text; JSON may contain half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
