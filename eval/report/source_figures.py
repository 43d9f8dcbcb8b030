"""The figures that the sources printed, from a study's own runs.

A study has those of the designs it holds. Each is a file of the report and stands on the page, with
a row for every architecture that has the data.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.analyses.capacity import Capacity
from eval.analyses.everything import Analysis
from eval.analyses.sources import measured
from eval.analyses.sources.inference import Open
from eval.analyses.sources.measured import Measured
from eval.report import source_panels as panels
from eval.report.source_panels import LOSS, Paint, Panel
from eval.report.style import Look, looks, plain
from eval.stats.decision import Untestable
from train.records import InputError

MOST = 4
"""The largest number of architectures with a row of panels."""


@dataclasses.dataclass(frozen=True)
class SourceFigure:
    """A figure of a source.

    Attributes:
      name: of its files.
      caption: what it shows and where it was printed.
      panels: its panels, from left to right.
    """

    name: str
    caption: str
    panels: tuple[Panel, ...]


FIGURES = (
    SourceFigure(
        "source_data",
        "Loss by size and different tokens, where text is repeated (Kaplan et al. 2020, figure 9; "
        "Niu et al. 2024).",
        (panels.loss_by_data, panels.overfitting, panels.last_by_size, panels.seen_and_unseen),
    ),
    SourceFigure(
        "source_lengths",
        "Loss by size, tokens and compute (Kaplan et al. 2020, figure 1; Hoffmann et al. 2022, "
        "figures 2 and 3).",
        (panels.training_curves, panels.loss_by_size, panels.loss_by_tokens, panels.profiles),
    ),
    SourceFigure(
        "source_shape",
        "Loss by shape at equal size, and by both counts of parameters (Kaplan et al. 2020, "
        "figures 5 and 6).",
        (
            panels.by_shape("mlp_dim", "width", "feed-forward width / width"),
            panels.by_shape("width", "layers", "width / layers"),
            panels.by_shape("width", "num_heads", "width / heads"),
            panels.by_count("P", "all parameters"),
            panels.by_count("N", "parameters outside the embedding"),
        ),
    ),
    SourceFigure(
        "source_batch",
        "Steps and tokens to reach a loss, by batch size (McCandlish et al. 2018), and the "
        "critical batch (Kaplan et al. 2020, figure 10).",
        (panels.steps_and_examples, panels.critical_batch),
    ),
    SourceFigure(
        "source_saturation",
        "Long training of narrow and wide models; dotted, the law of the wide ones at the sizes of "
        "the narrow ones (Godey et al. 2024).",
        (
            panels.over_training("heldout", LOSS, "Loss"),
            panels.over_training("anisotropy", "mean cosine of the last states", "Anisotropy"),
            panels.over_training("entropy", "KL from uniform (nats)", "Singular entropy"),
        ),
    ),
    SourceFigure(
        "source_rank",
        "What a limited rank costs: heads trained on frozen states, and the corpus's own "
        "frequencies (Godey et al. 2024).",
        (
            panels.by_rank("rank_limited_head", LOSS, "Heads of limited rank"),
            panels.by_rank("context_rank", "W-error", "Frequencies after four tokens"),
        ),
    ),
    SourceFigure(
        "source_mixture",
        "The loss of mixtures of text in the smallest and the largest model.",
        (panels.mixtures,),
    ),
)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure with its caption."""

    figure: Figure
    caption: str


def draw(analysis: Analysis) -> dict[str, Drawn]:
    """Draws every figure of a source for which the study has the data, by the name of its files."""
    return of_claims(analysis) | of_capacity(analysis)


def of_claims(analysis: Analysis) -> dict[str, Drawn]:
    """The figures that belong to the claims of the sources."""
    every = measured.measured(analysis.study, analysis.settings.level)
    drawn = {}
    for one in FIGURES:
        rows = {m.name: paints for m in every if (paints := _paints(one, m))}
        if rows:
            drawn[one.name] = Drawn(_figure(rows), one.caption + _left_out(rows))
    return drawn


def of_capacity(analysis: Analysis) -> dict[str, Drawn]:
    """The figure of capacities, if the study measured them."""
    if "capacity" not in analysis.results:
        return {}
    return {"source_capacity": Drawn(_capacity(analysis), _CAPACITY)}


def _paints(figure: SourceFigure, m: Measured) -> list[Paint]:
    """How to paint the panels of which an architecture has the data."""
    found = []
    for panel in figure.panels:
        try:
            found.append(panel(m))
        except (Untestable, Open, InputError):
            continue
    return found


def _figure(rows: dict[str, list[Paint]]) -> Figure:
    shown = list(rows.items())[:MOST]
    columns = max(len(paints) for _, paints in shown)
    width = 3.1 * columns if columns > 1 else 5.2  # a legend may stand beside one panel
    figure = Figure(figsize=(width, 2.9 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), columns, squeeze=False)
    for line, (name, paints) in zip(grid, shown, strict=True):
        for axes, paint in zip(line, paints, strict=False):
            paint(axes)
            if len(rows) > 1:
                axes.set_title(f"{plain(name)}: {axes.get_title(loc='left')}", loc="left")
        for axes in line[len(paints) :]:
            axes.remove()
    return figure


def _left_out(rows: dict[str, list[Paint]]) -> str:
    left = len(rows) - MOST
    return f" {left} more architectures have the data and are not shown." if left > 0 else ""


_CAPACITY = (
    "Bits memorised of uniform random tokens, per parameter (Morris et al. 2025). Open: "
    "a lower bound, because twice the steps or more text memorise more, or were not tried."
)


def _capacity(analysis: Analysis) -> Figure:
    """The capacities of all architectures, and the memorised bits against the number of tokens."""
    capacity = Capacity(analysis.study, analysis.settings.level)
    table, points = analysis.results["capacity"], capacity.points()
    look = looks(table["architecture"])
    height = max(2.6, 0.22 * len(table) + 0.8)
    figure = Figure(figsize=(7.4, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    for y, row in enumerate(table.iloc[::-1].to_dict("records")):
        own, value = look[row["architecture"]], row["bits_per_param"]
        bars = _bars(row["ci_low"], row["ci_high"], value)
        left.errorbar(value, y, xerr=bars, markersize=5, **_style(own, row["converged"]))
    left.set_yticks(np.arange(len(table)), [plain(name) for name in table["architecture"]][::-1])
    # A wide interval of one architecture would hide the differences between the others.
    left.set_xlim(0.0, 1.6 * float(table["bits_per_param"].max()))
    left.set_xlabel("bits per parameter")
    left.set_title("Capacity", loc="left")
    _by_tokens(right, points, look)
    return figure


def _by_tokens(axes: Axes, points: pd.DataFrame, look: dict[str, Look]) -> None:
    for (architecture, _, steps), part in points.groupby(["architecture", "size", "steps"]):
        usual = steps == points.loc[points["architecture"] == architecture, "steps"].min()
        x = part["unique_tokens"] * part["bits_per_param"] / part["bits"]
        style = _style(look[str(architecture)], usual)
        axes.plot(x, part["bits_per_param"], markersize=4, linewidth=0.8, **style)
    axes.set_xlabel("random tokens per parameter")
    axes.set_ylabel("memorised bits per parameter")
    axes.set_title("Data (open: twice the steps)", loc="left")


def _style(look: Look, filled: bool) -> dict[str, Any]:
    face = look.color if filled else "white"
    return {"color": look.color, "marker": look.marker, "markerfacecolor": face}


def _bars(low: float, high: float, value: float) -> np.ndarray | None:
    """The lengths of an error bar to both sides; none without an interval."""
    ends = np.array([[value - low], [high - value]])
    return ends if np.isfinite(ends).all() else None
