"""How the best size grows with compute, N ~ C^a, by Hoffmann's three approaches.

Kaplan and Hoffmann ask the same of the same runs, and differ in what they count as N.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from eval.analyses.sources import inference as infer
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.laws import grid_points
from eval.analyses.sources.measured import Measured, rows_of
from eval.laws import forms, isoflop
from eval.laws.isoflop import AllocationLaw
from eval.stats.decision import Untestable
from eval.stats.regression import Estimate
from eval.stats.resampling import Resampling
from train.records import InputError

Approach = Callable[[Measured, str], Estimate]
_DRAWS = 300
_BUDGETS = 3  # two lie on any line


def envelope(m: Measured, count: str) -> Estimate:
    """Approach 1: the size with the lowest training curve at every compute.

    Args:
      m: the runs.
      count: N (parameters outside the embedding) or P (all of them).
    """
    lengths, course = m.lengths, m.course("heldout")
    usual = m.usual[m.usual["size"].isin(lengths.cells["size"])]
    runs = rows_of(usual, [run for run in course if run in set(usual["run_id"])])
    need(runs["size"].nunique() >= 3, "no three sizes that were evaluated during training")
    parts = [course[run] for run in runs["run_id"]]
    repeats = [len(part) for part in parts]
    share = [part["step"].to_numpy(float) for part in parts]
    per_step = np.repeat((runs["C"] / runs["steps"]).to_numpy(float), repeats)
    found = _or_open(
        lambda: isoflop.envelope(
            np.repeat(runs[count].to_numpy(float), repeats),
            np.concatenate(share) * per_step,
            np.concatenate([part["heldout"].to_numpy(float) for part in parts]),
            np.repeat(runs["run_id"].to_numpy(object), repeats),
            resampling=Resampling(_DRAWS, m.level, m.seed),
        )
    )
    # Its interval is a percentile interval of resampled runs, which a normal quantile belongs to.
    return _from_interval(found, float(stats.norm.ppf((1 + m.level) / 2)), max(len(runs) - 2, 1))


def profiles(m: Measured, count: str) -> Estimate:
    """Approach 2: the minima of the loss over sizes at equal compute; see `envelope`."""
    cells = m.lengths.cells.dropna(subset=["C", "last"])
    found = _or_open(
        lambda: isoflop.isoflop(
            cells[count].to_numpy(float),
            cells["C"].to_numpy(float),
            cells["last"].to_numpy(float),
            resampling=Resampling(_DRAWS, m.level, m.seed),
        )
    )
    if any("no table of isoFLOP budgets" in warning for warning in found.warnings):
        raise Untestable("the sizes were not trained at equal budgets of compute")
    spare = int((found.budgets["note"] == "").sum()) - 2
    if spare < _BUDGETS - 2:
        raise Open("two budgets have a minimum; three are needed for an error")
    return _from_interval(found, float(stats.t.ppf((1 + m.level) / 2, spare)), spare)


def parametric(m: Measured, count: str) -> Estimate:
    """Approach 3: from the exponents of L = E + A N^-alpha + B D^-beta; see `envelope`."""
    fitted = infer.law(forms.get("chinchilla"), grid_points(m.lengths, count))
    return infer.of_law(fitted, lambda p: p["beta"] / (p["alpha"] + p["beta"]), "alpha", "beta")


APPROACHES: tuple[tuple[str, str, Approach], ...] = (
    ("a", "the envelope of training curves, which needs a constant rate (approach 1)", envelope),
    ("b", "profiles at equal compute (approach 2)", profiles),
    ("c", "the law in N and D (approach 3)", parametric),
)
"""Part, name and function of each approach."""


def _or_open(compute: Callable[[], AllocationLaw]) -> AllocationLaw:
    try:
        return compute()
    except InputError as error:
        raise Open(str(error)) from None


def _from_interval(found: AllocationLaw, reach: float, df: int) -> Estimate:
    """The exponent of N, with the standard error that belongs to its interval."""
    low, high = found.a_interval
    if not math.isfinite(high - low):
        raise Open("the exponent has no interval")
    return infer.estimate(found.a, (high - low) / 2 / reach, df)
