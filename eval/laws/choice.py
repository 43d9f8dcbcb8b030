"""Compares forms by information criteria, and by predicting larger runs from smaller ones."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import Fit, fit, target
from eval.laws.fitting.objective import HOFFMANN, Objective, Space
from eval.laws.forms.form import Form
from eval.laws.law_table import Runs
from eval.stats.resampling import Resampling

_BACKTEST = Resampling(draws=200)
_MOST_BUCKETS = 8


def criteria(fit_: Fit) -> dict[str, float]:
    """AICc and BIC of a fit, with keys `log_likelihood`, `parameters`, `aicc`, `bic`.

    The residuals are assumed to be normal for least squares and Laplace for Huber and L1 (a Huber
    zone of 1e-3 is narrower than the noise of any seed). The noise scale counts as a parameter.
    Compare only fits of one objective to one table. NaN if rows share a run, since the likelihood
    would count them as independent.
    """
    r, n, weight_n = fit_.residual_n, len(fit_.runs.y), fit_.runs.weight
    parameters = int(fit_.free_P.sum()) + 1
    if fit_.runs.dependent:
        return {"log_likelihood": np.nan, "parameters": parameters, "aicc": np.nan, "bic": np.nan}
    if fit_.objective.name == "l2":
        log_likelihood = -0.5 * n * (np.log(2 * np.pi * max((weight_n * r**2).mean(), 1e-300)) + 1)
        log_likelihood += 0.5 * np.log(weight_n).sum()
    else:
        log_likelihood = (
            -n * (np.log(2 * max((weight_n * np.abs(r)).mean(), 1e-300)) + 1)
            + np.log(weight_n).sum()
        )
    left = n - parameters - 1
    correction = 2 * parameters * (parameters + 1) / left if left > 0 else np.inf
    aicc = -2 * log_likelihood + 2 * parameters + correction
    bic = -2 * log_likelihood + parameters * np.log(n)
    return {
        "log_likelihood": log_likelihood,
        "parameters": parameters,
        "aicc": float(aicc),
        "bic": float(bic),
    }


def scale(runs: Runs, form: Form) -> np.ndarray:
    """The size of each run [n]: log compute if known, else the log of the first input."""
    if "C" in runs.x:
        return runs.x["C"]
    if "N" in runs.x:
        return runs.x["N"] + runs.x.get("D", runs.x.get("S", np.zeros_like(runs.x["N"])))
    first = runs.x[form.inputs[0]]
    return -first if form.inputs[0] == "L" else first


def backtest(
    form: Form,
    runs: Runs,
    objective: Objective = HOFFMANN,
    resampling: Resampling = _BACKTEST,
    fixed: Mapping[str, float] | None = None,
    least: int = 0,
) -> pd.DataFrame:
    """Fits the runs up to each size and predicts the next larger size.

    Args:
      form: the law.
      runs: the points.
      objective: what is minimised.
      resampling: refits behind the prediction intervals.
      fixed: symbols that are not searched.
      least: the number of points that a cut must leave; always at least two more than parameters.

    Returns:
      One row per cut with columns `form`, `fitted` and `predicted` (numbers of points), `stretch`
        (largest predicted scale over largest fitted one), `rmsle`, `bias` (mean log of predicted
        over observed), `coverage` (share of the points inside their prediction interval). Empty if
        no cut leaves more points than parameters.
    """
    rows = [row for row, _ in _held_out(form, runs, objective, resampling, fixed, least)]
    return pd.DataFrame(
        rows, columns=["form", "fitted", "predicted", "stretch", "rmsle", "bias", "coverage"]
    )


def _held_out(
    form: Form,
    runs: Runs,
    objective: Objective,
    resampling: Resampling,
    fixed: Mapping[str, float] | None,
    least: int,
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Every cut's row of the backtest, and how far off its predictions were.

    The distances [n] are in half-widths of the prediction interval on that side: above one is
    outside.
    """
    order_n = scale(runs, form)
    edges = np.unique(order_n.round(6))
    if len(edges) > _MOST_BUCKETS:
        edges = np.quantile(order_n, np.linspace(0, 1, _MOST_BUCKETS + 1)[1:])
    for below, upto in zip(edges, edges[1:], strict=False):
        past, future = order_n <= below + 1e-6, (order_n > below + 1e-6) & (order_n <= upto + 1e-6)
        if past.sum() < max(least, _least(form, fixed)) or not future.any():
            continue
        drawn = uncertainty.bootstrap(
            fit(form, runs.take(past), objective, fixed=fixed), resampling.draws, resampling.seed
        )
        ahead = runs.take(future)
        table = uncertainty.predict(drawn, ahead.x, resampling.level)
        error = np.log(np.maximum(table["prediction"], 1e-12) / np.maximum(ahead.y, 1e-12))
        inside = (table["run_lower"] <= ahead.y) & (ahead.y <= table["run_upper"])
        row = {
            "form": form.name,
            "fitted": int(past.sum()),
            "predicted": int(future.sum()),
            "stretch": float(np.exp(order_n[future].max() - order_n[past].max())),
            "rmsle": float(np.sqrt((error**2).mean())),
            "bias": float(error.mean()),
            "coverage": float(inside.mean()),
        }
        here, low, high = (
            target(np.maximum(table[column].to_numpy(), 1e-12), objective)
            for column in ("prediction", "run_lower", "run_upper")
        )
        off = target(ahead.y, objective) - here
        reach = np.where(off > 0, high - here, here - low)
        yield row, np.abs(off) / np.maximum(reach, 1e-300)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Whether prediction intervals held runs larger than those that were fitted.

    Attributes:
      cuts: number of fits to the smaller runs; without any the rest is NaN, and `factor` is 1.
      points: number of runs predicted.
      coverage: share of them inside their interval.
      level: share claimed.
      stretch: largest ratio of a predicted run's compute (or first input) to the largest fitted.
      factor: by how much wider the intervals would have to be to hold `level` of the runs; 1 if
        they hold it.
    """

    cuts: int
    points: int
    coverage: float
    level: float
    stretch: float
    factor: float

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the intervals of extrapolations, in words."""
        if not self.cuts:
            return [
                "there are too few sizes for a backtest: whether the intervals of extrapolations "
                "hold is unknown"
            ]
        if self.factor <= 1:
            return []
        return [
            f"in the backtest {100 * self.level:g} % intervals held "
            f"{self.coverage * self.points:.0f} of {self.points} runs that were up to "
            f"{self.stretch:.3g} times as large as those fitted; intervals of extrapolations are "
            f"made {self.factor:.3g} times as wide"
        ]

    def widened(self, row: Mapping[str, float], space: Space) -> dict[str, float]:
        """The intervals of a prediction, widened around it, in the space of the objective.

        Args:
          row: `prediction` and the ends `lower`, `upper`, `run_lower`, `run_upper`.
          space: where distances are measured, log or raw.
        """
        here, found = row["prediction"], {"widened": self.factor}
        for end in ("lower", "upper", "run_lower", "run_upper"):
            if space == "log":
                found[end] = float(here * max(row[end] / here, 1e-12) ** self.factor)
            else:
                found[end] = float(here + (row[end] - here) * self.factor)
        return found


def calibrate(law: Fit, resampling: Resampling = _BACKTEST) -> HeldOut:
    """Checks the prediction intervals of a law on its own larger runs; see `backtest`.

    The factor is the distance, in half-widths of the interval, within which `level` of the runs
    are, counted as in conformal prediction (Lei et al. 2018): rank (n + 1) level of n, or the
    largest distance if that is beyond it.
    """
    fixed = {
        s: v
        for s, v, free in zip(law.form.symbols, law.params.values(), law.free_P, strict=True)
        if not free
    }
    found = list(_held_out(law.form, law.runs, law.objective, resampling, fixed, 0))
    level = resampling.level
    if not found:
        return HeldOut(0, 0, np.nan, level, np.nan, 1.0)
    off = np.sort(np.concatenate([distance for _, distance in found]))
    coverage = float((off <= 1).mean())
    rank = min(int(np.ceil((len(off) + 1) * level)), len(off))
    factor = 1.0 if coverage >= level else max(float(off[rank - 1]), 1.0)
    stretch = max(row["stretch"] for row, _ in found)
    return HeldOut(len(found), len(off), coverage, level, stretch, factor)


def _least(form: Form, fixed: Mapping[str, float] | None) -> int:
    return len(form.parameters) - len(fixed or ()) + 2


def compare(
    forms: Sequence[Form],
    runs: Runs,
    objective: Objective = HOFFMANN,
    fixed: Mapping[str, float] | None = None,
    resampling: Resampling = _BACKTEST,
) -> pd.DataFrame:
    """Compares forms, best backtest first.

    All are tested on the same cuts, those that every form can be fitted to.

    Args:
      forms: the laws.
      runs: points with the inputs of every form.
      objective: what is minimised.
      fixed: symbols of the first form that are not searched.
      resampling: of the backtest.

    Returns:
      One row per form: `form`, `parameters`, `objective`, `aicc`, `bic`, the backtest's mean
        `rmsle`,
      `bias` and `coverage` over its cuts, `cuts` (their number), and `warnings` (their number).
    """
    holds = [fixed if i == 0 else None for i in range(len(forms))]
    least, rows = max(map(_least, forms, holds)), []
    for form, held in zip(forms, holds, strict=True):
        fitted = fit(form, runs, objective, fixed=held)
        past = backtest(form, runs, objective, resampling, held, least)
        scores = past[["rmsle", "bias", "coverage"]].mean().to_dict()
        numbers = {k: v for k, v in criteria(fitted).items() if k != "log_likelihood"}
        head = {"form": form.name, "objective": fitted.value, **numbers}
        rows.append({**head, **scores, "cuts": len(past), "warnings": len(fitted.warnings)})
    return pd.DataFrame(rows).sort_values("rmsle", na_position="last", ignore_index=True)
