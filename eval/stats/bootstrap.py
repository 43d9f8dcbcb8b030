"""Bootstrap over seeds and held-out examples: how the study might have come out with others."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from eval.data.cells import Cells

_OWN_NOISE = 4  # degrees of freedom; with fewer, the noise is taken from all architectures


@dataclasses.dataclass(frozen=True)
class Resampled:
    """Cells with bootstrap draws of their means.

    Attributes:
      cells: the cells that were drawn from, without empty groups; a group is an architecture.
      draws: redrawn cell means, [B, C, Q]; empty ([0, C, Q]) if no cell has two seeds.
      df: degrees of freedom of the noise that was drawn from, the fewest of any architecture; NaN
        without draws.
      note: the limits of the draws, in words.
    """

    cells: Cells
    draws: np.ndarray
    df: float
    note: str

    @property
    def names(self) -> list[str]:
        """The A architectures, sorted."""
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


def resample(
    cells: Cells, free: int, draws: int, seed: int, noise: np.ndarray | None = None
) -> Resampled:
    """Redraws the means on the first `free` axes; those on the other axes stay as they are.

    A redrawn mean is the mean plus the average of as many residuals as the cell has seeds. The
    residuals are drawn from all sizes of the architecture, or from all architectures if it has too
    few seeds. They are inflated by sqrt(S / (S - 1)), because the residuals of few seeds around
    their own mean are too small. The values of one run stay together.

    Args:
      cells: one group per architecture.
      free: the number of axes that vary between seeds.
      draws: the number of draws, B.
      seed: the seed of the generator.
      noise: what other held-out examples would have changed in every run, [B, R, free]; None if the
        runs did not keep the values of each example.
    """
    lost = int(cells.missing.sum())
    runs = "1 run lacks a value and is" if lost == 1 else f"{lost} runs lack a value and are"
    note = [f"{runs} left out"] if lost else []
    cells = cells.complete()
    redrawn, df = np.empty((0, *cells.mean.shape)), np.nan
    if (cells.seeds > 1).any():
        runs = np.bincount(cells.group[cells.cell], minlength=len(cells.groups))
        freedom = runs - np.bincount(cells.group, minlength=len(cells.groups))
        df = float(min(n if n >= _OWN_NOISE else freedom.sum() for n in freedom))
        redrawn = _redraw(cells, freedom, draws, seed)
        redrawn[:, :, free:] = cells.mean[:, free:]
    elif noise is not None:
        redrawn, df = np.tile(cells.mean, (draws, 1, 1)), np.inf
        note.append("one seed per cell: only the held-out examples are drawn again")
    else:
        note.append("one seed per cell: the spread of the seeds is unknown")
    if noise is not None and len(redrawn):
        for c in range(len(cells.seeds)):
            redrawn[:, c, :free] += noise[:, cells.cell == c].mean(1)
    return Resampled(cells, redrawn, df, "; ".join(note))


def _redraw(cells: Cells, freedom: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Redrawn cell means, [draws, C, Q]."""
    rng = np.random.default_rng(seed)
    seeds, cell, mean, architecture = cells.seeds, cells.cell, cells.mean, cells.group
    many = seeds[cell] > 1
    inflate = np.sqrt(seeds / np.maximum(seeds - 1, 1))[cell][:, None]
    residuals = ((cells.values - mean[cell]) * inflate)[many]
    owner = architecture[cell][many]
    # Residuals are drawn as positions into one array: each architecture's own, or those of all.
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

    With few degrees of freedom the redrawn noise is itself uncertain. So the ends are moved away
    from the median by the ratio of the quantiles of t and of the normal distribution.
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
    """Ends of the basic bootstrap interval.

    It removes the bias of redrawing: a maximum, for example, grows with noise.
    """
    low, high = percentiles(draws, level, df)
    return 2 * estimate - high, 2 * estimate - low


def join(*notes: Sequence[str] | str) -> str:
    """Joins the notes that are not empty."""
    return "; ".join(n for n in notes if isinstance(n, str) and n)
