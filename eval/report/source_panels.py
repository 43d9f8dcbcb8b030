"""The panels of the sources' figures, each from the runs of one architecture.

A panel first reads what it shows, and raises `Untestable` or `Open` if the runs lack it. It returns
what paints it. Error bars are intervals from the noise between seeds, which all cells share.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy import stats

from eval.analyses.sources import batch, godey, growth, hoffmann, kaplan, shape
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.measured import DataGrid, Measured, same, seed_noise
from eval.report.grid import scaled
from eval.report.law_figures import log_x
from eval.report.style import plain

Paint = Callable[[Axes], None]
Panel = Callable[[Measured], Paint]

LOSS = "held-out loss (nats)"
_SIZE, _DATA, _READ = "parameters outside the embedding N", "different tokens D", "tokens read D"
_FINE = 100  # points of a smooth line
_ENTRIES = 6  # of a legend, the ends among them; the colours of the rest lie between
_BARS: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1.0, "elinewidth": 0.7}


def _colours(values) -> Iterator[tuple[float, np.ndarray]]:
    """Every value, in order, with a colour from dark to light."""
    values = sorted(set(values))
    return zip(values, colormaps["viridis"](np.linspace(0, 0.88, max(len(values), 1))), strict=True)


def _half(m: Measured, noise: tuple[float, int], count: pd.Series) -> np.ndarray:
    """Half the interval of a mean over `count` seeds; NaN if no cell has two."""
    variance, df = noise
    reach = float(stats.t.ppf((1 + m.level) / 2, df)) if df else np.nan
    return reach * np.sqrt(variance / count.to_numpy(float))


def _named(axes: Axes, x: str, y: str, title: str, legend: str = "") -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")
    if legend:
        handles, labels = axes.get_legend_handles_labels()
        kept = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), _ENTRIES)).round())
        shown = [(handles[int(i)], labels[int(i)]) for i in kept]
        axes.legend(*zip(*shown, strict=True), title=legend, frameon=False, title_fontsize=7)


def _lines(m: Measured, axes: Axes, grid: DataGrid, by: str, x: str, y: str) -> None:
    """A line with error bars for every size (`by` is N) or amount of data (`by` is level)."""
    for value, colour in _colours(grid.cells[by]):
        part = grid.cells[grid.cells[by] == value].dropna(subset=y).sort_values(x)
        label = scaled(value if by == "N" else float(part["D"].mean()))
        bars = _half(m, grid.noise[y], part[f"{y}_n"])
        axes.errorbar(part[x], part[y], bars, color=colour, label=label, **_BARS)
    log_x(axes)


def loss_by_data(m: Measured) -> Paint:
    """The lowest loss against different tokens, with Kaplan's law in both."""
    grid = m.limited
    fitted = kaplan.nd_law(grid)
    d = np.geomspace(grid.cells["D"].min(), grid.cells["D"].max(), _FINE)

    def paint(axes: Axes) -> None:
        _lines(m, axes, grid, "N", "D", grid.loss)
        for n, colour in _colours(grid.cells["N"]):
            law = fitted.form.predict(fitted.params, N=np.full_like(d, n), D=d)
            axes.plot(d, law, color=colour, linestyle=":", linewidth=1.0)
        _named(axes, _DATA, "lowest " + LOSS, "Loss and law (dotted)", "N")

    return paint


def overfitting(m: Measured) -> Paint:
    """What the lowest loss gains with most data, against N^x / D."""
    grid = m.limited
    fitted = kaplan.nd_law(grid).params
    ratio = fitted["alpha_N"] / fitted["alpha_D"]
    most = grid.at(max(grid.levels)).set_index("size")[grid.loss]
    cells = grid.cells[grid.cells["level"] < max(grid.levels)]
    over = cells[grid.loss] / cells["size"].map(most) - 1

    def paint(axes: Axes) -> None:
        for n, colour in _colours(cells["N"]):
            own = cells["N"] == n
            x = cells["N"][own] ** ratio / cells["D"][own]
            axes.plot(x, over[own], "o", color=colour, markersize=4, label=scaled(n))
        log_x(axes)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        title = "Loss above that of most data"
        _named(axes, f"N^{ratio:.2f} / D", "share of the loss", title, "N")

    return paint


def last_by_size(m: Measured) -> Paint:
    """The last loss against size, for each amount of data: is larger better?"""
    grid = m.limited

    def paint(axes: Axes) -> None:
        _lines(m, axes, grid, "level", "N", "last")
        _named(axes, _SIZE, "last " + LOSS, "Larger is not always better", "D")

    return paint


def seen_and_unseen(m: Measured) -> Paint:
    """The last loss on seen and on unseen text."""
    grid = m.limited
    need(bool(grid.cells["seen"].notna().any()), "no run has recorded seen_nll")

    def paint(axes: Axes) -> None:
        _lines(m, axes, grid, "N", "D", "last")
        for n, colour in _colours(grid.cells["N"]):
            part = grid.cells[grid.cells["N"] == n].sort_values("D")
            axes.plot(part["D"], part["seen"], color=colour, linestyle="--", linewidth=1.0)
        _named(axes, _DATA, "last loss (nats)", "Unseen and seen text (dashed)", "N")

    return paint


def training_curves(m: Measured) -> Paint:
    """The loss of every run during training against compute."""
    sizes = set(m.lengths.cells["size"])
    course = m.course("heldout")
    runs = m.usual[m.usual["size"].isin(sizes) & m.usual["run_id"].isin(course)]
    need(len(runs) > 0, "no run was evaluated during training")

    def paint(axes: Axes) -> None:
        for n, colour in _colours(runs["N"]):
            own = runs[runs["N"] == n]
            per_step = own["C"].to_numpy(float) / own["steps"].to_numpy(float)
            for run, flops in zip(own["run_id"], per_step, strict=True):
                part = course[str(run)]
                x = part["step"].to_numpy(float) * flops
                axes.plot(x, part["heldout"], color=colour, linewidth=0.8)
            axes.plot([], [], color=colour, label=scaled(n))
        log_x(axes)
        _named(axes, "training FLOPs C", LOSS, "During training", "N")

    return paint


def loss_by_size(m: Measured) -> Paint:
    """The loss against size, for each number of tokens that three sizes or more have read."""
    grid = m.lengths
    sizes = grid.cells.groupby("level")["size"].transform("nunique")
    grid = dataclasses.replace(grid, cells=grid.cells[sizes >= 3])
    need(len(grid.cells) > 0, "no three sizes have read the same number of tokens")

    def paint(axes: Axes) -> None:
        _lines(m, axes, grid, "level", "N", "last")
        _named(axes, _SIZE, LOSS, "Loss and size", "D")

    return paint


def loss_by_tokens(m: Measured) -> Paint:
    """The loss against tokens read, for each size."""
    grid = m.lengths

    def paint(axes: Axes) -> None:
        _lines(m, axes, grid, "N", "D", "last")
        _named(axes, _READ, LOSS, "Loss and tokens", "N")

    return paint


def profiles(m: Measured) -> Paint:
    """The loss against size at equal compute, with a parabola and its minimum."""
    growth.profiles(m, "N")
    cells = m.lengths.cells.dropna(subset=["C", "last"])
    cells = cells.assign(budget=same(cells["C"].to_numpy()))

    def paint(axes: Axes) -> None:
        for budget, colour in _colours(cells["budget"]):
            part = cells[cells["budget"] == budget].sort_values("N")
            label = scaled(float(part["C"].mean()))
            axes.plot(part["N"], part["last"], "o", color=colour, markersize=3, label=label)
            if len(part) < 3:
                continue
            x = np.log(np.geomspace(part["N"].min(), part["N"].max(), _FINE))
            bent = np.polyfit(np.log(part["N"]), part["last"], 2)
            axes.plot(np.exp(x), np.polyval(bent, x), color=colour, linewidth=1.0)
        log_x(axes)
        _named(axes, _SIZE, LOSS, "At equal compute", "C")

    return paint


def by_shape(column: str, over: str, label: str) -> Panel:
    """A panel of the loss against a ratio of dimensions, at equal size.

    Args:
      column: a column of `Measured.runs`.
      over: the one it is divided by.
      label: of the axis.
    """

    def panel(m: Measured) -> Paint:
        cells = _with_shapes(m)
        ratio = cells[column] / cells[over]
        varied = ratio.groupby(cells["group"]).nunique() >= 3
        need(bool(varied.any()), f"no size was built with three values of {label}")
        lowest = cells.groupby("group")["last"].transform("min")
        half = _half(m, seed_noise(m.usual, ["size", "protocol"], "last"), cells["last_n"])

        def paint(axes: Axes) -> None:
            for group, colour in _colours(cells["group"]):
                own = (cells["group"] == group).to_numpy()
                part, x = cells[own].assign(ratio=ratio), ratio[own]
                bars = half[own] / lowest[own]
                bars = None if np.isnan(bars).all() else bars
                name = scaled(float(part["N"].mean()))
                style = {**_BARS, "linestyle": "none"}
                rise = part["last"] / lowest[own] - 1
                axes.errorbar(x, rise, bars, color=colour, label=name, **style)
            log_x(axes)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            _named(axes, label, "loss above the lowest", "Shape at equal size", "N")

        return paint

    return panel


def _with_shapes(m: Measured) -> pd.DataFrame:
    cells = shape.equal_sizes(m)
    dimensions = ["layers", "width", "mlp_dim", "num_heads"]
    of_size = m.usual.drop_duplicates("size").set_index("size")[dimensions]
    return cells.join(of_size, on="size")


def by_count(count: str, label: str) -> Panel:
    """A panel of the loss against the number of parameters, for each number of layers."""

    def panel(m: Measured) -> Paint:
        cells = _with_shapes(m).dropna(subset=["layers"])
        need(cells["layers"].nunique() > 1, "all shapes have the same number of layers")

        def paint(axes: Axes) -> None:
            for layers, colour in _colours(cells["layers"]):
                part = cells[cells["layers"] == layers]
                axes.plot(
                    part[count], part["last"], "o", color=colour, markersize=3, label=f"{layers:g}"
                )
            log_x(axes)
            _named(axes, label, LOSS, "One curve for all depths?", "layers")

        return paint

    return panel


def steps_and_examples(m: Measured) -> Paint:
    """Steps against tokens to reach a loss, of the largest size, and Kaplan's hyperbola."""
    table = batch.steps_needed(m)
    table = table[table["N"] == table["N"].max()]

    def paint(axes: Axes) -> None:
        for loss, colour in _colours(table["loss"]):
            part = table[table["loss"] == loss].sort_values("B")
            axes.plot(part["S"] * part["B"], part["S"], "o", color=colour, markersize=3)
            least, e_min = np.linalg.lstsq(*batch.relative_errors(part), rcond=None)[0]
            axes.plot([], [], color=colour, label=f"{loss:.3g}")
            if least > 0 and e_min > 0:
                b = np.geomspace(part["B"].min(), part["B"].max(), _FINE)
                steps = least + e_min / b
                axes.plot(steps * b, steps, color=colour, linewidth=1.0)
        log_x(axes)
        axes.set_yscale("log")
        _named(axes, "tokens read E", "steps S", "To reach a loss", "loss (nats)")

    return paint


def critical_batch(m: Measured) -> Paint:
    """The critical batch size against the loss."""
    table = batch.steps_needed(m)
    rows = []
    for (n, loss), part in table.groupby(["N", "loss"]):
        s_min, e_min = np.linalg.lstsq(*batch.relative_errors(part), rcond=None)[0]
        if s_min > 0 and e_min > 0:
            rows.append((n, loss, e_min / s_min))
    if not rows:
        raise Open("no critical batch size is above zero")
    found = pd.DataFrame(rows, columns=["N", "loss", "B"])

    def paint(axes: Axes) -> None:
        for n, colour in _colours(found["N"]):
            part = found[found["N"] == n]
            axes.plot(part["loss"], part["B"], "o-", color=colour, markersize=3, label=scaled(n))
        axes.set_yscale("log")
        axes.invert_xaxis()
        _named(axes, "loss (nats)", "critical batch (tokens)", "Critical batch size", "N")

    return paint


def over_training(measure: str, label: str, title: str) -> Panel:
    """A panel of a measure during training, one line for each run, coloured by width."""

    def panel(m: Measured) -> Paint:
        found = godey.courses(m, measure)
        width = m.usual.set_index("run_id")["width"]
        curves = _extrapolated(found) if measure == "heldout" else []

        def paint(axes: Axes) -> None:
            parts = [*found.narrow, *found.wide]
            widths = [float(width[part["run_id"].iloc[0]]) for part in parts]
            for value, colour in _colours(widths):
                for own in (p for p, w in zip(parts, widths, strict=True) if w == value):
                    axes.plot(own["tokens"], own[measure], color=colour, linewidth=0.9)
                axes.plot([], [], color=colour, label=f"{value:g}")
            for tokens, law in curves:
                axes.plot(tokens, law, color="#777777", linestyle=":", linewidth=1.0)
            log_x(axes)
            _named(axes, _READ, label, title, "width")

        return paint

    return panel


def _extrapolated(found: godey.Courses) -> list[tuple[np.ndarray, np.ndarray]]:
    """The law of the wide models, at the sizes of the narrow ones; none if it has too few sizes."""
    try:
        fitted = godey.law_of_wide(found)
    except Open:
        return []
    curves = []
    for n in sorted({found.sizes[str(part["run_id"].iloc[0])] for part in found.narrow}):
        ends = [part["tokens"].iloc[[0, -1]] for part in found.narrow]
        d = np.geomspace(min(map(min, ends)), max(map(max, ends)), _FINE)
        curves.append((d, fitted.form.predict(fitted.params, N=np.full_like(d, n), D=d)))
    return curves


def by_rank(measure: str, label: str, title: str) -> Panel:
    """A panel of a measure of finished runs against a rank, a line for each run."""

    def panel(m: Measured) -> Paint:
        rows = m.by_rank(measure)

        def paint(axes: Axes) -> None:
            for width, colour in _colours(rows["width"]):
                for _, part in rows[rows["width"] == width].groupby("run_id"):
                    part = part.sort_values("rank")
                    axes.plot(part["rank"], part["value"], "o-", color=colour, markersize=3)
                axes.plot([], [], "o-", color=colour, markersize=3, label=f"{width:g}")
            log_x(axes)
            _named(axes, "rank", label, title, "width")

        return paint

    return panel


def mixtures(m: Measured) -> Paint:
    """The loss of each mixture of text in the largest size against that in the smallest."""
    losses = hoffmann.losses_of_mixtures(m)
    noise = seed_noise(m.runs, ["size", "mixture"], "last")
    sizes = losses.sort_values("N")["size"].unique()
    small, large = (losses[losses["size"] == name] for name in (sizes[0], sizes[-1]))
    large = large.loc[small.index]

    def paint(axes: Axes) -> None:
        across_i, up_i = (_half(m, noise, part["last_n"]) for part in (small, large))
        pairs = zip(small["last"], large["last"], across_i, up_i, strict=True)
        names = [plain(str(name)) for name in small.index]
        for (i, colour), (x, y, wide, high) in zip(_colours(range(len(names))), pairs, strict=True):
            axes.errorbar(x, y, high, wide, color=colour, label=names[int(i)], **_BARS)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        across, up = (f"{LOSS}, size {plain(str(name))}" for name in (sizes[0], sizes[-1]))
        _named(axes, across, up, "Mixtures in two sizes")

    return paint
