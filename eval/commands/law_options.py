"""The options that all verbs of the scaling laws share, and the law that is fitted with them."""

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
    """The options that every verb needs to fit a law.

    Attributes:
      table: a .csv, .tsv, .jsonl or .parquet file, compressed or not, one row per run; or a study's
        directory.
      form: name of the law; the message about an unknown name lists all of them.
      objective: what is minimised, summed over the points; `auto` is huber, or least squares with
        varpro.
      delta: largest residual that Huber's loss squares; it counts larger ones linearly.
      space: whether residuals are differences of logarithms or of raw values; `auto` is raw for
        downstream scores and log for losses.
      method: newton, or varpro (variable projection, for least squares on raw values).
      starts: where the search starts: the form's own grid scaled to the data, or Hoffmann's 4,500
        points (chinchilla only).
      fix: parameters to hold at a value, as SYMBOL=VALUE.
      chance: score of random guessing (downstream_sigmoid).
      perfect: largest possible score or error: 1 for fractions, 100 for percent (downstream forms).
        By default 100 for a study's directory, whose scores are in percent, and 1 for a table.
      bootstrap: number of refits for the intervals; 0 for no intervals.
      resample: cluster (draws runs with replacement), wild (changes the residuals' signs and sizes)
        or normal (draws noise); `auto` is cluster if every group has eight runs or more.
      level: coverage of the intervals; comparisons of groups test at 1 - level.
      seed: seed of the resampling.
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
    perfect: Positive | None = None
    bootstrap: Annotated[int, Range(0, 1_000_000)] = 1000
    resample: uncertainty.Resample = "auto"
    level: Level = 0.95
    seed: Seed = 0
    format: TableOrJson = "table"

    def law_form(self, name: str = "") -> forms.Form:
        """The form of that name, by default that of `form`, with the options that it takes."""
        form = forms.get(name or self.form)
        if isinstance(form, forms.DownstreamSigmoid):
            return forms.DownstreamSigmoid(self.chance, self.largest_score)
        if isinstance(form, forms.DownstreamExponential):
            return forms.DownstreamExponential(self.largest_score)
        return form

    @property
    def largest_score(self) -> float:
        """What `perfect` says, or what scores of such a table usually are."""
        usual = 100.0 if self.table.is_dir() else 1.0
        return self.perfect or usual

    def refuse_unused(self, form: forms.Form, *objectives: str) -> None:
        """Refuses options that neither this form nor these objectives use."""
        if not isinstance(form, forms.DownstreamSigmoid):
            self.refuse({"chance": (0.0,)}, f"form: {form.name} has no score of random guessing")
        if form.scale is None:
            self.refuse({"perfect": (None,)}, f"form: {form.name} has no largest value")
        if not {"auto", "huber"} & set(objectives):
            self.refuse({"delta": (LawOptions.delta,)}, "objective: only huber uses delta")

    def law_objective(self, form: forms.Form) -> Objective:
        """The objective of the fit.

        Raises:
          InputError: an option contradicts varpro, which minimises raw squares only.
        """
        if self.method == "varpro":
            self.refuse(
                {"objective": ("auto", "l2"), "space": ("auto", "raw")},
                "method: varpro is least squares on raw values",
            )
            return LEAST_SQUARES
        name = "huber" if self.objective == "auto" else self.objective
        return Objective(name, self.delta, form.space if self.space == "auto" else self.space)

    def fixed(self) -> dict[str, float]:
        """The values of parameters that are held fixed, by symbol."""
        fixed = {}
        for item in self.fix:
            symbol, _, value = item.partition("=")
            try:
                fixed[symbol] = float(value)
            except ValueError:
                raise InputError(f"fix: {item!r} is not SYMBOL=VALUE") from None
        return fixed

    def law(self, runs: Runs) -> Fit:
        """Fits the law to these points."""
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
        """The bootstrap of a law; None if it is switched off or the fit leaves no residuals."""
        if self.bootstrap < 1 or len(law.runs.y) <= law.free_P.sum():
            return None
        return uncertainty.bootstrap(law, self.bootstrap, self.seed, self.resample)

    def needed_draws(self, law: Fit) -> uncertainty.Draws:
        """The bootstrap of a law, for answers that cannot do without intervals.

        Raises:
          InputError: there is none.
        """
        drawn = self.draws(law)
        if drawn is None:
            few = f"{len(law.runs.y)} points and {law.free_P.sum()} parameters leave no residuals"
            raise InputError(
                "bootstrap: " + ("must be above 0 here" if self.bootstrap < 1 else few)
            )
        return drawn

    def k(self, runs: Runs) -> float:
        """FLOPs per parameter and token: the given value, or else the measured one."""
        return self.flops_per_param_token or runs.k

    def doubts_of_k(self, runs: Runs) -> list[str]:
        """Warnings about k; none if it was given."""
        return [] if self.flops_per_param_token else runs.doubts_of_k()

    def refuse(self, allowed: dict[str, tuple], why: str) -> None:
        """Raises InputError if an option is set to a value that another option rules out.

        Args:
          allowed: by option, the values that it may have.
          why: the reason, which names the other option.
        """
        for name, values in allowed.items():
            given = getattr(self, name)
            if given not in values:
                shown = " ".join(map(str, given)) if isinstance(given, tuple) else given
                raise InputError(f"{why}, so --{name.replace('_', '-')} {shown} cannot be used")


Options = TypeVar("Options", bound=LawOptions)


def warn(warning: str) -> None:
    """Prints on stderr what a reader must know before trusting the answer."""
    print(f"warning: {printable(warning)}", file=sys.stderr)


def answer(
    options: Options, of: Callable[[Options, Runs], Answer], form: forms.Form | None = None
) -> int:
    """Reads the table and prints the answer; returns exit code 0.

    If the highest losses are left out, the answer for all rows is printed too.

    Args:
      options: the verb, with its options.
      of: computes the answer from the options and the points.
      form: the form whose inputs are read from the table; by default that of the options.
    """
    objective = "l2" if options.method == "varpro" else options.objective
    options.refuse_unused(options.law_form(), objective)
    # A study's directory decides some options by itself, such as the column of the groups.
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
    """The answer for the points, or one per group with all warnings and verdicts at the top."""
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
    """Everything that a reader needs to repeat the fit or to judge it."""
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
    """The inputs of a single place in their own units, from their logarithms."""
    return {name: float(np.exp(values[0])) for name, values in x.items()}
