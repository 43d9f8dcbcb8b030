"""Simulates studies with known truth, in the store's columns, to check intervals and tests."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

ORIGIN = 9.0  # log10 of the FLOPs at which a Line states its levels


@dataclasses.dataclass(frozen=True)
class Line:
    """The true line of one architecture, linear in log10 FLOPs.

    Attributes:
      upstream: negative log-perplexity at 1e9 FLOPs a sequence, nats.
      upstream_slope: nats per decade of FLOPs.
      downstream: mean score at 1e9 FLOPs, percent.
      downstream_slope: percent per decade of FLOPs.
      flops: factor on the FLOPs of every size.
      speed: factor on the speed of every size.
      noise: factor on both noises.
      bend: share of the default slope that is lost per decade of FLOPs, as if a floor came near.
    """

    upstream: float = -3.5
    upstream_slope: float = 0.54
    downstream: float = 50.0
    downstream_slope: float = 6.0
    flops: float = 1.0
    speed: float = 1.0
    noise: float = 1.0
    bend: float = 0.0


@dataclasses.dataclass(frozen=True)
class Noise:
    """Standard deviations of a size around its line (shared by its seeds), and of its seeds.

    The defaults are typical of small studies: .01 nats and .5 percent between seeds, .02 nats and 1
    percent of misfit.
    """

    upstream_size: float = 0.02
    upstream_seed: float = 0.01
    downstream_size: float = 1.0
    downstream_seed: float = 0.5


def study(
    lines: Mapping[str, Line],
    *,
    sizes: int = 5,
    seeds: int = 3,
    noise: Noise = Noise(),
    step: float = 0.6,
    protocol: str = "",
    seed: int = 0,
) -> pd.DataFrame:
    """A table of len(lines) x sizes x seeds runs.

    Args:
      lines: architecture name to truth.
      sizes: sizes of every architecture, named size0, size1, ...
      seeds: runs of every size.
      noise: standard deviations.
      step: decades of FLOPs between neighbouring sizes.
      protocol: the scaling protocol's name.
      seed: of the generator; equal seeds give equal tables.

    Returns:
      One row per run with the store's columns run_id, study, architecture, size, protocol, seed,
      params_total, params_non_embedding, params_active, flops_forward, steps_per_second,
      upstream_nll, upstream_neg_log_ppl, downstream_mean, corpus.
    """
    rng = np.random.default_rng(seed)
    a, k, s = (v.ravel() for v in np.indices((len(lines), sizes, seeds)))
    truth = {
        f.name: np.array([getattr(line, f.name) for line in lines.values()])[a]
        for f in dataclasses.fields(Line)
    }
    log_flops = ORIGIN + step * k + np.log10(truth["flops"])
    quality = {}
    for name in ("upstream", "downstream"):
        misfit = rng.normal(size=(len(lines), sizes))[a, k] * getattr(noise, f"{name}_size")
        spread = rng.normal(size=len(a)) * getattr(noise, f"{name}_seed")
        decades = log_flops - ORIGIN
        line = truth[name] + truth[f"{name}_slope"] * decades
        line -= truth["bend"] * getattr(Line, f"{name}_slope") * decades**2 / 2
        quality[name] = line + truth["noise"] * (misfit + spread)
    names, params = np.array(list(lines))[a], 10.0 ** (6 + 0.5 * step * k)
    suffix = f"-{protocol}" if protocol else ""
    return pd.DataFrame(
        {
            "run_id": [f"{n}-size{i}{suffix}-s{j}" for n, i, j in zip(names, k, s, strict=True)],
            "study": "simulated",
            "architecture": names,
            "size": [f"size{i}" for i in k],
            "protocol": protocol,
            "seed": s,
            "params_total": params * 1.5,
            "params_non_embedding": params,
            "params_active": params,
            "flops_forward": 10.0**log_flops,
            "steps_per_second": truth["speed"] * 10.0 ** (10 - log_flops),
            "upstream_nll": -quality["upstream"],
            "upstream_neg_log_ppl": quality["upstream"],
            "downstream_mean": quality["downstream"],
            "corpus": "simulated",
        }
    )
