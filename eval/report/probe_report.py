"""What a report says of probes: the heat map, the curves, the tables and the sentence."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.analyses.everything import Analysis
from eval.analyses.probes import short_names
from eval.report import summary
from eval.report.grid import Grid
from eval.report.listing import listing
from eval.report.source_figures import Drawn
from eval.report.style import Look, looks, plain

_COLUMNS = 4
_MOST = 12  # panels
_SCORE = "accuracy (%)"


def figures(analysis: Analysis) -> dict[str, Drawn]:
    """The figures with their captions, by the name of their files; none without probes."""
    if "probes" not in analysis.results:
        return {}
    heat = Drawn(
        heat_map(analysis.results["probes"]),
        "Accuracy in percent on the test set at the best learning rate, a mean over seeds. Small: "
        "half of the interval. Below a probe: the score of guessing.",
    )
    curves = analysis.results["probe_curves"]
    if curves.empty:
        return {"probes": heat}
    lines = Drawn(
        draw_curves(curves, analysis.results["probes"]),
        "Accuracy against the size of an example in the test, or against a setting of the probe. "
        "Bars: intervals over seeds. Dotted: the score of guessing.",
    )
    return {"probes": heat, "probe_curves": lines}


def grids(analysis: Analysis) -> tuple[Grid, ...]:
    """The tables, the most important first."""
    results = analysis.results
    every = listing(
        "probes",
        "Scores on the test set",
        results["probes"],
        "probe architecture size score ci_low..ci_high seeds chance state_size learning_rate "
        "rates at_edge examples seen",
        notes=(
            "The learning rate is the one with the highest accuracy on the validation set; at "
            "edge: it is the lowest or the highest that was tried. State size: the numbers that "
            "decoding a row of training keeps. Seen: examples of the test that are also in the "
            "training set.",
        ),
    )
    found = [every]
    if "probe_means" in results:
        means = listing(
            "probe-means",
            "Mean over the settings of a task",
            results["probe_means"],
            "task architecture size settings score ci_low..ci_high seeds",
        )
        found = [means, every]
    if "probe_relation" not in results:
        return tuple(found)
    relation = listing(
        "probe-relation",
        "Do the scores order architectures as their scaling does?",
        results["probe_relation"],
        "probe measure architectures spearman ci_low..ci_high p p_holm note",
        notes=(
            "Positive: an architecture with a higher score has a better slope (loss on FLOPs) or a "
            "lower loss (level). The interval is of Spearman's correlation over architectures like "
            "these; p is the share of orders with as large a correlation. Noise of scores and "
            "slopes makes a correlation smaller.",
        ),
    )
    return relation, *found


def heat_map(table: pd.DataFrame) -> Figure:
    """Draws `eval.analyses.probes.Probes.table`: a row for each model, a column for each probe."""
    table = table.assign(model=_models(table))
    probes = list(dict.fromkeys(table["probe"]))
    order = table.groupby("model")["score"].mean().sort_values(ascending=False)
    models = list(order.index)
    width, height = 1.6 + 0.78 * len(probes), 1.1 + 0.34 * len(models)
    figure = Figure(figsize=(max(width, 4.0), height), layout="constrained")
    axes = figure.subplots()
    scores = np.full((len(models), len(probes)), np.nan)
    for row in table.to_dict("records"):
        y, x = models.index(row["model"]), probes.index(row["probe"])
        scores[y, x] = row["score"]
        dark = row["score"] < 60
        half = (row["ci_high"] - row["ci_low"]) / 2
        colour = "white" if dark else "black"
        axes.text(x, y - 0.08, f"{row['score']:.0f}", ha="center", va="center", color=colour)
        if math.isfinite(half):
            said = f"\N{PLUS-MINUS SIGN}{half:.0f}"
            axes.text(x, y + 0.28, said, ha="center", va="center", fontsize=5, color=colour)
    axes.imshow(scores, cmap="viridis", vmin=0, vmax=100, aspect="auto")
    chance = table.groupby("probe")["chance"].first()
    names = short_names(probes)
    labels = [f"{_wrapped(names[probe])}\n({summary.guessing(chance[probe])})" for probe in probes]
    axes.set_xticks(range(len(probes)), labels, fontsize=6)
    axes.set_yticks(range(len(models)), [plain(str(model)) for model in models])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def draw_curves(curves: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Draws `eval.analyses.probes.Probes.curves`; each task has a panel."""
    curves = curves.assign(model=_models(curves))
    panels = list(curves.groupby(["task", "x_name"], sort=False))[:_MOST]
    names = short_names(curves["task"].unique())
    look = looks(curves["model"])
    columns = min(len(panels), _COLUMNS)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2.7 * columns + 1.3, 2.5 * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    chances = dict(zip(table["probe"], table["chance"], strict=True))
    for axes, ((task, x_name), part) in zip(every, panels, strict=False):
        for model, own in part.groupby("model", sort=False):
            _line(axes, own.sort_values("x"), look[str(model)], str(model))
        axes.set_title(_wrapped(names[str(task)]), loc="left")
        axes.set_xlabel("length" if x_name == "size" else str(x_name))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_ylim(-3, 103)
        if task in chances:
            axes.axhline(chances[str(task)], color="0.5", linestyle=":", linewidth=0.8)
    for axes in every[len(panels) :]:
        axes.remove()
    handles, labels = every[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.supylabel(_SCORE, fontsize=8)
    return figure


def _line(axes: Axes, own: pd.DataFrame, look: Look, label: str) -> None:
    bars = np.abs(own[["ci_low", "ci_high"]].to_numpy().T - own["score"].to_numpy())
    axes.errorbar(
        own["x"],
        own["score"],
        None if np.isnan(bars).all() else np.nan_to_num(bars),
        label=plain(label),
        color=look.color,
        marker=look.marker,
        linestyle=look.linestyle,
        markersize=3,
        linewidth=1.0,
        elinewidth=0.6,
    )


def _models(table: pd.DataFrame) -> pd.Series:
    """The name of each row's model: the architecture, and the size if there are several."""
    if table["size"].nunique() < 2:
        return table["architecture"]
    return table["architecture"] + " " + table["size"]


def _wrapped(probe: str) -> str:
    """A probe's settings on lines of their own."""
    return "\n".join(plain(part.replace("_", " ")) for part in probe.split(", "))
