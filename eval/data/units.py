"""Checks that numbers are plausible for their column: units, ranges, mixtures of units.

All commands use these checks. They refuse what would silently give a wrong number; `--trust-units`
skips them.
"""

import math

import numpy as np
import pandas as pd

from eval.data.table import Table, finite, first

LEAST = {
    "N": 1e3,
    "D": 1e3,
    "C": 1e6,
}  # fewer parameters, tokens or FLOPs than any language model has
MOST = {"N": 1e15, "D": 1e18, "C": 1e33}  # more than any language model will have soon
MOST_NATS = math.log(1e6)  # the loss of a uniform guess among a million pieces
_JUMP = 1e6  # a larger factor between sorted neighbours means mixed units
_STRANGE_JUMP = 1e3  # a larger factor may mean mixed units
_SIZES = 10.0  # costs of one size cannot differ by a larger factor
_MEASURED = 1.1  # costs of replicates that were measured may differ by this factor
_ALIKE = 1.01  # costs of replicates that differ by less were rounded
_FRACTIONS_APART = 10.0  # least factor from the highest fraction to the lowest percentage
_TRUST = "--trust-units if it is right"


def costs(table: Table, column: str, kind: str, scale_free: bool = False) -> list[str]:
    """Refuses parameters (N), tokens (D) or FLOPs (C) in another unit or in several units.

    Args:
      table: the rows that are used.
      column: a column of positive numbers.
      kind: one of LEAST.
      scale_free: the analysis does not depend on the unit, so another unit only gives a warning.

    Returns:
      Warnings.
    """
    values = finite(table.numbers(column))
    if values.empty:
        return []
    low, high = values < LEAST[kind], values > MOST[kind]
    warnings = []
    for wrong, why in (
        (low, f"is below {LEAST[kind]:g}: is the column in thousands, millions or billions?"),
        (high, f"is above {MOST[kind]:g}: is the column in another unit?"),
    ):
        if wrong.all() and scale_free:
            warnings.append(f"{column} {why} It changes no slope, but budgets and labels.")
        elif wrong.any():
            table.refuse(first(wrong, values.index), column, f"{why} {_TRUST}")
    ordered = values.sort_values(kind="stable")
    if len(ordered) > 1 and ordered.iloc[0] > 0:
        leap = np.diff(np.log(ordered.to_numpy()))
        i = int(leap.argmax())
        row = ordered.index[i] if i + 1 <= len(ordered) - i - 1 else ordered.index[i + 1]
        if leap[i] > math.log(_JUMP) - 1e-9:
            why = f"is over {_JUMP:g} times off its neighbours: does the column mix units?"
            table.refuse(row, column, f"{why} {_TRUST}")
        if leap[i] > math.log(_STRANGE_JUMP):
            times = f"{ordered.iloc[i]:.3g} to {ordered.iloc[i + 1]:.3g}"
            warnings.append(f"{column} leaps from {times} ({table.row(row)}): does it mix units?")
    return warnings


def same_size(table: Table, column: str, cell: pd.Series) -> list[str]:
    """Refuses rows of one cell with different costs, since seeds of one model cost the same.

    A factor above ten is another unit, a smaller one another model or another training. Costs that
    differ by less than a tenth may be measured ones, and give a warning.

    Args:
      table: one row per run.
      column: parameters or FLOPs.
      cell: the label of each row's cell.

    Returns:
      Warnings.

    Raises:
      InputError: names the column, two rows and how many cells mix runs.
    """
    values = table.numbers(column)
    values = values[np.isfinite(values) & (values > 0)]
    cell = cell[values.index]
    parts = values.groupby(cell, sort=False)
    spread = parts.max() / parts.min()
    different = int((spread > _ALIKE).sum())
    if not different:
        return []
    several = f"{different} of {parts.ngroups} cells mix runs whose {column} differs"
    name = spread.index[int(spread.to_numpy().argmax())]
    most = float(spread.max())
    part = values[cell == name]
    times = f"is {most:.4g} times that of {table.row(part.idxmin())}, of the same cell"
    if most > _SIZES:
        table.refuse(part.idxmax(), column, f"{times} ({name}): mixed units? {_TRUST}")
    if most > _MEASURED:
        how = f"name what tells them apart with --size or --protocol; {_TRUST}"
        table.refuse(part.idxmax(), column, f"{times} ({name}); {several}: {how}")
    return [f"{several} by up to {100 * (most - 1):.2g} %; they are averaged."]


def nats(table: Table, column: str, hint: str = "take its logarithm") -> None:
    """Refuses losses that look like perplexities, negative log-perplexities or no loss at all.

    Args:
      table: the rows that are used.
      column: a column of losses.
      hint: what to do about a perplexity.
    """
    values = finite(table.numbers(column))
    above = values > MOST_NATS
    if above.any():
        limit = f"is above {MOST_NATS:.1f} nats, a uniform guess among a million pieces:"
        many = above.sum() * 2 > len(values)
        what = (
            f"a perplexity? {hint}"
            if many
            else f"a perplexity ({hint}), or a run that diverged (leave it out)?"
        )
        table.refuse(first(above, values.index), column, f"{limit} {what}; {_TRUST}")


def losses(table: Table, column: str, kind: str) -> None:
    """Refuses values that cannot be a loss of this kind: `nll`, `neg_log_ppl` or `ppl`."""
    values = finite(table.numbers(column))
    other = {
        "nll": "--upstream-is neg_log_ppl",
        "neg_log_ppl": "--upstream-is nll",
        "ppl": "--upstream-is nll",
    }[kind]
    wrong, why = {
        "nll": (values <= 0, "is not above zero; a loss in nats is needed"),
        "neg_log_ppl": (values >= 0, "is not below zero; a negative log-perplexity is needed"),
        "ppl": (values < 1, "is below 1; a perplexity is needed"),
    }[kind]
    if wrong.any():
        also = f" ({other}?)" if wrong.all() or kind == "ppl" else ""
        table.refuse(first(wrong, values.index), column, f"{why}{also}")
    if kind == "nll":
        nats(table, column, "--upstream-is ppl")
    elif kind == "neg_log_ppl" and (below := values < -MOST_NATS).any():
        why = f"is below {-MOST_NATS:.1f} nats: minus a perplexity?"
        table.refuse(first(below, values.index), column, f"{why} {_TRUST}")


def scores(table: Table, columns: list[str], perfect: float, option: str) -> list[str]:
    """Refuses scores above the maximum, fractions declared as percent, and a mixture of both.

    Args:
      table: the rows that are used.
      columns: columns of scores.
      perfect: the maximum: 100 for percent, 1 for fractions.
      option: the option that declares scores as fractions (if `perfect` is 100) or as percent.

    Returns:
      Warnings about values that may be fractions among percentages.
    """
    every = pd.DataFrame({column: table.numbers(column) for column in columns})
    every = every.where(np.isfinite(every))
    for column in columns:
        wrong = every[column].abs() > perfect * (1 + 1e-9)
        if wrong.any():
            table.refuse(
                first(wrong, every.index),
                column,
                f"is outside -{perfect:g} to {perfect:g}; {option}?",
            )
    if perfect <= 1:
        return []
    size = every.abs()
    known = size[size > 0]
    if known.max().max() <= 1 and known.count().sum() > 1:
        row = first(known.notna().any(axis=1), known.index)
        column = str(known.loc[row].first_valid_index())
        table.refuse(
            row, column, f"is within 0 and 1, as all scores are: fractions? {option}; {_TRUST}"
        )
    small = (known <= 1).sum(axis=1) == known.count(axis=1)
    small &= known.count(axis=1) > 0
    if small.any() and not small.all():
        fractions, rest = known[small].max().max(), known[~small].min().min()
        if rest > _FRACTIONS_APART * fractions:
            row = first(small, every.index)
            column = str(known.loc[row].first_valid_index())
            table.refuse(
                row,
                column,
                f"is a fraction among percentages (from {rest:g} on in other rows); {_TRUST}",
            )
    return _odd_columns(table, known)


def _odd_columns(table: Table, known: pd.DataFrame) -> list[str]:
    """Refuses a column of fractions next to columns of percent.

    Only warns if some of its rows, not all, may be fractions.
    """
    warnings = []
    for column in map(str, known.columns):
        values, others = known[column].dropna(), known.drop(columns=column).melt()["value"].dropna()
        if len(values) > 1 and values.max() <= 1 and len(others) and others.median() > 1:
            if values.nunique() > 1 and values.median() > 0.2:
                why = (
                    f"is a fraction beside columns of percent (median {others.median():g}); "
                    f"{_TRUST}"
                )
                table.refuse(values.index[0], column, why)
            warnings.append(
                f"{column} is within 0 and 1 throughout, beside columns of percent: fractions?"
            )
            continue
        small, large = values[values <= 1], values[values > 1]
        if len(small) and len(large) and large.min() > _FRACTIONS_APART * small.max():
            rows = ", ".join(table.row(row) for row in small.index[:3])
            what = f"is up to 1 in {rows} and from {large.min():g} on elsewhere"
            warnings.append(f"{column} {what}: fractions among percent?")
    return warnings
