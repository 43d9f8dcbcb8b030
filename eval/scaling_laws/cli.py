"""The verbs fit, predict, allocate and next: options as dataclasses, answers as text or JSON, warnings first.

`VERBS` maps a name to (options dataclass, function of its instance that prints and returns the exit code).
"""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from eval.scaling_laws import allocation, choice, design, forms, groups, isoflop, places, projection, table, uncertainty
from eval.scaling_laws.fit import Fit, fit
from eval.scaling_laws.objective import Objective
from eval.scaling_laws.render import Answer, records, show
from train.records import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LawOptions(table.Columns):
    """What every verb needs to fit a law.

    Attributes:
      table: a .csv, .csv.gz, .parquet or .jsonl file, one row per run; or a study's directory.
      form: the law; an unknown name lists them all.
      objective: what is minimised, summed over points.
      delta: half-width of Huber's quadratic zone.
      space: residuals of logarithms or of raw values; `auto` is raw for downstream scores and log for losses.
      method: newton, or varpro (variable projection: raw least squares).
      starts: the form's own grid scaled to the data, or Hoffmann's 4,500 starts (chinchilla only).
      fix: parameters that are not searched, SYMBOL=VALUE.
      chance: score of guessing (downstream_sigmoid).
      perfect: score of perfect answers: 1 for fractions, 100 for percent (downstream_sigmoid).
      bootstrap: refits for the intervals; 0 gives none.
      resample: runs with replacement, wild residuals or normal noise; `auto` takes the first from eight runs on.
      level: coverage of the intervals.
      seed: of the resampling.
      format: text for people, json for programs.
    """

    table: tyro.conf.Positional[Path]
    form: str = "chinchilla"
    objective: Literal["huber", "l1", "l2"] = "huber"
    delta: float = 1e-3
    space: Literal["auto", "log", "raw"] = "auto"
    method: Literal["newton", "varpro"] = "newton"
    starts: Literal["grid", "hoffmann"] = "grid"
    fix: tuple[str, ...] = ()
    chance: float = 0.0
    perfect: float = 1.0
    bootstrap: int = 1000
    resample: uncertainty.Kind = "auto"
    level: float = 0.95
    seed: int = 0
    format: Literal["text", "json"] = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitOptions(LawOptions):
    """Fits a scaling law to any table of runs, with intervals, warnings and comparisons between groups.

    Attributes:
      intervals: bootstrap (expanded percentile), bca, or profile (of the objective).
      approach: 3 fits the law; 1 (envelope of training curves) and 2 (isoFLOPs) find the best N of each budget.
      profile: approach 2's curve through each budget.
      against: other forms to compare by AICc, BIC and leave-largest-out backtest.
    """

    intervals: Literal["bootstrap", "bca", "profile"] = "bootstrap"
    approach: Literal[1, 2, 3] = 3
    profile: Literal["quadratic", "akima"] = "quadratic"
    against: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(LawOptions):
    """Predicts the loss at N and D, or at a compute budget spent optimally, with intervals of the curve and of a run.

    Attributes:
      at: where: `N=1e9,D=2e10`, or `C=1e21` for the best N and D; repeatable.
      seed_sd: spread between seeds to add where the rows are averages over seeds.
    """

    at: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(required)")]
    seed_sd: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllocateOptions(LawOptions):
    """The best N and D for compute budgets, and the cost of being off.

    Attributes:
      budget: training FLOPs; repeatable.
      off: factors on the best N whose cost is shown.
      reference: group whose compute the others' effective-compute multipliers are counted in.
      losses: losses at which the multipliers are given; by default five inside the measured range.
      unique: distinct tokens at hand (data_constrained).
    """

    budget: tuple[float, ...]
    off: tuple[float, ...] = (0.25, 0.5, 2.0, 4.0)
    reference: str = ""
    losses: tuple[float, ...] = ()
    unique: float = math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextOptions(LawOptions):
    """Ranks the runs that could be made next by how much they narrow an interval per FLOP.

    Attributes:
      quantity: a symbol (alpha), `loss@N=1e10,D=2e11` or `optimum@C=1e22`.
      candidates: table with the inputs' columns; by default a grid over and one step beyond the measured inputs.
      top: rows shown.
    """

    quantity: str = "alpha"
    candidates: Path | None = None
    top: int = 10


def run_fit(options: FitOptions) -> int:
    """Prints the fit; exit code 0."""
    form = _form(options)
    if options.approach != 3:
        return show(_line(options), options.format)
    everything = _read(options, form)
    answer = _fit_answer(options, table.without_highest(everything, options.drop_highest_loss))
    if options.drop_highest_loss:
        answer["all_rows"] = _fit_answer(options, everything)
    return show(answer, options.format)


def run_predict(options: PredictOptions) -> int:
    """Prints predictions; exit code 0."""

    def one(law: Fit) -> Answer:
        drawn = _draws(law, options)
        if drawn is None:
            raise InputError("bootstrap: predictions need resamples; give --bootstrap above 0")
        rows, warnings = [], [*law.warnings, *drawn.warnings]
        for text in options.at:
            x = places.place(text, law, options.flops_per_param_token)
            row = uncertainty.predict(drawn, x, options.level, options.seed_sd, options.seed).iloc[0].to_dict()
            rows.append({**{name: float(np.exp(v[0])) for name, v in x.items()}, **row})
            warnings += places.outside(text, x, law)
        return {"warnings": warnings, "predictions": rows, **_settings(law)}

    return show(_by_group(options, one), options.format)


def run_allocate(options: AllocateOptions) -> int:
    """Prints allocations; exit code 0."""
    k, drawn = options.flops_per_param_token, {}

    def one(law: Fit) -> Answer:
        draws = _draws(law, options)
        if draws is None:
            raise InputError("bootstrap: allocations need resamples; give --bootstrap above 0")
        drawn[law.runs.group[0]] = draws
        unique = options.unique if math.isfinite(options.unique) else None
        found = allocation.allocate(draws, options.budget, k, options.off, options.level, unique)
        head = {"warnings": [*law.warnings, *draws.warnings, *found.warnings], **found.exponents}
        return {**head, "optima": records(found.optima), "off": records(found.off), **_settings(law)}

    answer = _by_group(options, one)
    if options.reference:
        if options.reference not in drawn:
            raise InputError(f"reference: {options.reference!r} is not one of {', '.join(drawn)}")
        losses = options.losses or _shared_losses([d.fit for d in drawn.values()])
        answer["multipliers"] = {
            label: records(allocation.multiplier(ours, drawn[options.reference], losses, k, options.level))
            for label, ours in drawn.items()
            if label != options.reference
        }
    return show(answer, options.format)


def run_next(options: NextOptions) -> int:
    """Prints the runs worth making; exit code 0."""
    k = options.flops_per_param_token

    def one(law: Fit) -> Answer:
        x = _candidates(options, law)
        flops = np.exp(x["C"]) if "C" in x else k * np.exp(x["N"] + x["D"]) if {"N", "D"} <= set(x) else None
        if flops is None:
            flops = np.exp(x[law.form.inputs[0]])
        ranked = design.rank(law, design.quantity(law, options.quantity, k), x, flops)
        return {
            "warnings": list(law.warnings),
            "quantity": options.quantity,
            "next": records(ranked.head(options.top)),
        }

    return show(_by_group(options, one), options.format)


VERBS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "fit": (FitOptions, run_fit),
    "predict": (PredictOptions, run_predict),
    "allocate": (AllocateOptions, run_allocate),
    "next": (NextOptions, run_next),
}


def _read(options: LawOptions, form: forms.Form) -> table.Runs:
    """The points; what a study's directory warns of goes to stderr."""
    frame = table.load(options.table, warn)
    return table.from_frame(frame, form, options, options.table)


def warn(warning: str) -> None:
    """Says on stderr what a reader must know before trusting the answer."""
    print(f"warning: {warning}", file=sys.stderr)


def _form(options: LawOptions) -> forms.Form:
    form = forms.get(options.form)
    if isinstance(form, forms.DownstreamSigmoid):
        return forms.DownstreamSigmoid(options.chance, options.perfect)
    return form


def _objective(options: LawOptions, form: forms.Form) -> Objective:
    space = form.space if options.space == "auto" else options.space
    return Objective(options.objective, options.delta, space)


def _fixed(options: LawOptions) -> dict[str, float]:
    fixed = {}
    for item in options.fix:
        symbol, _, value = item.partition("=")
        try:
            fixed[symbol] = float(value)
        except ValueError:
            raise InputError(f"fix: {item!r} is not SYMBOL=VALUE") from None
    return fixed


def _law(options: LawOptions, runs: table.Runs, form: forms.Form | None = None) -> Fit:
    form = form or _form(options)
    if options.method == "varpro":
        return projection.variable_projection(form, runs)
    start_SP = None
    if options.starts == "hoffmann":
        if not isinstance(form, forms.Chinchilla):
            raise InputError(f"starts: Hoffmann's grid is for chinchilla, not {form.name}")
        start_SP = form.hoffmann_starts()
    return fit(form, runs, _objective(options, form), start_SP, _fixed(options))


def _draws(law: Fit, options: LawOptions) -> uncertainty.Draws | None:
    if options.bootstrap < 1 or len(law.runs.y) <= law.free_P.sum():
        return None
    return uncertainty.bootstrap(law, options.bootstrap, options.seed, options.resample)


def _by_group(options: LawOptions, one: Callable[[Fit], Answer]) -> Answer:
    """The answer for the table, or one for each group with every warning on top."""
    runs = table.without_highest(_read(options, _form(options)), options.drop_highest_loss)
    if not options.group:
        return one(_law(options, runs))
    parts = {label: one(_law(options, runs.take(runs.group == label))) for label in runs.groups}
    warnings = [f"{label}: {line}" for label, part in parts.items() for line in part["warnings"]]
    return {"warnings": warnings, "groups": parts}


def _fit_answer(options: FitOptions, runs: table.Runs) -> Answer:
    form = _form(options)
    if not options.group:
        return _one_fit(options, runs)
    parts = {label: _one_fit(options, runs.take(runs.group == label)) for label in runs.groups}
    compared = groups.compare(form, runs, _objective(options, form), min(options.bootstrap, 500), options.seed)
    return {
        "warnings": [f"{label}: {line}" for label, part in parts.items() for line in part["warnings"]],
        "verdict": compared.verdict,
        "groups": parts,
        "tests": records(compared.tests),
        "shared": {name: {**f.params, "objective": f.value, **_criteria(f)} for name, f in compared.fits.items()},
    }


def _one_fit(options: FitOptions, runs: table.Runs) -> Answer:
    law = _law(options, runs)
    drawn = _draws(law, options)
    warnings = [*law.warnings, *(drawn.warnings if drawn else ())]
    answer: Answer = {"warnings": warnings, "form": law.form.name, "formula": law.form.formula}
    spans = _intervals(law, drawn, options)
    for symbol, value in law.params.items():
        answer |= {symbol: value, f"{symbol}_interval": spans.get(symbol)}
    answer |= {"objective": law.value, **_settings(law), **_criteria(law)}
    if isinstance(law.form, forms.Chinchilla):
        best = allocation.chinchilla_exponents(law.params)
        answer["allocation_exponents"] = {"a": best["a"], "b": best["b"]}
    if drawn is not None:
        answer["bootstrap"] = {
            "kind": drawn.kind,
            "runs": drawn.clusters,
            "draws": len(drawn.theta_BP),
            "failed": drawn.failed,
            "at_bounds": drawn.at_bounds,
            "level": options.level,
            "intervals": options.intervals,
        }
    if options.against:
        rivals = [law.form, *map(forms.get, options.against)]
        missing = sorted({name for f in rivals for name in f.inputs} - set(runs.x))
        if missing:
            raise InputError(
                f"against: these forms need inputs that {law.form.name} does not read: {', '.join(missing)}"
            )
        answer["forms"] = records(choice.compare(rivals, runs, _objective(options, law.form)))
    return answer


def _intervals(law: Fit, drawn: uncertainty.Draws | None, options: FitOptions) -> dict[str, list[float]]:
    if drawn is None:
        return {}
    found = {symbol: list(span) for symbol, span in drawn.intervals(options.level).items()}
    for p, symbol in enumerate(law.form.symbols):
        if options.intervals == "bca":
            found[symbol] = list(
                uncertainty.bca(drawn, lambda theta, p=p: law.form.publish(theta)[:, p], options.level)
            )
        elif options.intervals == "profile" and law.free_P[p]:
            found[symbol] = list(uncertainty.profile_interval(law, symbol, options.level))
    return found


def _settings(law: Fit) -> Answer:
    """Everything that a reader needs to repeat the fit or doubt it."""
    return {
        "objective_name": law.objective.name,
        "delta": law.objective.delta if law.objective.name == "huber" else None,
        "space": law.objective.space,
        "points": len(law.runs.y),
        "runs": len(np.unique(law.runs.cluster)),
        "starts": len(law.start_SP),
        "agreed": law.agreed,
        "condition": law.condition,
        "at_bounds": list(law.at_bounds),
        "sigma": law.sigma,
        "seed_noise": uncertainty.seed_noise(law),
    }


def _criteria(law: Fit) -> Answer:
    return {key: value for key, value in choice.criteria(law).items() if key in ("aicc", "bic")}


def _line(options: FitOptions) -> Answer:
    """Approaches 1 and 2."""
    runs = _read(options, forms.get("chinchilla"))
    k = options.flops_per_param_token
    n, flops = np.exp(runs.x["N"]), k * np.exp(runs.x["N"] + runs.x["D"])
    common: dict[str, Any] = {"draws": max(options.bootstrap, 1), "level": options.level, "seed": options.seed, "k": k}
    if options.approach == 2:
        found = isoflop.isoflop(n, flops, runs.y, options.profile, **common)
    else:
        found = isoflop.envelope(n, flops, runs.y, runs.cluster, **common)
    left_out = int((found.budgets["note"] != "").sum())
    warnings = [f"{left_out} of {len(found.budgets)} budgets have no optimum inside their sizes"] if left_out else []
    low, high = found.a_interval
    line = {"a": found.a, "a_interval": [low, high], "b": found.b, "b_interval": [1 - high, 1 - low]}
    return {"warnings": warnings, "approach": options.approach, **line, "budgets": records(found.budgets)}


def _candidates(options: NextOptions, law: Fit) -> dict[str, np.ndarray]:
    if options.candidates is not None:
        return table.read_inputs(options.candidates, law.form, options)
    axes = []
    for name in law.form.inputs:
        low, high = law.runs.x[name].min(), law.runs.x[name].max()
        axes.append(np.linspace(low, high + np.log(4), 12))
    return dict(zip(law.form.inputs, (a.ravel() for a in np.meshgrid(*axes)), strict=True))


def _shared_losses(laws: list[Fit]) -> tuple[float, ...]:
    low, high = max(law.runs.y.min() for law in laws), min(law.runs.y.max() for law in laws)
    return tuple(np.linspace(low, high, 7)[1:-1])
