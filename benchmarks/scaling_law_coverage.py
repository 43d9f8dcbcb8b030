"""Do the intervals hold what they claim? Synthetic studies with known truth, fitted and resampled.

    python -m benchmarks.scaling_law_coverage [--studies 300] [--forms chinchilla offset ...]

For each form: the share of studies whose 95 % interval holds the true value, averaged over the form's shape parameters
(floor and exponents), for each way of making intervals, and the share of new runs inside their prediction interval. The
margin is two binomial standard errors of the studies.
"""

import dataclasses

import numpy as np
import tyro

from eval.scaling_laws import forms, uncertainty
from eval.scaling_laws.fit import fit
from eval.scaling_laws.objective import Objective
from eval.scaling_laws.table import Runs, points

_TRUTH = {
    "power": {"A": 25.0, "alpha": 0.1},
    "offset": {"E": 1.7, "A": 400.0, "alpha": 0.32},
    "kaplan_nd": {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
    "chinchilla": {"A": 406.4, "B": 410.7, "E": 1.69, "alpha": 0.34, "beta": 0.28},
    "overtrained": {"a": 166.2, "b": 366.7, "E": 1.8366, "alpha_c": -0.2729},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Size and noise of the studies.

    Attributes:
      forms: laws to try.
      studies: data sets of each form.
      draws: resamples of each data set.
      noise: standard deviation of log loss between runs.
      sizes: model sizes of a study; there are as many token counts (or runs, for a law of one input, the square).
      level: coverage claimed.
      seed: of everything.
    """

    forms: tuple[str, ...] = tuple(_TRUTH)
    studies: int = 200
    draws: int = 300
    noise: float = 0.005
    sizes: int = 5
    level: float = 0.95
    seed: int = 0


def study(name: str, options: Options, rng: np.random.Generator) -> Runs:
    """One noisy data set."""
    form = forms.get(name)
    if form.inputs == ("x",):
        x = {"x": np.geomspace(1e6, 1e11, options.sizes**2)}
    else:
        n, d = np.meshgrid(np.geomspace(1e7, 3e9, options.sizes), np.geomspace(1e9, 1e12, options.sizes))
        x = {"N": n.ravel(), "D": d.ravel()}
    clean = form.predict(_TRUTH[name], **x)
    return points(clean * np.exp(options.noise * rng.standard_normal(len(clean))), **x)


def measure(name: str, objective: Objective, options: Options) -> dict[str, float]:
    """Share of studies covered, by kind of interval, and of new runs."""
    form, rng = forms.get(name), np.random.default_rng(options.seed)
    shape = [s for s in form.symbols if s not in form.coefficient_symbols]
    hits: dict[str, list[bool]] = {"cluster": [], "wild": [], "profile": [], "run": []}
    for i in range(options.studies):
        runs, again = study(name, options, rng), study(name, options, rng)
        law = fit(form, runs, objective)
        for kind in ("cluster", "wild"):
            drawn = uncertainty.bootstrap(law, options.draws, seed=i, kind=kind)
            spans = drawn.intervals(options.level)
            hits[kind] += [spans[s][0] <= _TRUTH[name][s] <= spans[s][1] for s in shape]
            if kind == "cluster":
                ahead = uncertainty.predict(drawn, again.x, options.level)
                hits["run"] += list((ahead["run_lower"] <= again.y) & (again.y <= ahead["run_upper"]))
        for s in shape:
            low, high = uncertainty.profile_interval(law, s, options.level)
            hits["profile"].append(low <= _TRUTH[name][s] <= high)
    return {kind: float(np.mean(inside)) for kind, inside in hits.items()}


def main(options: Options) -> None:
    """Prints one line per form and objective."""
    margin = 2 * np.sqrt(options.level * (1 - options.level) / options.studies)
    print(f"claimed {options.level:.3f}, margin {margin:.3f}, {options.studies} studies of {options.sizes**2} runs")
    print(f"{'form':<12} {'objective':<9} cluster   wild  profile  new run")
    for name in options.forms:
        for objective in (Objective("l2"), Objective("huber")):
            found = measure(name, objective, options)
            print(f"{name:<12} {objective.name:<9}" + "".join(f"{found[k]:8.3f}" for k in found), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
