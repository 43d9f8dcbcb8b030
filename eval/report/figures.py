"""The study's figures, drawn with matplotlib and saved as vector and raster files.

1 shows the Pareto frontiers, 2 and 3 the scaling of each architecture next to the reference's
(upstream, downstream), 4 and 5 scaling by depth and by width. Further figures show the attainment
surfaces, the learning curves and every fitted law. Intervals are drawn wherever the data have one;
where they do not, the legend says so. A figure that would be blank is not drawn.
"""

import dataclasses
import functools
import re
import textwrap
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Panel
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.analyses.everything import Analysis, question_of
from eval.analyses.question import Question
from eval.data.cells import CELL, RunTable, main_protocol, seed_averages
from eval.data.families import plain_names, several
from eval.data.quantity import Quantity
from eval.report import learning_curves, probe_report, source_figures, sweep
from eval.report.grid import scaled
from eval.report.law_figures import draw as law_figure
from eval.report.law_figures import log_x
from eval.report.style import Look, looks, plain
from eval.report.tables import over_examples
from eval.stats.regression import MIN_SIZES, fit
from train.records import replacing

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    # A fixed salt gives the same bytes for the same figure.
    "svg.hashsalt": "arch-scaling",
    "font.family": "DejaVu Sans",
    "text.usetex": False,
}
_TITLES = {"loss": "Upstream", "score": "Downstream"}
MOST = 24  # largest number of architectures with a panel or figure of their own
_MANY = 20  # with fewer repetitions the 5 and 95 % surfaces are the best and the worst one
_FRONTIER = "#777777"
_LINE = 150  # characters in a line under figure 1
_PLATE = {"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.85, "linewidth": 0}
_WEIGHT = {
    "*": 1.9,
    "P": 1.2,
    "X": 1.2,
    "D": 0.8,
}  # these shapes look smaller or larger than a circle of equal area
QUALITY = {"loss": "Upstream: negative log-perplexity (nats)", "score": "Downstream: {} (percent)"}


def draw(analysis: Analysis) -> dict[str, Figure]:
    """Draws those of the paper's five figures for which there is something to draw.

    Their names are `fig1` to `fig5`; a figure without a single point is left out.
    """
    protocols = set(analysis.table.protocol)
    main = main_protocol(analysis.table)
    plans: dict[str, tuple[bool, Callable[[], Figure]]] = {
        "fig1": (bool(_drawable(analysis, main)), lambda: pareto(analysis))
    }
    for name, y in zip(("fig2", "fig3"), analysis.qualities, strict=True):
        there = y in _drawable(analysis, main)
        plans[name] = there, functools.partial(beside_reference, analysis, y)
    for name, protocol in (("fig4", "depth"), ("fig5", "width")):
        rows = analysis.table[analysis.table.protocol == protocol]
        there = protocol in protocols and bool(_drawable(analysis, rows))
        plans[name] = there, functools.partial(by_protocol, analysis, protocol)
    with matplotlib.rc_context(STYLE):
        return {name: plan() for name, (there, plan) in plans.items() if there}


def draw_more(analysis: Analysis) -> dict[str, Figure]:
    """Draws the figures that the paper does not have, if there is something to draw.

    `attainment` (with several seeds), `learning_curves`, `families` (with both), `tuning` and
    `expected_best` (of a sweep of learning rates), `source_<design>` for every figure of a source,
    `probes` and `probe_curves`, and `law_<architecture>` for every law.
    """
    figures: dict[str, Figure] = {}
    with matplotlib.rc_context(STYLE):
        if not analysis.one_seed and _drawable(analysis, main_protocol(analysis.table)):
            figures["attainment"] = attainment(analysis)
        if curves := learning_curves.draw(analysis):
            figures["learning_curves"] = curves
        if len(analysis.results["families"]) and analysis.qualities[0] in _drawable(
            analysis, main_protocol(analysis.table)
        ):
            figures["families"] = both_families(analysis)
        if analysis.sweep:
            figures |= {name: one.figure for name, one in sweep.both(analysis).items()}
        figures |= {name: one.figure for name, one in source_figures.draw(analysis).items()}
        figures |= {name: one.figure for name, one in probe_report.figures(analysis).items()}
        for architecture, page in list(analysis.laws.pages.items())[:MOST]:
            name = law_name(architecture, figures)
            figures[name] = law_figure(page)
    return figures


def law_name(architecture: str, taken: Container[str] = ()) -> str:
    """The name of the figure of an architecture's law, safe as a file's name and not yet taken."""
    name = base = f"law_{re.sub(r'[^A-Za-z0-9.-]+', '_', architecture)[:60]}"
    number = 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def _drawable(analysis: Analysis, table: pd.DataFrame) -> tuple[Quantity, ...]:
    """The qualities of which at least one run of `table` has a value and its FLOPs."""
    return tuple(y for y in analysis.qualities if len(means(analysis, table, y)))


def save(figures: dict[str, Figure], directory: Path) -> list[Path]:
    """Writes every figure as .pdf and .png. The same figure always gives the same bytes.

    Each file is written under another name and then renamed, so a reader never sees half of one.
    """
    paths = []
    with matplotlib.rc_context(STYLE):
        for name, figure in figures.items():
            for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
                paths.append(directory / f"{name}.{suffix}")
                with replacing(paths[-1]) as file:
                    figure.savefig(file, format=suffix, metadata=metadata)
                figure.set_layout_engine("none")  # the second file keeps the layout of the first
    return paths


def quality_label(y: Quantity) -> str:
    """The label of a quality axis."""
    column = y.column.removeprefix("downstream_").replace("_", " ")
    return QUALITY[y.kind].format("mean score" if column == "mean" else column)


def flops_label(flops: Quantity) -> str:
    """The label of the FLOPs axis, which says how FLOPs are counted."""
    return {
        "flops_forward": "FLOPs, one forward pass of one sequence",
        "flops_forward_without_head": "FLOPs, one forward pass of one sequence, without the head",
        "flops_train_total": "FLOPs, whole pretraining",
        "flops_forward_per_65536_tokens": "FLOPs, one forward pass of 65,536 tokens",
    }.get(flops.column, flops.column)


def means(analysis: Analysis, table: pd.DataFrame, y: Quantity) -> pd.DataFrame:
    """The cell means that are drawn.

    Returns:
      One row per cell of `table`, by x, with columns architecture, protocol, size, x (FLOPs), y
      (higher is better), n (seeds), params, and se: the standard error over seeds, or with one seed
      over held-out examples, of the difference from the reference if the runs kept the examples.
    """
    column, x = y.column, analysis.quantities.flops
    paired = analysis.paired_errors
    if paired.known(column):
        own = paired.table[column].reindex(pd.MultiIndex.from_frame(table[list(CELL)])).to_numpy()
    else:
        every = analysis.study.evaluation_errors.reindex(columns=[column])[column]
        own = every.reindex(table.index)
    frame = table.assign(x=table[x.column], y=y.axis().read(table[column].to_numpy()), own=own)
    frame = frame.dropna(subset=["x", "y"])
    frame = frame.assign(params=frame[analysis.quantities.params.column])
    cells = seed_averages(frame[frame.x > 0], ["x", "y", "own", "params"])
    cells["se"] = cells.y_se.where(cells.y_n > 1, cells.own)
    cells = cells.rename(columns={"y_n": "n"})[["x", "y", "n", "params", "se"]]
    return cells.reset_index().sort_values("x", kind="stable")


def _area(params: float | pd.Series, largest: float, style: Look) -> np.ndarray:
    """Marker areas, proportional to the square root of the parameters.

    So three decades of parameters fit into one panel.
    """
    share = np.nan_to_num(np.sqrt(np.asarray(params, float) / largest), nan=0.1)
    return _WEIGHT.get(style.marker, 1.0) * (14 + 130 * share)


def _radius(look: dict[str, Look], largest: float, cells: pd.DataFrame) -> float:
    """The radius in points of the largest marker of these cells."""
    areas = [
        float(_area(params, largest, look[str(name)]))
        for name, params in zip(cells.architecture, cells.params, strict=True)
    ]
    # A corner of a square, the most distant point of any marker, lies at 1.41 times half its side.
    return 0.71 * max(areas) ** 0.5


def pareto(analysis: Analysis) -> Figure:
    """Figure 1: quality against FLOPs with the frontier, upstream and downstream.

    The size of a marker shows the parameters.
    """
    flops, params = analysis.quantities.flops, analysis.quantities.params.column
    table = main_protocol(analysis.table)
    look, largest = looks(analysis.table.architecture), table[params].max()
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    qualities, crowded = _drawable(analysis, table), False
    panels = figure.subplots(1, len(qualities), squeeze=False)[0]
    for panel, y in zip(panels, qualities, strict=True):
        cells = means(analysis, table, y)
        panel.set_title(_TITLES[y.kind], loc="left", fontweight="bold")
        panel.set_ylabel(quality_label(y).split(": ")[1])
        _frontier(panel, analysis.results["pareto"], flops.column, y)
        for name, group in cells.groupby("architecture", sort=False):
            style = look[str(name)]
            panel.errorbar(
                group.x,
                group.y,
                yerr=group.se,
                fmt="none",
                ecolor=style.color,
                elinewidth=0.9,
                zorder=4,
            )
            panel.scatter(
                group.x,
                group.y,
                s=_area(group.params, largest, style),
                c=style.face,
                marker=style.marker,
                alpha=0.8,
                linewidths=0.5 if style.filled else 1.2,
                edgecolors=style.edge,
                zorder=3,
            )
        log_x(panel)
        panel.set_xlabel(flops_label(flops))
        crowded |= _mark_crowds(panel, cells, functools.partial(_radius, look, largest))
    words = [errors_in_words(analysis, [y.column for y in qualities])]
    words += ["\N{MULTIPLICATION SIGN}2: so many cells lie at one place."] if crowded else []
    handles = [_handle(style) for style in list(look.values())[: MOST + 1]]
    handles += (
        [Line2D([], [], color="none", label=f"and {len(look) - MOST - 1} more")]
        if len(look) > MOST + 1
        else []
    )
    handles += [Line2D([], [], color=_FRONTIER, drawstyle="steps-post", label="Pareto frontier")]
    handles += _size_handles(table[params].dropna(), largest)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(len(handles), 4 if several(table) else 6),  # names with a family are long
        frameon=False,
        title=textwrap.fill(" ".join(words).strip(), _LINE) or None,
        title_fontsize=7,
    )
    return figure


def errors_in_words(analysis: Analysis, columns: Sequence[str] = ()) -> str:
    """What the error bars of the figures are; empty if no cell has an error.

    Args:
      analysis: the analysis.
      columns: the qualities that are drawn, by default both of the study.
    """
    counts = analysis.table.groupby(list(CELL)).size()
    own = analysis.study.evaluation_errors
    wanted = columns or [y.column for y in analysis.qualities]
    drawn = [column for column in wanted if column in own and own[column].notna().any()]
    single = bool((counts == 1).any() and drawn)
    clauses = [c for c in over_examples(analysis.paired_errors, drawn) if c] if single else []
    if (counts > 1).any():
        words = "Bars: standard error over seeds"
        return f"{words}, or with one seed {'; '.join(clauses)}." if clauses else f"{words}."
    return f"Bars: {'; '.join(clauses)}." if clauses else ""


def crowds(x: np.ndarray, y: np.ndarray) -> list[list[int]]:
    """Groups of points that lie on one another: within about a marker's width both ways."""
    spots = np.stack([x, y], axis=1)
    reach = 0.012 * (spots.max(0) - spots.min(0))
    groups: list[list[int]] = []
    for i, spot in enumerate(spots):
        near = next((g for g in groups if (np.abs(spots[g[0]] - spot) <= reach).all()), None)
        if near is None:
            groups.append([i])
        else:
            near.append(i)
    return [group for group in groups if len(group) > 1]


def _mark_crowds(
    panel: Panel, cells: pd.DataFrame, radius: Callable[[pd.DataFrame], float]
) -> bool:
    """Writes how many cells lie at one place; returns whether any do.

    Args:
      panel: the panel.
      cells: the cells in it.
      radius: the radius in points of the largest marker of some cells, which the text must clear.
    """
    groups = crowds(np.log(cells.x.to_numpy(float)), cells.y.to_numpy(float))
    for group in groups:
        beside = radius(cells.iloc[group]) + 1
        panel.annotate(
            f"\N{MULTIPLICATION SIGN}{len(group)}",
            (cells.x.iloc[group[0]], cells.y.iloc[group[0]]),
            xytext=(beside, -beside),
            textcoords="offset points",
            ha="left",
            va="top",
            fontsize=7,
            color="#111111",
            # Other cells and their bars may lie beneath it.
            bbox={
                "boxstyle": "round,pad=0.12",
                "facecolor": "white",
                "alpha": 0.85,
                "linewidth": 0,
            },
            zorder=6,
        )
    return bool(groups)


def _size_handles(params: pd.Series, largest: float) -> list[Line2D]:
    """Legend for the size of markers: the fewest, a middle number and the most parameters."""
    if params.empty:
        return []
    plain = Look("#9a9a9a", "o", "circle")
    sizes = sorted(
        {float(params.min()), float(np.sqrt(params.min() * params.max())), float(params.max())}
    )
    return [
        Line2D(
            [],
            [],
            color=plain.color,
            marker="o",
            linestyle="none",
            label=f"{scaled(size)} parameters",
            markersize=float(np.sqrt(_area(size, largest, plain))),
        )
        for size in sizes
    ]


def _frontier(panel: Panel, frontier: pd.DataFrame, cost: str, y: Quantity) -> None:
    part = select(frontier, cost, y.column)
    part = part[part.on_frontier.astype(bool)].sort_values("cost")
    panel.plot(
        part.cost, part.quality, color=_FRONTIER, linewidth=1.0, drawstyle="steps-post", zorder=1
    )


def attainment(analysis: Analysis) -> Figure:
    """Attainment surfaces: quality at a budget reached by 5, 50 and 95 % of the repetitions.

    A repetition of the study is one seed of every cell.
    """
    flops, table = analysis.quantities.flops, main_protocol(analysis.table)
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    qualities = _drawable(analysis, table)
    panels = figure.subplots(1, len(qualities), squeeze=False)[0]
    for panel, y in zip(panels, qualities, strict=True):
        surfaces = select(analysis.results["attainment"], flops.column, y.column)
        panel.set_title(_TITLES[y.kind], loc="left", fontweight="bold")
        panel.set_ylabel(quality_label(y).split(": ")[1])
        panel.scatter(
            table[flops.column],
            y.axis().read(table[y.column].to_numpy()),
            s=4,
            c="#b5b5b5",
            zorder=1,
        )
        end = table[flops.column].max()
        levels = sorted(surfaces["level"].unique().tolist())
        steps = {
            level: surface_steps(surfaces[surfaces["level"] == level], end) for level in levels
        }
        low, high = steps[levels[-1]], steps[levels[0]]
        x = np.union1d(low[0], high[0])
        at = [
            np.where(x >= c[0], q[np.maximum(np.searchsorted(c, x, "right") - 1, 0)], np.nan)
            for c, q in (low, high)
        ]
        panel.fill_between(x, *at, step="post", color="#0072B2", alpha=0.2, linewidth=0, zorder=2)
        for (level, (cost, quality)), style in zip(steps.items(), (":", "-", "--"), strict=True):
            label = f"attained by {level:.0%} of the repetitions"
            panel.plot(
                cost, quality, style, color="#0072B2", drawstyle="steps-post", label=label, zorder=3
            )
        log_x(panel)
        panel.set_xlabel(flops_label(flops))
        count = int(surfaces.repetitions.iloc[0])
        words = f"{count} repetitions (seeds)"
        words += ": best, median and worst" if count < _MANY else ""
        panel.text(
            0.98, 0.04, words, ha="right", transform=panel.transAxes, fontsize=7, color="#555555"
        )
    handles = figure.axes[0].get_legend_handles_labels()[0]
    handles += [
        Line2D(
            [],
            [],
            color="#b5b5b5",
            marker="o",
            markersize=2.5,
            linestyle="none",
            label="single runs",
        )
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def surface_steps(corners: pd.DataFrame, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Costs and qualities of the corners of one surface; the last quality is extended to `end`."""
    corners = corners.sort_values(["cost", "quality"], kind="stable")
    cost, quality = corners.cost.to_numpy(float), corners.quality.to_numpy(float)
    return np.append(cost, end), np.append(quality, quality[-1])


def select(frontier: pd.DataFrame, cost: str, quality: str) -> pd.DataFrame:
    """The rows of a stacked Pareto table for these two columns."""
    if frontier.empty:
        return frontier.reindex(columns=["cost", "quality", "on_frontier"])
    return frontier[
        frontier.cost_axis.str.contains(cost, regex=False)
        & frontier.y_axis.str.contains(quality, regex=False)
    ]


def _handle(style: Look) -> Line2D:
    return Line2D(
        [],
        [],
        color=style.color,
        marker=style.marker,
        linestyle="none",
        markerfacecolor=style.face,
        markeredgecolor=style.edge,
        markeredgewidth=0.4 if style.filled else 1.0,
        markersize=6 * _WEIGHT.get(style.marker, 1.0) ** 0.5,
        label=plain(style.label),
    )


def beside_reference(analysis: Analysis, y: Quantity) -> Figure:
    """Figures 2 and 3: each architecture's scaling next to the reference's, one panel each."""
    flops, reference = analysis.quantities.flops, analysis.reference
    runs = analysis.runs.main()
    table = runs.frame
    look = looks(analysis.table.architecture)
    names = [name for name in look if name != reference] or [reference]
    every, names = len(names), names[:MOST]
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(1.85 * columns, 3.6), 1.75 * rows + 0.65), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    question = question_of(analysis.settings).ask(x=flops, y=y)
    fitted, bands = lines_and_bands(runs, question), False
    for panel, name in zip(panels, names, strict=False):
        for shown in dict.fromkeys((reference, name)):
            line = next(
                (one for (architecture, _), one in fitted.items() if architecture == shown), None
            )
            bands |= _scaling(
                panel, table[table.architecture == shown], y, analysis, look[shown], line
            )
        panel.set_title(plain(name), loc="left", color=look[name].color, fontweight="bold")
    for panel in panels[len(names) :]:
        panel.remove()
    log_x(panels[0])
    label = quality_label(y)
    _finish(
        figure,
        (flops_label(flops), label if rows > 1 else label.replace(": ", ":\n")),
        [y.column],
        analysis,
        [_handle(look[reference])],
        bands,
    )
    if every > MOST:
        figure.suptitle(
            f"The first {MOST} of {every} architectures; all of them are in the tables", fontsize=8
        )
    return figure


def both_families(analysis: Analysis) -> Figure:
    """Upstream quality against FLOPs: the two families of each architecture in one panel."""
    flops, loss = analysis.quantities.flops, analysis.quantities.loss
    runs = analysis.runs.main()
    table, look = runs.frame, looks(analysis.table.architecture)
    rows = analysis.results["families"]
    names = list(rows.architecture[rows.alpha == f"{flops.symbol},{loss.symbol}"].unique())[:MOST]
    columns = min(len(names), 4)
    lines = -(-len(names) // columns)
    size = (max(1.85 * columns, 4.2), 1.75 * lines + 0.65)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
    fitted = lines_and_bands(runs, question_of(analysis.settings).ask(x=flops, y=loss))
    by_name = {architecture: line for (architecture, _), line in fitted.items()}
    plain_of, bands = plain_names(table), False
    for panel, name in zip(panels, names, strict=False):
        for shown in sorted(table.architecture[plain_of == name].unique()):
            own = table[table.architecture == shown]
            bands |= _scaling(panel, own, loss, analysis, look[shown], by_name.get(shown))
        panel.set_title(plain(name), loc="left", color=look[name].color, fontweight="bold")
    for panel in panels[len(names) :]:
        panel.remove()
    log_x(panels[0])
    handles = [
        Line2D([], [], color="#333333", marker="o", markersize=4, label="encoder-decoder"),
        Line2D(
            [],
            [],
            color="#333333",
            marker="o",
            markersize=4,
            markerfacecolor="white",
            linestyle="--",
            label="decoder-only",
        ),
    ]
    label = quality_label(loss)
    labels = (flops_label(flops), label if lines > 1 else label.replace(": ", ":\n"))
    _finish(figure, labels, [loss.column], analysis, handles, bands)
    return figure


def _scaling(
    panel: Panel,
    table: pd.DataFrame,
    y: Quantity,
    analysis: Analysis,
    style: Look,
    line: "Band | None",
    linestyle: str = "",
) -> bool:
    """Draws points with errors, the fitted line and its band; returns whether there is a band."""
    cells = means(analysis, table, y)
    if cells.empty:
        return False
    panel.errorbar(
        cells.x,
        cells.y,
        yerr=cells.se,
        fmt=style.marker,
        color=style.color,
        elinewidth=0.9,
        markersize=4.5 * _WEIGHT.get(style.marker, 1.0) ** 0.5,
        markerfacecolor=style.face,
        markeredgecolor=style.edge,
        markeredgewidth=0.4 if style.filled else 1.0,
        zorder=3,
    )
    if line is None:
        return False
    linestyle = linestyle or style.linestyle
    panel.plot(line.x, line.y, color=style.color, linewidth=1.1, linestyle=linestyle, zorder=2)
    panel.fill_between(
        line.x, line.low, line.high, color=style.color, alpha=0.15, linewidth=0, zorder=1
    )
    return bool(np.isfinite(line.low).all())


@dataclasses.dataclass(frozen=True)
class Band:
    """A fitted line over its range, in the unit of x, with its confidence band.

    The band is NaN if the line has no error.
    """

    slope: float
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


def lines_and_bands(
    runs: RunTable, question: Question, points: int = 40
) -> dict[tuple[str, str], Band]:
    """The semilog lines of table 2 (for several protocols, of protocols.csv) with their bands.

    Returns:
      Bands by architecture and protocol, for those that have a line.
    """
    cells = runs.cells(question.axes, ("architecture", "protocol")).along_x()
    lines = fit(cells, question.errors, question.variance)
    bands = {}
    for group, (architecture, protocol) in enumerate(lines.cells.groups):
        if not np.isfinite(lines.coefficients[group]).all():
            continue
        at = np.linspace(lines.low[group], lines.high[group], points)
        line = lines.combine(np.stack([lines.value_weights(group, place) for place in at]))
        low, high = line.interval(question.level)
        bands[architecture, protocol] = Band(
            float(lines.coefficients[group, 1]), question.axes[0].unread(at), line.value, low, high
        )
    return bands


def _finish(
    figure: Figure,
    labels: tuple[str, str],
    columns: Sequence[str],
    analysis: Analysis,
    handles: list[Line2D],
    bands: bool,
) -> None:
    """Adds the legend, the labels of x and y, and what the error bars of these columns are."""
    xlabel, ylabel = labels
    band = f"{analysis.settings.level:.0%} band of the line"
    few = (
        f"fewer than {MIN_SIZES} sizes"
        if analysis.settings.errors == "size"
        else "one seed per size"
    )
    words = band if bands else f"no {band}: {few}"
    handles = [
        *handles,
        Line2D([], [], color="#777777", linewidth=5 if bands else 0, alpha=0.3, label=words),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), frameon=False)
    # A line must fit the figure, and a character takes about half of the font's 8 points.
    said = textwrap.wrap(errors_in_words(analysis, columns), int(figure.get_figwidth() * 72 / 4.2))
    # The figure grows by the lines, of 0.13 inches each; the label of y stays beside the panels.
    height = figure.get_figheight() + 0.13 * max(len(said) - 1, 0)
    figure.set_figheight(height)
    figure.supylabel(ylabel, fontsize=8, y=0.5 + 0.065 * len(said) / height)
    figure.supxlabel("\n".join([xlabel, *said]), fontsize=8)


def by_protocol(analysis: Analysis, protocol: str) -> Figure:
    """Figures 4 and 5: scaling along one protocol, upstream above and downstream below.

    The other protocol of the two is drawn for comparison.
    """
    flops, table = analysis.quantities.flops, analysis.table
    chosen = table[table.protocol == protocol]
    look = looks(table.architecture)
    names = [name for name in look if name in set(chosen.architecture)][:MOST]
    qualities = _drawable(analysis, chosen)
    size = (max(1.85 * len(names), 4.2), 0.6 + 1.8 * len(qualities))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(qualities), len(names), sharex=True, sharey="row", squeeze=False)
    other = {"depth": "width", "width": "depth"}[protocol]
    question = question_of(analysis.settings).ask(x=flops)
    fitted = {y: lines_and_bands(analysis.runs, question.ask(y=y)) for y in qualities}
    bands = False
    for j, name in enumerate(names):
        for i, y in enumerate(qualities):
            for which, style in (
                (protocol, look[name]),
                (other, Look("#9a9a9a", look[name].marker, "")),
            ):
                rows = table[(table.protocol == which) & (table.architecture == name)]
                line, dashes = fitted[y].get((name, which)), "-" if which == protocol else "--"
                bands |= _scaling(panels[i, j], rows, y, analysis, style, line, dashes)
        panels[0, j].set_title(plain(name), loc="left", color=look[name].color, fontweight="bold")
    log_x(panels[0, 0])
    for i, y in enumerate(qualities):
        panels[i, 0].set_ylabel(quality_label(y).replace(": ", ":\n"))
    handles = [
        Line2D([], [], color="#333333", label=f"{protocol} (colour)"),
        Line2D([], [], color="#9a9a9a", linestyle="--", label=f"{other} (grey)"),
    ]
    columns = [y.column for y in qualities]
    _finish(figure, (flops_label(flops), ""), columns, analysis, handles, bands)
    return figure
