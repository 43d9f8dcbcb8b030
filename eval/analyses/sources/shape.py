"""How much the shape of a model matters at equal size: Kaplan's figures 5 and 6."""

import math

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.sources import inference as infer
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.measured import Measured, same, seed_noise
from eval.stats.decision import Finding, judge

_SHAPES = 3  # the fewest shapes of one size
_SIZES = 2  # the fewest sizes that were built in several shapes


def equal_sizes(m: Measured) -> pd.DataFrame:
    """The cells, all trained for the same length, whose size was built in several shapes.

    Raises:
      Untestable: there are too few.
    """
    cells = m.cells
    # The length at which most shapes were trained.
    cells = cells[cells["level"] == cells["level"].mode().max()]
    cells = cells.assign(group=same(cells["N"].to_numpy()))
    shapes = cells.groupby("group")["size"].transform("nunique")
    found = cells[shapes >= _SHAPES]
    need(
        found["group"].nunique() >= _SIZES,
        f"no {_SIZES} sizes outside the embedding that were each built in {_SHAPES} shapes",
    )
    return found


def spread(m: Measured) -> Finding:
    """The standard deviation of the loss over shapes, over the effect of doubling N.

    Without the noise between seeds, where there are several; with one seed the spread contains it.
    """
    cells = equal_sizes(m)
    y, group = cells["last"].to_numpy(float), cells["group"].to_numpy()
    within = y - cells.groupby("group")["last"].transform("mean").to_numpy(float)
    df = len(y) - len(np.unique(group))
    variance = float((within**2).sum()) / df
    slope = infer.slope(np.log2(cells["N"].to_numpy(float)), y)
    noise, spare = seed_noise(m.usual, ["size", "protocol"], "last")
    seeds = float(cells["last_n"].mean())
    drawn = infer.variance_draws(variance, df, m.seed)
    error = 0.0
    if spare:
        error = noise / seeds
        drawn = drawn - infer.variance_draws(error, spare, m.seed + 1)
    effect = math.sqrt(max(variance - error, 0.0))
    doubling = np.abs(infer.draws(slope, m.seed + 2))
    note = [f"{len(y)} shapes of {len(np.unique(group))} sizes"]
    note.append(f"a doubling of N changes the loss by {float(slope.value):.3g} nats")
    note.append("without the noise of seeds" if spare else "with the noise of one seed")
    return infer.below_in_draws(
        effect / abs(float(slope.value)),
        np.sqrt(np.maximum(drawn, 0.0)) / doubling,
        1.0,
        m.level,
        "; ".join(note),
    )


def counting(m: Measured) -> Finding:
    """Scatter around one line in log N, with the embedding counted over without it.

    Both residuals are of the same cells. Their variances are equal exactly if their sum and their
    difference are uncorrelated (Pitman 1939, Morgan 1939).
    """
    cells = equal_sizes(m)
    y = np.log(cells["last"].to_numpy(float))
    with_it, without = (_residual(np.log(cells[c].to_numpy(float)), y) for c in ("P", "N"))
    df = len(y) - 3  # a line takes two degrees of freedom, the correlation another one
    if df < 1 or not (without @ without > 0 and with_it @ with_it > 0):
        raise Open("too few shapes, or no scatter around the lines")
    both, apart = with_it + without, with_it - without
    if not (both @ both > 0 and apart @ apart > 0):
        raise Open("both counts give the same line: the embedding is the same share in all shapes")
    r = float(both @ apart / math.sqrt(float(both @ both) * float(apart @ apart)))
    t = r * math.sqrt(df / max(1 - r * r, 1e-300))
    verdict, p = judge(float(stats.t.sf(t, df)), float(stats.t.cdf(t, df)), m.level)
    f = float(with_it @ with_it / (without @ without))
    rho = float(with_it @ without / math.sqrt(float(with_it @ with_it) * float(without @ without)))
    k = 1 + 2 * (1 - rho * rho) * float(stats.t.ppf((1 + m.level) / 2, df)) ** 2 / df
    ends = [f * (k + sign * math.sqrt(k * k - 1)) for sign in (-1, 1)]
    return Finding(math.sqrt(f), math.sqrt(ends[0]), math.sqrt(ends[1]), p, verdict)


def _residual(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return y - np.polyval(np.polyfit(x, y, 1), x)
