"""Baselines without learning, and the cells whose scores are no better."""

import numpy as np
import pandas as pd
from scipy import stats

from eval.data.cells import CELL, seed_averages
from eval.data.study import AVERAGES, Study, task_columns

AT_CHANCE = "score_at_chance"
"""A column that says which runs' scores an analysis left out."""


def baselines(study: Study) -> dict[str, float]:
    """Qualities reached without learning: unigram entropy and the majority class of each task.

    Returns:
      Baselines by quality column, for those that the runs recorded, and averages over tasks if all
      of their tasks have one.
    """
    evals = study.evals
    values = {}
    unigram = evals.loc[evals.metric == "unigram_nll", "value"].dropna()
    if len(unigram):
        values["upstream_nll"] = float(unigram.median())
    majority = (
        evals[evals.metric == "majority_class"]
        .dropna(subset="value")
        .groupby("task")
        .value.median()
    )
    tasks = [c.removeprefix("downstream_") for c in task_columns(study.runs)]
    values |= {f"downstream_{task}": float(majority[task]) for task in tasks if task in majority}
    for column, prefix in AVERAGES.items():
        members = [f"downstream_{task}" for task in tasks if task.startswith(prefix)]
        if members and all(member in values for member in members):
            values[column] = float(np.mean([values[member] for member in members]))
    return values


def at_chance(study: Study, column: str, level: float = 0.95) -> pd.Series:
    """Which cells have a score that guessing could have reached.

    The score of such a cell says that nothing was learned, not how much. A line through it has the
    slope of the floor.

    Args:
      study: the study.
      column: a column of scores, such as `downstream_mean`.
      level: a cell is above chance if a one-sided test says so at `1 - level`. The error is that of
        the held-out examples, or of the seeds if that is larger. A score without an error, such as
        a perfect one, is above chance if it is above the baseline.

    Returns:
      For each run of the study whether its cell is at chance, on the index of `study.runs`; all
      False if the records have no baseline.
    """
    runs, base = study.runs, baselines(study).get(column)
    if base is None or column not in runs:
        return pd.Series(False, index=runs.index)
    squares = study.evaluation_errors.get(column, pd.Series(np.nan, index=runs.index)) ** 2
    cells = seed_averages(runs.assign(score=runs[column], square=squares), ["score", "square"])
    errors = cells[["square", "score_se"]].pow([0.5, 1.0], axis="columns")
    error = errors.max(axis=1).fillna(0.0)
    floor = base + stats.norm.ppf(level) * error
    low = cells["score"].notna() & ~(cells["score"] > floor)
    return runs.join(low.rename("at_chance"), on=list(CELL))["at_chance"]
