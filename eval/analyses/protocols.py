"""Scaling protocols: does an architecture gain more from depth or from width?

A protocol's ladder is the runs that carry its name in the column `protocol`. Arguments as in
`eval.analyses.comparison`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from eval.analyses.slopes import slopes
from eval.data.cells import (
    AXES,
    LINKS,
    Axes,
    cell_means,
    check,
    higher_slope_is_better,
    read,
    supported,
)
from eval.stats.regression import Lines, fit, holm
from train.records import InputError

_DIFFERENCE = (
    "slope_first",
    "slope_second",
    "difference",
    "se",
    "df",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "verdict",
    "method",
    "note",
)


def protocol_slopes(
    table: pd.DataFrame,
    *,
    pairs: Sequence[str] = ("FU", "FD"),
    links: Sequence[str] = LINKS,
    axes: Axes = AXES,
    errors: str = "size",
    variance: str = "separate",
    level: float = 0.95,
) -> pd.DataFrame:
    """`eval.analyses.slopes.slopes` for each architecture and protocol.

    Returns:
      The columns of `slopes`, with `protocol` after `architecture` (empty for the plain ladder).
    """
    _needs_protocol(table)
    return slopes(
        table,
        pairs=pairs,
        links=links,
        axes=axes,
        by=("architecture", "protocol"),
        errors=errors,
        variance=variance,
        level=level,
    )


def protocol_differences(
    table: pd.DataFrame,
    *,
    first: str = "depth",
    second: str = "width",
    x: str = "F",
    y: str = "U",
    link: str = "semilog",
    axes: Axes = AXES,
    errors: str = "size",
    variance: str = "separate",
    support: str = "common",
    level: float = 0.95,
) -> pd.DataFrame:
    """Slope under one protocol minus the slope under another, per architecture.

    Returns:
      One row per architecture that has both, and a last row `all` (mean over those with a
        difference), with columns architecture, first, second, alpha, link, x_axis, y_axis,
        higher_is_better (of the slope), slope_first, slope_second, difference, se, df, ci_low,
        ci_high, p, p_holm (over the architectures; NaN for `all`), verdict (`depth scales better`,
        `width scales better`, with the protocols' own names, `not told apart`, `not tested`; by
        p_holm, `all` by p), method, note. Empty where no architecture has both.
    """
    _needs_protocol(table)
    check(table, x + y, axes)
    cells = cell_means(table, x, y, link, axes, ("architecture", "protocol"))
    place = {group: i for i, group in enumerate(cells.groups)}
    names = [name for name, protocol in place if protocol == first and (name, second) in place]
    for name in names:
        cells = supported(cells, [place[name, first], place[name, second]], support)
    lines = fit(cells, errors, variance)
    front = {
        "first": first,
        "second": second,
        "alpha": f"{x},{y}",
        "link": link,
        "x_axis": axes.label(x, link),
        "y_axis": axes.label(y, link),
        "higher_is_better": higher_slope_is_better(x, y, link),
    }
    slope = lines.coefficients[:, 1]
    whole = [n for n in names if np.isfinite(slope[[place[n, first], place[n, second]]]).all()]
    rows = [
        {
            "architecture": name,
            **front,
            **_difference(
                lines,
                [place[n, first] for n in members],
                [place[n, second] for n in members],
                level,
            ),
        }
        for name, members in [*((n, [n]) for n in names), *([("all", whole)] if names else [])]
    ]
    frame = pd.DataFrame(rows, columns=["architecture", *front, *_DIFFERENCE])
    if rows:
        frame["p_holm"] = [*holm(frame["p"].to_numpy(float)[:-1]), np.nan]
        judged = frame["p_holm"].where(frame["architecture"] != "all", frame["p"])
        ahead = (frame["difference"] > 0) == frame["higher_is_better"]
        better = np.where(ahead, f"{first} scales better", f"{second} scales better")
        frame["verdict"] = np.where(
            judged.isna(), "not tested", np.where(judged < 1 - level, better, "not told apart")
        )
    return frame


def _difference(lines: Lines, first: list[int], second: list[int], level: float) -> dict:
    """Mean slope of the groups in `first` minus that of those in `second`: the columns _DIFFERENCE."""
    if not first:
        return dict.fromkeys(_DIFFERENCE, np.nan) | {
            "method": "none",
            "note": "no architecture has both slopes",
        }
    pairs = zip(first, second, strict=True)
    weights = np.mean([lines.slope_weights(a) - lines.slope_weights(b) for a, b in pairs], axis=0)
    found, slope = lines.combine(weights), lines.coefficients[:, 1]
    low, high = found.interval(level)
    methods = dict.fromkeys(lines.method[g] for g in first + second)
    values = (
        slope[first].mean(),
        slope[second].mean(),
        found.value,
        found.se,
        found.df,
        low,
        high,
        found.p,
    )
    return dict(zip(_DIFFERENCE, map(float, values), strict=False)) | {
        "method": "none" if "none" in methods else " and ".join(methods),
        "note": lines.explain(first + second),
    }


def width_depth_grid(
    table: pd.DataFrame,
    *,
    y: str = "U",
    axes: Axes = AXES,
    depth: str = "num_layers",
    width: str = "embed_dim",
) -> pd.DataFrame:
    """Quality by depth and width, for a heat map, over all protocols.

    `depth` and `width` are the columns with the number of layers and the model dimension; where the
    table lacks one, it is read from the size's operators (`base-NL24-DM512`), and a run whose size
    does not say is left out.

    Returns:
      Rows by architecture, depth and width, with columns
        architecture, depth, width, y_axis, quality (mean over runs, higher is better), stderr (over
        seeds, NaN with one), n_runs, flops (mean), note (how many runs were left out).
    """
    check(table, "F" + y, axes)
    frame = pd.DataFrame(
        {
            "architecture": table["architecture"].astype(str),
            "depth": _dimension(table, depth, r"-NL(\d+)"),
            "width": _dimension(table, width, r"-DM(\d+)"),
            "quality": read(table, y, "semilog", axes),
            "flops": table[axes.flops],
        }
    )
    known = frame.notna().all(axis=1)
    columns = [
        "architecture",
        "depth",
        "width",
        "y_axis",
        "quality",
        "stderr",
        "n_runs",
        "flops",
        "note",
    ]
    if not known.any():
        return pd.DataFrame(columns=columns)
    grid = (
        frame[known]
        .groupby(["architecture", "depth", "width"])
        .agg(
            quality=("quality", "mean"),
            stderr=("quality", "sem"),
            n_runs=("quality", "size"),
            flops=("flops", "mean"),
        )
        .reset_index()
    )
    lost = int((~known).sum())
    note = f"{lost} runs of unknown depth, width or quality are left out" if lost else ""
    return grid.assign(y_axis=axes.label(y), note=note)[columns]


def _dimension(table: pd.DataFrame, column: str, operator: str) -> pd.Series:
    if column in table.columns:
        return table[column].astype(float)
    return table["size"].astype(str).str.extract(operator, expand=False).astype(float)


def _needs_protocol(table: pd.DataFrame) -> None:
    if "protocol" not in table.columns:
        raise InputError(
            f"column 'protocol' is missing; columns: {', '.join(map(str, table.columns))}"
        )
