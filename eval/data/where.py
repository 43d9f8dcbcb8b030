"""Selects rows by conditions as they are typed: `protocol=depth` or `num_experts=1,64`."""

from pathlib import Path

import numpy as np
import pandas as pd

from eval.data import entries
from train.records import InputError


def where(table: pd.DataFrame, conditions: tuple[str, ...], path: Path) -> pd.DataFrame:
    """The rows that meet every condition COLUMN=VALUE or COLUMN=VALUE,VALUE, with their index.

    Raises:
      InputError: a condition is malformed, names no column, or leaves no row.
    """
    for condition in conditions:
        kept = table[meets(table, condition, path)]
        if kept.empty:
            known = list(
                dict.fromkeys(map(entries.text, table[_split(table, condition, path)[0]].dropna()))
            )
            shown = ", ".join(known[:8]) + (" ..." if len(known) > 8 else "")
            raise InputError(
                f"{path}: no row has {condition}; the column has {shown or 'empty cells'}"
            )
        table = kept
    return table


def meets(table: pd.DataFrame, condition: str, path: Path) -> pd.Series:
    """Which rows meet one condition.

    Compares numbers if every cell of the column is one, text otherwise.
    """
    column, value = _split(table, condition, path)
    texts = table[column].map(entries.text, na_action="ignore")
    values = [value] if (texts == value).any() else [part.strip() for part in value.split(",")]
    numbers = pd.Series(
        [entries.number(value) for value in table[column]], index=table.index, dtype=float
    )
    if not (np.isfinite(numbers) | table[column].isna()).all() or table[column].isna().all():
        return texts.isin(values)
    wanted = [entries.number(part) for part in values]
    if not np.isfinite(wanted).all():
        raise InputError(f"{path}: where {condition!r}: column {column!r} holds numbers")
    return numbers.isin(wanted)


def _split(table: pd.DataFrame, condition: str, path: Path) -> tuple[str, str]:
    """The column and the value of a condition; the column's name may itself contain `=`."""
    if "=" not in condition:
        raise InputError(f"where {condition!r}: expected COLUMN=VALUE or COLUMN=VALUE,VALUE")
    parts = condition.split("=")
    for i in range(len(parts) - 1, 0, -1):
        if (column := "=".join(parts[:i]).strip()) in table:
            return column, "=".join(parts[i:]).strip()
    raise InputError(
        f"{path}: where {condition!r}: no column {parts[0].strip()!r}; it has {column_names(table)}"
    )


def column_names(table: pd.DataFrame) -> str:
    """The columns of a table, for an error message."""
    return ", ".join(map(str, table.columns[:40])) + (" ..." if len(table.columns) > 40 else "")
