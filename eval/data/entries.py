"""Interprets one cell of a table as a number or a text, and hints at how to fix a bad number."""

import datetime
import decimal
import math
import re
import unicodedata
from typing import Any

import numpy as np

NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INFINITE = re.compile(r"([+-]?)inf(inity)?", re.IGNORECASE)
_MISSING = frozenset(
    {"", "nan", "na", "n/a", "#n/a", "null", "none", "<na>", "-", "--"}
)  # in a column of numbers
_ORDINAL = re.compile(r"[A-Za-z_ -]*?[ _-]?(\d+)", re.ASCII)
_HINTS = (
    (r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", "write it without thousands separators"),
    (r"[+-]?\d{1,3}([ _'\u00a0\u202f]\d{3})+([.,]\d*)?", "write it without thousands separators"),
    (r"[+-]?\d*,\d+([eE][+-]?\d+)?", "write it with a decimal point"),
    (r"[+-]?\d+(\.\d+)?\s*[kKmMbBgGtT]", "write it out, as in 1.3e9"),
    (r"[+-]?\d+(\.\d+)?\s*%", "write it without the sign"),
    (r"[\u2212\u2013]\s*\d.*", "its minus sign is another character than -"),
    (r"\d{4}-\d\d?-\d\d?.*", "it is a date"),
)


def is_missing(value: Any) -> bool:
    """Whether a cell is empty."""
    if isinstance(value, str):  # a text "<NA>" is kept as it was written
        return value == ""
    if isinstance(value, float | np.floating):
        return math.isnan(value)
    return value is None or str(value) in ("<NA>", "NaT")


def text(value: Any) -> str:
    """A cell as it was written.

    Whole floats lose their decimal point: pandas turns integers into floats when another row of the
    column is not an integer.
    """
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def number(value: Any) -> float:
    """A cell as a number; NaN if it is not one.

    `says_nothing` distinguishes an empty cell from a wrong one.
    """
    # True and False are numbers in Python, but not in a table.
    if isinstance(value, bool | np.bool_):
        return math.nan
    if isinstance(value, int | float | decimal.Decimal | np.number):
        try:
            return float(value)
        except OverflowError:
            return math.inf
    if isinstance(value, str):
        value = value.strip()
        if NUMBER.fullmatch(value):
            return float(value)
        if infinite := _INFINITE.fullmatch(value):
            return -math.inf if infinite[1] == "-" else math.inf
    return math.nan


def says_nothing(value: Any) -> bool:
    """Whether a cell in a column of numbers is empty or holds a word for that, such as NA."""
    return is_missing(value) or (isinstance(value, str) and value.strip().lower() in _MISSING)


def ordinal(value: Any) -> int | None:
    """A whole number from a cell, also from text such as `step9000`, `checkpoint-500` or `s0`.

    None if there is none.
    """
    if isinstance(value, str):
        if value.strip().isascii() and value.strip().isdigit():
            return int(value)
        if (found := _ORDINAL.fullmatch(value.strip())) and not NUMBER.fullmatch(value.strip()):
            return int(found[1]) if not value.strip().startswith("-") else None
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    as_float = number(value)
    return int(as_float) if math.isfinite(as_float) and as_float.is_integer() else None


def hint(value: Any) -> str:
    """How to write what was probably meant as a number; empty if that is unclear."""
    if isinstance(value, bool | np.bool_):
        return "it is yes or no"
    if isinstance(value, list | dict):
        return "it holds several values"
    if isinstance(value, datetime.date | datetime.time):
        return "it is a date"
    return next((said for pattern, said in _HINTS if re.fullmatch(pattern, str(value).strip())), "")


def shown(value: Any) -> str:
    """A cell for an error message: numbers bare, texts in quotes."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        return value.strip()
    return repr(value) if len(repr(value)) < 80 else repr(value)[:76] + "..."


def looks_like(name: str) -> str:
    """A form in which names that look alike to a reader are equal.

    Ignores case, character width, the encoding of accents, and hidden characters.
    """
    plain = unicodedata.normalize("NFKC", name)
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    return " ".join(plain.casefold().split())
