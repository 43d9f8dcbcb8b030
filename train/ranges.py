"""Value ranges of settings, written in their type annotations, and one function that checks them.

    steps: Annotated[int, Range(1)]
    dropout_rate: Annotated[float, Range(0, 1, high_open=True)]

It imports only the standard library, because configurations, commands and the analysis all check
their settings here.
"""

import dataclasses
import functools
import math
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from train.records import InputError

_MOST = 1e300  # stands for "finite", since an infinite rate or price is invalid


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; an open end is not included. NaN is in no range."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether the number is allowed."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        """The range in words that follow "must be" in a message."""
        ends = []
        if self.low > -math.inf:
            ends.append(f"above {self.low:g}" if self.low_open else f"at least {self.low:g}")
        if self.high == _MOST:
            ends.append("finite")
        elif self.high < math.inf:
            # Seeds and counts are shown in full: %g would print 4294967295 as 4.29497e+09.
            high = (
                f"{self.high:.0f}"
                if self.high == int(self.high) and self.high < 1e16
                else f"{self.high:g}"
            )
            ends.append(f"below {high}" if self.high_open else f"at most {high}")
        return " and ".join(ends) or "a number"


Count = Annotated[int, Range(1, 2**53)]
CountOrZero = Annotated[int, Range(0, 2**53)]  # a float counts exactly up to 2**53
Positive = Annotated[float, Range(0, _MOST, low_open=True)]
NotNegative = Annotated[float, Range(0, _MOST)]
Rate = Annotated[float, Range(0, 1, high_open=True)]  # below 1, like a dropout rate
Level = Annotated[float, Range(0, 1, low_open=True, high_open=True)]
Seed = Annotated[int, Range(0, 2**32 - 1)]  # what NumPy and JAX keys accept


def check(settings: Any, where: str = "") -> None:
    """Checks every field of a dataclass against its annotation: type, choices and range.

    Args:
      settings: a dataclass; only numbers, text, choices and tuples of them are checked.
      where: a prefix for the names of fields.

    Raises:
      InputError: names the field, its value and what is allowed.
    """
    for name, kind in _annotations(type(settings)).items():
        _check(getattr(settings, name), kind, f"{where}{name}")


@functools.cache
def _annotations(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _check(value: Any, kind: Any, where: str) -> None:
    ranges = []
    while typing.get_origin(kind) is Annotated:
        kind, *extras = typing.get_args(kind)
        ranges += [extra for extra in extras if isinstance(extra, Range)]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return
        rest = [option for option in arguments if option is not type(None)]
        if len(rest) == 1:
            _check(value, rest[0], where)
    elif origin is Literal:
        # The type is compared too, because True == 1.
        if not any(value == option and type(value) is type(option) for option in arguments):
            raise InputError(f"{where} = {value!r} is not one of {', '.join(map(str, arguments))}")
    elif origin is tuple:
        _check_tuple(value, arguments, where)
    elif kind in _NAMES:
        _check_plain(value, kind, where)
        for allowed in ranges:
            if value not in allowed:
                raise InputError(f"{where} = {value!r} must be {allowed}")
    elif kind is Path and not isinstance(value, Path):
        raise InputError(f"{where} = {value!r} must be a path")


def _check_tuple(value: Any, kinds: tuple[Any, ...], where: str) -> None:
    if not isinstance(value, tuple):
        raise InputError(f"{where} = {value!r} must be a list")
    many = kinds[1:] == (...,)
    if not many and len(value) != len(kinds):
        raise InputError(f"{where} = {list(value)!r} must have {len(kinds)} values")
    for place, item in enumerate(value):
        _check(item, kinds[0] if many else kinds[place], f"{where}[{place}]")


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _check_plain(value: Any, kind: type, where: str) -> None:
    """Checks the type of a number, text or flag; a bool is an int to Python, but not here."""
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{where} = {value!r} must be {_NAMES[kind]}")
    if kind is float and math.isnan(value):
        raise InputError(f"{where} = nan must be a number")
