"""Rows of a tidy table by their key, as plain values."""

from typing import Any

import pandas as pd


def by(frame: pd.DataFrame, *keys: str) -> dict[Any, dict[str, Any]]:
    """Rows as dictionaries, by one key column or by a tuple of several."""
    rows: list[Any] = frame.to_dict("records")
    return {row[keys[0]] if len(keys) == 1 else tuple(row[k] for k in keys): row for row in rows}
