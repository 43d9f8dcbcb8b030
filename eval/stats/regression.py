"""Fits a straight line per group through its cell means, and tests combinations of coefficients.

There are two sources of error, which are never mixed:
  size  The scatter of the cell means around the line. With fewer than ROBUST_FROM sizes: one
        residual variance per line and n - 2 degrees of freedom. In simulations this covers 93-95 %
        even if the noise changes threefold with size, where HC3 covers 97-98 %. With more: HC3.
  seed  The spread of the seeds within the cells, with the sizes taken as given: the uncertainty
        about the slope that endless seeds would give at exactly these sizes. It needs two seeds in
        at least one cell, works with two sizes, and says nothing about other sizes.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy import stats

from eval.data.cells import Cells
from eval.stats.moderation import moderated
from train.records import InputError

ERRORS = ("size", "seed")
VARIANCES = ("separate", "moderated", "pooled")
MIN_SIZES = 4
ROBUST_FROM = 8
_FLAT = 1e-9  # a relative spread of x below this counts as no spread


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimates of linear functions of the coefficients.

    All arrays have one shape; NaN where there is no estimate.
    """

    value: np.ndarray
    se: np.ndarray
    df: np.ndarray

    @property
    def p(self) -> np.ndarray:
        """Two-sided p value of value = 0."""
        return 2 * stats.t.sf(np.abs(self._t), self.df)

    @property
    def p_above(self) -> np.ndarray:
        """One-sided p value; small if the value is surely above 0."""
        return stats.t.sf(self._t, self.df)

    @property
    def p_below(self) -> np.ndarray:
        """One-sided p value; small if the value is surely below 0."""
        return stats.t.cdf(self._t, self.df)

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Two-sided t interval."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self.se
        return self.value - half, self.value + half

    @property
    def _t(self) -> np.ndarray:
        """The value over its error; NaN if the error is 0 (a perfect line)."""
        return np.divide(
            self.value, self.se, out=np.full_like(self.value, np.nan), where=self.se > 0
        )


@dataclasses.dataclass(frozen=True)
class Lines:
    """One fitted line per group: y = intercept + slope x.

    Attributes:
      cells: the cells that were fitted.
      n: number of cells of a group, [G].
      low: lower end of the range of x that a group covers, [G].
      high: its upper end, [G].
      coefficients: intercept and slope, [G, 2]; NaN if a group has fewer than two distinct x.
      covariance: covariance of the coefficients, [G, 2, 2]; NaN if it cannot be estimated.
      df: degrees of freedom of the covariance, [G].
      most_df: the degrees of freedom that no combination exceeds: those of all groups together,
        where they share what is known of the variance, else infinite.
      r2: share of the variance of the cell means that the line explains, [G].
      se_hc3: HC3 standard error of the slope, [G].
      made: `errors` and `variance` of the fit.
      method: how the errors were estimated, [G] of str.
      notes: why there is no slope or no error, [G] of str.
    """

    cells: Cells
    n: np.ndarray
    low: np.ndarray
    high: np.ndarray
    coefficients: np.ndarray
    covariance: np.ndarray
    df: np.ndarray
    most_df: float
    r2: np.ndarray
    se_hc3: np.ndarray
    made: tuple[str, str]
    method: np.ndarray
    notes: np.ndarray

    def combine(self, weights: np.ndarray) -> Estimate:
        """The sum of weights * coefficients, with Welch and Satterthwaite's degrees of freedom.

        Args:
          weights: [..., G, 2]; a group with weight 0 does not count, so its NaN does no harm.
        """
        used = weights != 0
        # NaN times a zero weight would be NaN, so unused groups count as zero here.
        value = np.where(used, weights * np.nan_to_num(self.coefficients), 0.0).sum((-2, -1))
        by_group = np.einsum(
            "...gi,gij,...gj->...g", weights, np.nan_to_num(self.covariance), weights
        )
        # Groups have independent data, so their variances add.
        variance = by_group.sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            df = variance**2 / np.where(by_group > 0, by_group**2 / self.df, 0.0).sum(-1)
        df = np.minimum(df, self.most_df)
        lacks = lambda bad: (used & bad).any((-2, -1))
        value = np.where(lacks(np.isnan(self.coefficients)), np.nan, value)
        unknown = lacks(np.isnan(np.einsum("gii->gi", self.covariance))) | np.isnan(value)
        se, df = (np.where(unknown, np.nan, v) for v in (np.sqrt(np.maximum(variance, 0.0)), df))
        return Estimate(value, se, df)

    def explain(self, groups: Iterable[int]) -> str:
        """The notes on these groups, each once, with the names of its groups."""
        about: dict[str, list[str]] = {}
        for g in groups:
            if self.notes[g]:
                about.setdefault(self.notes[g], []).append(
                    " ".join(filter(None, self.cells.groups[g]))
                )
        return "; ".join(f"{note} ({', '.join(names)})" for note, names in about.items())

    def method_of(self, *groups: int) -> str:
        """How the error of a comparison of these groups was estimated."""
        methods = list(dict.fromkeys(self.method[g] for g in groups))
        return "none" if "none" in methods else " and ".join(methods)

    def resampled(self, draws: int, seed: int) -> np.ndarray:
        """Coefficients drawn around the fit, with the spread of its t intervals, [draws, G, 2].

        NaN for lines without an error.
        """
        rng = np.random.default_rng(seed)
        result = np.full((draws, len(self.n), 2), np.nan)
        shared = None
        if self.made[1] == "pooled":
            shared = rng.chisquare(self.most_df, (draws, 1)) / self.most_df
        for g in np.flatnonzero(np.isfinite(self.covariance).all((1, 2)) & (self.df > 0)):
            values, vectors = np.linalg.eigh(self.covariance[g])
            scale = shared
            if scale is None:
                scale = rng.chisquare(self.df[g], (draws, 1)) / self.df[g]
            normal = rng.standard_normal((draws, 2)) * np.sqrt(np.maximum(values, 0.0))
            result[:, g] = self.coefficients[g] + normal @ vectors.T / np.sqrt(scale)
        return result

    def slope_estimates(self) -> Estimate:
        """The slope of every group, [G]."""
        se = np.sqrt(self.covariance[:, 1, 1])
        return Estimate(self.coefficients[:, 1], se, np.where(np.isnan(se), np.nan, self.df))

    def slope_weights(self, group: int) -> np.ndarray:
        """Weights whose combination is the slope of a group, [G, 2]."""
        return self.value_weights(group, np.inf)

    def value_weights(self, group: int, x: float) -> np.ndarray:
        """Weights whose combination is the line of a group at x (its slope for x = inf), [G, 2]."""
        weights = np.zeros_like(self.coefficients)
        weights[group] = (0.0, 1.0) if np.isinf(x) else (1.0, x)
        return weights


def fit(cells: Cells, errors: str = "size", variance: str = "separate") -> Lines:
    """Fits least squares to the cell means of all groups at once.

    Args:
      cells: means of x and y.
      errors: one of ERRORS, see above.
      variance: `separate`: a variance for each group; `moderated`: the same, shrunken towards each
        other (`eval.stats.moderation`); `pooled`: one for all.

    Raises:
      InputError: unknown `errors` or `variance`.
    """
    for name, value, known in (("errors", errors, ERRORS), ("variance", variance, VARIANCES)):
        if value not in known:
            raise InputError(f"{name} {value!r} is unknown; known: {', '.join(known)}")
    g, total = cells.group, len(cells.groups)
    tally = lambda w: np.bincount(g, w, total).astype(float)  # integers where there is nothing
    n = np.bincount(g, minlength=total)
    low, high = np.full(total, np.inf), np.full(total, -np.inf)
    np.minimum.at(low, g, cells.x)
    np.maximum.at(high, g, cells.x)
    flat = ~(high - low > _FLAT * np.maximum(1.0, np.abs(high))) | (cells.no_log > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_x, mean_y = tally(cells.x) / n, tally(cells.y) / n
        dx, dy = cells.x - mean_x[g], cells.y - mean_y[g]
        sxx = np.where(flat, np.nan, tally(dx * dx))
        slope = tally(dx * dy) / sxx
        residual = dy - slope[g] * dx
        leverage = 1 / n[g] + dx**2 / sxx[g]
        rss, tss = tally(residual**2), tally(dy * dy)
        hc3 = np.where(leverage < 1 - 1e-9, residual**2 / (1 - leverage) ** 2, np.nan)
        to_slope = dx / sxx[g]
        to_intercept = 1 / n[g] - mean_x[g] * to_slope
        noise, df, most_df, method, notes = _noise(
            cells, n, flat, np.nan_to_num(slope), rss, hc3, (errors, variance)
        )
        weights = np.stack([to_intercept, to_slope], axis=1)
        products = weights[:, :, None] * weights[:, None, :] * noise[:, None, None]
        covariance = np.stack([tally(p) for p in products.reshape(-1, 4).T], axis=1).reshape(
            -1, 2, 2
        )
        covariance[~(df > 0)] = np.nan
        return Lines(
            cells,
            n,
            low,
            high,
            np.stack([mean_y - slope * mean_x, slope], axis=1),
            covariance,
            df,
            most_df,
            np.where((n > 2) & (tss > 0), 1 - rss / tss, np.nan),
            np.sqrt(tally(to_slope**2 * hc3)),
            (errors, variance),
            method,
            notes,
        )


def _noise(cells: Cells, n, flat, slope, rss, hc3, made: tuple[str, str]):
    """The variance of each cell mean around its line, its degrees of freedom, and the method."""
    errors, variance = made
    g, total = cells.group, len(n)
    if errors == "size":
        own = np.where(flat, 0, np.maximum(n - 2, 0)).astype(float)
        squares, share = np.where(own > 0, rss, 0.0), np.ones(len(g))
        method = "t, one residual variance of the size means"
    else:
        own = np.bincount(g, cells.seeds - 1.0, total)
        xx, xy, yy = cells.within.T  # a seed moves its cell along x as well, where x is measured
        around = yy - 2 * slope[g] * xy + slope[g] ** 2 * xx
        squares, share = np.bincount(g, around, total), 1.0 / cells.seeds
        method = "t, spread of the seeds; sizes taken as given"
    if variance == "pooled":
        df = np.where(flat, 0.0, own.sum())
        noise = share * squares.sum() / own.sum()
        method = np.where(df > 0, method + ", pooled over all lines", "none").astype(object)
        return noise, df, float(own.sum()), method, _notes(cells, n, flat, df, errors, pooled=True)
    if variance == "moderated":
        each, df = moderated(squares / own, own)
        df = np.where(flat, 0.0, df)
        method = np.where(df > 0, method + ", moderated over all lines", "none").astype(object)
        notes = _notes(cells, n, flat, df, errors, pooled=True)
        return share * each[g], df, float(own.sum()), method, notes
    noise = share * (squares / own)[g]
    method = np.full(total, method, dtype=object)
    if errors == "size":
        robust = n >= ROBUST_FROM
        noise = np.where(robust[g], hc3, noise)
        method[robust] = "t, HC3 of the size means"
        own = np.where(n < MIN_SIZES, 0.0, own)
    df = np.where(flat, 0.0, own)
    method[~(df > 0)] = "none"
    return noise, df, np.inf, method, _notes(cells, n, flat, df, errors, pooled=False)


def _notes(cells: Cells, n, flat, df, errors: str, pooled: bool) -> np.ndarray:
    """What is missing from each line, in words."""
    notes = np.full(len(n), "", dtype=object)
    for i, size_count in enumerate(n):
        words = []
        if cells.no_log[i]:
            words.append(
                f"{cells.no_log[i]} runs have a value of 0 or less, which has no logarithm: no "
                "slope"
            )
        elif size_count < 2:
            none = (
                "does not cover the range that is compared"
                if cells.outside[i]
                else "no complete run"
            )
            words.append(none if size_count == 0 else "1 size: no slope")
        elif flat[i]:
            words.append(f"{size_count} sizes with the same x: no slope")
        elif not df[i] > 0 and errors == "seed":
            words.append("one seed per size: the spread of the seeds is unknown, no interval")
        elif not df[i] > 0:
            words.append(f"{size_count} sizes: not enough points for an interval")
        elif pooled and size_count < MIN_SIZES:
            words.append(
                f"{size_count} sizes: the interval rests on the scatter of the other architectures"
            )
        if cells.missing[i] > cells.no_log[i]:
            lost = cells.missing[i] - cells.no_log[i]
            words.append("1 run lacks a value" if lost == 1 else f"{lost} runs lack a value")
        if cells.outside[i] and size_count:
            words.append(
                f"{cells.outside[i]} sizes outside the range that all compared here cover are left "
                "out"
            )
        notes[i] = "; ".join(words)
    return notes


def least_difference(cells: Cells, level: float) -> float:
    """The difference of two cell means, on the second axis, that a t test at `level` can tell.

    The noise of a cell mean is that of its seeds if any cell has two, else the scatter of the means
    around their lines, of all groups together. It includes the seeds' or the sizes' noise, so it is
    larger than the error over held-out examples. NaN if there is neither.
    """
    df = float((cells.seeds - 1).sum())
    if df:
        variance = cells.within[:, 2].sum() / df * float(np.mean(1 / cells.seeds))
    else:
        lines = fit(cells, "size", "pooled")
        df = lines.most_df
        intercept, slope = lines.coefficients[cells.group].T
        fitted = np.isfinite(slope) & (lines.n[cells.group] > 2)
        residual = np.where(fitted, cells.y - intercept - slope * cells.x, 0.0)
        variance = (residual**2).sum() / df if df else np.nan
    return float(stats.t.ppf((1 + level) / 2, df) * np.sqrt(2 * variance)) if df else np.nan


def fieller(
    lines: Lines, top: np.ndarray, bottom: np.ndarray, level: float
) -> tuple[float, float, str]:
    """Fieller's confidence set for a ratio of two linear functions of the coefficients.

    Args:
      lines: the fit.
      top: weights of the numerator, [G, 2].
      bottom: weights of the denominator, [G, 2].
      level: confidence level.

    Returns:
      (low, high, kind). `bounded`: the interval. `outside`: all values except those between low and
      high. `unbounded`: all values (-inf, inf). `none`: no standard error (NaN, NaN).
    """
    ratio = divide(lines.combine(top).value, lines.combine(bottom).value)
    # Satterthwaite's degrees of freedom depend on the ratio under test. Those at the estimate are
    # used for the whole set.
    at = lines.combine(top - ratio * bottom) if np.isfinite(ratio) else lines.combine(bottom)
    if not (np.isfinite(ratio) and at.df > 0):
        return np.nan, np.nan, "none"
    t2 = stats.t.ppf((1 + level) / 2, at.df) ** 2
    n, d = lines.combine(top), lines.combine(bottom)
    both = lines.combine(top + bottom)
    cov = (both.se**2 - n.se**2 - d.se**2) / 2
    a, b, c = d.value**2 - t2 * d.se**2, n.value * d.value - t2 * cov, n.value**2 - t2 * n.se**2
    root = b * b - a * c
    if a > 0:
        spread = np.sqrt(max(root, 0.0))
        return float((b - spread) / a), float((b + spread) / a), "bounded"
    if root > 0 and a < 0:
        spread = np.sqrt(root)
        return float((b + spread) / a), float((b - spread) / a), "outside"
    return -np.inf, np.inf, "unbounded"


def divide(top: np.ndarray | float, bottom: np.ndarray | float) -> float:
    """The ratio of two numbers; NaN if the denominator is 0 or either is NaN."""
    return float(top / bottom) if bottom else np.nan
