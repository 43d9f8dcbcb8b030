"""What every verb of the scaling laws needs: options, the table they name, and the fitted law."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import tyro

from eval.commands.answers import Answer, show
from eval.data.neutral import printable
from eval.laws import forms, law_table
from eval.laws.fitting import projection, uncertainty
from eval.laws.fitting.fit import Fit, fit
from eval.laws.fitting.objective import LEAST_SQUARES, Objective
from eval.laws.law_table import LawColumns, Runs
from train.command_line import TableOrJson
from train.ranges import Level, NotNegative, Positive, Range, Seed
from train.records import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LawOptions(LawColumns):
    """What every verb needs to fit a law.

    Attributes:
      table: a .csv, .tsv, .jsonl or .parquet file, compressed or not, one row per run; or a study's
        directory.
      form: the law; an unknown name lists them all.
      objective: what is minimised, summed over points; `auto` is huber, and least squares with
        varpro.
      delta: half-width of Huber's quadratic zone.
      space: residuals of logarithms or of raw values; `auto` is raw for downstream scores and log
        for losses.
      method: newton, or varpro (variable projection: raw least squares).
      starts: the form's own grid scaled to the data, or Hoffmann's 4,500 starts (chinchilla only).
      fix: parameters that are not searched, SYMBOL=VALUE.
      chance: score of guessing (downstream_sigmoid).
      perfect: the largest score or error: 1 for fractions, 100 for percent (downstream forms).
      bootstrap: refits for the intervals; 0 gives none.
      resample: runs with replacement, wild residuals or normal noise; `auto` takes the first from
        eight runs on.
      level: coverage of the intervals; a comparison calls p values below 1 less it a difference.
      seed: of the resampling.
      format: table for a person, json for a program.
    """

    table: tyro.conf.Positional[Path]
    form: str = "chinchilla"
    objective: Literal["auto", "huber", "l1", "l2"] = "auto"
    delta: Positive = 1e-3
    space: Literal["auto", "log", "raw"] = "auto"
    method: Literal["newton", "varpro"] = "newton"
    starts: Literal["grid", "hoffmann"] = "grid"
    fix: tuple[str, ...] = ()
    chance: NotNegative = 0.0
    perfect: Positive = 1.0
    bootstrap: Annotated[int, Range(0, 1_000_000)] = 1000
    resample: uncertainty.Resample = "auto"
    level: Level = 0.95
    seed: Seed = 0
    format: TableOrJson = "table"

    def law_form(self, name: str = "") -> forms.Form:
        """The form of that name, by default the one asked for."""
        form = forms.get(name or self.form)
        if isinstance(form, forms.DownstreamSigmoid):
            return forms.DownstreamSigmoid(self.chance, self.perfect)
        if isinstance(form, forms.DownstreamExponential):
            return forms.DownstreamExponential(self.perfect)
        return form

    def refuse_unused(self, form: forms.Form, *objectives: str) -> None:
        """Refuses options that neither this form nor these objectives use."""
        if not isinstance(form, forms.DownstreamSigmoid):
            self.refuse({"chance": (0.0,)}, f"form: {form.name} has no score of guessing")
        if form.scale is None:
            self.refuse({"perfect": (1.0,)}, f"form: {form.name} has no largest value")
        if not {"auto", "huber"} & set(objectives):
            self.refuse({"delta": (LawOptions.delta,)}, "objective: only huber has a zone")

    def law_objective(self, form: forms.Form) -> Objective:
        """What is minimised.

        Raises:
          InputError: varpro minimises something else.
        """
        if self.method == "varpro":
            self.refuse(
                {"objective": ("auto", "l2"), "space": ("auto", "raw")},
                "method: varpro is raw least squares",
            )
            return LEAST_SQUARES
        name = "huber" if self.objective == "auto" else self.objective
        return Objective(name, self.delta, form.space if self.space == "auto" else self.space)

    def fixed(self) -> dict[str, float]:
        """Symbol -> value that is not searched."""
        fixed = {}
        for item in self.fix:
            symbol, _, value = item.partition("=")
            try:
                fixed[symbol] = float(value)
            except ValueError:
                raise InputError(f"fix: {item!r} is not SYMBOL=VALUE") from None
        return fixed

    def law(self, runs: Runs) -> Fit:
        """The law fitted to these points."""
        form = self.law_form()
        objective = self.law_objective(form)
        if self.method == "varpro":
            self.refuse(
                {"fix": ((),), "starts": ("grid",)},
                "method: varpro searches every parameter on its own grid",
            )
            return projection.variable_projection(form, runs)
        start_SP = None
        if self.starts == "hoffmann":
            if not isinstance(form, forms.Chinchilla):
                raise InputError(f"starts: Hoffmann's grid is for chinchilla, not {form.name}")
            start_SP = form.hoffmann_starts()
        return fit(form, runs, objective, start_SP, self.fixed())

    def draws(self, law: Fit) -> uncertainty.Draws | None:
        """Its bootstrap; None where none is asked for or no residual is left."""
        if self.bootstrap < 1 or len(law.runs.y) <= law.free_P.sum():
            return None
        return uncertainty.bootstrap(law, self.bootstrap, self.seed, self.resample)

    def needed_draws(self, law: Fit) -> uncertainty.Draws:
        """Its bootstrap, for answers that have to have intervals."""
        drawn = self.draws(law)
        if drawn is None:
            few = f"{len(law.runs.y)} points leave no residual of {law.free_P.sum()} parameters"
            raise InputError(
                "bootstrap: " + ("give resamples above 0" if self.bootstrap < 1 else few)
            )
        return drawn

    def k(self, runs: Runs) -> float:
        """FLOPs per parameter and token: as given, else as measured."""
        return self.flops_per_param_token or runs.k

    def doubts_of_k(self, runs: Runs) -> list[str]:
        """Warnings of a k that was measured."""
        return [] if self.flops_per_param_token else runs.doubts_of_k()

    def refuse(self, allowed: dict[str, tuple], why: str) -> None:
        """Raises InputError, naming both, where an option asks for what another one rules out."""
        for name, values in allowed.items():
            given = getattr(self, name)
            if given not in values:
                shown = " ".join(map(str, given)) if isinstance(given, tuple) else given
                raise InputError(f"{why}; it does not go with --{name.replace('_', '-')} {shown}")


Options = TypeVar("Options", bound=LawOptions)


def warn(warning: str) -> None:
    """Says on stderr what a reader must know before trusting the answer."""
    print(f"warning: {printable(warning)}", file=sys.stderr)


def answer(
    options: Options, of: Callable[[Options, Runs], Answer], form: forms.Form | None = None
) -> int:
    """Prints the answer for the points; and for all rows, if the highest losses are left out."""
    objective = "l2" if options.method == "varpro" else options.objective
    options.refuse_unused(options.law_form(), objective)
    read, decided = law_table.load(options.table, options, warn)
    options = dataclasses.replace(options, **decided)
    runs = law_table.from_table(read, form or options.law_form(), options, warn)
    options = dataclasses.replace(
        options, group="" if options.group == law_table.POOLED else options.group
    )
    found = of(options, law_table.without_highest(runs, options.drop_highest_loss))
    if options.drop_highest_loss:
        found["all_rows"] = of(options, runs)
    return show(found, options.format)


def by_group(
    options: LawOptions,
    runs: Runs,
    one: Callable[[Runs], Answer],
    progress: Callable[[str], None] = lambda step: None,
) -> Answer:
    """The answer for the points, or one for each group with every warning and verdict on top."""
    if not options.group:
        progress("all points")
        return one(runs)
    parts = {}
    for label in runs.groups:
        progress(label)
        parts[label] = one(runs.take(runs.group == label))
    warnings = [f"{label}: {line}" for label, part in parts.items() for line in part["warnings"]]
    verdicts = [f"{label}: {part['verdict']}" for label, part in parts.items() if "verdict" in part]
    top = {"verdict": "; ".join(verdicts)} if verdicts else {}
    return {"warnings": warnings, **top, "groups": parts}


def settings(options: LawOptions, law: Fit) -> dict[str, Any]:
    """Everything that a reader needs to repeat the fit or doubt it."""
    return {
        "objective_name": law.objective.name,
        "delta": law.objective.delta if law.objective.name == "huber" else None,
        "space": law.objective.space,
        "points": len(law.runs.y),
        "runs": law.runs.clusters,
        "starts": len(law.start_SP),
        "agreed": law.agreed,
        "condition": law.condition,
        "at_bounds": list(law.at_bounds),
        "sigma": law.sigma,
        "seed_noise": uncertainty.seed_noise(law),
        **({"k": options.k(law.runs)} if {"N", "D"} <= set(law.runs.x) else {}),
    }


def raw(x: dict[str, np.ndarray]) -> dict[str, float]:
    """One place's inputs as they were typed."""
    return {name: float(np.exp(values[0])) for name, values in x.items()}
