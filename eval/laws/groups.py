"""Does architecture change the exponent or only the coefficient? Fits one law per group.

Some parameters may be shared. The models, from fewest to most parameters: `pooled` (one law for
all), `coefficients` (E and exponents shared), `shared_E`, `shared_exponents`, `separate`. Each
smaller model is tested against each larger one that contains it.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import Fit, fit, refit
from eval.laws.fitting.objective import HOFFMANN, Objective
from eval.laws.forms.form import Form, Inputs
from eval.laws.law_table import Runs
from eval.stats.decision import holm
from train.records import InputError

_TESTS = ("smaller", "larger", "df", "F", "p", "p_holm", "p_bootstrap")
_TOO_FEW = "too few points to tell the groups' laws apart"


class Grouped(Form):
    """A law for each group, as one form; `x["group"]` holds the number of each point's group.

    Args:
      base: the law.
      labels: the groups' names.
      shared: symbols that all groups share.
    """

    def __init__(self, base: Form, labels: list[str], shared: frozenset[str]):
        """Names the parameters: the shared ones first, then each group's own as `symbol[label]`."""
        self.base, self.labels, self.shared = base, labels, shared
        self.space, self.output, self.floor_symbol = base.space, base.output, None
        self.name, self.inputs = base.name, base.inputs
        common = [p for p in base.parameters if p.symbol in shared]
        own = [p for p in base.parameters if p.symbol not in shared]
        named = [
            dataclasses.replace(p, symbol=f"{p.symbol}[{label}]") for label in labels for p in own
        ]
        self.parameters = (*common, *named)
        places = {p.symbol: i for i, p in enumerate(self.parameters)}
        self.index_GP = np.array(
            [
                [places.get(p.symbol, places.get(f"{p.symbol}[{g}]")) for p in base.parameters]
                for g in labels
            ]
        )

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates each group's points with the group's parameters."""
        n = len(x["group"])
        values_Sn, jac_SPn = (
            np.empty((len(theta_SP), n)),
            np.zeros((len(theta_SP), len(self.parameters), n)),
        )
        for index_P, at in self._parts(x):
            part = {name: x[name][at] for name in self.inputs}
            values_Sn[:, at], jac_SPn[:, index_P[:, None], at[None]] = self.base.evaluate(
                theta_SP[:, index_P], part
            )
        return values_Sn, jac_SPn

    def curvature(self, theta_SP: np.ndarray, x: Inputs, weight_Sn: np.ndarray) -> np.ndarray:
        """The sum over the groups."""
        hess_SPP = np.zeros((len(theta_SP),) + (len(self.parameters),) * 2)
        for index_P, at in self._parts(x):
            part = {name: x[name][at] for name in self.inputs}
            block_SPP = self.base.curvature(theta_SP[:, index_P], part, weight_Sn[:, at])
            hess_SPP[:, index_P[:, None], index_P[None]] += block_SPP
        return hess_SPP

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures each group's coefficients at the middle of its data."""
        matrix_PP = np.eye(len(self.parameters))
        for index_P, at in self._parts(x):
            matrix_PP[index_P[:, None], index_P[None]] = self.base.centre(
                {name: x[name][at] for name in self.inputs}
            )
        return matrix_PP

    def _parts(self, x: Inputs):
        for g, index_P in enumerate(self.index_GP):
            if len(
                at := np.flatnonzero(x["group"] == g)
            ):  # a search may first use only some of the points
                yield index_P, at

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of the base law, for every group."""
        lower_P, upper_P = np.empty(len(self.parameters)), np.empty(len(self.parameters))
        for index_P in self.index_GP:
            lower_P[index_P], upper_P[index_P] = self.base.bounds()
        return lower_P, upper_P

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Published values of every group."""
        values = np.empty_like(theta)
        for index_P in self.index_GP:
            values[..., index_P] = self.base.publish(theta[..., index_P])
        return values

    def search(self, published: Mapping[str, float]) -> np.ndarray:
        """The inverse of `publish`."""
        theta_P = np.empty(len(self.parameters))
        for index_P in self.index_GP:
            here = (published[self.parameters[p].symbol] for p in index_P)
            theta_P[index_P] = self.base.search(dict(zip(self.base.symbols, here, strict=True)))
        return theta_P


@dataclasses.dataclass(frozen=True)
class GroupComparison:
    """The models of one law for several groups.

    Attributes:
      fits: the fits by name of the model.
      tests: one row per nested pair: `smaller`, `larger`, `df`, `F`, `p` (of F; NaN if rows share a
        run), `p_holm` (of `p_bootstrap` if there is one, else of `p`), `p_bootstrap`.
      verdict: the answer in one sentence.
    """

    fits: dict[str, Fit]
    tests: pd.DataFrame
    verdict: str


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
    labels = runs.groups
    if len(labels) < 2:
        raise InputError(f"group: one value only ({labels[0]!r}); a comparison needs two or more")
    joint = Grouped(form, labels, shared)
    code_n = np.array([labels.index(label) for label in runs.group], float)
    numbered = dataclasses.replace(runs, x={**runs.x, "group": code_n})
    parts = [runs.take(code_n == g) for g in range(len(labels))]
    own_GP = np.array([fit(form, part, objective, fixed=fixed).theta_P for part in parts])
    pooled_P = fit(
        form, dataclasses.replace(runs, group=np.full(len(runs.y), "")), objective, fixed=fixed
    ).theta_P
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
    return fit(joint, numbered, objective, np.unique(start_SP, axis=0), held)


def compare(
    form: Form,
    runs: Runs,
    objective: Objective = HOFFMANN,
    draws: int = 500,
    seed: int = 0,
    fixed: Mapping[str, float] | None = None,
    level: float = 0.95,
) -> GroupComparison:
    """Fits every model and tests the nested pairs.

    Args:
      form: the law of each group.
      runs: points with group labels.
      objective: what is minimised.
      draws: number of refits under each null hypothesis for `p_bootstrap` (residuals of the smaller
        model with random signs by run); 0 leaves it NaN.
      seed: seed of the draws.
      fixed: symbols that are not searched in any group.
      level: the verdict reports a difference if p is below 1 - level.
    """
    why = _incomparable(form, runs, len(form.parameters) - len(fixed or ()))
    if why:
        return GroupComparison(
            {}, pd.DataFrame(columns=list(_TESTS)), f"the groups' laws are not compared: {why}"
        )
    models = sharings(form, fixed)
    fits = {
        name: fit_groups(form, runs, shared, objective, fixed) for name, shared in models.items()
    }
    rows = []
    for small, shared in models.items():
        for large, fewer in models.items():
            if fewer < shared:
                rows.append(
                    {
                        "smaller": small,
                        "larger": large,
                        **_test(fits[small], fits[large], draws, seed),
                    }
                )
    tests = pd.DataFrame(rows)
    tests["p_holm"] = holm(tests["p_bootstrap"].fillna(tests["p"]))
    tests = tests[list(_TESTS)]
    return GroupComparison(fits, tests, _verdict(tests, level))


def _incomparable(form: Form, runs: Runs, spent: int) -> str:
    """The first group that does not determine a law of its own, and why; empty if all do."""
    for label in runs.groups:
        part = runs.take(runs.group == label)
        if part.clusters <= spent:
            return f"{label} has {part.clusters} independent runs or cells for {spent} parameters"
        for name in form.inputs:
            if not np.ptp(part.x[name]):
                return f"{name} takes one value in {label}"
    return ""


def _test(small: Fit, large: Fit, draws: int, seed: int) -> dict[str, float]:
    extra = int(large.free_P.sum() - small.free_P.sum())
    left = len(large.runs.y) - int(large.free_P.sum())
    if left < 1:
        return {"df": extra, "F": np.nan, "p": np.nan, "p_bootstrap": np.nan}
    gain = max(small.value - large.value, 0.0)
    statistic = 2 * gain / extra / max(uncertainty.loss_of_fit_unit(large), 1e-300)
    p = np.nan if large.runs.dependent else float(stats.f.sf(statistic, extra, left))
    return {"df": extra, "F": statistic, "p": p, "p_bootstrap": _null_p(small, large, draws, seed)}


def _null_p(small: Fit, large: Fit, draws: int, seed: int) -> float:
    """Share of data sets drawn from the smaller model with at least the observed relative gain."""
    if not draws:
        return float("nan")
    y_Bn = uncertainty.wild_targets(small, draws, np.random.default_rng(seed))
    low_B = refit(small, y_Sn=y_Bn).value_S
    both_P = [
        large.theta_P,
        _spread(small, large),
    ]  # so the larger model is never worse than the smaller one
    high_B = np.min(
        [refit(large, y_Sn=y_Bn, start_SP=np.tile(s, (draws, 1))).value_S for s in both_P], axis=0
    )
    seen = (small.value - large.value) / large.value
    return float((1 + ((low_B - high_B) / high_B >= seen * (1 - 1e-9)).sum()) / (1 + draws))


def _spread(small: Fit, large: Fit) -> np.ndarray:
    """The optimum of the smaller model in the coordinates of the larger one."""
    theta_P = np.empty(len(large.theta_P))
    assert isinstance(large.form, Grouped) and isinstance(small.form, Grouped)
    for there_P, here_P in zip(large.form.index_GP, small.form.index_GP, strict=True):
        theta_P[there_P] = small.theta_P[here_P]
    return theta_P


def _verdict(tests: pd.DataFrame, level: float) -> str:
    """The verdict on the groups, in one sentence."""

    def p(small: str, large: str) -> float:
        row = tests[(tests["smaller"] == small) & (tests["larger"] == large)]
        return float(row["p_bootstrap"].fillna(row["p"]).iloc[0])

    models = set(tests["smaller"])
    if "coefficients" not in models:
        p_any = p("pooled", "separate")
        if not np.isfinite(p_any):
            return _TOO_FEW
        return (
            f"{'the' if p_any < 1 - level else 'no sign that the'} groups differ (p = {p_any:.2g})"
        )
    pooled = p("pooled", "coefficients")
    exponents = p("coefficients", "shared_E" if "shared_E" in models else "separate")
    if not np.isfinite([pooled, exponents]).all():
        return _TOO_FEW
    if exponents < 1 - level:
        return f"the groups differ in their exponents (p = {exponents:.2g})"
    if pooled < 1 - level:
        only = f"the groups differ in their coefficients (p = {pooled:.2g})"
        return f"{only}; no sign that exponents do (p = {exponents:.2g})"
    return (
        f"no sign that the groups differ (coefficients p = {pooled:.2g}, exponents p = "
        f"{exponents:.2g})"
    )
