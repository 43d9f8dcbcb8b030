"""The figure of a coordinate check: how much each module's output changes, against the size."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.measures.coordinates import Outputs


def draw(found: list[Outputs]) -> Figure:
    """A panel for each step, a line for each module: means over the seeds.

    Modules that fail have red lines.
    """
    settings = found[0].settings
    figure = Figure(figsize=(2.6 * settings.steps + 2.4, 3.6), layout="constrained", dpi=150)
    panels = figure.subplots(1, settings.steps, squeeze=False, sharey=True)[0]
    passing = [one for one in found if one.verdict != "fails"]
    colours = dict(
        zip(
            (one.name for one in passing),
            colormaps["viridis"](np.linspace(0, 0.9, len(passing))),
            strict=True,
        )
    )
    for step, axes in enumerate(panels):
        for one in found:
            _line(axes, one, step, colours.get(one.name, "red"))
        axes.set_title(f"after step {step + 1}", loc="left", fontsize=9)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(found[0].sizes, [str(size) for size in found[0].sizes])
        axes.set_xlabel(settings.along)
    panels[0].set_ylabel("mean absolute change of the output")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=5, frameon=False)
    figure.suptitle(
        f"{settings.architecture}, {settings.parametrization}, {settings.optimizer}", fontsize=9
    )
    return figure


def _line(axes: Axes, one: Outputs, step: int, colour: Any) -> None:
    style = {"marker": "o", "markersize": 2, "linewidth": 0.8, "color": colour, "label": one.name}
    axes.plot(one.sizes, one.change[step].mean(axis=1), **style)
