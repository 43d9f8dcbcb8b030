"""Pareto frontiers of quality against cost, and how certain they are.

A cell is on the frontier if no other cell costs at most as much and is at least as good, with one
of the two strict. FLOPs, parameters and state are minimised, speed is maximised. The bootstrap
redraws the qualities over seeds (`eval.stats.bootstrap`); costs stay fixed.
"""

import dataclasses
import functools
from collections.abc import Sequence

import moocore
import numpy as np
import pandas as pd

from eval.analyses.question import Inquiry, Question
from eval.data.examples import example_noise
from eval.stats.bootstrap import Resampled, join, percentiles, reflected, resample
from eval.stats.regression import least_difference
from train.records import InputError


@dataclasses.dataclass(frozen=True)
class _Cloud:
    """Cells sorted by cost. There are C cells, U distinct costs and B bootstrap draws.

    Attributes:
      sample: the sample that the cells come from.
      sign: -1 if more of the cost quantity is better (speed), else 1.
      cost: logarithm of each cell's cost times `sign`, ascending, [C].
      step: index of each cell's cost among the distinct ones, [C].
      steps: the distinct costs, [U].
      starts: the first cell of each distinct cost, [U].
      quality: cell means, higher is better, [C].
      draws: the qualities redrawn, [B, C].
      order: indices that sort the sample's cells by cost, [C].
    """

    sample: Resampled
    sign: float
    cost: np.ndarray
    step: np.ndarray
    steps: np.ndarray
    starts: np.ndarray
    quality: np.ndarray
    draws: np.ndarray
    order: np.ndarray

    @property
    def architecture(self) -> np.ndarray:
        """The architecture of each cell, [C]."""
        return self.sample.architecture[self.order]

    def best(self, quality: np.ndarray, use: np.ndarray | None = None) -> np.ndarray:
        """The best quality at no more than each distinct cost, [..., C] -> [..., U].

        Only the cells in `use` count, by default all of them.
        """
        if use is not None:
            quality = np.where(use, quality, -np.inf)
        # First the best cell at each cost, then the best at that cost or below.
        return np.maximum.accumulate(np.maximum.reduceat(quality, self.starts, axis=-1), axis=-1)

    def on_frontier(self, quality: np.ndarray) -> np.ndarray:
        """Whether each cell is on the frontier, [..., C] -> [..., C] bool."""
        best = self.best(quality)
        # At the lowest cost nothing is cheaper, hence minus infinity.
        cheaper = np.concatenate([np.full((*best.shape[:-1], 1), -np.inf), best[..., :-1]], axis=-1)
        return (quality > cheaper[..., self.step]) & (quality == best[..., self.step])

    def cheapest(self, best: np.ndarray, quality: np.ndarray) -> np.ndarray:
        """The least cost at which `best` [B, U] reaches `quality` [B, K], or inf, [B, K]."""
        # `best` never falls along the costs, so a binary search finds the first cost that is
        # enough.
        found = np.stack([np.searchsorted(b, q) for b, q in zip(best, quality, strict=True)])
        return np.append(self.steps, np.inf)[found]


class Frontier(Inquiry):
    """The Pareto frontier of a study's cells: quality y against cost x.

    Qualities are read in their own unit; the question's link is ignored. Every table has the
    columns cost_axis (the column of the cost) and y_axis.

    Example:
      >>> frontier = eval.Frontier(study, eval.Question(x=FLOPS, y=LOSS))
      >>> frontier.frontier().query("on_frontier")  # the cells that no other cell dominates
      >>> frontier.gaps()  # how far each architecture is behind the others
    """

    def _admitted(self, question: Question) -> Question:
        """Refuses an x that is not a cost, and a y that is one."""
        cost, quality = question.x, question.y
        if cost.kind != "cost" or quality.kind == "cost":
            raise InputError(
                f"frontier of {quality.symbol!r} against {cost.symbol!r}: cost is one of F, P, S "
                "and "
                "y one of U, D"
            )
        return question.ask(link="semilog")

    @functools.cached_property
    def _cloud(self) -> _Cloud:
        question = self.question
        cells = self.runs.cells((self.y, self.x))
        noise = example_noise(self.runs, cells, (self.y,), question.draws, question.seed)
        sample = resample(cells, 1, question.draws, question.seed, noise)
        if not len(sample.mean):
            columns = f"{question.x.column} and {question.y.column}"
            raise InputError(f"no run has both {columns}")
        sign = -1.0 if question.x.more_is_better else 1.0
        order = np.argsort(sign * sample.mean[:, 1], kind="stable")
        costs = sign * sample.mean[order, 1]
        steps, starts, step = np.unique(costs, return_index=True, return_inverse=True)
        quality, draws = sample.mean[order, 0], sample.draws[:, order, 0]
        return _Cloud(sample, sign, costs, step, steps, starts, quality, draws, order)

    def _labels(self) -> dict[str, str]:
        return {"cost_axis": self.question.x.column, "y_axis": self.y.label}

    def frontier(self) -> pd.DataFrame:
        """Whether each cell is on the frontier, with what probability, and how far it is behind.

        Returns:
          One row per cell, cheapest first, with columns
            architecture, size, cost_axis, y_axis, cost (in the unit of its column), quality (higher
            is better), n_seeds, on_frontier (bool), probability_on_frontier (bootstrap over seeds),
            quality_gap (best quality at no more cost, minus this one: 0 on the frontier), tied
            (bool: it is on the frontier, or not told from it by `least_difference`),
            cost_multiplier (this cost over the least cost at no less quality, at least 1; for
            speed: how much faster; 1 on the frontier), note.
        """
        cloud = self._cloud
        best = cloud.best(cloud.quality)
        least = cloud.cheapest(best[None], cloud.quality[None])[0]
        gap, on = best[cloud.step] - cloud.quality, cloud.on_frontier(cloud.quality)
        noise = least_difference(self.runs.cells((self.x, self.y)).along_x(), self.question.level)
        probability = cloud.on_frontier(cloud.draws).mean(0) if len(cloud.draws) else np.nan
        return pd.DataFrame(
            {
                "architecture": np.array(cloud.sample.names)[cloud.architecture],
                "size": cloud.sample.size[cloud.order],
                **self._labels(),
                "cost": self.x.unread(cloud.sign * cloud.cost),
                "quality": cloud.quality,
                "n_seeds": cloud.sample.cells.seeds[cloud.order],
                "on_frontier": on,
                "probability_on_frontier": probability,
                "quality_gap": gap,
                "tied": on | (gap <= np.nan_to_num(noise)),
                "cost_multiplier": self.x.unread(cloud.cost - least),
                "note": cloud.sample.note,
            }
        )

    def membership(self) -> pd.DataFrame:
        """How many cells of each architecture are on the frontier, and how surely.

        Returns:
          One row per architecture, with columns
            architecture, cost_axis, y_axis, cells, cells_on_frontier, sizes_on_frontier (names
            joined by a comma), probability_any (at least one of its cells is on the frontier),
            expected_cells (mean number on the frontier), note.
        """
        cloud = self._cloud
        on, drawn = cloud.on_frontier(cloud.quality), cloud.on_frontier(cloud.draws)
        sizes = cloud.sample.size[cloud.order]
        rows = []
        for a, name in enumerate(cloud.sample.names):
            own = cloud.architecture == a
            rows.append(
                {
                    "architecture": name,
                    **self._labels(),
                    "cells": int(own.sum()),
                    "cells_on_frontier": int(on[own].sum()),
                    "sizes_on_frontier": ", ".join(sizes[own & on]),
                    "probability_any": drawn[:, own].any(1).mean() if len(drawn) else np.nan,
                    "expected_cells": drawn[:, own].sum(1).mean() if len(drawn) else np.nan,
                    "note": cloud.sample.note,
                }
            )
        return pd.DataFrame(rows)

    def attainment(
        self, levels: Sequence[float] = (0.05, 0.5, 0.95), *, by_architecture: bool = False
    ) -> pd.DataFrame:
        """Empirical attainment surfaces over seeds (moocore).

        A surface bounds what a given share of the repetitions of the study reaches. Repetition s
        consists of the s-th run of every cell; there are as many repetitions as the cell with the
        fewest runs has.

        Args:
          levels: shares of the repetitions.
          by_architecture: computes surfaces for each architecture instead of the whole study.

        Returns:
          Corners of the surfaces, by architecture, level and cost, with columns
            architecture (`all` for the whole study), cost_axis, y_axis, level (at least this share
            of the repetitions attains it), cost, quality, repetitions, note.
        """
        cloud = self._cloud
        sample, cells = cloud.sample, cloud.sample.cells
        turn = np.array([-1.0, cloud.sign])  # moocore minimises
        repetition = pd.Series(cells.cell).groupby(cells.cell).cumcount().to_numpy()
        groups = list(enumerate(sample.names)) if by_architecture else [(-1, "all")]
        frames = []
        for a, name in groups:
            own = (sample.architecture == a) | (a < 0)
            count = int(cells.seeds[own].min())
            use = own[cells.cell] & (repetition < count)
            note = "one repetition: the surfaces are one and the same" if count == 1 else ""
            if cells.seeds[own].max() > count:
                note = join(note, "cells have unequal numbers of runs: the surplus is left out")
            order = np.argsort(repetition[use], kind="stable")
            points, sets = (cells.values[use] * turn)[order], repetition[use][order] + 1
            surface = moocore.eaf(points, sets, percentiles=[100 * level for level in levels])
            surface = surface[np.lexsort((surface[:, 1], surface[:, 2]))]
            frames.append(
                pd.DataFrame(
                    {
                        "architecture": name,
                        **self._labels(),
                        "level": surface[:, 2] / 100,
                        "cost": self.x.unread(cloud.sign * surface[:, 1]),
                        "quality": -surface[:, 0],
                        "repetitions": count,
                        "note": note,
                    }
                )
            )
        return pd.concat(frames, ignore_index=True)

    def hypervolume(self, reference: tuple[float, float] | None = None) -> pd.DataFrame:
        """The area dominated on (log cost, quality), and what each architecture adds.

        Args:
          reference: (cost, quality) of the reference point. None takes the highest cost (lowest
            speed) and the worst quality in the table. To compare the areas of different tables,
            state the same point for all of them.

        Returns:
          A first row with architecture `all`, then one per architecture, with columns
            architecture, cost_axis, y_axis, reference_cost, reference_quality, hypervolume (of its
            cells alone), contribution (what the study's area loses without it), share (contribution
            over the study's area), ci_low, ci_high (of the contribution, and of the area in row
            `all`;
            bootstrap over seeds, corrected for bias), note.

        Raises:
          InputError: the cost of the reference point is not positive, or one of its values not
            finite.
        """
        cloud = self._cloud
        if reference is None:
            corner, floor = float(cloud.cost.max()), float(cloud.quality.min())
        elif reference[0] > 0 and np.isfinite(reference).all():
            corner, floor = (
                cloud.sign * float(self.x.read(np.array(reference[0]))),
                float(reference[1]),
            )
        else:
            raise InputError(
                f"reference {reference}: a positive cost and a finite quality are needed"
            )
        width = np.diff(np.minimum(np.append(cloud.steps, corner), corner))

        def area(quality: np.ndarray, use: np.ndarray | None = None) -> np.ndarray:
            return np.maximum(cloud.best(quality, use) - floor, 0.0) @ width

        def row(name: str, use: np.ndarray, lost: np.ndarray | None) -> dict:
            value = area(cloud.quality) - (area(cloud.quality, lost) if lost is not None else 0.0)
            drawn = area(cloud.draws) - (area(cloud.draws, lost) if lost is not None else 0.0)
            low, high = reflected(value, drawn, self.question.level, cloud.sample.df)
            return {
                "architecture": name,
                **self._labels(),
                "reference_cost": float(self.x.unread(cloud.sign * corner)),
                "reference_quality": floor,
                "hypervolume": float(area(cloud.quality, use)),
                "contribution": float(value),
                "share": float(value / total) if total > 0 else np.nan,
                "ci_low": float(np.maximum(low, 0.0)),
                "ci_high": float(np.maximum(high, 0.0)),
                "note": cloud.sample.note,
            }

        total = area(cloud.quality)
        everyone = np.ones(len(cloud.cost), dtype=bool)
        rows = [row("all", everyone, None)]
        for a, name in enumerate(cloud.sample.names):
            rows.append(row(name, cloud.architecture == a, cloud.architecture != a))
        return pd.DataFrame(rows)

    def gaps(self) -> pd.DataFrame:
        """How far each architecture is behind the frontier of the others, averaged over its sizes.

        A gap needs a counterpart: a cell counts for the quality gap if some other architecture
        costs no more, and for the multiplier if some other architecture is at least as good. This
        is decided once, from the table; every bootstrap draw uses the same cells.

        Returns:
          One row per architecture, with columns
            architecture, cost_axis, y_axis, cells, cells_quality, cells_cost (the cells that count
            for each of the two gaps), quality_gap (mean of the others' best quality at no more cost
            minus its own; negative: ahead of them), quality_gap_low, quality_gap_high,
            cost_multiplier (geometric mean of its cost over the least cost at which the others
            reach its quality; below 1: ahead), cost_multiplier_low, cost_multiplier_high (bootstrap
            over seeds), note.
        """
        cloud = self._cloud
        rows = []
        for a, name in enumerate(cloud.sample.names):
            own = np.flatnonzero(cloud.architecture == a)
            others = cloud.architecture != a
            best, drawn = (cloud.best(q, others) for q in (cloud.quality[None], cloud.draws))
            behind = own[np.isfinite(best[0, cloud.step[own]])]
            reached = own[np.isfinite(cloud.cheapest(best, cloud.quality[None, own])[0])]

            def quality_gap(best, quality, cells=behind):
                return (best[:, cloud.step[cells]] - quality[:, cells]).mean(1)

            def extra_cost(best, quality, cells=reached):
                least = np.minimum(cloud.cheapest(best, quality[:, cells]), cloud.steps[-1])
                return (cloud.cost[cells] - least).mean(1)

            found = {}
            for column, gap, cells in (
                ("quality_gap", quality_gap, behind),
                ("cost_multiplier", extra_cost, reached),
            ):
                value = gap(best, cloud.quality[None])[0] if len(cells) else np.nan
                spread = np.nan, np.nan
                if len(cells) and len(drawn):
                    spread = percentiles(
                        gap(drawn, cloud.draws), self.question.level, cloud.sample.df
                    )
                for suffix, v in zip(("", "_low", "_high"), (value, *spread), strict=True):
                    found[column + suffix] = float(v if gap is quality_gap else self.x.unread(v))
            note = (
                ""
                if len(behind) and len(reached)
                else "alone in its range: nothing to compare with"
            )
            rows.append(
                {
                    "architecture": name,
                    **self._labels(),
                    "cells": len(own),
                    "cells_quality": len(behind),
                    "cells_cost": len(reached),
                    **found,
                    "note": join(cloud.sample.note, note),
                }
            )
        return pd.DataFrame(rows)
