"""Does architecture change the exponent or only the coefficient? Fits one law per group.

Some parameters may be shared. The models, from fewest to most parameters: `pooled` (one law for
all), `coefficients` (E and exponents shared), `shared_E`, `shared_exponents`, `separate`. Each
smaller model is tested against each larger one that contains it. The verdict rests on two of these
tests, chosen in advance: do coefficients differ, and do exponents besides; Holm corrects for both.

A law that is not quite right bends away from the data in its own way over every range, so groups
with other ranges would differ without a difference of architectures. Hence only points inside the
range that all groups cover are compared.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from eval.laws import score_test
from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import Fit, fit
from eval.laws.fitting.objective import HOFFMANN, Objective
from eval.laws.forms.form import Form
from eval.laws.grouped import Grouped
from eval.laws.law_table import Runs
from eval.stats.decision import holm
from eval.stats.resampling import DEFAULT, Resampling
from train.records import InputError

_TESTS = ("smaller", "larger", "df", "F", "p", "p_holm", "p_bootstrap")
_TOO_FEW = "it cannot be told whether the groups differ: too few points for a test"
_NO_DRAWS = (
    "it cannot be told whether the groups differ: the test needs draws (--bootstrap above 0)"
)
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class GroupComparison:
    """The models of one law for several groups.

    Attributes:
      fits: the fits by name of the model.
      tests: one row per nested pair: `smaller`, `larger`, `df`, `F`, `p` (of F, which assumes one
        noise for all groups; NaN if rows share a run), `p_holm` (of `p_bootstrap`, over the tests
        that the verdict looks at; NaN in the others), `p_bootstrap` (see `score_test`).
      verdict: the answer in one sentence.
      points: number of points that were compared.
      left_out: number of points outside the range that all groups cover.
      ranges: the smallest and largest raw value of each input that was compared.
    """

    fits: dict[str, Fit]
    tests: pd.DataFrame
    verdict: str
    points: int
    left_out: int
    ranges: dict[str, tuple[float, float]]


def sharings(form: Form, fixed: Mapping[str, float] | None = None) -> dict[str, frozenset[str]]:
    """The free symbols that each model shares; models that would equal another are left out."""
    free = frozenset(form.symbols) - frozenset(fixed or ())
    exponents = free & frozenset(form.exponent_symbols)
    floor = free & frozenset({form.floor_symbol} if form.floor_symbol else ())
    models = {"pooled": free, "coefficients": exponents | floor}
    if floor:
        models |= {"shared_E": floor, "shared_exponents": exponents}
    models |= {"separate": frozenset()}
    return {name: shared for name, shared in models.items() if name == _first(models, shared)}


def _first(models: dict[str, frozenset[str]], shared: frozenset[str]) -> str:
    return next(name for name, other in models.items() if other == shared)


def fit_groups(
    form: Form,
    runs: Runs,
    shared: frozenset[str],
    objective: Objective = HOFFMANN,
    fixed: Mapping[str, float] | None = None,
) -> Fit:
    """Fits one law per group, with some symbols shared.

    Starts from the optima of the groups and from the pooled optimum.

    Args:
      form: the law of each group.
      runs: points with group labels.
      shared: symbols that all groups share.
      objective: what is minimised.
      fixed: symbols that are not searched in any group.

    Raises:
      InputError: there are fewer than two groups.
    """
    return _fit_joint(form, runs, shared, _Apart(form, runs, objective, fixed))


class _Apart:
    """The fits that joint fits start from: each group's own, and one to all points.

    Attributes:
      objective: what was minimised.
      fixed: symbols that were not searched.
      own_GP: each group's optimum.
      pooled_P: the optimum of all points together.
    """

    def __init__(
        self,
        form: Form,
        runs: Runs,
        objective: Objective,
        fixed: Mapping[str, float] | None,
    ):
        if len(runs.groups) < 2:
            raise InputError(
                f"group: one value only ({runs.groups[0]!r}); a comparison needs two or more"
            )
        self.objective, self.fixed = objective, fixed
        parts = [runs.take(runs.group == label) for label in runs.groups]
        self.own_GP = np.array([fit(form, part, objective, fixed=fixed).theta_P for part in parts])
        every = dataclasses.replace(runs, group=np.full(len(runs.y), ""))
        self.pooled_P = fit(form, every, objective, fixed=fixed).theta_P


def _fit_joint(form: Form, runs: Runs, shared: frozenset[str], apart: _Apart) -> Fit:
    """Fits the joint model from every combination of the optima of `apart`."""
    labels, own_GP, pooled_P, fixed = runs.groups, apart.own_GP, apart.pooled_P, apart.fixed
    joint = Grouped(form, labels, shared)
    code_n = np.array([labels.index(label) for label in runs.group], float)
    numbered = dataclasses.replace(runs, x={**runs.x, "group": code_n})
    start_SP = []
    for common_P in (*own_GP, own_GP.mean(0), pooled_P):
        for each_GP in (
            own_GP,
            np.tile(pooled_P, (len(labels), 1)),
            np.tile(common_P, (len(labels), 1)),
        ):
            theta_P = np.empty(len(joint.parameters))
            for g, index_P in enumerate(joint.index_GP):
                theta_P[index_P] = np.where(
                    [s in shared for s in form.symbols], common_P, each_GP[g]
                )
            start_SP.append(theta_P)
    held = {
        p.symbol: v
        for p in joint.parameters
        for s, v in (fixed or {}).items()
        if p.symbol.split("[")[0] == s
    }
    return fit(joint, numbered, apart.objective, np.unique(start_SP, axis=0), held)


def on_common_range(form: Form, runs: Runs) -> Runs:
    """The points inside the range of every input that all groups cover.

    A point is kept if it is within half a step of that range (half the median distance of
    neighbouring values of a group), so ladders that are shifted by less are compared whole.

    Args:
      form: the law, which says what the inputs are.
      runs: points with group labels.
    """
    keep_n = np.full(len(runs.y), True)
    for name in form.inputs:
        own = [np.unique(runs.x[name][runs.group == label].round(9)) for label in runs.groups]
        gaps = np.concatenate([np.diff(values) for values in own])
        slack = (float(np.median(gaps)) if len(gaps) else 0.0) / 2 + _ROUNDING
        low, high = max(values[0] for values in own), min(values[-1] for values in own)
        keep_n &= (runs.x[name] >= low - slack) & (runs.x[name] <= high + slack)
    return runs.take(keep_n)


def compare(
    form: Form,
    runs: Runs,
    objective: Objective = HOFFMANN,
    resampling: Resampling = DEFAULT,
    fixed: Mapping[str, float] | None = None,
    support: Literal["common", "all"] = "common",
    progress: Callable[[str], None] = lambda step: None,
) -> GroupComparison:
    """Fits every model and tests the nested pairs.

    Args:
      form: the law of each group.
      runs: points with group labels.
      objective: what is minimised.
      resampling: draws for `p_bootstrap` (0 leaves it NaN, and then there is no verdict), and the
        level: the verdict reports a difference if its corrected p is below 1 - level.
      fixed: symbols that are not searched in any group.
      support: `common` compares over the range of inputs that all groups cover, `all` over all
        points.
      progress: called with the name of each step before it is made.
    """
    shared = on_common_range(form, runs) if support == "common" else runs
    left_out = len(runs.y) - len(shared.y)
    ranges = {
        name: (float(np.exp(shared.x[name].min())), float(np.exp(shared.x[name].max())))
        for name in form.inputs
        if len(shared.y)
    }
    spent = len(form.parameters) - len(fixed or ())
    why = _incomparable(form, runs, runs.groups, spent)
    if not why and (why := _incomparable(form, shared, runs.groups, spent)):
        why += f" inside the range that all groups cover{_left_out(left_out, runs)}"
    if why:
        verdict = f"the groups' laws are not compared: {why}"
        empty = pd.DataFrame(columns=list(_TESTS))
        return GroupComparison({}, empty, verdict, len(shared.y), left_out, ranges)
    models, fits, rows = sharings(form, fixed), {}, []
    progress("groups: starts")
    apart = _Apart(form, shared, objective, fixed)
    for name, symbols in models.items():
        progress(f"groups: {name}")
        fits[name] = _fit_joint(form, shared, symbols, apart)
    for small, symbols in models.items():
        for large, fewer in models.items():
            if fewer < symbols:
                progress(f"groups: {small} against {large}")
                found = _test(fits[small], fits[large], fits["separate"], resampling)
                rows.append({"smaller": small, "larger": large, **found})
    tests = pd.DataFrame(rows)
    judged = _judged(models)
    looked_at = [(row["smaller"], row["larger"]) in judged for row in rows]
    tests["p_holm"] = holm(np.where(looked_at, tests["p_bootstrap"], np.nan))
    verdict = _NO_DRAWS if not resampling.draws else _verdict(tests, resampling.level)
    verdict += _left_out(left_out, runs)
    return GroupComparison(fits, tests[list(_TESTS)], verdict, len(shared.y), left_out, ranges)


def _left_out(count: int, runs: Runs) -> str:
    """What a verdict says of points outside the common range."""
    if not count:
        return ""
    return f" ({count} of {len(runs.y)} points are outside the range that all groups cover)"


def _incomparable(form: Form, runs: Runs, labels: list[str], spent: int) -> str:
    """The first group that does not determine a law of its own, and why; empty if all do."""
    for label in labels:
        part = runs.take(runs.group == label)
        if part.clusters <= spent:
            return f"{label} has {part.clusters} independent runs or cells for {spent} parameters"
        for name in form.inputs:
            if not np.ptp(part.x[name]):
                return f"{name} takes one value in {label}"
    return ""


def _test(small: Fit, large: Fit, separate: Fit, resampling: Resampling) -> dict[str, float]:
    extra = int(large.free_P.sum() - small.free_P.sum())
    left = len(large.runs.y) - int(large.free_P.sum())
    if left < 1:
        return {"df": extra, "F": np.nan, "p": np.nan, "p_bootstrap": np.nan}
    gain = max(small.value - large.value, 0.0)
    statistic = 2 * gain / extra / max(uncertainty.loss_of_fit_unit(large), 1e-300)
    p = np.nan if large.runs.dependent else float(stats.f.sf(statistic, extra, left))
    drawn = score_test.p_value(small, large, separate, resampling.draws, resampling.seed)
    return {"df": extra, "F": statistic, "p": p, "p_bootstrap": drawn}


def _judged(models: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """The tests that the verdict looks at: coefficients, then exponents; or the law as a whole."""
    if "coefficients" not in models:
        return (("pooled", "separate"),)
    exponents = "shared_E" if "shared_E" in models else "separate"
    return ("pooled", "coefficients"), ("coefficients", exponents)


def _verdict(tests: pd.DataFrame, level: float) -> str:
    """The verdict on the groups, in one sentence; p values are corrected for both tests."""
    judged = tests[tests["p_holm"].notna()]
    pairs = _judged(dict.fromkeys(tests["smaller"]))
    if len(judged) < len(pairs):
        return _TOO_FEW
    p = [
        float(judged.loc[(judged["smaller"] == a) & (judged["larger"] == b), "p_holm"].iloc[0])
        for a, b in pairs
    ]
    if len(p) == 1:
        return f"{'the' if p[0] < 1 - level else 'no sign that the'} groups differ (p = {p[0]:.2g})"
    pooled, exponents = p
    if exponents < 1 - level:
        return f"the groups differ in their exponents (p = {exponents:.2g})"
    if pooled < 1 - level:
        only = f"the groups differ in their coefficients (p = {pooled:.2g})"
        return f"{only}; no sign that exponents do (p = {exponents:.2g})"
    return (
        f"no sign that the groups differ (coefficients p = {pooled:.2g}, exponents p = "
        f"{exponents:.2g})"
    )
