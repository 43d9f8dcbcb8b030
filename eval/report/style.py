"""The look of an architecture in every figure and on the page: one colour and one marker.

Both are fixed by its name. Decoder-only models have those of their architecture, with an open
marker and dashed lines. The colours are those of Okabe and Ito and of Paul Tol (muted), which
colour-blind readers can tell apart. Because there are so many, the markers differ too.
"""

import dataclasses
import zlib
from collections.abc import Iterable
from typing import Literal

from matplotlib.font_manager import FontProperties, findfont, get_font

from eval.data.families import without_family


@dataclasses.dataclass(frozen=True)
class Look:
    """A colour, a marker and a printed name.

    Attributes:
      color: the colour.
      marker: matplotlib's name of the marker.
      symbol: plotly's name of the same shape.
      label: the printed name.
      filled: whether the marker is filled.
    """

    color: str
    marker: str
    symbol: str
    label: str = ""
    filled: bool = True

    @property
    def linestyle(self) -> Literal["-", "--"]:
        """Matplotlib's name for the style of a line."""
        return "-" if self.filled else "--"

    @property
    def face(self) -> str:
        """The colour inside the marker."""
        return self.color if self.filled else "white"

    @property
    def edge(self) -> str:
        """The colour of the marker's edge."""
        return "white" if self.filled else self.color


ZOO = {
    "transformer": Look("#000000", "o", "circle"),
    "glu": Look("#E69F00", "s", "square"),
    "evolved": Look("#0072B2", "D", "diamond"),
    "universal": Look("#D55E00", "^", "triangle-up"),
    "switch": Look("#009E73", "v", "triangle-down"),
    "performer": Look("#CC79A7", "P", "cross"),
    "funnel": Look("#56B4E9", "X", "x"),
    "albert": Look("#882255", "*", "star"),
    "mos": Look("#999933", "p", "pentagon"),
    "lconv": Look("#332288", "h", "hexagon"),
    "dconv": Look("#44AA99", "<", "triangle-left"),
    "mixer": Look("#AA4499", ">", "triangle-right"),
    "llama": Look("#CC6677", "d", "diamond-tall"),
}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of every architecture in `names`: the zoo's in its own order, then others by name.

    Another name picks one of the free looks by its checksum, so it keeps its look from report to
    report while the set of names stays the same. If no look is free, it combines the colour of one
    with the marker of another.
    """
    wanted = sorted(set(names))
    plain_of = {name: without_family(name) for name in wanted}
    names = sorted(set(plain_of.values()))
    chosen = {name: ZOO[name] for name in ZOO if name in names}
    mixed = [
        dataclasses.replace(one, color=other.color)
        for one in ZOO.values()
        for other in ZOO.values()
    ]
    for name in (n for n in names if n not in ZOO):
        taken = list(chosen.values())
        free = [look for look in ZOO.values() if look not in taken] or [
            look for look in mixed if look not in taken
        ]
        free = free or mixed
        chosen[name] = free[zlib.crc32(name.encode()) % len(free)]
    return {
        name: dataclasses.replace(look, label=name, filled=name == plain_name)
        for plain_name, look in chosen.items()
        for name in wanted
        if plain_of[name] == plain_name
    }


def plain(text: str) -> str:
    """Escapes text so that matplotlib prints it unchanged.

    Dollar signs do not start mathematics, line breaks become spaces, and characters that the font
    lacks become `?`.
    """
    font, text = get_font(findfont(FontProperties(family="DejaVu Sans"))), " ".join(text.split())
    return "".join(c if font.get_char_index(ord(c)) else "?" for c in text).replace("$", r"\$")
