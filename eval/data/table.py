"""A table in a user's file: columns by type, and errors that name the file, row and column.

Every command reads tables through this class, so a cell means the same to all of them.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from eval.data import entries, files
from eval.data.where import column_names, where
from train.records import InputError


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of a file, or of a frame in memory.

    Attributes:
      path: the name of the table in messages.
      frame: the cells; its index names the rows in messages.
    """

    path: Path
    frame: pd.DataFrame
    _known: dict[tuple, pd.Series] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    @staticmethod
    def read(path: Path, conditions: Sequence[str] = ()) -> "Table":
        """The table in a file, or those of its rows that meet all conditions.

        Raises:
          InputError: from `files.read` and `where.where`.
        """
        return Table(path, files.read(path)).where(conditions)

    def where(self, conditions: Sequence[str]) -> "Table":
        """The rows that meet all conditions.

        Raises:
          InputError: a condition is malformed, names no column, or leaves no row.
        """
        return self.take(where(self.frame, tuple(conditions), self.path).index)

    def take(self, rows: pd.Index) -> "Table":
        """The rows with these index labels."""
        return self if len(rows) == len(self.frame) else Table(self.path, self.frame.loc[rows])

    def __contains__(self, column: object) -> bool:
        """Whether the table has this column."""
        return column in self.frame.columns

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.frame)

    def require(self, column: str, option: str) -> None:
        """Raises InputError if the table does not have this column."""
        if column not in self:
            raise InputError(
                f"{self.path}: {option}: no column {column!r}; it has {column_names(self.frame)}"
            )

    def holds(self, column: str) -> bool:
        """Whether the table has this column with at least one value."""
        return column in self and not all(map(entries.says_nothing, self.frame[column]))

    def numbers(self, column: str) -> pd.Series:
        """The column as floats; NaN if a cell is empty or says so (NA, null, nan).

        Raises:
          InputError: names the first cell that is not a number, and how to write it.
        """
        raw = self.frame[column]
        if raw.dtype == float:
            return raw
        if ("numbers", column) in self._known:
            return self._known["numbers", column]
        found = pd.Series([entries.number(value) for value in raw], index=raw.index, dtype=float)
        for row, value in raw[found.isna()].items():
            if not entries.says_nothing(value):
                hint = entries.hint(value)
                self.refuse(row, column, f"is not a number{'; ' * bool(hint)}{hint}")
        return self._known.setdefault(("numbers", column), found)

    def wholes(self, column: str) -> pd.Series:
        """The column as integers; `step9000` becomes 9000.

        Raises:
          InputError: names the first cell that is empty or not an integer.
        """
        raw = self.frame[column]
        found = []
        for row, value in raw.items():
            whole = entries.ordinal(value)
            if whole is None or abs(whole) >= 2**63:
                self.refuse(row, column, "" if entries.is_missing(value) else "is not an integer")
            found.append(whole)
        return pd.Series(found, index=raw.index, dtype="int64")

    def texts(self, column: str, missing: str | None = None) -> pd.Series:
        """The column as text, as it was written.

        Args:
          column: its name.
          missing: the text for an empty cell; None refuses empty cells.

        Raises:
          InputError: a cell is empty and `missing` is None, or a cell holds several values.
        """
        if ("texts", column, missing) in self._known:
            return self._known["texts", column, missing]
        raw, found = self.frame[column], []
        for row, value in zip(raw.index, raw, strict=True):
            if isinstance(value, str) and value:
                found.append(value.strip())
                continue
            if isinstance(value, list | dict):
                self.refuse(row, column, "holds several values")
            if entries.is_missing(value) and missing is None:
                self.refuse(row, column)
            found.append(missing if entries.is_missing(value) else entries.text(value).strip())
        return self._known.setdefault(
            ("texts", column, missing), pd.Series(found, index=raw.index, dtype=object)
        )

    def lookalikes(self, column: str) -> list[str]:
        """A warning about names that look alike to a reader, such as GLU and glu."""
        alike: dict[str, list[str]] = {}
        for name in dict.fromkeys(self.texts(column, "")):
            alike.setdefault(entries.looks_like(name), []).append(name)
        several = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
        if not several:
            return []
        return [
            f"{column}: {'; '.join(several)} differ in capitals or hidden characters alone, and "
            "are kept apart."
        ]

    def refuse_repeated(self) -> None:
        """Refuses two rows that agree in every column, since one run would count twice."""
        frame = self.frame.astype(str)
        again = frame.duplicated()
        if again.any():
            row = frame.index[again][0]
            before = frame.index[(frame == frame.loc[row]).all(axis=1)][0]
            value = f"{frame.columns[0]} = {entries.shown(self.frame.iloc[:, 0].loc[row])}, ..."
            what = f"repeats {self.row(before)} in every column ({value})"
            raise InputError(f"{self.path}: {self.row(row)}: {what}")

    def row(self, row: Any) -> str:
        """The name of a row in messages: its line, its name in the file, and its run."""
        name = self.frame.attrs.get(files.ROW_NAMES, {}).get(row, "")
        run = ""
        if "run_id" in self and not entries.is_missing(value := self.frame["run_id"].loc[row]):
            run = f" (run {value})"
        return f"row {row}{f' ({name})' if name else ''}{run}"

    def refuse(self, row: Any, column: str, why: str = "is empty") -> NoReturn:
        """Raises InputError for one cell."""
        value = self.frame[column].loc[row]
        nothing = value is None or why == ""
        shown = "" if nothing else f" = {entries.shown(value)}"
        raise InputError(f"{self.path}: {self.row(row)}: {column}{shown} {why or 'is empty'}")


def first(mask: pd.Series | np.ndarray, index: pd.Index) -> Any:
    """The first row where the mask is true; there must be one."""
    return index[np.asarray(mask, bool)][0]


def finite(values: pd.Series) -> pd.Series:
    """The finite values."""
    return values[[math.isfinite(value) for value in values]]
