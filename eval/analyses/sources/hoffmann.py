"""Hoffmann et al. 2022 (arXiv 2203.15556), and what a survey of scaling laws adds.

Hoffmann's N counts all parameters. The law of H4 is `data_constrained`, of Muennighoff et al. 2023
(arXiv 2305.16264).
"""

import dataclasses
import math

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.sources import growth
from eval.analyses.sources import inference as infer
from eval.analyses.sources.claim import SourceClaim, near
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.laws import FLOOR, floor_share, grid_points
from eval.analyses.sources.measured import Measured
from eval.data.cells import main_protocol, seed_averages
from eval.data.study import task_columns
from eval.laws import forms
from eval.laws.fitting.fit import Fit
from eval.laws.fitting.points import Runs, points
from eval.stats.decision import Finding, all_must, judge, one_enough
from eval.stats.regression import MIN_SIZES

HALF = (0.4, 0.6)
"""An exponent in this range is near one half."""
WORTH = 0.5
"""Value of the last repeated token over that of a new one, below which repetition has decayed."""
_EPOCHS = 4.0  # a study must repeat its text more often than this to say what repetition is worth
_PER_RUN = 6
_MIXTURES = 5  # the fewest mixtures whose correlation has an interval


def repetition(m: Measured) -> Finding:
    """What the last epoch of the study's most repeated text adds, over that of new text.

    It is exp(-R / R_D*) after R repetitions. Excess parameters count in full (R_N* at its upper
    bound), because the same losses can hardly tell both apart.
    """
    grid, course = m.limited, m.course("heldout")
    runs = _repeated(m, course)
    most = float(np.exp(runs.x["D"] - runs.x["U"]).max()) - 1
    need(
        most + 1 > _EPOCHS and len(grid.levels) > 1,
        f"no run improves beyond {_EPOCHS:g} epochs of its text",
    )
    form = forms.get("data_constrained")
    upper = next(p.upper for p in form.parameters if p.symbol == "R_N_star")
    fitted = infer.law(form, runs, {"R_N_star": upper})
    rate = infer.of_law(fitted, lambda p: math.log(p["R_D_star"]), "R_D_star")
    # exp(-R / R*) < WORTH exactly if log R* < log(R / -log WORTH); the estimate of log R* is the
    # one whose error is close to normal.
    found = infer.below(rate, m.level, math.log(most / -math.log(WORTH)))
    value = lambda log_star: float(np.exp(-most / np.exp(np.clip(log_star, -30, 30))))
    star = f"R_D* {math.exp(found.effect):.3g}, {math.exp(np.clip(found.low, -30, 30)):.3g} to "
    star += f"{math.exp(np.clip(found.high, -30, 30)):.3g}"
    return dataclasses.replace(
        found,
        effect=value(found.effect),
        low=value(found.low),
        high=value(found.high),
        note=f"after {most + 1:.3g} epochs; {star}",
    )


def _repeated(m: Measured, course: dict[str, pd.DataFrame]) -> Runs:
    """Losses over the epochs of every run up to its lowest, one cluster for a run."""
    rows = []
    columns = ["run_id", "N", "U", "best_step"]
    for run_id, n, unique, stop in m.usual[columns].itertuples(index=False):
        part = course.get(run_id)
        if part is None:
            continue
        part = part[(part["step"] <= stop) & (part["tokens"] >= unique)]
        if part.empty:
            continue
        # Evenly over the logarithm of tokens, since that is how a law sees them.
        tokens = np.log(part["tokens"].to_numpy(float))
        wanted = np.linspace(tokens[0], tokens[-1], _PER_RUN)
        kept = np.unique([int(np.abs(tokens - at).argmin()) for at in wanted])
        rows += [
            (run_id, n, t, unique, y)
            for t, y in part.iloc[kept][["tokens", "heldout"]].to_numpy(float)
        ]
    table = pd.DataFrame(rows, columns=["run", "N", "D", "U", "y"])
    if table.empty:
        raise Open("no run was evaluated after its first epoch")
    numbers = {c: table[c].to_numpy(float) for c in ("N", "D", "U")}
    return points(table["y"].to_numpy(), cluster=table["run"].to_numpy(object), **numbers)


def exponent(m: Measured, symbol: str, published: float) -> Finding:
    """An exponent of Chinchilla's law."""
    e = infer.of_law(_chinchilla(m), lambda p: p[symbol], symbol)
    return infer.inside(e, near(published), m.level)


def _chinchilla(m: Measured) -> Fit:
    return infer.law(forms.get("chinchilla"), grid_points(m.lengths, "P"))


def floor(m: Measured) -> Finding:
    """Whether the floor of Chinchilla's law is a large part of the lowest loss."""
    return floor_share(forms.get("chinchilla"), grid_points(m.lengths, "P"), m.level, low=False)


def inverse(m: Measured) -> Finding:
    """Whether the score of some task falls as the loss falls, over the sizes of one protocol.

    One task is enough, so its p value is corrected for their number (Bonferroni).
    """
    runs = main_protocol(m.runs)
    slopes = {}
    for column in task_columns(runs):
        cells = runs.dropna(subset=[column, "last"]).groupby("size")[["last", column]].mean()
        if len(cells) >= MIN_SIZES:
            x, y = cells.to_numpy(float).T
            slopes[column.removeprefix("downstream_")] = infer.slope(-x, y)
    need(len(slopes) > 0, f"no task with scores above chance at {MIN_SIZES} sizes")
    p_for = one_enough([float(e.p_below) for e in slopes.values()])
    p_against = all_must([float(e.p_above) for e in slopes.values()])
    verdict, p = judge(p_for, p_against, m.level)
    task = min(slopes, key=lambda name: float(np.nan_to_num(slopes[name].p_below, nan=1.0)))
    low, high = slopes[task].interval(m.level)
    note = f"{task}, the surest of {len(slopes)} tasks"
    return Finding(float(slopes[task].value), float(low), float(high), p, verdict, note)


def mixtures(m: Measured) -> Finding:
    """Kendall's tau between the losses of mixtures in the smallest and in the largest size.

    Its p value is exact, over all orders of the mixtures. The interval is that of Fieller, Hartley
    and Pearson (1957, Biometrika 44) for atanh(tau).
    """
    losses = losses_of_mixtures(m)
    names = list(losses.index.unique())
    sizes = losses.sort_values("N")["size"].unique()
    small, large = (losses[losses["size"] == sizes[i]].loc[names] for i in (0, -1))
    tau, p_for, p_against = _kendall(small["last"], large["last"])
    verdict, p = judge(p_for, p_against, m.level)
    half = float(stats.norm.ppf((1 + m.level) / 2)) * math.sqrt(0.437 / (len(names) - 4))
    z = math.atanh(float(np.clip(tau, -0.999999, 0.999999)))
    low, high = min(tau, math.tanh(z - half)), max(tau, math.tanh(z + half))
    best = [f"{part['last'].idxmin()} at {part['size'].iloc[0]}" for part in (small, large)]
    note = f"{len(names)} mixtures; the best is {best[0]}, {best[1]}"
    return Finding(tau, low, high, p, verdict, note)


def _kendall(x: pd.Series, y: pd.Series) -> tuple[float, float, float]:
    """Kendall's tau and its one-sided p values, for above and for below 0."""
    found = [np.asarray(stats.kendalltau(x, y, alternative=a), float) for a in ("greater", "less")]
    return float(found[0][0]), float(found[0][1]), float(found[1][1])


def losses_of_mixtures(m: Measured) -> pd.DataFrame:
    """The mean losses of mixtures of text that the smallest and the largest size have in common.

    Returns:
      One row per mixture and size, indexed by the mixture, with columns size, N, last and last_n
      (runs).

    Raises:
      Untestable: there are too few mixtures.
    """
    runs = m.runs.dropna(subset=["mixture", "last", "N"])
    need(bool((runs["mixture"] != "").any()), "no run was trained on a mixture of a corpus's parts")
    runs = runs.assign(mixture=runs["mixture"].replace("", "the corpus as it is"))
    cells = seed_averages(runs, ["N", "last"], ["mixture", "size"]).reset_index()
    ends = cells.sort_values("N")["size"].unique()[[0, -1]]
    cells = cells[cells["size"].isin(ends)]
    both = cells.groupby("mixture")["size"].transform("nunique") == 2
    count = cells.loc[both, "mixture"].nunique()
    need(count >= _MIXTURES, f"{count} mixtures that two sizes have in common; {_MIXTURES} needed")
    return cells[both].set_index("mixture")[["size", "N", "last", "last_n"]]


_LAW = "L = E + A / N^alpha + B / D^beta with E 1.69, alpha .34, beta .28."
_ALIKE = "Size and data should grow alike: both exponents are near one half."
_STUDY, _MORE = "isoflop, kaplan", "sizes, lengths and seeds"

CLAIMS = (
    *(
        SourceClaim(
            "H1",
            part,
            _LAW,
            f"{symbol} is within 25 % of {published:g}",
            f"{symbol}, of all parameters and tokens",
            "",
            _STUDY,
            _MORE,
            lambda m, symbol=symbol, published=published: exponent(m, symbol, published),
        )
        for part, symbol, published in (("a", "alpha", 0.34), ("b", "beta", 0.28))
    ),
    SourceClaim(
        "H1",
        "c",
        _LAW,
        f"the floor E is above {FLOOR:.0%} of the lowest loss",
        "E over the lowest loss",
        "",
        _STUDY,
        _MORE,
        floor,
    ),
    *(
        SourceClaim(
            "H2",
            part,
            _ALIKE,
            f"by {name}, the exponent of N in C is between {HALF[0]:g} and {HALF[1]:g}",
            "exponent of N, all parameters",
            "",
            _STUDY,
            "budgets and seeds",
            lambda m, of=of: infer.inside(of(m, "P"), HALF, m.level),
        )
        for part, name, of in growth.APPROACHES
    ),
)

SURVEY = (
    SourceClaim(
        "H3",
        "",
        "Lower loss does not always mean better tasks; some scale inversely.",
        "the score of some task falls as the loss falls",
        "slope of its score on negative loss",
        "points of score per nat",
        "cpu",
        "sizes and seeds",
        inverse,
    ),
    SourceClaim(
        "H4",
        "",
        "Where data are scarce they are repeated; the value of a repeated token decays.",
        "a token of the last epoch of the most repeated text is worth less than half a new one",
        "worth of that token over that of a new one",
        "",
        "data_size",
        "epochs, and evaluations during training",
        repetition,
    ),
    SourceClaim(
        "H5",
        "",
        "A mixture chosen with small proxy models holds for large ones.",
        "the lower the loss of a mixture in the smallest model, the lower it is in the largest",
        "Kendall's tau of the mixtures' losses between the two sizes",
        "",
        "mixture",
        "mixtures of text",
        mixtures,
    ),
)
