"""Between architectures: which slopes differ from the reference, by how much, and what does that cost in FLOPs?

All of it reads off one fit, a line per architecture through its size means
(`eval.stats.regression`); tests over all architectures at once are in `eval.stats.ancova`. The
functions share these arguments:

  table                 one row per run, the store's columns
  x, y                  letters of `eval.data.cells.QUANTITIES`; α_{x,y} is the slope of y on x
  link, axes            see `eval.data.cells`
  reference             the architecture that every other one is compared with
  protocol              see `eval.data.cells.main_protocol`
  errors                `size` or `seed`: what is random, see `eval.stats.regression`
  support               `common`: slopes are compared over the sizes in the range that both
  architectures cover (to
                        within half a size's step), since on a bent law slopes over different ranges
                        differ; where that leaves too few sizes there is no test. `all`: over all
                        sizes
  variance              `separate`: a residual variance for each architecture and Welch's degrees of
  freedom.
                        `pooled`: one for all; more power, but in simulation it calls an
                        architecture with three times the noise different in 10-25 % of studies
  level                 confidence level; tests are at 1 - level
  permutations, seed    how many, and the seed of the generator
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from eval.data.cells import (
    AXES,
    Axes,
    cell_means,
    check,
    higher_is_better,
    higher_slope_is_better,
    main_protocol,
    supported,
)
from eval.stats.ancova import equal_slopes, largest_t
from eval.stats.regression import Estimate, Lines, divide, fieller, fit, holm
from train.records import InputError

__all__ = [
    "REFERENCE",
    "contrasts",
    "equal_slopes",
    "equivalence",
    "level_difference",
    "multiplier",
]

REFERENCE = "transformer"
POSITIONS = ("low", "middle", "high")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Lines of all architectures, and which of them is the reference."""

    lines: Lines
    names: list[str]
    reference: int
    x: str
    y: str
    link: str
    axes: Axes
    support: str

    @property
    def others(self) -> list[int]:
        """Every architecture but the reference."""
        return [i for i in range(len(self.names)) if i != self.reference]

    @property
    def sign(self) -> float:
        """1 where more y is better, else -1."""
        return 1.0 if higher_is_better(self.y, self.link) else -1.0

    @property
    def slope_sign(self) -> float:
        """1 where a higher slope is better, else -1."""
        return 1.0 if higher_slope_is_better(self.x, self.y, self.link) else -1.0

    def pair(self, i: int) -> Lines:
        """The lines over the sizes at which the slopes of this architecture and of the reference are compared."""
        cells = supported(self.lines.cells, [i, self.reference], self.support)
        return self.lines if cells is self.lines.cells else fit(cells, *self.lines.made)

    def range(self, i: int) -> dict[str, float]:
        """The range that this architecture and the reference cover, in the unit of x, as two columns."""
        ends = self.lines.cells.common_range([i, self.reference])
        return {
            key: float(self.axes.budget(v)) if self.x != "U" else v
            for key, v in zip(("range_low", "range_high"), ends, strict=True)
        }

    def frame(self, rows: list[dict], slopes: bool = False) -> pd.DataFrame:
        """Rows with the columns that every comparison has in front; `i` is the architecture's number."""
        front = {
            "reference": self.names[self.reference],
            "alpha": f"{self.x},{self.y}",
            "link": self.link,
            "x_axis": self.axes.label(self.x, self.link),
            "y_axis": self.axes.label(self.y, self.link),
            "higher_is_better": (self.slope_sign if slopes else self.sign) > 0,
        }
        return pd.DataFrame(
            [{"architecture": self.names[row.pop("i")], **front, **row} for row in rows]
        )

    def note(self, *groups: int) -> str:
        """What the lines of these architectures lack."""
        return self.lines.explain(groups)


def method(lines: Lines, *groups: int) -> str:
    """How the error of a comparison of these groups was made."""
    methods = list(dict.fromkeys(lines.method[g] for g in groups))
    return "none" if "none" in methods else " and ".join(methods)


def compare(
    table: pd.DataFrame,
    x: str,
    y: str,
    link: str,
    axes: Axes,
    reference: str,
    protocol: str | None,
    errors: str,
    variance: str,
    support: str = "all",
) -> Comparison:
    """Checks the table and fits the lines.

    Raises:
      InputError: see `eval.data.cells.check`; or the reference is not in the table.
    """
    check(table, x + y, axes)
    cells = cell_means(main_protocol(table, protocol), x, y, link, axes)
    names = [group[0] for group in cells.groups]
    if reference not in names:
        raise InputError(
            f"reference {reference!r} is not among the architectures: {', '.join(names)}"
        )
    return Comparison(
        fit(cells, errors, variance), names, names.index(reference), x, y, link, axes, support
    )


def contrasts(
    table: pd.DataFrame,
    *,
    x: str = "F",
    y: str = "U",
    link: str = "semilog",
    axes: Axes = AXES,
    reference: str = REFERENCE,
    protocol: str | None = None,
    errors: str = "size",
    variance: str = "separate",
    support: str = "common",
    level: float = 0.95,
    permutations: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Slope of every architecture minus the slope of the reference, with Holm's correction over the architectures.

    Returns:
      One row per architecture but the reference, sorted by name, with columns
        architecture, reference, alpha, link, x_axis, y_axis, higher_is_better (of the slope),
        n_sizes, n_sizes_reference, slope, slope_reference (all four over the sizes that are
        compared), difference, se, df, ci_low, ci_high (each at `level`, not corrected), p, p_holm,
        p_permutation (largest |t| over all architectures under permutation within sizes: corrected
        already; it takes the residuals of all architectures for exchangeable, so those of which
        sizes are left out have none), range_low, range_high (in the unit of x, what both cover),
        verdict (`scales better`, `scales worse`, `not told apart`, `not tested`; by p_holm),
        method, note.
    """
    c = compare(table, x, y, link, axes, reference, protocol, errors, variance, support)
    r, pairs = c.reference, {i: c.pair(i) for i in c.others}
    found = [
        lines.combine(lines.slope_weights(i) - lines.slope_weights(r)) for i, lines in pairs.items()
    ]
    difference = Estimate(
        *(np.array([getattr(one, key) for one in found], float) for key in ("value", "se", "df"))
    )
    low, high = difference.interval(level)
    corrected = holm(difference.p)
    whole = np.array([i == r or pairs[i] is c.lines for i in range(len(c.names))])
    permuted = largest_t(c.lines, r, whole, permutations, seed)
    rows = [
        {
            "i": i,
            "n_sizes": lines.n[i],
            "n_sizes_reference": lines.n[r],
            "slope": lines.coefficients[i, 1],
            "slope_reference": lines.coefficients[r, 1],
            "difference": difference.value[k],
            "se": difference.se[k],
            "df": difference.df[k],
            "ci_low": low[k],
            "ci_high": high[k],
            "p": difference.p[k],
            "p_holm": corrected[k],
            "p_permutation": permuted[i],
            **c.range(i),
            "verdict": _verdict(
                c.slope_sign * difference.value[k],
                corrected[k],
                level,
                "scales better",
                "scales worse",
            ),
            "method": method(lines, i, r),
            "note": lines.explain((i, r)),
        }
        for k, (i, lines) in enumerate(pairs.items())
    ]
    return c.frame(rows, slopes=True)


def equivalence(
    table: pd.DataFrame,
    *,
    margin: float = 0.1,
    x: str = "F",
    y: str = "U",
    link: str = "semilog",
    axes: Axes = AXES,
    reference: str = REFERENCE,
    protocol: str | None = None,
    errors: str = "size",
    variance: str = "separate",
    support: str = "common",
    level: float = 0.95,
) -> pd.DataFrame:
    """Two one-sided tests: does an architecture scale like the reference, to within `margin` of the reference's slope?

    `margin` is set before looking, as a fraction of the reference's slope (0.1: between 0.9 and 1.1
    times it).

    Returns:
      One row per architecture but the reference, with columns
        architecture, reference, alpha, link, x_axis, y_axis, higher_is_better (of the slope),
        margin, slope, slope_reference, ratio, ratio_low, ratio_high (Fieller's interval at 2 *
        level - 1, the one that matches the test), interval (`bounded`, `outside`, `unbounded`,
        `none`), p (the larger of the two), p_holm, equivalent (bool), range_low, range_high (in the
        unit of x, what both cover), method, note.
    """
    if not 0 < margin < 1:
        raise InputError(
            f"margin is {margin}; a fraction of the reference's slope between 0 and 1 is needed"
        )
    c = compare(table, x, y, link, axes, reference, protocol, errors, variance, support)
    rows = []
    for i in c.others:
        lines = c.pair(i)
        slopes, own, base = (
            lines.coefficients[:, 1],
            lines.slope_weights(i),
            lines.slope_weights(c.reference),
        )
        direction = np.sign(slopes[c.reference])
        below_top = lines.combine(direction * (own - (1 + margin) * base))
        above_bottom = lines.combine(direction * ((1 - margin) * base - own))
        low, high, kind = fieller(lines, own, base, 2 * level - 1)
        rows.append(
            {
                "i": i,
                "margin": margin,
                "slope": slopes[i],
                "slope_reference": slopes[c.reference],
                "ratio": divide(slopes[i], slopes[c.reference]),
                "ratio_low": low,
                "ratio_high": high,
                "interval": kind,
                "p": float(np.maximum(below_top.p_below, above_bottom.p_below)),
                "p_holm": np.nan,
                "equivalent": False,
                **c.range(i),
                "method": method(lines, i, c.reference),
                "note": lines.explain((i, c.reference)),
            }
        )
    frame = c.frame(rows, slopes=True)
    if rows:
        frame["p_holm"] = holm(frame["p"])
        frame["equivalent"] = frame["p_holm"] < 1 - level
    return frame


def level_difference(
    table: pd.DataFrame,
    *,
    at: Sequence[float] | None = None,
    x: str = "F",
    y: str = "U",
    link: str = "semilog",
    axes: Axes = AXES,
    reference: str = REFERENCE,
    protocol: str | None = None,
    errors: str = "size",
    variance: str = "separate",
    level: float = 0.95,
) -> pd.DataFrame:
    """Quality minus the reference's at equal FLOPs (or parameters), on the lines, within the range that both cover.

    `at` holds budgets in the unit of x; `None` takes the low end, the (geometric) middle and the
    high end of the range that an architecture has in common with the reference.

    Returns:
      Rows by architecture and budget, with columns
        architecture, reference, alpha, link, x_axis, y_axis, higher_is_better, position (`low`,
        `middle`, `high` or `given`), budget (in the unit of x), inside (bool: both architectures
        cover the budget), difference, se, df, ci_low, ci_high, p, p_holm (over the architectures at
        one position), verdict (`better`, `worse`, `not told apart`, `not tested`), method, note.
    """
    c = compare(table, x, y, link, axes, reference, protocol, errors, variance)
    points = list(_budgets(c, at))
    weights = [
        c.lines.value_weights(i, v) - c.lines.value_weights(c.reference, v) for i, _, v, _ in points
    ]
    difference = _combine(c.lines, np.array(weights))
    low, high = difference.interval(level)
    rows = []
    for k, (i, position, value, inside) in enumerate(points):
        rows.append(
            {
                "i": i,
                "position": position,
                "budget": float(axes.budget(value)) if x != "U" else value,
                "inside": inside,
                "difference": difference.value[k],
                "se": difference.se[k],
                "df": difference.df[k],
                "ci_low": low[k],
                "ci_high": high[k],
                "p": difference.p[k],
                "p_holm": np.nan,
                "verdict": "",
                "method": method(c.lines, i, c.reference),
                "note": "; ".join(
                    filter(None, (c.note(i, c.reference), _support_note(value, inside)))
                ),
            }
        )
    frame = c.frame(rows)
    if rows:
        for _, same in frame.groupby(["position"] if at is None else ["budget"]):
            frame.loc[same.index, "p_holm"] = holm(same["p"])
        frame["verdict"] = [
            _verdict(c.sign * d, p, level, "better", "worse")
            for d, p in zip(frame["difference"], frame["p_holm"], strict=True)
        ]
    return frame


def multiplier(
    table: pd.DataFrame,
    *,
    at: Sequence[float] | None = None,
    x: str = "F",
    y: str = "U",
    link: str = "semilog",
    axes: Axes = AXES,
    reference: str = REFERENCE,
    protocol: str | None = None,
    errors: str = "size",
    variance: str = "separate",
    level: float = 0.95,
) -> pd.DataFrame:
    """Times the reference's FLOPs that an architecture needs to reach the quality the reference has at a budget.

    The logarithm of the multiplier is a ratio of two linear functions of the coefficients, so its
    interval is Fieller's.

    Returns:
      Rows by architecture and budget, with columns
        architecture, reference, alpha, link, x_axis, y_axis, higher_is_better, position, budget
        (the reference's), inside (bool: the budget the architecture then needs is within its own
        range), multiplier (2.0: twice the FLOPs), ci_low, ci_high (0 and inf where unbounded),
        interval (`bounded`, `unbounded`, `none`), method, note.
    """
    c = compare(table, x, y, link, axes, reference, protocol, errors, variance)
    rows = []
    for i, position, value, inside in _budgets(c, at):
        shortfall = c.lines.value_weights(c.reference, value) - c.lines.value_weights(i, value)
        slope = c.lines.slope_weights(i)
        words = [c.note(i, c.reference), _support_note(value, inside)]
        low, high, kind = (
            fieller(c.lines, shortfall, slope, level)
            if np.isfinite(value)
            else (np.nan, np.nan, "none")
        )
        if kind == "outside":
            low, high, kind = -np.inf, np.inf, "unbounded"
        extra = (
            divide(c.lines.combine(shortfall).value, c.lines.combine(slope).value)
            if np.isfinite(value)
            else np.nan
        )
        if c.slope_sign * c.lines.coefficients[i, 1] <= 0:
            extra, low, high, kind = np.nan, np.nan, np.nan, "none"
            words.append("its quality does not rise with the budget: no multiplier")
        rows.append(
            {
                "i": i,
                "position": position,
                "budget": float(axes.budget(value)),
                "inside": bool(c.lines.low[i] <= value + extra <= c.lines.high[i]),
                "multiplier": float(axes.budget(extra)),
                "ci_low": float(axes.budget(low)),
                "ci_high": float(axes.budget(high)),
                "interval": kind,
                "method": method(c.lines, i, c.reference),
                "note": "; ".join(filter(None, words)),
            }
        )
    return c.frame(rows)


def _budgets(c: Comparison, at: Sequence[float] | None) -> Iterator[tuple[int, str, float, bool]]:
    """(architecture, position, place on the axis, both cover it); one row with NaN where nothing is common."""
    given = (
        None
        if at is None
        else c.axes.log(np.asarray(at, float))
        if c.x != "U"
        else np.asarray(at, float)
    )
    for i in c.others:
        low = max(c.lines.low[i], c.lines.low[c.reference])
        high = min(c.lines.high[i], c.lines.high[c.reference])
        if given is not None:
            yield from ((i, "given", float(v), bool(low <= v <= high)) for v in given)
        elif low > high:
            yield from ((i, position, np.nan, False) for position in POSITIONS)
        else:
            places = (low, (low + high) / 2, high)
            yield from (
                (i, position, v, True) for position, v in zip(POSITIONS, places, strict=True)
            )


def _support_note(value: float, inside: bool) -> str:
    if inside:
        return ""
    return (
        "extrapolated: not both cover this budget"
        if np.isfinite(value)
        else "no range that both cover"
    )


def _combine(lines: Lines, weights: np.ndarray) -> Estimate:
    """`lines.combine`, for a stack that may be empty or hold NaN places."""
    if not len(weights):
        return Estimate(*(np.empty(0),) * 3)
    lost = np.isnan(weights).any((1, 2))
    found = lines.combine(np.nan_to_num(weights))
    return Estimate(*(np.where(lost, np.nan, v) for v in (found.value, found.se, found.df)))


def _verdict(advantage: float, p: float, level: float, better: str, worse: str) -> str:
    if np.isnan(p):
        return "not tested"
    if p >= 1 - level:
        return "not told apart"
    return better if advantage > 0 else worse
