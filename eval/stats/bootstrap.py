"""Bootstrap over seeds: how the study might have come out, had every cell been trained with other seeds."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from eval.data.cells import Cells

_OWN_NOISE = 4  # degrees of freedom from which an architecture's own seeds tell its noise


@dataclasses.dataclass(frozen=True)
class Resampled:
    """Cells with their means drawn again.

    Attributes:
      cells: what was drawn from, without empty groups; a group is an architecture.
      draws: redrawn cell means, [B, C, Q]; empty ([0, C, Q]) where no cell has two seeds.
      df: degrees of freedom of the noise that was drawn from, the fewest of any architecture; NaN
        without draws.
      note: what the draws cannot say, in words.
    """

    cells: Cells
    draws: np.ndarray
    df: float
    note: str

    @property
    def names(self) -> list[str]:
        """Architectures (A of them), sorted."""
        return self.cells.names()

    @property
    def architecture(self) -> np.ndarray:
        """Architecture of each cell, [C]."""
        return self.cells.group

    @property
    def size(self) -> np.ndarray:
        """Size label of each cell, [C]."""
        return self.cells.size

    @property
    def mean(self) -> np.ndarray:
        """Cell means, [C, Q]."""
        return self.cells.mean


def resample(cells: Cells, free: int, draws: int, seed: int) -> Resampled:
    """Draws the means of the first `free` axes again; those of the other axes stay as they are.

    A redrawn mean is the mean plus as many residuals as the cell has seeds, drawn from all sizes of
    its architecture (from all architectures where it has too few seeds) and inflated by
    sqrt(S / (S - 1)), so that two seeds are not taken for less noisy than five. The values of one run
    stay together.

    Args:
      cells: one group per architecture.
      free: how many of the axes vary between seeds.
      draws: how many times (B).
      seed: of the generator.
    """
    lost = int(cells.missing.sum())
    note = [f"{lost} runs lack a value and are left out"] if lost else []
    cells = cells.complete()
    redrawn, df = np.empty((0, *cells.mean.shape)), np.nan
    if (cells.seeds > 1).any():
        runs = np.bincount(cells.group[cells.cell], minlength=len(cells.groups))
        freedom = runs - np.bincount(cells.group, minlength=len(cells.groups))
        df = float(min(n if n >= _OWN_NOISE else freedom.sum() for n in freedom))
        redrawn = _redraw(cells, freedom, draws, seed)
        redrawn[:, :, free:] = cells.mean[:, free:]
    else:
        note.append("one seed per cell: the spread of the seeds is unknown")
    return Resampled(cells, redrawn, df, "; ".join(note))


def _redraw(cells: Cells, freedom: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Redrawn cell means, [draws, C, Q]."""
    rng = np.random.default_rng(seed)
    seeds, cell, mean, architecture = cells.seeds, cells.cell, cells.mean, cells.group
    many = seeds[cell] > 1
    inflate = np.sqrt(seeds / np.maximum(seeds - 1, 1))[cell][:, None]
    residuals = ((cells.values - mean[cell]) * inflate)[many]
    owner = architecture[cell][many]
    # From each architecture's residuals, or from everybody's: positions into one array that holds both.
    by_owner = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[by_owner], np.arange(len(freedom)))
    counts = np.bincount(owner, minlength=len(freedom))
    result = np.empty((draws, *mean.shape))
    for c, n in enumerate(seeds):
        a = architecture[c]
        enough = freedom[a] >= _OWN_NOISE
        own = by_owner[starts[a] : starts[a] + counts[a]] if enough else np.arange(len(residuals))
        picked = own[rng.integers(len(own), size=(draws, n))]
        result[:, c] = mean[c] + residuals[picked].mean(1)
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
