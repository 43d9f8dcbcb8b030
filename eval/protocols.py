"""Scaling protocols: does an architecture gain more from depth or from width?

A protocol's ladder is the runs that carry its name in the column `protocol`. Arguments as in `eval.compare`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from eval.cells import AXES, LINKS, Axes, cell_means, check, higher_is_better, read
from eval.lines import Estimate, Lines, fit, holm
from eval.resample import join
from eval.slopes import slopes
from train.records import InputError


def protocol_slopes(
    table: pd.DataFrame, *, pairs: Sequence[str] = ("FU", "FD"), links: Sequence[str] = LINKS, axes: Axes = AXES,
    errors: str = "size", level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """`eval.slopes.slopes` for each architecture and protocol.

    Returns:
      The columns of `slopes`, with `protocol` after `architecture` (empty for the plain ladder).
    """
    _needs_protocol(table)
    return slopes(
        table, pairs=pairs, links=links, axes=axes, by=("architecture", "protocol"), errors=errors, level=level
    )


def protocol_differences(
    table: pd.DataFrame, *, first: str = "depth", second: str = "width", x: str = "F", y: str = "U", link: str = "semilog",
    axes: Axes = AXES, errors: str = "size", variance: str = "separate", level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Slope under one protocol minus the slope under another, per architecture.

    Returns:
      One row per architecture that has both, and a last row `all` (mean over those with a difference), with columns
        architecture, first, second, alpha, link, x_axis, y_axis, higher_is_better, slope_first, slope_second, difference,
        se, df, ci_low, ci_high, p, p_holm (over the architectures; NaN for `all`), verdict (`depth scales better`,
        `width scales better`, with the protocols' own names, `not told apart`, `not tested`; by p_holm, `all` by p),
        method, note. Empty where no architecture has both.
    """
    _needs_protocol(table)
    check(table, x + y, axes)
    lines = fit(cell_means(table, x, y, link, axes, ("architecture", "protocol")), errors, variance)
    place = {group: i for i, group in enumerate(lines.cells.groups)}
    names = [name for name, protocol in place if protocol == first and (name, second) in place]
    weights = [lines.slope_weights(place[n, first]) - lines.slope_weights(place[n, second]) for n in names]
    rows = [_difference(lines, w, n, [place[n, first]], [place[n, second]], level) for n, w in zip(names, weights, strict=True)]
    whole = [k for k, row in enumerate(rows) if np.isfinite(row["difference"])]
    if rows:
        groups = [[place[names[k], protocol] for k in whole] for protocol in (first, second)]
        mean = np.mean([weights[k] for k in whole], axis=0) if whole else np.zeros_like(weights[0])
        rows.append(_difference(lines, mean, "all", *groups, level))
    columns = ["architecture", "slope_first", "slope_second", "difference", "se", "df", "ci_low", "ci_high", "p", "method",
               "note"]  # fmt: skip
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(frame.columns.get_loc("p") + 1, "p_holm", [*holm(frame["p"].to_numpy(float)[:-1]), np.nan] if rows else [])
    sign = 1.0 if higher_is_better(y, link) else -1.0
    p = frame["p_holm"].fillna(frame["p"].where(frame["architecture"] == "all"))
    better = np.where(sign * frame["difference"].to_numpy(float) > 0, f"{first} scales better", f"{second} scales better")
    verdict = np.where(p.isna(), "not tested", np.where(p < 1 - level, better, "not told apart"))
    frame.insert(frame.columns.get_loc("method"), "verdict", verdict)
    front = {"first": first, "second": second, "alpha": f"{x},{y}", "link": link, "x_axis": axes.label(x, link),
             "y_axis": axes.label(y, link), "higher_is_better": sign > 0}  # fmt: skip
    for at, (column, value) in enumerate(front.items(), start=1):
        frame.insert(at, column, value)
    return frame


def _difference(lines: Lines, weights: np.ndarray, name: str, first: list[int], second: list[int], level: float) -> dict:
    """One row; `first` and `second` are the groups whose slopes are averaged."""
    found = lines.combine(weights) if first else Estimate(*(np.full((), np.nan),) * 3)
    low, high = found.interval(level)
    slope = lines.coefficients[:, 1]
    methods = dict.fromkeys(lines.method[g] for g in first + second)
    notes = dict.fromkeys(f"{lines.cells.groups[g][1] or 'plain'}: {lines.notes[g]}" for g in first + second if lines.notes[g])
    return {
        "architecture": name, "slope_first": slope[first].mean() if first else np.nan,
        "slope_second": slope[second].mean() if second else np.nan, "difference": float(found.value),
        "se": float(found.se), "df": float(found.df), "ci_low": float(low), "ci_high": float(high), "p": float(found.p),
        "method": "none" if "none" in methods or not first else " and ".join(methods), "note": join(*notes),
    }  # fmt: skip


def width_depth_grid(
    table: pd.DataFrame, *, y: str = "U", axes: Axes = AXES, depth: str = "num_layers", width: str = "embed_dim",
) -> pd.DataFrame:  # fmt: skip
    """Quality by depth and width, for a heat map, over all protocols.

    `depth` and `width` are the columns with the number of layers and the model dimension; where the table lacks one, it is
    read from the size's operators (`base-NL24-DM512`), and a run whose size does not say is left out.

    Returns:
      Rows by architecture, depth and width, with columns
        architecture, depth, width, y_axis, quality (mean over runs, higher is better), stderr (over seeds, NaN with one),
        n_runs, flops (mean), note (how many runs were left out).
    """
    check(table, "F" + y, axes)
    frame = pd.DataFrame({
        "architecture": table["architecture"].astype(str),
        "depth": _dimension(table, depth, r"-NL(\d+)"), "width": _dimension(table, width, r"-DM(\d+)"),
        "quality": read(table, y, "semilog", axes), "flops": table[axes.flops],
    })  # fmt: skip
    known = frame.notna().all(axis=1)
    columns = ["architecture", "depth", "width", "y_axis", "quality", "stderr", "n_runs", "flops", "note"]
    if not known.any():
        return pd.DataFrame(columns=columns)
    grid = frame[known].groupby(["architecture", "depth", "width"]).agg(
        quality=("quality", "mean"), stderr=("quality", "sem"), n_runs=("quality", "size"), flops=("flops", "mean")
    ).reset_index()  # fmt: skip
    lost = int((~known).sum())
    note = f"{lost} runs of unknown depth, width or quality are left out" if lost else ""
    return grid.assign(y_axis=axes.label(y), note=note)[columns]


def _dimension(table: pd.DataFrame, column: str, operator: str) -> pd.Series:
    if column in table.columns:
        return table[column].astype(float)
    return table["size"].astype(str).str.extract(operator, expand=False).astype(float)


def _needs_protocol(table: pd.DataFrame) -> None:
    if "protocol" not in table.columns:
        raise InputError(f"column 'protocol' is missing; columns: {', '.join(map(str, table.columns))}")
