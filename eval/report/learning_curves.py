"""The figure of the learning curves of every run: upstream above, downstream below, by size."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from eval.analyses.everything import Analysis
from eval.data.cells import main_protocol
from eval.data.families import several
from eval.data.study import MEAN_OF_TASKS
from eval.report.style import looks, plain
from eval.report.tables import size_order

_MOST_SIZES = 8
_MOST_NAMES = 25  # in the legend


def draw(analysis: Analysis) -> Figure | None:
    """Draws the curves of the main protocol's runs; None if no run has more than one point.

    The loss is that of training, and the dots are held-out losses. The score is the mean over the
    tasks.
    """
    runs = main_protocol(analysis.table)[["run_id", "architecture", "size"]]
    curves = analysis.curves.merge(runs, on="run_id")
    upstream = curves[curves.curve != "score"]
    downstream = curves[(curves.curve == "score") & (curves.task == MEAN_OF_TASKS)]
    rows = [
        (part, label, x, x_label)
        for part, label, x, x_label in (
            (upstream, "loss (nats per token)", "tokens", "tokens of pretraining"),
            (downstream, "mean score (percent)", "step", "steps of fine-tuning"),
        )
        if part.groupby(["run_id", "curve"])[x].nunique().max() > 1
    ]
    if not rows:
        return None
    sizes = size_order(main_protocol(analysis.table))[-_MOST_SIZES:]
    size = (max(1.9 * len(sizes), 4.2), 0.8 + 2.0 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), len(sizes), sharey="row", squeeze=False)
    for line, (part, label, x, x_label) in zip(panels, rows, strict=True):
        line[0].set_ylabel(label)
        for panel, name in zip(line, sizes, strict=True):
            _panel(panel, part[part["size"] == name], x, analysis)
            panel.set_xlabel(x_label)
            panel.set_title(plain(name), loc="left", fontweight="bold")
    shown = list(looks(analysis.table.architecture).values())[:_MOST_NAMES]
    handles = [
        Line2D([], [], color=look.color, linestyle=look.linestyle, label=plain(look.label))
        for look in shown
    ]
    handles.append(
        Line2D(
            [], [], color="#777777", marker="o", markersize=3, linestyle="none", label="held out"
        )
    )
    columns = 4 if several(analysis.table) else 6  # names with a family are long
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _panel(panel, part: pd.DataFrame, x: str, analysis: Analysis) -> None:
    look = looks(analysis.table.architecture)
    for (_, curve), points in part.groupby(["run_id", "curve"], sort=False):
        own = look[str(points.architecture.iloc[0])]
        style = {"linestyle": "none", "marker": "o", "markersize": 2.5}
        style = (
            style
            if curve == "heldout"
            else {
                "linewidth": 0.9,
                "alpha": 0.85,
                "linestyle": own.linestyle,
            }
        )
        panel.plot(points[x], points.value, color=own.color, **style)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
