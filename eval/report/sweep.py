"""What a report says of a sweep of learning rates: two figures and the tables."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.analyses.everything import Analysis
from eval.analyses.tuning import Curve
from eval.report.grid import Grid
from eval.report.law_figures import log_x
from eval.report.listing import listing
from eval.report.source_figures import Drawn
from eval.report.style import looks, plain

_COLUMNS = 4
_MOST = 12  # panels
_FINE = 60  # points of a parabola


def both(analysis: Analysis) -> dict[str, Drawn]:
    """The figures with their captions, by the name of their files; none without a sweep."""
    if not analysis.sweep:
        return {}
    curves = Drawn(
        draw(analysis.sweep),
        "Loss against learning rate by size. Dotted: the best rate. Bars: the noise of a mean.",
    )
    tries = Drawn(
        draw_expected(analysis.results["expected_best"]),
        "The lowest loss to expect from n tries at rates of the sweep: which architecture is ahead "
        "can depend on how much it is tuned. Bands: from the spread of the seeds.",
    )
    return {"tuning": curves, "expected_best": tries}


def grids(analysis: Analysis) -> tuple[Grid, ...]:
    """The tables, the most important first."""
    results = analysis.results
    return (
        listing(
            "at-best-rates",
            "Each at its own best rate, and its difference from the reference at its own",
            results["at_best_rates"],
            "architecture size protocol tokens rate loss difference ci_low..ci_high seeds",
        ),
        listing(
            "best-rates",
            "Best learning rates",
            results["best_rates"],
            "architecture size protocol tokens params rates seeds lowest loss best_rate "
            "ci_low..ci_high interval note",
        ),
        listing(
            "rate-exponents",
            "How the best rate depends on parameters and tokens: rate ~ N^exponent D^exponent",
            results["rate_exponents"],
            "architecture protocol rates exponent ci_low..ci_high tokens_exponent "
            "tokens_low..tokens_high note",
        ),
        listing(
            "rate-regrets",
            "What other rates cost, in nats",
            results["rate_regrets"],
            "architecture size protocol tokens rate regret ci_low..ci_high note",
        ),
        listing(
            "expected-best",
            "The lowest loss to expect from n tries",
            results["expected_best"],
            "architecture size protocol tokens tries loss ci_low..ci_high",
        ),
    )


def draw(sweep: tuple[Curve, ...]) -> Figure:
    """Draws the losses, the parabolas near the lowest ones, and the best rates.

    Each architecture under each protocol has a panel.

    Bars are the noise of a mean over seeds, without what a seed adds to every rate.
    """
    names = list(dict.fromkeys((c.architecture, c.protocol) for c in sweep))[:_MOST]
    columns = min(len(names), _COLUMNS)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(2.6 * columns + 0.8, 2.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    lengths = len({c.tokens for c in sweep if c.tokens > 0}) > 1
    label = lambda c: f"{c.size}, {c.tokens:.2g} tokens" if lengths else c.size
    labels = list(dict.fromkeys(map(label, sorted(sweep, key=lambda c: (c.params, c.tokens)))))
    shades = colormaps["viridis"](np.linspace(0, 0.85, len(labels)))
    colours = dict(zip(labels, shades, strict=True))
    for axes, name in zip(panels, names, strict=False):
        own = [c for c in sweep if (c.architecture, c.protocol) == name]
        own.sort(key=lambda c: (c.params, c.tokens))
        for curve in own:
            _curve(axes, curve, colours[label(curve)], plain(label(curve)))
        axes.set_title(plain(" ".join(filter(None, name))), loc="left")
        axes.legend(frameon=False)
        log_x(axes)
        axes.set_xlabel("learning rate")
    for axes in panels[len(names) :]:
        axes.remove()
    figure.supylabel("held-out loss (nats)", fontsize=8)
    return figure


def _curve(axes: Axes, curve: Curve, colour: np.ndarray, label: str) -> None:
    error = curve.noise / math.sqrt(curve.seeds) if curve.df else None
    style = {"marker": "o", "markersize": 3, "linestyle": "none", "elinewidth": 0.7}
    axes.errorbar(curve.rates, curve.losses, error, color=colour, label=label, **style)
    if curve.problem:
        return
    x = np.geomspace(curve.rates[curve.near[0]], curve.rates[curve.near[-1]], _FINE)
    axes.plot(x, curve.parabola(x), color=colour, linewidth=1.0)
    axes.axvline(curve.best, color=colour, linestyle=":", linewidth=0.8)


def draw_expected(table: pd.DataFrame) -> Figure:
    """Draws `eval.analyses.tuning.expected_best`; each size has a panel."""
    table = table.assign(
        name=[
            " ".join(filter(None, pair))
            for pair in zip(table.architecture, table.protocol, strict=True)
        ]
    )
    sizes = list(table.groupby(["size", "tokens"], sort=False, dropna=False))[:_MOST]
    look = looks(table["name"])
    columns = min(len(sizes), _COLUMNS)
    rows = math.ceil(len(sizes) / columns)
    figure = Figure(figsize=(2.8 * columns + 1.4, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    lengths = table.groupby("size")["tokens"].nunique().max() > 1
    for axes, ((size, tokens), part) in zip(panels, sizes, strict=False):
        for name, own in part.groupby("name", sort=False):
            style = look[str(name)]
            line = {"color": style.color, "marker": style.marker, "linestyle": style.linestyle}
            axes.plot(own["tries"], own["loss"], label=plain(str(name)), markersize=3, **line)
            axes.fill_between(
                own["tries"], own["ci_low"], own["ci_high"], color=style.color, alpha=0.12
            )
        axes.set_title(plain(f"{size}, {tokens:.2g} tokens" if lengths else str(size)), loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("tries")
    for axes in panels[len(sizes) :]:
        axes.remove()
    names: dict[str, Any] = {}
    for axes in panels[: len(sizes)]:
        handles, labels = axes.get_legend_handles_labels()
        names |= dict(zip(labels, handles, strict=True))
    figure.legend(names.values(), names.keys(), loc="outside right upper", frameon=False)
    figure.supylabel("expected best held-out loss (nats)", fontsize=8)
    return figure
