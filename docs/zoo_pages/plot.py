"""Draws parameters and FLOPs over the sizes, beside those of the vanilla model."""

import io
import re
from typing import Any

import matplotlib
from matplotlib.figure import Figure

_COLOUR, _VANILLA = "#d9822b", "#6b7280"
_PANELS = (
    ("non_embedding", "parameters outside the tables"),
    ("flops", "forward FLOPs of one row"),
)


def svg(name: str, costs: list[dict[str, Any]], vanilla: list[dict[str, Any]]) -> str:
    """Two panels with logarithmic axes, as an SVG that can stand inside a page."""
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.2, 3.0), layout="constrained", facecolor="white")
        axes = figure.subplots(1, 2)
        for axis, (key, label) in zip(axes, _PANELS, strict=True):
            sizes = [row["size"] for row in costs]
            axis.plot(
                sizes,
                [row[key] for row in vanilla],
                color=_VANILLA,
                marker="s",
                markersize=5,
                linestyle="--",
                label="transformer",
            )
            if name != "transformer":
                axis.plot(sizes, [row[key] for row in costs], color=_COLOUR, marker="o", label=name)
            axis.set_yscale("log")
            axis.set_title(label, fontsize=10)
            axis.grid(alpha=0.3)
        axes[0].legend(frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    label = f"Parameters and FLOPs of {name} and of the vanilla model over sizes"
    body = text.getvalue()[text.getvalue().index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # The ids of a figure would otherwise meet those of the page.
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
