"""Choosing rows: conditions as they are typed, `protocol=depth` or `num_experts=1,64`."""

from pathlib import Path

import pandas as pd

from train.records import InputError


def where(table: pd.DataFrame, conditions: tuple[str, ...], path: Path) -> pd.DataFrame:
    """The rows that meet every condition COLUMN=VALUE or COLUMN=VALUE,VALUE; their index is kept.

    Raises:
      InputError: a condition is malformed, names no column, or leaves no row.
    """
    for condition in conditions:
        table = table[meets(table, condition, path)]
        if table.empty:
            raise InputError(f"{path}: no row has {condition}")
    return table


def meets(table: pd.DataFrame, condition: str, path: Path) -> pd.Series:
    """Which rows meet one condition."""
    column, equals, value = condition.partition("=")
    if not equals:
        raise InputError(f"where {condition!r}: expected COLUMN=VALUE or COLUMN=VALUE,VALUE")
    if column not in table:
        raise InputError(f"{path}: where {condition!r}: no column {column!r}; it has {column_names(table)}")
    cells, values = table[column], value.split(",")
    if not pd.api.types.is_numeric_dtype(cells) or pd.api.types.is_bool_dtype(cells):
        return cells.astype(str).isin(values)
    try:
        return cells.isin([float(v) for v in values])
    except ValueError:
        raise InputError(f"where {condition!r}: column {column!r} holds numbers") from None


def column_names(table: pd.DataFrame) -> str:
    """The columns of a table, for an error message."""
    return ", ".join(map(str, table.columns[:40])) + (" ..." if len(table.columns) > 40 else "")
