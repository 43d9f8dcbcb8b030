"""Makes text from files safe to print in a terminal and to open in a spreadsheet.

Names come from other people's tables and run records. In a terminal an escape sequence in a name
can move the cursor, hide a warning or type on the keyboard. In a CSV file a cell that begins with
`=` is run as a formula.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

_FORMULA = "=+-@"
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# Marks that reorder or hide the text next to them. Joiners are allowed, because scripts and emoji
# need them.
_HIDDEN = frozenset(
    "\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)


def printable(text: str, keep: str = "") -> str:
    """The text with control characters, reordering marks and lone surrogates written as escapes.

    Args:
      text: any text from a file.
      keep: control characters to keep, such as a newline.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _is_command(c) else _escape(c) for c in text)


def _is_command(character: str) -> bool:
    return character in _HIDDEN or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def cell(text: str) -> str:
    """A text cell of a CSV file: printable, and with an apostrophe in front of a formula.

    Text that is a number stays as it is, since spreadsheets read it as that number.
    """
    text = printable(text)
    formula = text.lstrip(" '")[:1] in tuple(_FORMULA) and not _NUMBER.fullmatch(text)
    return f"'{text}" if formula else text


def uncell(text: str) -> str:
    """Removes the apostrophe that `cell` added."""
    return text[1:] if text[:1] == "'" and text.lstrip(" '")[:1] in tuple(_FORMULA) else text


def csv(frame: pd.DataFrame) -> str:
    """A tidy table as CSV with safe text cells; numbers have twelve significant digits.

    Further digits of a double are mostly rounding noise of the last operations.
    """
    frame = frame.copy()
    for i in range(frame.shape[1]):
        values = frame.iloc[:, i]
        if not pd.api.types.is_numeric_dtype(values):
            harmless: list[Any] = [
                cell(value) if isinstance(value, str) else value for value in values
            ]
            frame.isetitem(
                i, np.array([*harmless, None], dtype=object)[:-1]
            )  # the extra None keeps numpy from unpacking lists
    frame.columns = [cell(str(name)) for name in frame.columns]
    return frame.to_csv(index=False, float_format="%.12g", lineterminator="\n")


def finite(data: Any, digits: int = 0) -> Any:
    """The same data with None for values that JSON cannot express (NaN, infinities).

    Args:
      data: dictionaries, lists and values of numpy or Python.
      digits: number of significant digits to keep; 0 keeps all.
    """
    if isinstance(data, Mapping):
        return {str(key): finite(value, digits) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value, digits) for value in data]
    data = data.item() if isinstance(data, np.generic) else data
    if isinstance(data, float):
        return (float(f"{data:.{digits}g}") if digits else data) if math.isfinite(data) else None
    return data
