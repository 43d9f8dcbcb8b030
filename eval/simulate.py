"""Simulated studies with known truth, in the store's columns: what the intervals and tests are checked against."""

import dataclasses
from collections.abc import Mapping

import pandas as pd


@dataclasses.dataclass(frozen=True)
class Line:
    """One architecture's truth: linear in log10 FLOPs, relative to 1e9 FLOPs a sequence.

    Attributes:
      upstream: negative log-perplexity at 1e9 FLOPs, nats.
      upstream_slope: nats per decade of FLOPs.
      downstream: mean score at 1e9 FLOPs, percent.
      downstream_slope: percent per decade of FLOPs.
      flops: factor on the FLOPs of every size.
      speed: factor on the speed of every size.
      noise: factor on both noises.
    """

    upstream: float = -3.5
    upstream_slope: float = 0.54
    downstream: float = 60.0
    downstream_slope: float = 6.0
    flops: float = 1.0
    speed: float = 1.0
    noise: float = 1.0


@dataclasses.dataclass(frozen=True)
class Noise:
    """Standard deviations: of a size around its line (shared by its seeds) and of a seed around its size.

    The defaults are what small studies show: .01 nats and .5 percent between seeds, .02 nats and 1 percent of misfit.
    """

    upstream_size: float = 0.02
    upstream_seed: float = 0.01
    downstream_size: float = 1.0
    downstream_seed: float = 0.5


def study(
    lines: Mapping[str, Line], *, sizes: int = 5, seeds: int = 3, noise: Noise = Noise(), step: float = 0.6,
    protocol: str = "", seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """A table of len(lines) x sizes x seeds runs.

    Args:
      lines: architecture name to truth.
      step: decades of FLOPs between neighbouring sizes.
      seed: of the generator; equal seeds give equal tables.

    Returns:
      One row per run with the store's columns run_id, study, architecture, size, protocol, seed, params_total,
      params_non_embedding, params_active, flops_forward, steps_per_second, upstream_nll, upstream_neg_log_ppl,
      downstream_mean, corpus.
    """
    raise NotImplementedError
