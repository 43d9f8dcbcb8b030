"""Draws the blocks of a model from their structure. What differs from the vanilla model is marked.

A picture is one SVG without scripts or fonts of its own. It takes the colour of the page's text, so
it can be read on light and on dark pages.
"""

import dataclasses
import html
import itertools
from typing import Any

_WIDTH, _GAP = 230, 34  # of a box, and between stacks
_BOX, _SPACE = 40, 16  # heights: of a box with two lines, and of an arrow
_MARK = "#d9822b"
_NAME_FONT, _LINE_FONT = 'font-size="13" font-weight="600"', 'font-size="11"'


@dataclasses.dataclass
class _Canvas:
    """Shapes, and how far down they reach."""

    shapes: list[str] = dataclasses.field(default_factory=list)
    height: float = 0

    def box(self, x: float, y: float, lines: list[str], *, differs: bool, about: str = "") -> float:
        """Draws a box with a name and smaller lines below it. Returns where it ends."""
        height = _BOX + 14 * max(0, len(lines) - 2)
        fill = f'fill="{_MARK}" fill-opacity="0.28"' if differs else 'fill="none"'
        stroke = f'stroke="{_MARK}" stroke-width="2"' if differs else 'stroke="currentColor"'
        title = f"<title>{html.escape(about)}</title>" if about else ""
        text = "".join(
            f'<text x="{x + _WIDTH / 2}" y="{y + 17 + 15 * i}" text-anchor="middle" '
            f"{_NAME_FONT if i == 0 else _LINE_FONT}>{html.escape(line)}</text>"
            for i, line in enumerate(lines)
        )
        self.shapes.append(
            f'<g>{title}<rect x="{x}" y="{y}" width="{_WIDTH}" height="{height}" rx="6" '
            f"{fill} {stroke}/>{text}</g>"
        )
        self.height = max(self.height, y + height)
        return y + height

    def arrow(self, x: float, y: float) -> float:
        """Draws an arrow to what comes next. Returns where it ends."""
        middle, end = x + _WIDTH / 2, y + _SPACE
        self.shapes.append(
            f'<path d="M{middle} {y}V{end - 5}m-4 0l4 5l4 -5z" '
            'stroke="currentColor" fill="currentColor"/>'
        )
        return end

    def frame(self, x: float, top: float, bottom: float, *, differs: bool) -> None:
        """Draws a dashed frame around a block."""
        colour = _MARK if differs else "currentColor"
        self.shapes.append(
            f'<rect x="{x - 12}" y="{top}" width="{_WIDTH + 24}" height="{bottom - top}" rx="8" '
            f'fill="none" stroke="{colour}" stroke-dasharray="5 4"/>'
        )
        self.height = max(self.height, bottom)

    def caption(self, x: float, y: float, text: str, *, differs: bool = False) -> float:
        """Writes one line of text above what follows."""
        colour = f'fill="{_MARK}"' if differs else 'fill="currentColor"'
        self.shapes.append(
            f'<text x="{x + _WIDTH / 2}" y="{y + 12}" text-anchor="middle" font-size="12" '
            f"{colour}>{html.escape(text)}</text>"
        )
        return y + 18


def svg(name: str, family: str, model: dict[str, Any], vanilla: dict[str, Any]) -> str:
    """The picture of a model of one family, beside the vanilla model of that family."""
    canvas = _Canvas()
    stacks = model["stacks"]
    for column, stack in enumerate(stacks):
        last = column == len(stacks) - 1
        x = 14 + column * (_WIDTH + 28 + _GAP)
        base = next(other for other in vanilla["stacks"] if other["name"] == stack["name"])
        _stack(canvas, x, stack, base, model, vanilla, last=last)
    width = len(stacks) * (_WIDTH + 28) + (len(stacks) - 1) * _GAP
    label = f"Parts of {name} ({family.replace('_', '-')}), from the input to the output"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {width} {canvas.height + 6}" width="{width}" fill="currentColor" '
        f'font-family="system-ui, sans-serif">{"".join(canvas.shapes)}</svg>'
    )


def _stack(
    canvas: _Canvas,
    x: float,
    stack: dict[str, Any],
    base: dict[str, Any],
    model: dict[str, Any],
    vanilla: dict[str, Any],
    *,
    last: bool,
) -> None:
    title = stack["name"] if len(model["stacks"]) > 1 else "one causal stack"
    own = stack["class"]["class"] != base["class"]["class"]
    if own:
        title += f": {stack['class']['class']}"
    y = canvas.caption(x, 2, title, differs=own)
    y = _part(canvas, x, y, "embedding", model["embedding"], vanilla["embedding"])
    y = canvas.arrow(x, y)
    positions, usual = stack["positions"], base["positions"]
    if positions:
        y = canvas.arrow(x, _part(canvas, x, y, "positions", positions, usual))
    else:
        y = canvas.arrow(x, canvas.box(x, y, ["no positions", "none are added"], differs=True))
    known = {layer["name"]: layer for layer in base["by_depth"][0]}
    for depths, layers in _kinds(stack["by_depth"]):
        y = canvas.arrow(x, _block(canvas, x, y, depths, layers, stack, known))
    y = _part(canvas, x, y, "norm", stack["norm"], base["norm"])
    if last:
        _part(canvas, x, canvas.arrow(x, y), "head", model["head"], vanilla["head"])
    else:
        canvas.caption(x, y + 4, "memory, read by cross_attention")
        canvas.height = max(canvas.height, y + 24)


def _part(
    canvas: _Canvas, x: float, y: float, name: str, part: dict[str, Any], usual: dict | None
) -> float:
    differs = usual is None or part["class"] != usual["class"]
    return canvas.box(x, y, [name, part["class"]], differs=differs, about=part["doc"])


def _block(
    canvas: _Canvas,
    x: float,
    y: float,
    depths: list[int],
    layers: list[dict[str, Any]],
    stack: dict[str, Any],
    known: dict[str, dict[str, Any]],
) -> float:
    shared = stack["blocks"] < len(stack["by_depth"])
    fewer = len(stack["by_depth"]) < stack["vanilla_depths"]
    times = f"{len(depths)} times one block" if shared else f"{len(depths)} such blocks"
    if len(depths) < len(stack["by_depth"]):
        plural = "s" if len(depths) > 1 else ""
        times = f"depth{plural} " + ", ".join(str(depth + 1) for depth in depths)
    top, y = y, canvas.caption(x, y + 4, times, differs=shared or fewer) + 2
    for i, layer in enumerate(layers):
        usual = known.get(layer["name"])
        settings = _settings(layer, usual)
        differs = usual is None or layer["class"] != usual["class"] or bool(settings)
        lines = [layer["name"], layer["class"], *settings]
        y = canvas.box(x, y, lines, differs=differs, about=layer["doc"])
        if i < len(layers) - 1:
            y = canvas.arrow(x, y)
    canvas.frame(x, top, y + 8, differs=shared or fewer)
    return y + 8


def _settings(layer: dict[str, Any], usual: dict[str, Any] | None) -> list[str]:
    """Settings that change with the depth, or that the vanilla layer has with another value."""
    found = [f"{key} {', '.join(map(str, values))}" for key, values in layer["varying"].items()]
    if usual is not None and usual["class"] == layer["class"]:
        found += [
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in layer["settings"].items()
            if key not in layer["varying"] and usual["settings"].get(key) != value
        ]
    if "variant" in layer["settings"]:
        found.append(str(layer["settings"]["variant"]))
    return found


def _kinds(by_depth: list[list[dict]]) -> list[tuple[list[int], list[dict[str, Any]]]]:
    """The different blocks of a stack with their depths.

    Blocks are of one kind if their layers have the same names and classes. `varying` of a layer
    holds settings that change from depth to depth.
    """
    kinds: dict[tuple, list[int]] = {}
    for depth, layers in enumerate(by_depth):
        key = tuple((layer["name"], layer["class"]) for layer in layers)
        kinds.setdefault(key, []).append(depth)
    found = []
    for depths in kinds.values():
        merged = []
        for i, layer in enumerate(by_depth[depths[0]]):
            values = {
                key: [by_depth[depth][i]["settings"].get(key) for depth in depths]
                for key in layer["settings"]
            }
            varying = {
                key: [value for value, _ in itertools.groupby(every)]
                for key, every in values.items()
                if len(set(every)) > 1
            }
            merged.append(layer | {"varying": varying})
        found.append((depths, merged))
    return found
