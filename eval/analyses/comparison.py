"""Compares architectures: which slopes differ from the reference's, by how much, and at what cost.

A `Comparison` checks a study and averages over its seeds once, fits a line per architecture through
the cell means, and answers every question about these lines:

    c = Comparison(study, Question(x=FLOPS, y=LOSS))
    c.slopes()          the slope of every architecture, with its interval
    c.contrasts()       each slope minus the reference's
    c.multipliers()     times the reference's FLOPs for the same quality

Every table starts with the columns architecture, reference, alpha (`F,U`), link, x_axis and y_axis
(in words, with the base of the logarithm and the column) and higher_is_better. Its own columns
follow. Budgets, ranges and crossings are in the unit of x, for every x and every link.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from eval.analyses.crossovers import crossovers
from eval.analyses.question import Inquiry
from eval.analyses.slopes import slope_table
from eval.data.cells import Cells, supported
from eval.stats.decision import holm, verdict
from eval.stats.permutation import TESTS, Ancova, largest_t, nested_f, separate_p
from eval.stats.regression import Estimate, Lines, divide, fieller, fit
from train.power import detectable
from train.records import InputError

POSITIONS = ("low", "middle", "high")


class Comparison(Inquiry):
    """The architectures of a study, compared on one pair of quantities.

    Example:
      >>> study = eval.read_study("runs/cpu")
      >>> comparison = eval.Comparison(study, eval.Question(x=FLOPS, y=LOSS, level=0.9))
      >>> comparison.contrasts()[["architecture", "difference", "ci_low", "ci_high", "verdict"]]
      >>> comparison.levels(at=[1e12])  # the differences in loss at a budget of 1e12 FLOPs
    """

    @functools.cached_property
    def cells(self) -> Cells:
        """The means over seeds; one group per architecture, in order of x."""
        return self.runs.cells((self.x, self.y)).along_x()

    @functools.cached_property
    def lines(self) -> Lines:
        """One line per architecture, over all its sizes."""
        return self.fit(self.cells)

    def fit(self, cells: Cells) -> Lines:
        """Fits lines through these cells, with the question's errors and variance."""
        return fit(cells, self.question.errors, self.question.variance)

    @functools.cached_property
    def names(self) -> list[str]:
        """The architectures, in the order of the groups of `lines`."""
        return self.cells.names()

    @functools.cached_property
    def reference(self) -> int:
        """The position of the reference in `names`.

        Raises:
          InputError: it is not among them.
        """
        wanted = self.question.reference
        if wanted not in self.names:
            known = ", ".join(self.names)
            raise InputError(f"reference {wanted!r} is not among the architectures: {known}")
        return self.names.index(wanted)

    @property
    def others(self) -> list[int]:
        """The positions of all architectures but the reference."""
        return [i for i in range(len(self.names)) if i != self.reference]

    def pair(self, i: int) -> Lines:
        """The lines over the sizes at which `i` can be compared with the reference."""
        cells = supported(self.cells, [i, self.reference], self.question.support)
        return self.lines if cells is self.cells else self.fit(cells)

    def slopes(self) -> pd.DataFrame:
        """The slope of every architecture.

        See `eval.analyses.slopes.slope_table` for the columns.
        """
        return slope_table(self.cells, self.question)

    def contrasts(self) -> pd.DataFrame:
        """The slope of every architecture minus the reference's, with Holm's correction.

        Returns:
          One row per architecture but the reference, sorted by name, with columns
            higher_is_better (of the slope), n_sizes, n_sizes_reference, slope, slope_reference (all
            four over the sizes that are compared), difference, se, df, ci_low, ci_high (each at
            `level`, not corrected), p, p_holm, detectable (the smallest difference that this design
            finds with 80 % probability after correction, see `train.power`), p_permutation (largest
            `|t|` over all architectures under permutation at equal x, so it is corrected already;
            it assumes that the residuals of all architectures are exchangeable, so architectures
            with sizes left out, or with other x than the reference, have none),
            range_low, range_high (the range that both cover), verdict (`scales better`, `scales
            worse`, `not told apart`, `not tested`; by p_holm), method, note.
        """
        question, r = self.question, self.reference
        pairs = {i: self.pair(i) for i in self.others}
        found = [
            lines.combine(lines.slope_weights(i) - lines.slope_weights(r))
            for i, lines in pairs.items()
        ]
        difference = Estimate(
            *(
                np.array([getattr(one, key) for one in found], float)
                for key in ("value", "se", "df")
            )
        )
        low, high = difference.interval(question.level)
        corrected = holm(difference.p)
        smallest = _smallest(difference, difference.p, question.level)
        whole = np.array([i == r or pairs[i] is self.lines for i in range(len(self.names))])
        permuted = largest_t(self.lines, r, whole, question.permutations, question.seed)
        better = 1.0 if question.higher_slope_is_better else -1.0
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
                "detectable": smallest[k],
                "p_permutation": permuted[i],
                **self._range(i),
                "verdict": verdict(
                    better * difference.value[k],
                    corrected[k],
                    question.level,
                    "scales better",
                    "scales worse",
                ),
                "method": lines.method_of(i, r),
                "note": lines.explain((i, r)),
            }
            for k, (i, lines) in enumerate(pairs.items())
        ]
        return self._table(rows, question.higher_slope_is_better)

    def equivalence(self, margin: float = 0.1) -> pd.DataFrame:
        """Tests whether an architecture scales like the reference, with two one-sided tests.

        Args:
          margin: a fraction of the reference's slope, to be fixed before looking at the results
            (0.1: between 0.9 and 1.1 times it).

        Returns:
          One row per architecture but the reference, with columns
            higher_is_better (of the slope), margin, slope, slope_reference, ratio, ratio_low,
            ratio_high (Fieller's interval at 2 * level - 1, the one that matches the test),
            interval
            (`bounded`, `outside`, `unbounded`, `none`), p (the larger of the two), p_holm,
            equivalent
            (bool), range_low, range_high (the range that both cover), method, note.

        Raises:
          InputError: the margin is not between 0 and 1.
        """
        if not 0 < margin < 1:
            raise InputError(
                f"margin is {margin}; a fraction of the reference's slope between 0 and 1 is needed"
            )
        r, level = self.reference, self.question.level
        rows = []
        for i in self.others:
            lines = self.pair(i)
            slopes, own, base = (
                lines.coefficients[:, 1],
                lines.slope_weights(i),
                lines.slope_weights(r),
            )
            direction = np.sign(slopes[r])
            below_top = lines.combine(direction * (own - (1 + margin) * base))
            above_bottom = lines.combine(direction * ((1 - margin) * base - own))
            low, high, kind = fieller(lines, own, base, 2 * level - 1)
            rows.append(
                {
                    "i": i,
                    "margin": margin,
                    "slope": slopes[i],
                    "slope_reference": slopes[r],
                    "ratio": divide(slopes[i], slopes[r]),
                    "ratio_low": low,
                    "ratio_high": high,
                    "interval": kind,
                    "p": float(np.maximum(below_top.p_below, above_bottom.p_below)),
                    "p_holm": np.nan,
                    "equivalent": False,
                    **self._range(i),
                    "method": lines.method_of(i, r),
                    "note": lines.explain((i, r)),
                }
            )
        frame = self._table(rows, self.question.higher_slope_is_better)
        if rows:
            frame["p_holm"] = holm(frame["p"])
            frame["equivalent"] = frame["p_holm"] < 1 - level
        return frame

    def levels(self, at: Sequence[float] | None = None) -> pd.DataFrame:
        """The difference of y from the reference's at equal x, read off the lines.

        Args:
          at: budgets in the unit of x. None takes the low end, the middle (of the axis) and the
            high end of the range that an architecture has in common with the reference.

        Returns:
          Rows by architecture and budget, with columns
            higher_is_better (of y as y_axis reads it), position (`low`, `middle`, `high` along the
            axis, or `given`), budget, inside (bool: both architectures cover the budget),
            difference
            (on the axis that y_axis names: nats, percent, or a logarithm under `loglog`), se, df,
            ci_low, ci_high, p, p_holm (over the architectures at one position), detectable (see
            `contrasts`), verdict (`better`, `worse`, `not told apart`, `not tested`), method, note.
        """
        r, lines, level = self.reference, self.lines, self.question.level
        points = list(self._budgets(at))
        weights = [lines.value_weights(i, v) - lines.value_weights(r, v) for i, _, v, _ in points]
        difference = _combine(lines, np.array(weights))
        low, high = difference.interval(level)
        rows = []
        for k, (i, position, place, inside) in enumerate(points):
            rows.append(
                {
                    "i": i,
                    "position": position,
                    "budget": float(self.x.unread(place)),
                    "inside": inside,
                    "difference": difference.value[k],
                    "se": difference.se[k],
                    "df": difference.df[k],
                    "ci_low": low[k],
                    "ci_high": high[k],
                    "p": difference.p[k],
                    "p_holm": np.nan,
                    "detectable": np.nan,
                    "verdict": "",
                    "method": lines.method_of(i, r),
                    "note": _joined(lines.explain((i, r)), _support_note(place, inside)),
                }
            )
        frame = self._table(rows, self.y.higher_is_better)
        if rows:
            for _, same in frame.groupby(["position"] if at is None else ["budget"]):
                frame.loc[same.index, "p_holm"] = holm(same["p"])
                at_once = Estimate(*(same[key].to_numpy() for key in ("difference", "se", "df")))
                smallest = _smallest(at_once, same["p"].to_numpy(), level)
                frame.loc[same.index, "detectable"] = smallest
            better = 1.0 if self.y.higher_is_better else -1.0
            frame["verdict"] = [
                verdict(better * d, p, level, "better", "worse")
                for d, p in zip(frame["difference"], frame["p_holm"], strict=True)
            ]
        return frame

    def multipliers(self, at: Sequence[float] | None = None) -> pd.DataFrame:
        """The x that an architecture needs for the reference's y, over the reference's x.

        The distance along the axis is a ratio of two linear functions of the coefficients, so its
        interval is Fieller's. Where x is a cost, the multiplier is the same in every unit. Where x
        is the loss, it is the loss that an architecture needs, divided by the reference's.

        Args:
          at: see `levels`.

        Returns:
          Rows by architecture and budget, with columns
            higher_is_better (of y), position, budget (the reference's), inside (bool: the budget
            that the architecture then needs is within its own range), multiplier (2.0: twice the
            FLOPs), ci_low, ci_high (0 and inf where unbounded), interval (`bounded`, `unbounded`,
            `none`), method, note.
        """
        r, lines = self.reference, self.lines
        better = 1.0 if self.question.higher_slope_is_better else -1.0
        rows = []
        for i, position, place, inside in self._budgets(at):
            shortfall = lines.value_weights(r, place) - lines.value_weights(i, place)
            slope = lines.slope_weights(i)
            words = [lines.explain((i, r)), _support_note(place, inside)]
            step, low, high, kind = np.nan, np.nan, np.nan, "none"
            if np.isfinite(place):
                low, high, kind = fieller(lines, shortfall, slope, self.question.level)
                step = divide(lines.combine(shortfall).value, lines.combine(slope).value)
            if kind == "outside":
                low, high, kind = -np.inf, np.inf, "unbounded"
            if better * lines.coefficients[i, 1] <= 0:
                step, low, high, kind = np.nan, np.nan, np.nan, "none"
                words.append("its quality does not rise with the budget: no multiplier")
            ends = [self.x.ratio(place, low), self.x.ratio(place, high)]
            ci_low, ci_high = ends[::-1] if self.x.reversed else ends
            rows.append(
                {
                    "i": i,
                    "position": position,
                    "budget": float(self.x.unread(place)),
                    "inside": bool(lines.low[i] <= place + step <= lines.high[i]),
                    "multiplier": self.x.ratio(place, step),
                    "ci_low": ci_low,
                    "ci_high": ci_high,
                    "interval": kind,
                    "method": lines.method_of(i, r),
                    "note": _joined(*words),
                }
            )
        return self._table(rows, self.y.higher_is_better)

    def crossovers(self) -> pd.DataFrame:
        """The budgets at which two lines cross.

        Pairs the reference with every other architecture; without a reference, makes all pairs. See
        `eval.analyses.crossovers.crossovers` for the columns.
        """
        pairs = itertools.combinations(range(len(self.names)), 2)
        if self.question.reference is not None:
            pairs = ((i, self.reference) for i in self.others)
        return crossovers(self.lines, pairs, self.question)

    def equal_slopes(self) -> pd.DataFrame:
        """Nested F tests: do all architectures share one slope, one level, one line?

        This is an analysis of covariance on cell means, with one residual variance for all
        architectures. If one of twelve architectures is three times as noisy as the others, these
        tests and their permutations reject a true hypothesis in 9-13 % of studies (5 % if all are
        equally noisy); `p_separate` and `contrasts` keep their level in both cases. The range is
        one that all cover. An architecture is left out if the others then have more sizes in
        common.

        Returns:
          Three rows, test = `slopes` (one common slope against one each), `levels` (one common line
          against parallel lines) and `lines` (one common line against one line each), with columns
          test, hypothesis (in words), alpha, link, x_axis, y_axis, architectures (how many), n
          (cell means), f, df_num, df_den, p, p_separate (of equal slopes with a residual variance
          for each architecture; NaN for the other tests, and where an architecture has fewer than
          four sizes), p_permutation (residuals of the smaller model permuted between
          architectures at equal x, Freedman and Lane), common_slope (of the parallel fit),
          range_low, range_high (the range that these architectures cover), note.
        """
        question = self.question
        everyone = np.arange(len(self.names))
        lines = fit(supported(self.cells, everyone, question.support, needed=()))
        low, high = lines.cells.common_range(everyone)
        keep = np.isfinite(lines.coefficients[:, 1])
        left_out = lines.explain(np.flatnonzero(~keep))
        lost = int(lines.cells.outside[keep].sum())
        narrowed = "sizes outside the range that these architectures cover are left out"
        ancova = Ancova.of(lines.cells, keep) if keep.any() else None
        drawn = (question.permutations, question.seed)
        ends = dict(zip(("range_low", "range_high"), self.x.span(low, high), strict=True))
        rows = []
        for test, (hypothesis, small, large) in TESTS.items():
            found = nested_f(ancova, small, large, *drawn)
            rows.append(
                {
                    "test": test,
                    "hypothesis": hypothesis,
                    **question.columns(),
                    "architectures": int(keep.sum()),
                    "n": len(ancova.x) if ancova else 0,
                    "f": found.f,
                    "df_num": found.df_num,
                    "df_den": found.df_den,
                    "p": found.p,
                    "p_separate": separate_p(lines, keep, *drawn) if test == "slopes" else np.nan,
                    "p_permutation": found.p_permutation,
                    "common_slope": ancova.common_slope if ancova else np.nan,
                    **ends,
                    "note": _joined(
                        found.note,
                        f"{lost} {narrowed}" if lost else "",
                        left_out and f"left out: {left_out}",
                    ),
                }
            )
        return pd.DataFrame(rows)

    def _range(self, i: int) -> dict[str, float]:
        """The range that this architecture and the reference both cover, as two columns."""
        ends = self.x.span(*self.cells.common_range([i, self.reference]))
        return dict(zip(("range_low", "range_high"), ends, strict=True))

    def _table(self, rows: list[dict[str, Any]], higher_is_better: bool) -> pd.DataFrame:
        """Puts the columns that every comparison shares in front; `i` numbers architectures."""
        front = {
            "reference": self.names[self.reference],
            **self.question.columns(),
            "higher_is_better": higher_is_better,
        }
        return pd.DataFrame(
            [{"architecture": self.names[row.pop("i")], **front, **row} for row in rows]
        )

    def _budgets(self, at: Sequence[float] | None) -> Iterator[tuple[int, str, float, bool]]:
        """Yields (architecture, position, place on the axis, whether both cover it).

        The place is NaN if the two have no range in common.
        """
        given = None if at is None else self.x.read(np.asarray(at, float))
        lines = self.lines
        for i in self.others:
            low = max(lines.low[i], lines.low[self.reference])
            high = min(lines.high[i], lines.high[self.reference])
            if given is not None:
                yield from ((i, "given", float(v), bool(low <= v <= high)) for v in given)
            elif low > high:
                yield from ((i, position, np.nan, False) for position in POSITIONS)
            else:
                places = (low, (low + high) / 2, high)
                named = zip(POSITIONS, places, strict=True)
                yield from ((i, position, v, True) for position, v in named)


def _smallest(difference: Estimate, p: np.ndarray, level: float) -> np.ndarray:
    """The smallest differences that tests corrected together can be expected to find."""
    return difference.se * detectable(difference.df, int(np.isfinite(p).sum()), level)


def _support_note(place: float, inside: bool) -> str:
    if inside:
        return ""
    known = np.isfinite(place)
    return "extrapolated: not both cover this budget" if known else "no range that both cover"


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _combine(lines: Lines, weights: np.ndarray) -> Estimate:
    """Like `lines.combine`, but the stack may be empty, and a NaN weight gives a NaN estimate."""
    if not len(weights):
        return Estimate(*(np.empty(0),) * 3)
    lost = np.isnan(weights).any((1, 2))
    found = lines.combine(np.nan_to_num(weights))
    return Estimate(*(np.where(lost, np.nan, v) for v in (found.value, found.se, found.df)))
