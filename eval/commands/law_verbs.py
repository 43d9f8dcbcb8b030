"""The verbs `fit`, `predict`, `allocate` and `next`, which fit scaling laws and use them.

Each verb is a dataclass whose fields are its options. Its method `run` prints the answer as text or
JSON, with the warnings first, and returns the exit code.
"""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import tyro

from eval.commands.answers import Answer, records
from eval.commands.law_options import LawOptions, answer, by_group, raw, settings
from eval.commands.progress import progress
from eval.laws import (
    allocation,
    at,
    choice,
    forms,
    groups,
    isoflop,
    kaplan_implications,
    law_table,
    next_run,
)
from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import Fit
from eval.stats.resampling import Resampling
from train.ranges import Count, NotNegative, Positive, Range
from train.records import InputError

# Options of `fit` that mean nothing for approaches 1 and 2, which fit no law.
_NO_LAW = (
    "form",
    "objective",
    "space",
    "method",
    "starts",
    "fix",
    "against",
    "intervals",
    "resample",
    "weight",
)
_MOST_DRAWS = 2000  # of the tests of groups; a p value of 5 % is then known to .5 %


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitVerb(LawOptions):
    """Fits a scaling law to a table of runs, with intervals, warnings and group comparisons.

    Attributes:
      intervals: bootstrap (expanded percentile), bca, or profile (of the objective).
      approach: 3 fits the law; 1 (envelope of training curves) and 2 (isoFLOPs) find the best N for
        each budget.
      profile: the curve that approach 2 draws through the losses of a budget.
      budget_weights: approach 2's weights of the budgets: by the standard error of a minimum and
        the scatter between budgets together, or equal. Both exponents are printed.
      support: groups are compared over the range of inputs that all of them cover, or over all
        points.
      against: other forms to compare with, by AICc, BIC and a backtest that predicts the largest
        runs from the others.
    """

    intervals: Literal["bootstrap", "bca", "profile"] = "bootstrap"
    approach: Literal[1, 2, 3] = 3
    profile: Literal["quadratic", "akima"] = "quadratic"
    budget_weights: isoflop.Weights = "robust"
    support: Literal["common", "all"] = "common"
    against: tuple[str, ...] = ()

    def run(self) -> int:
        """Prints the fit; returns exit code 0."""
        if self.approach == 3:
            only = {"profile": ("quadratic",), "budget_weights": ("robust",)}
            self.refuse(only, "approach: 3 draws no curve per budget")
            return answer(self, _fit_answer)
        defaults = {f.name: (f.default,) for f in dataclasses.fields(FitVerb) if f.name in _NO_LAW}
        self.refuse(defaults, f"approach: {self.approach} fits no law")
        if self.approach == 1:
            only = {"profile": ("quadratic",), "budget_weights": ("robust",)}
            self.refuse(only, "approach: 1 draws no curve per budget")
        chinchilla = forms.get("chinchilla")  # only for its inputs, N and D
        return answer(
            self, lambda o, runs: by_group(o, runs, lambda part: _line(o, part)), chinchilla
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictVerb(LawOptions):
    """Predicts the loss at N and D, or at a budget, with intervals for the curve and for one run.

    Attributes:
      at: where to predict: `N=1e9,D=2e10`, or `C=1e21` for the best N and D; may be given several
        times.
      seed_sd: standard deviation between seeds, to be added if the rows are averages over seeds, in
        the unit of the prediction (nats for a loss).
    """

    at: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(required)")]
    seed_sd: NotNegative = 0.0

    def run(self) -> int:
        """Prints the predictions; returns exit code 0."""

        def one(options: PredictVerb, runs: law_table.Runs) -> Answer:
            law = options.law(runs)
            drawn, k = options.needed_draws(law), options.k(runs)
            rows, warnings, beyond = [], [*law.warnings, *drawn.warnings], False
            past = choice.calibrate(
                law, Resampling(min(options.bootstrap, 200), options.level, options.seed)
            )
            for text in options.at:
                x = at.place(text, law, k)
                found = uncertainty.predict(drawn, x, options.level, options.seed_sd, options.seed)
                row = {str(name): float(value) for name, value in found.iloc[0].items()}
                far = at.outside(text, x, law)
                beyond |= bool(far)
                row |= past.widened(row, law.objective.space) if far else {"widened": 1.0}
                implied = kaplan_implications.implications(
                    law.form.name, law.params, raw(x), row["prediction"]
                )
                rows.append({**raw(x), **row, **implied})
                warnings += far
            # Only a budget is converted to N and D with k.
            if any(place.partition("=")[0].strip() == "C" for place in options.at):
                warnings += options.doubts_of_k(runs)
            return {
                "warnings": [*warnings, *(past.warnings if beyond else [])],
                "predictions": rows,
                "backtest": dataclasses.asdict(past),
                **settings(options, law),
            }

        return answer(self, lambda o, runs: by_group(o, runs, lambda part: one(o, part)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocateVerb(LawOptions):
    """Finds the best N and D for compute budgets, and what another N would cost.

    Attributes:
      budget: training FLOPs; may be given several times.
      off: multiples of the best N whose cost is shown.
      reference: the group that the others are compared with, by how many times less compute they
        need for the same loss.
      losses: losses at which to compare groups; by default five inside the range that all of them
        reached.
      unique: number of distinct tokens available (data_constrained).
    """

    budget: tuple[Positive, ...]
    off: tuple[Positive, ...] = (0.25, 0.5, 2.0, 4.0)
    reference: str = ""
    losses: tuple[Positive, ...] = ()
    unique: Annotated[float, Range(0, low_open=True)] = math.inf

    def run(self) -> int:
        """Prints the allocations; returns exit code 0."""
        return answer(self, _allocations)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextVerb(LawOptions):
    """Ranks possible next runs by how much they narrow an interval, per FLOP and in total.

    Attributes:
      quantity: what the interval is of: a parameter (alpha), `loss@N=1e10,D=2e11` or
        `optimum@C=1e22`.
      candidates: a table of possible runs, with a column per input; by default a grid from the
        smallest measured inputs to four times the largest.
      budget: the most FLOPs that one run may cost; without it, the largest runs come first in the
        list by `shrink`.
      top: number of rows to show.
    """

    quantity: str = "alpha"
    candidates: Path | None = None
    budget: Annotated[float, Range(0, low_open=True)] = math.inf
    top: Count = 10

    def run(self) -> int:
        """Prints the best runs to do next; returns exit code 0."""

        def one(options: NextVerb, runs: law_table.Runs) -> Answer:
            law, k = options.law(runs), options.k(runs)
            x = _candidates(options, law)
            flops = (
                np.exp(x["C"])
                if "C" in x
                else k * np.exp(x["N"] + x["D"])
                if {"N", "D"} <= set(x)
                else None
            )
            if flops is None:  # without N and D or C, the first input is the best measure of cost
                flops = np.exp(x[law.form.inputs[0]])
            within = flops <= options.budget
            if not within.any():
                raise InputError(
                    f"budget: no candidate costs {options.budget:g} FLOPs or less; the cheapest "
                    f"costs {flops.min():.3g}"
                )
            x, flops = {name: values[within] for name, values in x.items()}, flops[within]
            ranked = next_run.rank(law, next_run.quantity(law, options.quantity, k), x, flops)
            warnings = [*law.warnings, *options.doubts_of_k(runs)]
            if options.quantity.startswith("optimum"):
                warnings += allocation.outside_grid(law, k)
            return {
                "warnings": warnings,
                "verdict": _most_useful(options.quantity, ranked) + _doubt(warnings),
                "quantity": options.quantity,
                "next": records(ranked.head(options.top)),
                "next_by_shrink": records(
                    ranked.sort_values("shrink", ascending=False).head(options.top)
                ),
            }

        return answer(self, lambda o, runs: by_group(o, runs, lambda part: one(o, part)))


VERBS: dict[str, type] = {
    "fit": FitVerb,
    "predict": PredictVerb,
    "allocate": AllocateVerb,
    "next": NextVerb,
}


def _fit_answer(options: FitVerb, runs: law_table.Runs) -> Answer:
    """The fit, or one per group and a comparison of the groups."""
    with progress("fit") as step:
        found = by_group(options, runs, lambda part: _one_fit(options, part), step)
        if runs.dependent:
            found["warnings"] = [
                f"{runs.dependent}: AICc, BIC and F tests are not computed",
                *found["warnings"],
            ]
        if not options.group:
            return found
        form, fixed = options.law_form(), options.fixed()
        draws = Resampling(min(options.bootstrap, _MOST_DRAWS), options.level, options.seed)
        objective = options.law_objective(form)
        compared = groups.compare(form, runs, objective, draws, fixed, options.support, step)
    return {
        "warnings": found["warnings"],
        "verdict": compared.verdict,
        "compared": {
            "points": compared.points,
            "left_out": compared.left_out,
            **{f"{name}_range": list(ends) for name, ends in compared.ranges.items()},
        },
        "groups": found["groups"],
        "tests": records(compared.tests),
        "shared": {
            name: {**f.params, "objective": f.value, **_criteria(f)}
            for name, f in compared.fits.items()
        },
    }


def _one_fit(options: FitVerb, runs: law_table.Runs) -> Answer:
    """The law of one group, with its intervals and warnings."""
    law = options.law(runs)
    drawn = options.draws(law)
    spans, without = _intervals(law, drawn, options)
    warnings = [
        *law.warnings,
        *(drawn.warnings if drawn else ()),
        *without,
        *options.doubts_of_k(runs),
    ]
    found: Answer = {
        "warnings": warnings,
        "verdict": _shape(law, spans),
        "form": law.form.name,
        "formula": law.form.formula,
    }
    for symbol, value in law.params.items():  # the interval's key is what `_text` looks for
        found |= {symbol: value, f"{symbol}_interval": spans.get(symbol)}
    found |= {"objective": law.value, **settings(options, law), **_criteria(law)}
    if isinstance(law.form, forms.Chinchilla):
        # A parameter at its bound would give exponents that only reflect the bound.
        best = {} if allocation.undetermined(law) else allocation.chinchilla_exponents(law.params)
        found["allocation_exponents"] = {"a": best.get("a"), "b": best.get("b")}
        warnings += allocation.outside_grid(law, options.k(runs))
    found["verdict"] += _doubt(warnings)
    if drawn is not None:
        found["bootstrap"] = {
            "kind": drawn.kind,
            "runs": drawn.clusters,
            "draws": len(drawn.theta_BP),
            "failed": drawn.failed,
            "at_bounds": drawn.at_bounds,
            "level": options.level,
            "intervals": options.intervals,
        }
    if options.against:
        rivals = [law.form, *map(options.law_form, options.against)]
        missing = sorted({name for f in rivals for name in f.inputs} - set(runs.x))
        if missing:
            raise InputError(
                f"against: these forms need inputs that were not read for {law.form.name}: "
                f"{', '.join(missing)}"
            )
        found["forms"] = records(
            choice.compare(
                rivals, runs, law.objective, options.fixed(), Resampling(200, options.level)
            )
        )
    return found


def _intervals(
    law: Fit, drawn: uncertainty.Draws | None, options: FitVerb
) -> tuple[dict[str, list], list[str]]:
    """Intervals of the parameters by symbol, and the reasons why some have none."""
    found, bounded = {}, law.without_interval
    without = [f"no interval: {symbol} is at a bound of its search" for symbol in bounded]
    if options.intervals == "profile":
        if law.runs.dependent:
            raise InputError(
                f"intervals: profile needs independent rows, but {law.runs.dependent}; take "
                "bootstrap"
            )
        for symbol in np.array(law.form.symbols)[law.free_P]:
            if symbol in bounded:
                continue
            try:
                found[symbol] = list(uncertainty.profile_interval(law, symbol, options.level))
            except InputError as why:
                without.append(f"no interval: {why}")
    elif drawn is not None and options.intervals == "bca":
        for p, symbol in enumerate(law.form.symbols):
            if symbol in bounded:
                continue
            value = lambda theta, p=p: law.form.publish(theta)[:, p]  # p=p: this p, not the last
            found[symbol] = list(uncertainty.bca(drawn, value, options.level))
    elif drawn is not None:
        spans = drawn.intervals(options.level)
        found = {symbol: list(span) for symbol, span in spans.items() if symbol not in bounded}
    return found, without


def _criteria(law: Fit) -> Answer:
    return {key: value for key, value in choice.criteria(law).items() if key in ("aicc", "bic")}


def _shape(law: Fit, spans: dict[str, list]) -> str:
    """The exponents and the floor of a law, with intervals, in one sentence."""
    said = []
    for symbol, value in law.params.items():
        if symbol not in law.form.coefficient_symbols:
            low, high = spans.get(symbol) or (math.nan, math.nan)
            span = f" [{low:.3g}, {high:.3g}]" if math.isfinite(low) else " (no interval)"
            said.append(f"{symbol} = {value:.3g}{span}")
    return f"{law.form.name} on {law.runs.clusters} runs: {', '.join(said)}"


def _doubt(warnings: list[str]) -> str:
    """What a verdict says of the warnings that follow it."""
    if not warnings:
        return ""
    return (
        f"; read the {len(warnings)} warnings first"
        if len(warnings) > 1
        else ("; read the warning first")
    )


def _line(options: FitVerb, runs: law_table.Runs) -> Answer:
    """The answer of approaches 1 and 2: the line of the best N over the budget."""
    k = options.k(runs)
    n, flops = np.exp(runs.x["N"]), k * np.exp(runs.x["N"] + runs.x["D"])
    if options.flops_per_param_token is None:
        # Measured FLOPs are exact for each run, whereas k is one value for all of them.
        flops = np.where(np.isfinite(runs.flops), runs.flops, flops)
    resampling = Resampling(max(options.bootstrap, 1), options.level, options.seed)
    if options.approach == 2:
        found = isoflop.isoflop(
            n, flops, runs.y, options.profile, resampling, k, options.budget_weights
        )
    else:
        found = isoflop.envelope(n, flops, runs.y, runs.cluster, resampling=resampling, k=k)
    left_out = int((found.budgets["note"] != "").sum())
    warnings = (
        [f"{left_out} of {len(found.budgets)} budgets have no optimum between their sizes"]
        if left_out
        else []
    )
    warnings += [*found.warnings, *options.doubts_of_k(runs)]
    low, high = found.a_interval
    # N D is proportional to C, so the exponents of N and D add up to one.
    plain, plain_low, plain_high = found.unweighted
    line = {
        "a": found.a,
        "a_interval": [low, high],
        "b": found.b,
        "b_interval": [1 - high, 1 - low],
    }
    if options.approach == 2:
        line |= {
            "a_unweighted": plain,
            "a_unweighted_interval": [plain_low, plain_high],
            "b_unweighted": 1 - plain,
            "b_unweighted_interval": [1 - plain_high, 1 - plain_low],
            "scatter": found.scatter,
            "tau": found.tau,
        }
    used = len(found.budgets) - left_out
    span = f" [{low:.3g}, {high:.3g}]" if np.isfinite(low) else " (no interval)"
    grows = f"the best N grows as C^{found.a:.3g}{span} over {used} budgets"
    return {
        "warnings": warnings,
        "verdict": grows + _doubt(warnings),
        "approach": options.approach,
        **line,
        "k": k,
        "budgets": records(found.budgets),
    }


def _allocations(options: AllocateVerb, runs: law_table.Runs) -> Answer:
    """The allocation of each group, and the groups compared with the reference if there is one."""
    drawn: dict[str, uncertainty.Draws] = {}

    def one(part: law_table.Runs) -> Answer:
        law = options.law(part)
        draws = drawn[part.group[0]] = options.needed_draws(law)
        unique = options.unique if math.isfinite(options.unique) else None
        found = allocation.allocate(
            draws, options.budget, options.k(part), options.off, options.level, unique
        )
        warnings = [*law.warnings, *draws.warnings, *found.warnings, *options.doubts_of_k(part)]
        tables = {"optima": records(found.optima), "off": records(found.off)}
        return {"warnings": warnings, **found.exponents, **tables, **settings(options, law)}

    found = by_group(options, runs, one)
    if options.reference:
        if options.reference not in drawn:
            raise InputError(f"reference: {options.reference!r} is not one of {', '.join(drawn)}")
        reference = drawn[options.reference]
        losses = options.losses or _shared_losses([d.fit for d in drawn.values()])
        k = {label: options.k(d.fit.runs) for label, d in drawn.items()}
        found["multipliers"] = {
            label: records(
                allocation.multiplier(
                    ours, reference, losses, k[label], k[options.reference], options.level
                )
            )
            for label, ours in drawn.items()
            if label != options.reference
        }
    return found


def _most_useful(quantity: str, ranked: pd.DataFrame) -> str:
    """The runs that narrow a quantity most for their FLOPs and in total, in one sentence."""
    best = ranked.iloc[0]
    if not np.isfinite(best["shrink"]):
        return f"no run is known to narrow {quantity}: the law does not determine it"
    largest = ranked.sort_values("shrink", ascending=False).iloc[0]
    rest = ("flops", "sd_now", "sd_after", "shrink", "shrink_per_flop")
    names = [str(name) for name in ranked.columns if name not in rest]

    def told(row: pd.Series) -> str:
        place = ", ".join(f"{name} = {row[name]:.3g}" for name in names)
        return f"{place} (by {100 * row['shrink']:.2g} % for {row['flops']:.3g} FLOPs)"

    return (
        f"the most useful run for its FLOPs is {told(best)}; the run that narrows {quantity} most "
        f"is {told(largest)}"
    )


def _candidates(options: NextVerb, law: Fit) -> dict[str, np.ndarray]:
    """Logarithms of the inputs of all possible runs: the user's table, or a grid."""
    if options.candidates is not None:
        return law_table.read_inputs(
            options.candidates, law.form, dataclasses.replace(options, where=())
        )
    axes = []
    for name in law.form.inputs:
        low, high = law.runs.x[name].min(), law.runs.x[name].max()
        # Runs up to four times as large as the largest so far: the usual next step.
        axes.append(np.linspace(low, high + np.log(4), 12))
    return dict(zip(law.form.inputs, (a.ravel() for a in np.meshgrid(*axes)), strict=True))


def _shared_losses(laws: list[Fit]) -> tuple[float, ...]:
    """Five losses, evenly spaced inside the range that the runs of every law reached."""
    low, high = max(law.runs.y.min() for law in laws), min(law.runs.y.max() for law in laws)
    return tuple(np.linspace(low, high, 7)[1:-1])
