"""Quantities of a run: the column and unit of each, and how values are read onto an axis and back.

Every analysis works with positions on an axis. Costs are on a logarithmic axis. Qualities are in
their own unit, with the sign that makes higher better (`semilog`), or on a logarithmic axis too
(`loglog`). An `Axis` turns the values of a column into positions and positions back into values, so
an analysis need not know which quantity it was given.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd

from train.records import InputError

Link = Literal["semilog", "loglog"]
LINKS: tuple[Link, ...] = ("semilog", "loglog")
"""semilog: quality in its own unit, higher is better (upstream: negative log-perplexity in nats;
downstream: percent). loglog: logarithm of the loss upstream (lower is better) and of the score
downstream (higher is better). Costs (FLOPs, parameters, speed) are logarithms in both."""

_IN_NATS = "a loss in nats is needed, not a negative log-perplexity"


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One quantity of a run.

    Attributes:
      symbol: its letter, as in α_{F,U}.
      column: the column of the run table that holds it.
      unit: of the values in that column.
      kind: `cost` (positive, read as its logarithm), `loss` (not negative, lower is better) or
        `score` (-100 to 100, higher is better).
      more_is_better: whether a higher value in the column is better; of a cost, whether it is
        cheaper.
    """

    symbol: str
    column: str
    unit: str
    kind: Literal["cost", "loss", "score"]
    more_is_better: bool = False

    def of(self, column: str) -> "Quantity":
        """The same quantity, read from another column."""
        return dataclasses.replace(self, column=column)

    def axis(self, link: Link = "semilog", log_base: float = 10.0) -> "Axis":
        """The axis that an analysis sees.

        Raises:
          InputError: unknown `link`, or a base that has no logarithm.
        """
        return Axis(self, link, log_base)

    def values(self, table: pd.DataFrame) -> np.ndarray:
        """The column as numbers, [R]; NaN where empty."""
        return table[self.column].to_numpy(dtype=float, na_value=np.nan)

    def wrong(self, values: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
        """Yields masks [R] of values that cannot be right, each with an error message."""
        yield np.isinf(values), f"{self.column} is infinite"
        if self.kind == "cost":
            yield values <= 0, f"{self.column} is not positive"
        elif self.kind == "loss":
            yield values < 0, f"{self.column} is negative; {_IN_NATS}"
        else:
            outside = f"{self.column} is outside -100 to 100; a score in percent is needed"
            yield np.abs(values) > 100, outside


FLOPS = Quantity("F", "flops_forward", "FLOPs", "cost")
"""Forward FLOPs of one sequence."""
PARAMS = Quantity("P", "params_total", "parameters", "cost")
"""All parameters."""
SPEED = Quantity("S", "steps_per_second", "steps per second", "cost", more_is_better=True)
"""Training steps per second."""
STATE = Quantity("M", "state_size", "numbers", "cost")
"""What decoding keeps of one sequence between two steps."""
LOSS = Quantity("U", "upstream_nll", "nats", "loss")
"""Upstream quality: held-out loss per target token."""
SCORE = Quantity("D", "downstream_mean", "percent", "score", more_is_better=True)
"""Downstream quality: mean score over the tasks."""


@dataclasses.dataclass(frozen=True)
class Quantities:
    """The quantities of a study, each with its column.

    Attributes:
      flops: F, a cost.
      params: P, a cost.
      speed: S, a cost; higher is faster.
      state: M, a cost.
      loss: U, upstream.
      score: D, downstream.
    """

    flops: Quantity = FLOPS
    params: Quantity = PARAMS
    speed: Quantity = SPEED
    state: Quantity = STATE
    loss: Quantity = LOSS
    score: Quantity = SCORE

    def __iter__(self) -> Iterator[Quantity]:
        """Iterates over all of them."""
        return (getattr(self, field.name) for field in dataclasses.fields(self))

    def __getitem__(self, symbol: str) -> Quantity:
        """The quantity with this letter.

        Raises:
          InputError: there is none.
        """
        found = {quantity.symbol: quantity for quantity in self}
        if symbol not in found:
            raise InputError(f"quantity {symbol!r} is unknown; known: {', '.join(found)}")
        return found[symbol]


@dataclasses.dataclass(frozen=True)
class Axis:
    """A quantity as an analysis sees it: converts values to positions and back.

    Attributes:
      quantity: the quantity on the axis.
      link: one of LINKS.
      log_base: base of the logarithm.
    """

    quantity: Quantity
    link: Link = "semilog"
    log_base: float = 10.0

    def __post_init__(self):
        """Refuses an unknown link, and a base for which there is no logarithm."""
        if self.link not in LINKS:
            raise InputError(f"link {self.link!r} is unknown; known: {', '.join(LINKS)}")
        if not (self.log_base > 0 and self.log_base != 1 and np.isfinite(self.log_base)):
            raise InputError(
                f"log_base is {self.log_base}; a positive number other than 1 is needed"
            )

    @property
    def logarithmic(self) -> bool:
        """Whether positions are logarithms."""
        return self.quantity.kind == "cost" or self.link == "loglog"

    @property
    def reversed(self) -> bool:
        """Whether positions rise as values fall: a loss with its sign turned."""
        return self.quantity.kind == "loss" and not self.logarithmic

    @property
    def higher_is_better(self) -> bool:
        """Whether a higher position is better; on a cost axis, the expensive end."""
        return self.quantity.kind != "loss" or self.reversed

    @property
    def label(self) -> str:
        """The name of the axis, such as `log10 flops_forward` or `-upstream_nll (nats)`."""
        column = self.quantity.column
        if self.logarithmic:
            base = "ln" if np.isclose(self.log_base, np.e) else f"log{self.log_base:g}"
            return f"{base} {column}"
        return f"{'-' if self.reversed else ''}{column} ({self.quantity.unit})"

    def read(self, values: np.ndarray) -> np.ndarray:
        """Converts values to positions; NaN if a value is missing or has no logarithm."""
        values = np.asarray(values, float)
        if self.logarithmic:
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(values > 0, np.log(values), np.nan) / np.log(self.log_base)
        return -values if self.reversed else values

    def unread(self, positions: np.ndarray | float) -> np.ndarray:
        """Converts positions to values in the unit of the column.

        On a logarithmic axis -inf gives 0 and inf gives inf.
        """
        positions = np.asarray(positions, float)
        if self.logarithmic:
            with np.errstate(over="ignore", under="ignore"):
                return np.power(self.log_base, positions)
        return -positions if self.reversed else positions

    def span(self, low: float, high: float) -> tuple[float, float]:
        """The ends of a range of positions, in the unit of the column, the lower value first."""
        first, last = float(self.unread(low)), float(self.unread(high))
        return (last, first) if self.reversed else (first, last)

    def ratio(self, position: float, step: float) -> float:
        """The value one step further over the value at `position`; NaN if not a ratio."""
        if self.logarithmic:
            return float(self.unread(step))
        start, end = (float(self.unread(at)) for at in (position, position + step))
        least = 0.0 if self.quantity.kind == "loss" else -np.inf
        return max(end, least) / start if start > 0 else np.nan


def higher_slope_is_better(x: Axis, y: Axis) -> bool:
    """Whether a higher slope of y on x is better.

    If more x is good (or costs more), y should rise with it; if less x is good, y should fall.
    """
    return y.higher_is_better == x.higher_is_better
