"""From a run table to what is analysed: which columns mean what, checks at the door, seeds averaged into cells.

A **cell** is one architecture at one size (and protocol). Its seeds are replicates of one thing, not points of a line, so
every fit runs on cell means and every bootstrap resamples the seeds inside the cells.
"""

import dataclasses

import pandas as pd

QUANTITIES = ("F", "P", "S", "U", "D")
"""FLOPs, parameters, speed (steps per second), upstream quality, downstream quality."""

LINKS = ("semilog", "loglog")
"""semilog: quality in its own unit, higher is better (upstream: negative log-perplexity in nats; downstream: percent).
loglog: logarithm of the loss upstream (lower is better) and of the score downstream (higher is better).
F, P and S are logarithms in both."""


@dataclasses.dataclass(frozen=True)
class Axes:
    """Which columns are meant, and the base of every logarithm.

    Attributes:
      flops: column behind F; the default is forward FLOPs of one sequence.
      params: column behind P.
      speed: column behind S, higher is faster.
      upstream: column behind U: a loss in nats (positive, lower is better).
      downstream: column behind D: a score in percent (at most 100, higher is better; correlations may be negative).
      log_base: base of every logarithm.
    """

    flops: str = "flops_forward"
    params: str = "params_total"
    speed: str = "steps_per_second"
    upstream: str = "upstream_nll"
    downstream: str = "downstream_mean"
    log_base: float = 10.0

    def column(self, quantity: str) -> str:
        """The column behind one of QUANTITIES."""
        raise NotImplementedError

    def label(self, quantity: str, link: str = "semilog") -> str:
        """How a quantity is printed on an axis, e.g. `log10 flops_forward` or `-upstream_nll (nats)`."""
        raise NotImplementedError


def check(table: pd.DataFrame, quantities: str, axes: Axes = Axes()) -> None:
    """Refuses a table from which a wrong number could come.

    Raises:
      InputError: a column is missing or not numeric; a run id or a (architecture, size, protocol, seed) appears twice; a
        FLOP count, parameter count or speed is not positive, a loss is negative, a score is above 100, or any is infinite;
        the runs come from more than one corpus. NaN is allowed: the analyses count and report it.
    """
    raise NotImplementedError


def main_protocol(table: pd.DataFrame, protocol: str | None = None) -> pd.DataFrame:
    """The rows of one scaling protocol, so that a depth ladder is never mixed into the main one.

    Args:
      table: one row per run.
      protocol: its name; `None` takes the default one (empty, missing, or the only one there is).

    Raises:
      InputError: `protocol` is not in the table, or it is `None` and there are several with no default among them.
    """
    raise NotImplementedError
