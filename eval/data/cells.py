"""From a run table to what is analysed: which columns mean what, checks at the door, seeds averaged into cells.

A **cell** is one architecture at one size (and protocol). Its seeds are replicates of one thing,
not points of a line, so every fit runs on cell means and every bootstrap resamples the seeds inside
the cells.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from train.records import InputError

QUANTITIES = {
    "F": "flops",
    "P": "params",
    "S": "speed",
    "U": "upstream",
    "D": "downstream",
}
"""FLOPs, parameters, speed (steps per second), upstream quality, downstream quality: letter to the field of Axes."""

LINKS = ("semilog", "loglog")
"""semilog: quality in its own unit, higher is better (upstream: negative log-perplexity in nats; downstream: percent).
loglog: logarithm of the loss upstream (lower is better) and of the score downstream (higher is
better).
F, P and S are logarithms in both."""

SUPPORTS = ("common", "all")
"""Which sizes a comparison of slopes is made over: those in the range that both sides cover, or all."""

DEFAULT_PROTOCOLS = ("", "base", "default")
_COSTS = ("F", "P", "S")
_IN_BYTES = " (bits per byte, upstream_bits_per_byte of table 1, can be compared where the held-out text is the same)"
_ROUNDING = 1e-9
_KEYS = ("run_id", "architecture", "size", "protocol", "seed")


@dataclasses.dataclass(frozen=True)
class Axes:
    """Which columns are meant, and the base of every logarithm.

    Attributes:
      flops: column behind F; the default is forward FLOPs of one sequence.
      params: column behind P.
      speed: column behind S, higher is faster.
      upstream: column behind U: a loss in nats (positive, lower is better).
      downstream: column behind D: a score in percent (at most 100, higher is better; correlations
        may be negative).
      log_base: base of every logarithm.
    """

    flops: str = "flops_forward"
    params: str = "params_total"
    speed: str = "steps_per_second"
    upstream: str = "upstream_nll"
    downstream: str = "downstream_mean"
    log_base: float = 10.0

    def __post_init__(self):
        """Refuses a base without a logarithm."""
        if not (self.log_base > 0 and self.log_base != 1 and np.isfinite(self.log_base)):
            raise InputError(
                f"log_base is {self.log_base}; a positive number other than 1 is needed"
            )

    def column(self, quantity: str) -> str:
        """The column behind one of QUANTITIES."""
        if quantity not in QUANTITIES:
            raise InputError(f"quantity {quantity!r} is unknown; known: {', '.join(QUANTITIES)}")
        return getattr(self, QUANTITIES[quantity])

    def label(self, quantity: str, link: str = "semilog") -> str:
        """How a quantity is printed on an axis, e.g. `log10 flops_forward` or `-upstream_nll (nats)`."""
        column = self.column(quantity)
        if quantity in _COSTS or link == "loglog":
            base = "ln" if np.isclose(self.log_base, np.e) else f"log{self.log_base:g}"
            return f"{base} {column}"
        return f"-{column} (nats)" if quantity == "U" else f"{column} (percent)"

    def log(self, values: np.ndarray) -> np.ndarray:
        """Logarithm in `log_base`; NaN where there is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(values > 0, np.log(values), np.nan) / np.log(self.log_base)

    def budget(self, position: np.ndarray | float) -> np.ndarray:
        """From a position on a logarithmic axis back to the unit of its column; the far ends are 0 and inf."""
        with np.errstate(over="ignore", under="ignore"):
            return np.power(self.log_base, np.asarray(position, float))


AXES = Axes()
"""The store's own columns, base 10."""


def higher_is_better(quantity: str, link: str = "semilog") -> bool:
    """Whether more is better once `quantity` is read with `link`: only the log of the loss is better when lower."""
    return not (quantity == "U" and link == "loglog")


def higher_slope_is_better(x: str, y: str, link: str = "semilog") -> bool:
    """Whether a higher slope of y on x is better: where more x is good or dear, so should y be, and the reverse."""
    return higher_is_better(y, link) == higher_is_better(x, link)


def check(table: pd.DataFrame, quantities: str, axes: Axes = AXES) -> None:
    """Refuses a table from which a wrong number could come.

    Raises:
      InputError: a column is missing or not numeric; a run id or a (architecture, size, protocol,
        seed) appears twice; a FLOP count, parameter count or speed is not positive, a loss is
        negative, a score is above 100, or any is infinite; the runs come from more than one corpus.
        NaN is allowed: the analyses count and report it.
    """
    for column in ("architecture", "size", *(axes.column(q) for q in quantities)):
        if column not in table.columns:
            raise InputError(
                f"column {column!r} is missing; columns: {', '.join(map(str, table.columns))}"
            )
    if table.empty:
        raise InputError("the table has no runs")
    for column in ("architecture", "size"):
        _refuse(table, table[column].isna().to_numpy(), f"{column} is empty")
    for quantity in quantities:
        _check_values(table, quantity, axes.column(quantity))
    _check_unique(table)
    for column in ("corpus", "tokenizer"):
        found = table[column].dropna().value_counts() if column in table.columns else ()
        if len(found) > 1:
            counts = ", ".join(f"{name} ({n} runs)" for name, n in found.items())
            raise InputError(
                f"{column}: losses of different {column} values cannot be compared: {counts}; keep one{_IN_BYTES}"
            )


def _check_values(table: pd.DataFrame, quantity: str, column: str) -> None:
    if not pd.api.types.is_numeric_dtype(table[column]) or pd.api.types.is_bool_dtype(
        table[column]
    ):
        raise InputError(
            f"column {column!r} holds {table[column].dtype} values; numbers are needed"
        )
    values = _floats(table[column])
    _refuse(table, np.isinf(values), f"{column} is infinite")
    if quantity in _COSTS:
        _refuse(table, values <= 0, f"{column} is not positive")
    elif quantity == "U":
        _refuse(
            table,
            values < 0,
            f"{column} is negative; a loss in nats is needed, not a negative log-perplexity",
        )
    else:
        _refuse(
            table,
            np.abs(values) > 100,
            f"{column} is outside -100 to 100; a score in percent is needed",
        )


def _check_unique(table: pd.DataFrame) -> None:
    if "run_id" in table.columns:
        keys = ["study", "run_id"] if "study" in table.columns else ["run_id"]
        _refuse(
            table,
            (table.duplicated(keys) & table["run_id"].notna()).to_numpy(),
            "this run id is there twice",
        )
    if "seed" in table.columns:
        keys = [k for k in ("architecture", "size", "protocol", "seed") if k in table.columns]
        twice = (table.duplicated(keys) & table["seed"].notna()).to_numpy()
        _refuse(table, twice, "another run has the same architecture, size, protocol and seed")


def _refuse(table: pd.DataFrame, bad: np.ndarray, what: str) -> None:
    """Raises for the first bad row, naming it; rows are counted from 1, without the header."""
    if not bad.any():
        return
    row = int(np.argmax(bad))
    known = ", ".join(f"{k} {table[k].iloc[row]}" for k in _KEYS if k in table.columns)
    more = f" (and {bad.sum() - 1} more)" if bad.sum() > 1 else ""
    raise InputError(" ".join(f"row {row + 1}{more}: {what} ({known})".split()))


def main_protocol(table: pd.DataFrame, protocol: str | None = None) -> pd.DataFrame:
    """The rows of one scaling protocol, so that a depth ladder is never mixed into the main one.

    Args:
      table: one row per run.
      protocol: its name; `None` takes the plain one (empty or missing), or where there is none the
        one with most runs, the first by name of several.

    Raises:
      InputError: `protocol` is not in the table.
    """
    if "protocol" not in table.columns:
        if protocol:
            raise InputError(
                f"protocol {protocol!r} was asked for, but the table has no column 'protocol'"
            )
        return table
    names = table["protocol"].fillna("").astype(str)
    known = sorted(names.unique())
    if protocol is None and len(known) > 1:
        plain = (name for name in DEFAULT_PROTOCOLS if name in known)
        protocol = next(plain, max(known, key=lambda name: (names == name).sum()))
    if protocol is not None and protocol not in known:
        raise InputError(
            f"protocol {protocol!r} is not in the table; known: {', '.join(map(repr, known))}"
        )
    return table if len(known) <= 1 else table[names == protocol]


def other_protocols(table: pd.DataFrame, main: pd.DataFrame) -> str:
    """Which protocol is analysed and what is left out for it, in one sentence; empty where there is one protocol.

    Args:
      table: all runs.
      main: those of `main_protocol`.
    """
    if len(main) == len(table):
        return ""
    names = table["protocol"].fillna("").astype(str)
    chosen, others = names[main.index].iloc[0], sorted(set(names) - set(names[main.index]))
    what = (
        "the plain scaling protocol"
        if chosen in DEFAULT_PROTOCOLS
        else f"the scaling protocol {chosen!r}"
    )
    why = "" if chosen in DEFAULT_PROTOCOLS else " (none is the plain one, and none has more runs)"
    return (
        f"Architectures are compared under {what}{why}; {len(table) - len(main)} of {len(table)} runs, under "
        f"{', '.join(map(repr, others))}, take no part. --where protocol={others[0]} takes {others[0]!r} instead."
    )


def read(table: pd.DataFrame, quantity: str, link: str, axes: Axes) -> np.ndarray:
    """One quantity of every run as it is analysed (logarithm or quality); NaN where missing or without a logarithm."""
    values = _floats(table[axes.column(quantity)])
    if quantity in _COSTS or link == "loglog":
        return axes.log(values)
    return -values if quantity == "U" else values


@dataclasses.dataclass(frozen=True)
class Cells:
    """Cell means of two quantities, groups numbered from 0, each group's cells together and in order of x.

    Attributes:
      groups: one tuple of key values per group (G of them).
      group: group of each cell, [C].
      size: size label of each cell, [C].
      x, y: means over the seeds of a cell, [C].
      seeds: runs in a cell, [C].
      within: sums of squares and products around the cell means: xx, xy, yy, [C, 3].
      missing: runs of a group without x or y, [G].
      no_log: runs of a group that are missing because a value has no logarithm, [G].
      outside: sizes of a group that were left out because they lie outside a common range, [G].
    """

    groups: list[tuple]
    group: np.ndarray
    size: np.ndarray
    x: np.ndarray
    y: np.ndarray
    seeds: np.ndarray
    within: np.ndarray
    missing: np.ndarray
    no_log: np.ndarray
    outside: np.ndarray

    def common_range(self, groups: Sequence[int] | np.ndarray) -> tuple[float, float]:
        """The range of x that all these groups cover; NaN where there is none."""
        ends = [(own.min(), own.max()) for g in groups if len(own := self.x[self.group == g])]
        low, high = (max(e[0] for e in ends), min(e[1] for e in ends)) if ends else (np.nan, np.nan)
        return (float(low), float(high)) if low <= high else (np.nan, np.nan)

    def on_common_range(
        self, groups: Sequence[int] | np.ndarray, needed: Sequence[int] | np.ndarray
    ) -> "Cells":
        """Without those cells of these groups that lie outside a range which all of them cover.

        On a bent law the slope depends on where it is taken: two ladders of one law look different
        where their ranges do. A size stays where it is within half a step (the median distance of
        neighbouring sizes) of the common range: ladders that are shifted by less than that are
        compared whole. Of `groups`, all that are not `needed` may be left out where the others then
        keep more sizes: one that lies elsewhere does not spoil the comparison of many.
        """
        window = self._window(groups, needed)
        keep = ~np.isin(self.group, groups)
        if window is not None:
            low, high, slack, members = window
            keep |= (
                np.isin(self.group, members) & (self.x >= low - slack) & (self.x <= high + slack)
            )
        if keep.all():
            return self
        lost = np.bincount(self.group[~keep], minlength=len(self.groups))
        parts = {
            name: getattr(self, name)[keep]
            for name in ("group", "size", "x", "y", "seeds", "within")
        }
        return dataclasses.replace(self, **parts, outside=self.outside + lost)

    def _window(self, groups, needed) -> tuple[float, float, float, np.ndarray] | None:
        """The range to compare over, half a step, and the groups that cover it; of all ranges that with most sizes."""
        own = {g: np.sort(self.x[self.group == g]) for g in groups}
        own = {g: x for g, x in own.items() if len(x)}
        needed = [g for g in needed if g in own]
        if not own:
            return None
        gaps = np.diff(self.x)[self.group[1:] == self.group[:-1]]
        slack = (float(np.median(gaps)) if len(gaps) else 0.0) / 2 + _ROUNDING
        ends = (np.unique([x[i] for x in own.values()]) for i in (0, -1))
        low, high = (v.ravel() for v in np.meshgrid(*ends))
        whole = low <= high
        for g in needed:
            whole &= (own[g][0] <= low) & (own[g][-1] >= high)
        low, high = low[whole], high[whole]
        if not len(low):
            return None
        covers = np.stack([(x[0] <= low) & (x[-1] >= high) for x in own.values()])
        below = np.stack([np.searchsorted(x, low - slack) for x in own.values()])
        sizes = covers * (
            np.stack([np.searchsorted(x, high + slack, "right") for x in own.values()]) - below
        )
        lines = (sizes > 1).sum(0)
        best = np.lexsort((lines, sizes.sum(0), np.minimum(lines, 2)))[
            -1
        ]  # first of all two lines, then most sizes
        return float(low[best]), float(high[best]), slack, np.array(list(own))[covers[:, best]]


def supported(
    cells: Cells,
    groups: Sequence[int] | np.ndarray,
    support: str,
    needed: Sequence[int] | np.ndarray | None = None,
) -> Cells:
    """The cells that a comparison of the slopes of these groups is made over.

    Args:
      cells: of all groups.
      groups: those that are compared.
      support: one of SUPPORTS.
      needed: those without which there is no comparison; None needs all of `groups`.

    Raises:
      InputError: unknown `support`.
    """
    if support not in SUPPORTS:
        raise InputError(f"support {support!r} is unknown; known: {', '.join(SUPPORTS)}")
    return (
        cells.on_common_range(groups, groups if needed is None else needed)
        if support == "common"
        else cells
    )


def cell_means(
    table: pd.DataFrame,
    x: str,
    y: str,
    link: str,
    axes: Axes,
    by: Sequence[str] = ("architecture",),
) -> Cells:
    """Averages the seeds of every cell; groups are sorted by key, and one without any complete run is kept, empty."""
    if link not in LINKS:
        raise InputError(f"link {link!r} is unknown; known: {', '.join(LINKS)}")
    keys = [table[k].fillna("").astype(str).to_numpy(str) for k in by]
    groups, group = _number(keys)
    xs, ys = read(table, x, link, axes), read(table, y, link, axes)
    whole = np.isfinite(xs) & np.isfinite(ys)
    present = table[axes.column(x)].notna().to_numpy() & table[axes.column(y)].notna().to_numpy()
    count = lambda mask: np.bincount(group[mask], minlength=len(groups))
    sizes = table["size"].astype(str).to_numpy(str)
    _, cell = _number([group[whole], sizes[whole]])
    n = np.bincount(cell)
    first = np.unique(cell, return_index=True)[1]
    mean_x, mean_y = (np.bincount(cell, v[whole]) / n for v in (xs, ys))
    dx, dy = xs[whole] - mean_x[cell], ys[whole] - mean_y[cell]
    within = np.stack([np.bincount(cell, p, len(n)) for p in (dx * dx, dx * dy, dy * dy)], axis=1)
    group_of, size_of = group[whole][first], sizes[whole][first]
    order = np.lexsort((mean_x, group_of))
    return Cells(
        groups,
        group_of[order],
        size_of[order],
        mean_x[order],
        mean_y[order],
        n[order],
        within[order],
        count(~whole),
        count(~whole & present),
        np.zeros(len(groups), dtype=int),
    )


def _number(keys: Sequence[np.ndarray]) -> tuple[list[tuple], np.ndarray]:
    """Distinct rows of several key columns, sorted, and the number of each row among them."""
    codes = [np.unique(k, return_inverse=True) for k in keys]
    table = np.stack([inverse for _, inverse in codes], axis=1)
    rows, number = np.unique(table, axis=0, return_inverse=True)
    return [tuple(codes[i][0][v].item() for i, v in enumerate(row)) for row in rows], number.ravel()


def _floats(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=float, na_value=np.nan)
