"""Shows any tidy table as a grid: headings in words, short numbers, constant columns as notes."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from eval.report import words
from eval.report.grid import (
    DASH,
    Column,
    Grid,
    GridCell,
    GridRow,
    bounds,
    interval,
    number,
    probability,
    scaled,
    supported,
)

# Headings for columns whose own names would not read well with spaces for underscores.
HEADINGS = {
    "ci_low..ci_high": "Interval",
    "seed_low..seed_high": "Interval (seeds only)",
    "n_sizes": "Sizes",
    "n_runs": "Runs",
    "n_cells": "Cells",
    "cells_quality": "Cells with a gap",
    "cells_cost": "Cells with a ratio of costs",
    "expected_cells": "Expected cells on it",
    "n_seeds": "Seeds",
    "n_architectures": "Architectures",
    "n": "n",
    "r2": "R\N{SUPERSCRIPT TWO}",
    "link": "Form",
    "alpha": "Slope of",
    "slope_reference": "Slope of the reference",
    "difference": "Difference",
    "df": "Degrees of freedom",
    "on_frontier": "On the frontier",
    "quality_gap": "Behind the frontier",
    "reference_cost": "Cost of the corner",
    "reference_quality": "Quality of the corner",
    "reliability": "Reliability of x",
    "reliability_corrected": "Corrected for reliability",
    "better_below": "Better below",
    "better_above": "Better above",
    "would_settle": "What would settle it",
    "run_id": "Run",
    "bits_per_param": "Bits per parameter",
    "gain": "Gain of twice the steps",
    "last_over_best": "Last over best",
    "late_change": "Change over the second half",
    "se_hc3": "SE (HC3)",
    "p": "p",
    "p_holm": "p (corrected)",
    "p_permutation": "p (permutation)",
    "detectable": "Smallest detectable",
    "n_examples": "Examples",
    "se": "Standard error",
    "lower..upper": "Interval",
    "p_separate": "p (own noise each)",
    "f": "F",
    "df_num": "df",
    "df_den": "df of error",
    "y_axis": "Quality",
    "cost_axis": "Cost",
    "cost": "At cost",
    "position": "Where",
    "measure": "Difference in",
    "theil_sen": "Theil-Sen",
    "theil_sen_low..theil_sen_high": "Theil-Sen interval",
    "deming_low..deming_high": "Deming interval",
    "ratio_low..ratio_high": "Interval",
    "cost_multiplier": "Times the least cost (ratio)",
    "cost_multiplier_low..cost_multiplier_high": "Interval of the ratio",
    "quality_gap_low..quality_gap_high": "Interval of the gap",
    "multiplier": "Times the budget",
    "interval": "Kind",
    "architecture_a": "A",
    "architecture_b": "B",
    "bootstrap_low..bootstrap_high": "Bootstrap",
    "probability_inside": "Probability inside",
    "probability_any": "Probability of being on it",
    "probability_on_frontier": "Probability of being on it",
    "probability_discordant": "Probability of opposite order",
    "crossing": "Cross at",
    "sizes_on_frontier": "Sizes on it",
    "slope_first": "First slope",
    "slope_second": "Second slope",
    "upstream_difference": "Upstream, A \N{MINUS SIGN} B (nats)",
    "downstream_difference": "Downstream, A \N{MINUS SIGN} B (percent)",
}

# Columns whose values are names of columns, axes and slopes.
_IN_WORDS = {
    "alpha": words.slope,
    "x_axis": words.axis,
    "y_axis": words.axis,
    "cost_axis": words.axis,
    "quantity": words.column,
    "statistic": lambda name: {"tau": "Kendall's tau", "W": "Kendall's W"}.get(name, name),
}

# What names a row: up to two of these, where they stand first, stay beside every other column.
_KEYS = ("architecture", "architecture_a", "architecture_b", "alpha", "position", "size")
_FOUND = ("multiplier", "crossing")  # what may lie outside the sizes that were measured
# Ratios and positions, whose intervals are often wide or not bounded, with their intervals.
_WIDE = {
    "multiplier": "ci_low..ci_high",
    "crossing": "ci_low..ci_high",
    "ratio": "ratio_low..ratio_high",
    "cost_multiplier": "cost_multiplier_low..cost_multiplier_high",
}
# What is known only together with the place of a crossing.
_OF_CROSSING = ("position", "better_below", "better_above")
TIMES = (1e-4, 1e4)  # factors of cost outside these are not told apart
_PLACES = (1.0, 1e20)  # nor are budgets outside these
_MARK = "\N{DAGGER}"
_KINDS = {
    "unbounded": "anywhere: these data do not bound it.",
    "outside": "not inside [a, b]: these data exclude only this stretch; it may be anywhere else.",
}

# Columns that a terminal has no room for; the CSV and JSON forms have them all.
_HIDDEN = (
    "x_axis",
    "y_axis",
    "cost_axis",
    "reference",
    "alpha",
    "link",
    "higher_is_better",
    "method",
    "se",
    "df",
    "p",
    "n_sizes_reference",
    "inside",
    "range_low",
    "range_high",
    "p_slopes",
    "common_slope",
)


def listing(
    name: str,
    title: str,
    frame: pd.DataFrame,
    columns: str,
    notes: Sequence[str] = (),
    limit: int = 0,
    empty: str = "There is no row.",
) -> Grid:
    """Makes a grid of some columns of a tidy table.

    Columns that are empty or constant are replaced by a note.

    Args:
      name: label of the grid.
      title: one sentence.
      frame: any table.
      columns: names separated by spaces; `low..high` shows two columns as an interval; names that
        the frame does not have are left out.
      notes: sentences under the table.
      limit: the largest number of rows to show; 0 shows all. A note gives the number left out.
      empty: a sentence that says why the table has no row, if it has none.
    """
    wanted = [c for c in columns.split() if c.split("..")[0] in frame]
    if frame.empty:
        return Grid(name, title, (), (), (empty,))
    said = list(notes)
    if "note" in wanted and frame["note"].nunique(dropna=False) == 1:
        wanted.remove("note")
        said += [f"All rows: {frame['note'].iloc[0]}."] if frame["note"].iloc[0] else []
    wanted = [c for c in wanted if ".." in c or not (frame[c] == "").all()]
    unknown = [c for c in wanted if frame[c.split("..")].isna().all(axis=None)]
    wanted = [c for c in wanted if c not in unknown]
    if unknown:
        said.append(
            "Not known in any row, hence not shown: " + ", ".join(map(heading, unknown)) + "."
        )
    total, shown = len(frame), frame.head(limit) if limit else frame
    said += _explained(frame, wanted)
    if "interval" in wanted:
        wanted.remove("interval")  # the intervals say it themselves
    if total > len(shown):
        said.append(f"{len(shown)} of {total} rows; all of them are in the CSV file.")
    by = next((c for c in ("architecture", "architecture_a") if c in frame), "")
    found = next((c for c in _FOUND if c in wanted), "")
    rows = []
    for record in shown.to_dict("records"):
        cells = {c: _cell(record, c) for c in wanted}
        if found and _extrapolated(record) and _has_number(cells[found].text):
            cells[found] = dataclasses.replace(cells[found], text=f"{cells[found].text}{_MARK}")
        if found == "crossing" and not _has_number(cells[found].text):
            cells |= {c: GridCell(DASH) for c in _OF_CROSSING if c in cells}
        rows.append(GridRow(tuple(cells.values()), str(record.get(by, ""))))
    numeric = [
        ".." in c or (pd.api.types.is_numeric_dtype(frame[c]) and frame[c].dtype != bool)
        for c in wanted
    ]
    heads = [
        Column(heading(c), numeric=bool(is_number))
        for c, is_number in zip(wanted, numeric, strict=True)
    ]
    keys = itertools.takewhile(lambda c: c in _KEYS, wanted)
    named = min(max(len(list(keys)), 1), 2)
    return Grid(name, title, tuple(heads), tuple(rows), tuple(said), named)


def _has_number(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _extrapolated(record: Mapping) -> bool:
    """Whether a row says something about a budget that the measured sizes do not cover."""
    inside = record.get("inside")
    covered = bool(inside) if isinstance(inside, bool | np.bool_) else True
    return not covered or str(record.get("position", "")).startswith("extrapolated")


def _explained(frame: pd.DataFrame, wanted: list[str]) -> list[str]:
    """Notes on the marks and the words that stand in this table's cells."""
    notes = []
    values = next((c for c in _FOUND if c in wanted), "")
    if values:
        records = frame[frame[values].notna()].to_dict("records")
        known = [record for record in records if _has_number(_cell(record, values).text)]
        marked = sum(map(_extrapolated, known))
        if marked:
            notes.append(
                f"{_MARK}: extrapolated ({marked} of {len(known)} rows): it lies outside the sizes "
                "that were measured."
            )
    if "interval" in frame and any(".." in c for c in wanted):
        kinds = set(frame["interval"])
        notes += [text for kind, text in _KINDS.items() if kind in kinds]
    if "p_holm" in wanted and any(".." in c for c in wanted):
        notes.append(
            "p (corrected) is corrected for the number of comparisons (Holm); the interval is of "
            "one comparison, not corrected."
        )
    return notes


def visible(frame: pd.DataFrame) -> str:
    """The columns of a table that a terminal shows, in the form that `listing` takes.

    Pairs of bounds become one interval.
    """
    names = [str(c) for c in frame.columns if c not in _HIDDEN]
    joined = [f"{c}..{c.removesuffix('_low')}_high" if c.endswith("_low") else c for c in names]
    return " ".join(c for c in joined if not c.endswith("_high") or ".." in c)


def heading(column: str) -> str:
    """The heading of a column, in words."""
    return HEADINGS.get(column, column.replace("_", " ").capitalize())


def _cell(record: Mapping, key: str) -> GridCell:
    if ".." in key:
        low, high = (record[part] for part in key.split(".."))
        kind = "" if key.startswith("bootstrap") else str(record.get("interval", ""))
        factor = next((name for name, ends in _WIDE.items() if ends == key and name in record), "")
        factor = "crossing" if key.startswith("bootstrap") else factor
        return GridCell(_span(float(low), float(high), kind, factor), value=low)
    value = record[key]
    if key in _WIDE and (shown := _estimate(record, key)):
        return GridCell(shown, value=float(value))
    if isinstance(value, bool):
        return GridCell("yes" if value else "no", value=float(value))
    if isinstance(value, str):
        text = _IN_WORDS[key](value) if key in _IN_WORDS else value
        return GridCell(text, value=text)
    if value is None or pd.isna(value):
        return GridCell(DASH, value=math.nan)
    if key == "p" or key.startswith(("p_", "probability", "share")):
        return GridCell(probability(value), value=float(value))
    if isinstance(value, int) or float(value).is_integer() and abs(value) < 1e5:
        return GridCell(str(int(value)).replace("-", "\N{MINUS SIGN}"), value=float(value))
    return GridCell(_short(value), value=float(value))


def _estimate(record: Mapping, key: str) -> str:
    """One of the values in _WIDE, as exactly as its interval says; empty if that is not known."""
    low, high = (float(record.get(part, math.nan)) for part in _WIDE[key].split(".."))
    kind = record.get("interval", "")
    if not kind and math.isnan(low):
        return ""  # of an analysis that gives no interval with one seed
    if kind == "outside":
        low, high = -math.inf, math.inf
    return supported(float(record[key]), low, high)


def _span(low: float, high: float, kind: str, column: str = "") -> str:
    """An interval in words a reader knows.

    Args:
      low: the lower end.
      high: the upper end.
      kind: the column `interval` of `fieller`'s sets.
      column: what it is the interval of, if that is one of _WIDE.
    """
    if math.isnan(low) or math.isnan(high):
        return DASH
    if kind == "outside":
        # The set is everything except this stretch; shown as an interval it would say the opposite.
        return f"not inside {bounds(low, high) if column else interval(low, high)}"
    ends = [math.isfinite(low) and (low > 0 or kind != "unbounded"), math.isfinite(high)]
    if not any(ends):
        return "anywhere"
    if not all(ends):
        return f"above {_short(low)}" if ends[0] else f"below {_short(high)}"
    if not column:
        return interval(low, high)
    return bounds(low, high, *(_PLACES if column == "crossing" else TIMES))


def _short(value: float) -> str:
    return scaled(value) if abs(value) >= 1e5 else number(value)
