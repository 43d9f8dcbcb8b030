"""Figures for the page of a law: curves, residuals, isoFLOP profiles, the landscape of starts."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, MaxNLocator, NullLocator

from eval.laws.diagnostics import LawPage
from eval.report import words
from eval.report.style import plain

_LABELS = {
    "N": "parameters N",
    "D": "tokens D",
    "C": "training FLOPs C",
    "L": "loss, nats",
    "S": "steps S",
}


def draw(page: LawPage) -> Figure:
    """Draws four panels in one figure, or three for a law without isoFLOP profiles."""
    panels = [_curves, _residuals, _isoflops, _landscape]
    if page.isoflops.empty:
        panels.remove(_isoflops)
    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        panel(axes, page)
    title = page.title + ("\nWARNING: " + "; ".join(page.warnings) if page.warnings else "")
    lines = "\n".join(map(plain, title.splitlines()))
    figure.suptitle(lines, fontsize=9, wrap=True)
    return figure


def _curves(axes: Axes, page: LawPage) -> None:
    first, *others = page.law.form.inputs
    output = page.law.form.output
    series = list(page.curves.groupby("series", dropna=False))
    for colour, (value, curve) in zip(_colours(len(series)), series, strict=True):
        label = f"{others[0]} = {value:.2g}" if others else None
        axes.plot(curve["x"], curve["prediction"], color=colour, label=label)
        axes.fill_between(
            curve["x"], curve["lower"], curve["upper"], color=colour, alpha=0.2, linewidth=0
        )
    axes.scatter(page.points[first], page.points[output], s=10, color="black", zorder=3)
    if first != "L":
        log_x(axes)
    axes.set_xlabel(_LABELS.get(first, words.column(page.x_name)))
    axes.set_ylabel(_LABELS["L"] if output == "loss" else output)
    if others:
        axes.legend(fontsize=7)


def _residuals(axes: Axes, page: LawPage) -> None:
    axes.axhline(0, color="grey", linewidth=1)
    axes.scatter(page.points["prediction"], 100 * page.points["residual"], s=10, color="black")
    axes.set_xlabel(f"predicted {page.law.form.output}")
    axes.set_ylabel("residual, %")


def _isoflops(axes: Axes, page: LawPage) -> None:
    budgets = list(page.isoflops.groupby("flops"))
    for colour, (flops, curve) in zip(_colours(len(budgets)), budgets, strict=True):
        axes.plot(curve["N"], curve["prediction"], color=colour, label=f"{flops:.1e} FLOPs")
        best = curve.iloc[int(curve["prediction"].to_numpy().argmin())]
        if curve["N"].min() < best["N"] < curve["N"].max():
            axes.plot(best["N"], best["prediction"], "o", color=colour)
    log_x(axes)
    axes.set_xlabel(_LABELS["N"])
    axes.set_ylabel(page.law.form.output)
    axes.legend(fontsize=7)


def _landscape(axes: Axes, page: LawPage) -> None:
    values = page.landscape["objective"].to_numpy()
    values = values[np.isfinite(values)]
    over = values / max(
        values.min(), 1e-24 * len(page.points)
    )  # an exact fit has an objective of zero
    axes.step(np.arange(1, len(over) + 1), np.clip(over, 1.0, 1e12), where="mid", color="black")
    axes.set_yscale("log")
    axes.set_ylim(0.8, max(10.0, 1.5 * float(np.clip(over, 1.0, 1e12).max())))
    axes.set_xlabel("starts, best first")
    axes.set_ylabel("objective over the best")
    axes.set_title(f"{100 * page.law.agreed:.0f} % of starts agree", fontsize=9)


def log_x(axes: Axes) -> None:
    """A logarithmic x-axis with few labels, even if its range is short."""
    axes.set_xscale("log")
    low, high = axes.dataLim.intervalx
    if 0 < low <= high < low * (1 + 1e-6):  # one cost, up to the rounding of its logarithm
        axes.set_xlim(low / 3, high * 3)
    low, high = axes.get_xlim()
    ratio = high / low  # a short range may contain no power of ten
    steps = (1.0,) if ratio > 30 else (1.0, 3.0)
    # Over less than a decade LogLocator ignores its steps and sets more labels than there is room.
    axes.xaxis.set_major_locator(LogLocator(subs=steps) if ratio > 10 else MaxNLocator(3))
    axes.xaxis.set_major_formatter(LogFormatterSciNotation(minor_thresholds=(9, 9)))
    axes.xaxis.set_minor_locator(NullLocator())


def _colours(count: int) -> np.ndarray:
    return colormaps["viridis"](np.linspace(0, 0.85, max(count, 1)))
