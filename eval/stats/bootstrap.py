"""Bootstrap over seeds: the study as it might have come out, had every cell been trained again with other seeds."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from eval.data.cells import Axes, read

_ENOUGH = 4  # degrees of freedom from which an architecture's own seeds tell its noise


@dataclasses.dataclass(frozen=True)
class Sample:
    """Cell means of some quantities, and redrawn versions of them.

    Attributes:
      names: architectures (A of them), sorted.
      architecture: architecture of each cell as an index into `names`, [C].
      size: size label of each cell, [C].
      seeds: complete runs in each cell, [C].
      mean: cell means, [C, Q]; costs are on the logarithmic axis, qualities higher is better.
      draws: redrawn cell means, [B, C, Q]; empty ([0, C, Q]) where no cell has two seeds.
      df: degrees of freedom of the noise that was redrawn, the fewest of any architecture; NaN
        without draws.
      runs: values of the complete runs, [R, Q].
      cell: cell of each complete run, [R].
      note: what the redrawing cannot do, in words.
    """

    names: list[str]
    architecture: np.ndarray
    size: np.ndarray
    seeds: np.ndarray
    mean: np.ndarray
    draws: np.ndarray
    df: float
    runs: np.ndarray
    cell: np.ndarray
    note: str


def sample(
    table: pd.DataFrame, quantities: str, fixed: str, axes: Axes, draws: int, seed: int
) -> Sample:
    """Cells with all of `quantities` and `fixed`, their means, and `draws` redrawings of the means of `quantities`.

    A redrawn mean is the mean plus as many residuals as the cell has seeds, drawn from all sizes of
    its architecture (from all architectures where it has too few seeds) and inflated by sqrt(S / (S
    - 1)), so that two seeds are not taken for less noisy than five. The quantities of one run stay
    together. `fixed` quantities are not redrawn.
    """
    values = np.stack([read(table, q, "semilog", axes) for q in quantities + fixed], axis=1)
    whole = np.asarray(np.isfinite(values).all(1))
    values = values[whole]
    names, architecture = np.unique(
        table["architecture"].astype(str).to_numpy(str)[whole], return_inverse=True
    )
    sizes, size = np.unique(table["size"].astype(str).to_numpy(str)[whole], return_inverse=True)
    key, first, cell, seeds = np.unique(
        architecture * max(len(sizes), 1) + size,
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    mean = np.stack([np.bincount(cell, v, len(key)) for v in values.T], axis=1) / seeds[:, None]
    lost = len(whole) - whole.sum()
    note = [f"{lost} runs lack a value and are left out"] if lost else []
    redrawn, df = np.empty((0, *mean.shape)), np.nan
    if (seeds > 1).any():
        freedom = np.bincount(architecture) - np.bincount(architecture[first], minlength=len(names))
        df = float(min(n if n >= _ENOUGH else freedom.sum() for n in freedom))
        redrawn = _redraw(values, cell, architecture, freedom, mean, seeds, draws, seed)
        redrawn[:, :, len(quantities) :] = mean[:, len(quantities) :]
    else:
        note.append("one seed per cell: the spread of the seeds is unknown")
    return Sample(
        names.tolist(),
        architecture[first],
        sizes[size[first]],
        seeds,
        mean,
        redrawn,
        df,
        values,
        cell,
        "; ".join(note),
    )


def _redraw(values, cell, architecture, freedom, mean, seeds, draws: int, seed: int) -> np.ndarray:
    """Redrawn cell means, [draws, C, Q]."""
    rng = np.random.default_rng(seed)
    many = seeds[cell] > 1
    inflate = np.sqrt(seeds / np.maximum(seeds - 1, 1))[cell][:, None]
    residuals = ((values - mean[cell]) * inflate)[many]
    owner = architecture[many]
    # From each architecture's residuals, or from everybody's: positions into one array that holds
    # both.
    by_owner = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[by_owner], np.arange(len(freedom)))
    counts = np.bincount(owner, minlength=len(freedom))
    result = np.empty((draws, *mean.shape))
    for c, n in enumerate(seeds):
        a = architecture[np.argmax(cell == c)]
        own = (
            by_owner[starts[a] : starts[a] + counts[a]]
            if freedom[a] >= _ENOUGH
            else np.arange(len(residuals))
        )
        result[:, c] = mean[c] + residuals[own[rng.integers(len(own), size=(draws, n))]].mean(1)
    return result


def percentiles(
    draws: np.ndarray, level: float, df: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the percentile interval over the first axis; NaN without draws.

    With few degrees of freedom the redrawn noise is itself uncertain: the ends move out from the
    median by the quantile of t over that of the normal.
    """
    if not len(draws):
        empty = np.full(draws.shape[1:], np.nan)
        return empty, empty
    low, middle, high = np.quantile(draws, ((1 - level) / 2, 0.5, (1 + level) / 2), axis=0)
    wider = stats.t.ppf((1 + level) / 2, df) / stats.norm.ppf((1 + level) / 2)
    return middle + wider * (low - middle), middle + wider * (high - middle)


def reflected(
    estimate: np.ndarray, draws: np.ndarray, level: float, df: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the basic bootstrap interval: it takes out the bias of redrawing (a maximum grows with noise)."""
    low, high = percentiles(draws, level, df)
    return 2 * estimate - high, 2 * estimate - low


def join(*notes: Sequence[str] | str) -> str:
    """Notes as one, empty ones left out."""
    return "; ".join(n for n in notes if isinstance(n, str) and n)
