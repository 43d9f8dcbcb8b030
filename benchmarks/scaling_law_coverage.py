"""Checks the coverage of the scaling laws' intervals on simulated studies with known truth.

    python -m benchmarks.scaling_law_coverage --out docs/scaling_law_coverage.md    # every form
    python -m benchmarks.scaling_law_coverage --forms power offset     # only these

Prints a Markdown table with one row per form and number of runs. It shows the share of the studies
whose interval holds the true value, averaged over the floor and the exponents, for the default
bootstrap and for the profile; the share of new runs inside their prediction interval; the share of
studies whose fit comes with a warning; and the bootstrap's share among the others. The same seed
gives the same table.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from eval.laws import forms
from eval.laws.example_points import TRUTH, inputs
from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import Fit, fit
from eval.laws.fitting.objective import Objective
from eval.laws.law_table import Runs, points
from train.records import InputError

FEW = 7  # runs of the small studies, too few to resample runs
_COSTLY = (
    "bnsl",
    "bnsl2",
    "chinchilla_gamma",
    "data_constrained",
    "routed",
)  # these get a fifth of the studies
_SPARE = 3  # a small study has at least so many runs more than the law has parameters


@dataclasses.dataclass(frozen=True)
class Options:
    """The size and noise of the studies.

    Attributes:
      forms: names of the laws to try.
      studies: number of data sets per form.
      draws: number of resamples per data set.
      noise: standard deviation of log loss between runs (of the score itself downstream).
      level: the coverage that the intervals claim.
      objective: what is minimised.
      seed: seed of all random numbers.
      out: file to write the table to, with the command that made it.
    """

    forms: tuple[str, ...] = tuple(forms.FORMS)
    studies: int = 200
    draws: int = 200
    noise: float = 0.005
    level: float = 0.95
    objective: Literal["huber", "l1", "l2"] = "l2"
    seed: int = 0
    out: Path | None = None


def study(
    form: forms.Form, x: dict[str, np.ndarray], options: Options, rng: np.random.Generator
) -> Runs:
    """One noisy data set."""
    clean = form.predict(TRUTH[form.name], **x)
    noise = options.noise * rng.standard_normal(len(clean))
    return points(
        clean * np.exp(noise) if form.space == "log" else np.maximum(clean + noise, 1e-6), **x
    )


def profile_holds(law: Fit, symbol: str, truth: float, level: float) -> float:
    """Whether the profile interval holds the truth; NaN if there is no interval."""
    try:
        low, high = uncertainty.profile_interval(law, symbol, level)
    except InputError:
        return np.nan
    return float(low <= truth <= high)


def measure(form: forms.Form, x: dict[str, np.ndarray], options: Options) -> dict[str, float]:
    """Shares covered (`bootstrap`, `profile`, `run`), share `warned`, and `unwarned`.

    `unwarned` is the bootstrap's share among the fits without a warning.
    """
    truth = TRUTH[form.name]
    # Each form has its own noise. Otherwise all laws that are straight lines on seven runs would
    # share the same luck.
    rng = np.random.default_rng([options.seed, len(next(iter(x.values()))), *form.name.encode()])
    shape = [s for s in form.symbols if s not in form.coefficient_symbols]
    hits: dict[str, list[float]] = {
        name: [] for name in ("bootstrap", "profile", "run", "warned", "unwarned")
    }
    for _ in range(options.studies):
        runs, again = study(form, x, options, rng), study(form, x, options, rng)
        law = fit(form, runs, Objective(options.objective, space=form.space))
        drawn = uncertainty.bootstrap(law, options.draws, seed=int(rng.integers(2**32)))
        spans = drawn.intervals(options.level)
        inside = [float(spans[s][0] <= truth[s] <= spans[s][1]) for s in shape]
        hits["bootstrap"] += inside
        hits["profile"] += [profile_holds(law, s, truth[s], options.level) for s in shape]
        ahead = uncertainty.predict(drawn, again.x, options.level)
        hits["run"] += list((ahead["run_lower"] <= again.y) & (again.y <= ahead["run_upper"]))
        warned = bool(law.warnings or drawn.warnings)
        hits["warned"].append(float(warned))
        hits["unwarned"] += [] if warned else inside
    return {
        name: float(np.nanmean(found)) if len(found) else np.nan for name, found in hits.items()
    }


def main(options: Options) -> None:
    """Prints one row per form and number of runs; progress goes to stderr."""
    lines = [
        "| form | parameters | runs | studies | bootstrap | profile | new run | warned | "
        "bootstrap, no warning |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name in options.forms:
        form, every = forms.get(name), inputs(name)
        count = len(next(iter(every.values())))
        designs, studies = [every], max(options.studies // (5 if name in _COSTLY else 1), 1)
        if len(form.inputs) == 1 and len(form.parameters) + _SPARE <= FEW:
            few = np.linspace(0, count - 1, FEW).round().astype(int)
            designs.append({key: values[few] for key, values in every.items()})
        for x in designs:
            started = time.monotonic()
            found = measure(form, x, dataclasses.replace(options, studies=studies))
            cells = ["none" if np.isnan(v) else f"{100 * v:.1f}" for v in found.values()]
            runs = len(next(iter(x.values())))
            lines.append(
                f"| {name} | {len(form.parameters)} | {runs} | {studies} | "
                + " | ".join(cells)
                + " |"
            )
            print(lines[-1], flush=True)
            print(
                f"{name}, {runs} runs: {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    if options.out:
        options.out.write_text("\n".join([_head(options), *lines, ""]), encoding="utf-8")


def _head(options: Options) -> str:
    """What the table shows, the command that made it, and the standard error of its shares."""
    command = (
        f"python -m benchmarks.scaling_law_coverage --studies {options.studies} --draws "
        f"{options.draws}"
    )
    error = 100 * np.sqrt(options.level * (1 - options.level) / options.studies)
    return (
        "# Do the intervals of the scaling laws cover the truth?\n\n"
        f"Written by `{command} --seed {options.seed} --out {options.out}`; the same command gives "
        "the same table.\n\n"
        f"The numbers are percentages: of simulated studies whose {100 * options.level:g} % "
        "interval holds the truth, averaged over the floor and the exponents (one share of "
        f"{options.studies} studies has a standard error of {error:.1f}); of new runs inside their "
        "interval; and of studies whose fit comes with a warning. Noise "
        f"{options.noise:g}, objective {options.objective}. If a form with many parameters covers "
        "less, its fits come with warnings.\n"
    )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
