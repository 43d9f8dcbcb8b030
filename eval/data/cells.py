"""Checks a run table, averages over its seeds, and selects the cells that can be compared.

A **cell** is one architecture at one size (and protocol). Its seeds are replicates of the same
thing, not separate points of a line. So every fit uses cell means, and every bootstrap redraws the
seeds within a cell.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from eval.data.families import told_apart
from eval.data.quantity import Axis, Quantity
from eval.data.study import Study
from train.records import InputError

CELL = ("architecture", "size", "protocol")
"""The columns that identify a cell in a RunTable, where the architecture's name has its family."""

SUPPORTS = ("common", "all")
"""Which sizes a comparison of slopes uses: those in the range that both sides cover, or all."""

DEFAULT_PROTOCOLS = ("", "base", "default")
_IN_BYTES = (
    " (bits per byte, upstream_bits_per_byte of table 1, can be compared where the held-out text "
    "is "
    "the same)"
)
_ROUNDING = 1e-9
_KEYS = ("run_id", "architecture", "size", "protocol", "seed")


class RunTable:
    """A checked run table, the input of every analysis.

    Names, duplicates and corpora are checked when it is created, a column of numbers when it is
    first read. Passing it on to another analysis does not repeat the checks. Where runs are of
    several families, each family of an architecture has a name of its own, see
    `eval.data.families`.

    Attributes:
      frame: one row per run.
      paths: the run directories by run id, if the runs come from a study.
      examples: what `eval.data.examples` has read, by run id and task.
    """

    def __init__(self, runs: "Study | pd.DataFrame | RunTable", *needs: str):
        """Checks the columns that identify the runs.

        Args:
          runs: a study, its table of runs, or a table that is already checked.
          *needs: columns that must exist besides architecture and size.

        Raises:
          InputError: there are no runs; architecture or size is missing or empty; a run id or an
            (architecture, family, size, protocol, seed) appears twice; the runs come from more than
            one corpus or tokenizer.
        """
        if isinstance(runs, RunTable):
            self.frame, self.paths, self.examples = runs.frame, runs.paths, runs.examples
            self._checked = runs._checked
            self._require(needs)
            return
        self.frame = told_apart(frame_of(runs))
        self.paths: Mapping[str, Path] = runs.paths if isinstance(runs, Study) else {}
        self.examples: dict[tuple[str, str], Any] = {}
        self._checked: set[Quantity] = set()
        self._require(("architecture", "size", *needs))
        if self.frame.empty:
            raise InputError("the table has no runs")
        for column in ("architecture", "size"):
            self._refuse(self.frame[column].isna().to_numpy(), f"{column} is empty")
        self._refuse_twice()
        self._refuse_two_corpora()

    def check(self, quantities: Iterable[Quantity]) -> None:
        """Refuses columns that would give wrong results.

        Raises:
          InputError: a column is missing or not numeric; a FLOP count, parameter count or speed is
            not positive, a loss is negative, a score is outside -100 to 100, or any value is
            infinite. NaN is allowed: the analyses count and report it.
        """
        new = [quantity for quantity in quantities if quantity not in self._checked]
        self._require([quantity.column for quantity in new])
        for quantity in new:
            column = self.frame[quantity.column]
            if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
                raise InputError(
                    f"column {quantity.column!r} holds {column.dtype} values; numbers are needed"
                )
            for wrong, what in quantity.wrong(quantity.values(self.frame)):
                self._refuse(wrong, what)
            self._checked.add(quantity)

    def knows(self, quantity: Quantity) -> bool:
        """Whether at least one run has a value for this quantity."""
        return quantity.column in self.frame and bool(self.frame[quantity.column].notna().any())

    def take(self, rows: pd.DataFrame) -> "RunTable":
        """A table of some of these runs, without checking them again."""
        taken = RunTable(self)
        taken.frame = rows
        return taken

    def main(self, protocol: str | None = None) -> "RunTable":
        """The runs of one scaling protocol, see `main_protocol`."""
        return self.take(main_protocol(self.frame, protocol))

    def cells(self, axes: Sequence[Axis], by: Sequence[str] = ("architecture",)) -> "Cells":
        """Averages over the seeds of every cell, on the given axes.

        Args:
          axes: the Q axes to average on; a run counts if it has a position on each of them.
          by: columns whose values identify the groups.

        Raises:
          InputError: see `check`.
        """
        self.check(axis.quantity for axis in axes)
        table = self.frame
        groups, group = _number([table[k].fillna("").astype(str).to_numpy(str) for k in by])
        values = np.stack([axis.read(axis.quantity.values(table)) for axis in axes], axis=1)
        whole = np.isfinite(values).all(axis=1)
        present = table[[axis.quantity.column for axis in axes]].notna().to_numpy().all(axis=1)
        count = lambda mask: np.bincount(group[mask], minlength=len(groups))
        sizes = table["size"].astype(str).to_numpy(str)
        _, cell = _number([group[whole], sizes[whole]])
        values = values[whole]
        # The first run of each cell has the cell's group and size.
        first = np.unique(cell, return_index=True)[1]
        return Cells(
            groups=groups,
            group=group[whole][first],
            size=sizes[whole][first],
            mean=means(values, cell),
            seeds=np.bincount(cell),
            values=values,
            cell=cell,
            run=np.flatnonzero(whole),
            missing=count(~whole),
            no_log=count(~whole & present),
            outside=np.zeros(len(groups), dtype=int),
        )

    def _require(self, columns: Iterable[str]) -> None:
        for column in columns:
            if column not in self.frame.columns:
                known = ", ".join(map(str, self.frame.columns))
                raise InputError(f"column {column!r} is missing; columns: {known}")

    def _refuse_twice(self) -> None:
        table = self.frame
        if "run_id" in table.columns:
            keys = ["study", "run_id"] if "study" in table.columns else ["run_id"]
            twice = (table.duplicated(keys) & table["run_id"].notna()).to_numpy()
            self._refuse(twice, "this run id is there twice")
        if "seed" in table.columns:
            keys = [k for k in ("architecture", "size", "protocol", "seed") if k in table.columns]
            twice = (table.duplicated(keys) & table["seed"].notna()).to_numpy()
            self._refuse(twice, "another run has the same architecture, size, protocol and seed")

    def _refuse_two_corpora(self) -> None:
        """Runs without a loss and a score, such as those of probes, have nothing to compare."""
        qualities = self.frame.filter(regex="^(upstream_nll$|downstream_)")
        compared = qualities.notna().any(axis=1) | (qualities.shape[1] == 0)
        for column in ("corpus", "tokenizer"):
            if column not in self.frame:
                continue
            found = self.frame.loc[compared, column].dropna().value_counts()
            if len(found) > 1:
                counts = ", ".join(f"{name} ({n} runs)" for name, n in found.items())
                differ = f"losses of different {column} values cannot be compared"
                raise InputError(f"{column}: {differ}: {counts}; keep one{_IN_BYTES}")

    def _refuse(self, bad: np.ndarray, what: str) -> None:
        """Raises InputError that names the first bad row, counted from 1 after the header."""
        if not bad.any():
            return
        row = int(np.argmax(bad))
        table = self.frame
        known = ", ".join(f"{k} {table[k].iloc[row]}" for k in _KEYS if k in table.columns)
        more = f" (and {bad.sum() - 1} more)" if bad.sum() > 1 else ""
        raise InputError(" ".join(f"row {row + 1}{more}: {what} ({known})".split()))


def frame_of(runs: "Study | pd.DataFrame | RunTable") -> pd.DataFrame:
    """The table of runs, one row each, without checks."""
    if isinstance(runs, Study):
        return runs.runs
    return runs.frame if isinstance(runs, RunTable) else runs


def main_protocol(table: pd.DataFrame, protocol: str | None = None) -> pd.DataFrame:
    """The rows of one scaling protocol, so that a depth ladder is never mixed into the main one.

    Args:
      table: one row per run.
      protocol: its name. None takes the plain protocol (empty or missing). If there is none, it
        takes the protocol with the most runs, and of several the first by name.

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
    """A sentence that says which protocol is analysed and which runs are left out.

    Empty if there is only one protocol.

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
        f"Architectures are compared under {what}{why}; {len(table) - len(main)} of {len(table)} "
        "runs, under "
        f"{', '.join(map(repr, others))}, take no part. --where protocol={others[0]} takes "
        f"{others[0]!r} instead."
    )


def means(values: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Means over the runs of each cell, [R, Q] and [R] -> [C, Q].

    `seed_averages` does the same for tables with gaps; seeds are averaged in no other place.
    """
    seeds = np.bincount(cell)
    return np.stack([np.bincount(cell, v, len(seeds)) / seeds for v in values.T], axis=1)


def seed_averages(
    table: pd.DataFrame, columns: Sequence[str], by: Sequence[str] = CELL
) -> pd.DataFrame:
    """Means over the seeds of every cell, each column over the runs that have it.

    Args:
      table: one row per run; NaN where a run has no value.
      columns: the numeric columns to average.
      by: columns whose values identify a cell.

    Returns:
      One row per cell in the order of the table, indexed by `by`. For each column the mean, the
      number of runs `<column>_n`, and the standard error over seeds `<column>_se` (NaN if fewer
      than two runs have a value).
    """
    runs = table.groupby(list(by), sort=False)[list(columns)]
    parts = (runs.mean(), runs.count().add_suffix("_n"), runs.sem().add_suffix("_se"))
    return pd.concat(parts, axis=1)


@dataclasses.dataclass(frozen=True)
class Cells:
    """Cell means on Q axes, and the R complete runs that they are computed from.

    Attributes:
      groups: one tuple of key values for each of the G groups, including groups without a complete
        run.
      group: group of each cell, [C], ascending.
      size: size label of each cell, [C].
      mean: mean over the seeds of a cell, [C, Q].
      seeds: number of runs in a cell, [C].
      values: positions of the complete runs, [R, Q].
      cell: cell of each complete run, [R].
      run: row of each complete run in the table, [R].
      missing: number of runs of a group that lack a position on some axis, [G].
      no_log: number of those that lack it because a value has no logarithm, [G].
      outside: number of sizes of a group that were left out because they are outside a common
        range, [G].
    """

    groups: list[tuple]
    group: np.ndarray
    size: np.ndarray
    mean: np.ndarray
    seeds: np.ndarray
    values: np.ndarray
    cell: np.ndarray
    run: np.ndarray
    missing: np.ndarray
    no_log: np.ndarray
    outside: np.ndarray

    @property
    def x(self) -> np.ndarray:
        """Means on the first axis, [C]."""
        return self.mean[:, 0]

    @property
    def y(self) -> np.ndarray:
        """Means on the second axis, [C]."""
        return self.mean[:, 1]

    @property
    def within(self) -> np.ndarray:
        """Sums of squares and products around the cell means of x and y: xx, xy, yy, [C, 3]."""
        dx, dy = (self.values[:, q] - self.mean[self.cell, q] for q in (0, 1))
        n = len(self.seeds)
        products = (dx * dx, dx * dy, dy * dy)
        return np.stack([np.bincount(self.cell, p, n) for p in products], axis=1)

    def names(self) -> list[str]:
        """The first key of every group."""
        return [group[0] for group in self.groups]

    def along_x(self) -> "Cells":
        """The same cells, sorted by x within each group."""
        return self._chosen(np.lexsort((self.x, self.group)))

    def kept(self, keep: np.ndarray) -> "Cells":
        """Only the cells where `keep` [C] is true; the others are counted as outside."""
        lost = np.bincount(self.group[~keep], minlength=len(self.groups))
        return dataclasses.replace(self._chosen(np.flatnonzero(keep)), outside=self.outside + lost)

    def complete(self) -> "Cells":
        """The cells without those groups that have no cell."""
        present = np.unique(self.group)
        return dataclasses.replace(
            self,
            groups=[self.groups[g] for g in present],
            group=np.searchsorted(present, self.group),
            **{key: getattr(self, key)[present] for key in ("missing", "no_log", "outside")},
        )

    def _chosen(self, order: np.ndarray) -> "Cells":
        """The cells at these indices, in this order, with their runs."""
        number = np.full(len(self.group), -1)
        number[order] = np.arange(len(order))
        cell = number[self.cell]
        parts = {key: getattr(self, key)[order] for key in ("group", "size", "mean", "seeds")}
        runs = cell >= 0
        return dataclasses.replace(
            self, **parts, values=self.values[runs], cell=cell[runs], run=self.run[runs]
        )

    def common_range(self, groups: Sequence[int] | np.ndarray) -> tuple[float, float]:
        """The range of x that all these groups cover; NaN if there is none."""
        ends = [(own.min(), own.max()) for g in groups if len(own := self.x[self.group == g])]
        low, high = (max(e[0] for e in ends), min(e[1] for e in ends)) if ends else (np.nan, np.nan)
        return (float(low), float(high)) if low <= high else (np.nan, np.nan)

    def on_common_range(
        self, groups: Sequence[int] | np.ndarray, needed: Sequence[int] | np.ndarray
    ) -> "Cells":
        """Leaves out cells of these groups that are outside a range which all of them cover.

        On a bent law the slope depends on the range, so two ladders that follow the same law have
        different slopes if their ranges differ. A size is kept if it is within half a step (half
        the median distance of neighbouring sizes) of the common range, so ladders that are shifted
        by less than that are compared whole. A group that is not in `needed` may be left out
        entirely if the others then keep more sizes: one distant group should not spoil the
        comparison of the others.

        Args:
          groups: the groups to compare.
          needed: those of `groups` that must be kept.
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
        return self.kept(keep)

    def _window(self, groups, needed) -> tuple[float, float, float, np.ndarray] | None:
        """The range to compare over (low, high), half a step, and the groups that cover the range.

        Of all possible ranges this is the one with the most sizes. None if no group has a cell.
        """
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
        ]  # prefer ranges with two lines, then those with most sizes
        return float(low[best]), float(high[best]), slack, np.array(list(own))[covers[:, best]]


def supported(
    cells: Cells,
    groups: Sequence[int] | np.ndarray,
    support: str,
    needed: Sequence[int] | np.ndarray | None = None,
) -> Cells:
    """The cells over which the slopes of these groups are compared.

    Args:
      cells: the cells of all groups.
      groups: the groups to compare.
      support: one of SUPPORTS.
      needed: the groups that must be kept; None keeps all of `groups`.

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


def _number(keys: Sequence[np.ndarray]) -> tuple[list[tuple], np.ndarray]:
    """The distinct rows of several key columns, sorted, and the index of each row among them."""
    codes = [np.unique(k, return_inverse=True) for k in keys]
    table = np.stack([inverse for _, inverse in codes], axis=1)
    rows, number = np.unique(table, axis=0, return_inverse=True)
    return [tuple(codes[i][0][v].item() for i, v in enumerate(row)) for row in rows], number.ravel()
