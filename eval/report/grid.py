"""A table as it is shown, and its forms in Markdown, LaTeX and on a terminal.

All text that comes from a file is escaped here for each of these. The HTML form is in
`eval.report.page`.
"""

import dataclasses
import math
import re

import pandas as pd
from rich.table import Table
from rich.text import Text

from eval.data.neutral import printable

_NUMBERED = r"^Table \d+\. "  # removed for LaTeX, which numbers tables itself
DASH = "\N{EN DASH}"
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{EN DASH}": "--",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$",
    "\N{DAGGER}": r"$\dagger$",
    "\N{DOUBLE DAGGER}": r"$\ddagger$",
    "\N{DEGREE SIGN}": r"$^\circ$",
    "\N{MINUS SIGN}": "$-$",
    "\N{INFINITY}": r"$\infty$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """The heading of a column.

    Attributes:
      label: plain text.
      latex: LaTeX to use instead of the escaped label.
      title: a sentence that explains the column.
      numeric: whether it is aligned right and sorted as numbers.
    """

    label: str
    latex: str = ""
    title: str = ""
    numeric: bool = True


@dataclasses.dataclass(frozen=True)
class GridCell:
    """One entry of a table.

    Attributes:
      text: the main text.
      unit: the unit of the number in `text`; empty if the heading says it.
      detail: smaller text after or under it: a standard error, an interval.
      value: the value that the column is sorted by.
      bold: whether it is the best of its group.
    """

    text: str
    detail: str = ""
    value: float | str = ""
    bold: bool = False
    unit: str = ""

    @property
    def whole(self) -> str:
        """All text of the cell in one line."""
        return " ".join(filter(None, (self.text, self.unit, self.detail)))


@dataclasses.dataclass(frozen=True)
class GridRow:
    """One row of cells.

    Attributes:
      cells: the cells.
      architecture: the architecture whose toggle on the page hides the row.
      group: rows of different groups are separated by a line.
    """

    cells: tuple[GridCell, ...]
    architecture: str = ""
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table to show.

    Attributes:
      name: a label for references: letters, digits and dashes.
      title: one sentence.
      columns: headings.
      rows: rows; those of a group are next to each other.
      notes: sentences under the table.
      fixed: the number of first columns that name the row.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[GridRow, ...]
    notes: tuple[str, ...] = ()
    fixed: int = 1


def number(value: float, digits: int = 3) -> str:
    """A number with `digits` significant digits, in at most ten characters; a dash for NaN."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else "\N{MINUS SIGN}\N{INFINITY}"
    if abs(value) > 1e30 or 0 < abs(value) < 1e-30:
        return (
            ">1e30"
            if value > 1e30
            else "<\N{MINUS SIGN}1e30"
            if value < -1e30
            else "\N{ALMOST EQUAL TO}0"
        )
    text = f"{value:.{digits}g}"
    value = float(text)
    if "e" not in text and 0 < abs(value) < 10**digits:
        # Keep trailing zeros (0.540), so that the numbers of a column line up.
        text = f"{value:.{max(digits - 1 - math.floor(math.log10(abs(value))), 0)}f}"
    return text.replace("-", "\N{MINUS SIGN}", 1) if text.startswith("-") else text


def fixed(value: float, decimals: int) -> str:
    """A number with this many decimals; a dash for NaN."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "\N{MINUS SIGN}")


def scaled(value: float, digits: int = 3) -> str:
    """A count with a suffix: 15.2M, 1.23G; a dash for NaN."""
    if value is None or not math.isfinite(value):
        return DASH
    for power, suffix in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(float(f"{value:.{digits}g}")) >= 10**power:  # 999,999 is 1.00M
            return rounded(value / 10**power, digits) + suffix
    return number(value, digits)


def rounded(value: float, digits: int) -> str:
    """A number that is rounded to `digits` significant digits, without an exponent if possible."""
    if not math.isfinite(value) or value == 0 or not 1e-4 <= abs(value) < 1e5:
        return number(value, digits)
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, decimals):.{max(decimals, 0)}f}".replace("-", "\N{MINUS SIGN}")


def supported(value: float, low: float, high: float) -> str:
    """An estimate with no more digits than its interval supports, at most three.

    Its last digit is in the place of the first digit of its distance to the nearer end. An end that
    is infinite bounds nothing: `at least 2.0`, `at most 5.0`, or `not bounded`. Without an interval
    (NaN) one digit is left.
    """
    if math.isnan(value):
        return DASH
    if math.isnan(low) or math.isnan(high):
        return f"\N{ALMOST EQUAL TO}{_counted(value, 1)}"
    if math.isinf(high):
        return "not bounded" if low <= 0 else f"at least {_counted(low, 2)}"
    if math.isinf(low):
        return f"at most {_counted(high, 2)}"
    reach = min(value - low, high - value)
    reach = reach if reach > 0 else (high - low) / 2
    if not reach or not value:
        return _counted(value, 3)
    place, first = (math.floor(math.log10(abs(v))) for v in (reach, value))
    return _counted(value, min(max(first - place + 1, 1), 3))


def _counted(value: float, digits: int) -> str:
    return scaled(value, digits) if abs(value) >= 1e5 else rounded(value, digits)


def bounds(low: float, high: float, least: float = 0.0, most: float = math.inf) -> str:
    """`[low, high]` with two digits, for ratios and positions; empty text without an interval.

    Args:
      low: the lower end.
      high: the upper end.
      least: an end below this is shown as `<least`.
      most: an end above this is shown as `>most`.
    """
    if pd.isna(low) or pd.isna(high):
        return ""
    ends = [
        f"<{_counted(least, 1)}"
        if abs(v) < least
        else f">{_counted(most, 1)}"
        if v > most
        else _counted(v, 2)
        for v in (low, high)
    ]
    return f"[{', '.join(ends)}]"


def interval(low: float, high: float, digits: int = 3) -> str:
    """`[low, high]`, or empty text without an interval; large numbers as in `scaled`."""
    if pd.isna(low) or pd.isna(high):
        return ""
    shown = [scaled(v) if 1e5 <= abs(v) < 1e21 else number(v, digits) for v in (low, high)]
    return f"[{shown[0]}, {shown[1]}]"


def probability(value: float) -> str:
    """A p-value or a share with three decimals; `<.001` if it is smaller."""
    if pd.isna(value):
        return DASH
    return "<.001" if value < 0.001 else f"{value:.3f}".removeprefix("0") if value < 1 else "1"


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table with its title and notes."""
    lines = [f"**{_escape_markdown(grid.title)}**", ""]
    lines.append(
        "| " + " | ".join(_escape_markdown(column.label) for column in grid.columns) + " |"
    )
    lines.append(
        "|" + "|".join("---:" if column.numeric else "---" for column in grid.columns) + "|"
    )
    for row in grid.rows:
        lines.append("| " + " | ".join(_markdown_cell(cell) for cell in row.cells) + " |")
    lines += [""] + [f"- {_escape_markdown(note)}" for note in grid.notes]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_cell(cell: GridCell) -> str:
    text = _escape_markdown(cell.text)
    text = f"**{text}**" if cell.bold else text
    return " ".join(filter(None, (text, *map(_escape_markdown, (cell.unit, cell.detail)))))


def _escape_markdown(text: str) -> str:
    text = printable(" ".join(text.split()))
    for character in "\\`*_{}[]<>#|$~":
        text = text.replace(character, "\\" + character)
    return text


def escape_latex(text: str) -> str:
    """Escapes text so that LaTeX prints it literally; what pdfLaTeX cannot print becomes `?`."""
    text = printable(" ".join(text.split()))
    return "".join(_LATEX.get(c, c if c.isascii() else "?") for c in text)


def latex(grid: Grid, width: int = 7, stacked: bool = False) -> str:
    """The grid as LaTeX longtables (packages booktabs and longtable), split to fit a page's width.

    Args:
      grid: the table.
      width: number of columns in a part, besides those that name the row.
      stacked: prints each detail under its number instead of next to it.
    """
    free = range(grid.fixed, len(grid.columns))
    parts = [list(free[start : start + width]) for start in range(0, len(free), width)] or [[]]
    blocks = ["% needs \\usepackage{booktabs,longtable}"]
    for number_of_part, part in enumerate(parts, start=1):
        title = (
            f"{grid.title} (part {number_of_part} of {len(parts)})"
            if len(parts) > 1
            else grid.title
        )
        label = f"tab:{grid.name}" + (f"-{number_of_part}" if len(parts) > 1 else "")
        blocks.append(_longtable(grid, [*range(grid.fixed), *part], title, label, stacked))
    notes = " ".join(escape_latex(note) for note in grid.notes)
    blocks.append(f"{{\\footnotesize\\noindent {notes}\\par}}" if notes else "")
    return "\n".join(block for block in blocks if block) + "\n"


def _longtable(grid: Grid, indices: list[int], title: str, label: str, stacked: bool) -> str:
    columns = [grid.columns[i] for i in indices]
    alignment = "".join("r" if column.numeric else "l" for column in columns)
    heads = " & ".join(column.latex or escape_latex(column.label) for column in columns) + r" \\"
    lines = [
        r"{\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{@{{}}{alignment}@{{}}}}",
        rf"\caption{{{escape_latex(re.sub(_NUMBERED, '', title))}}}\label{{{label}}}\\",
        rf"\toprule {heads} \midrule \endfirsthead",
        rf"\toprule {heads} \midrule \endhead",
        r"\bottomrule \endlastfoot",
    ]
    before = None
    for row in grid.rows:
        if before is not None and row.group != before:
            lines.append(r"\midrule")
        before = row.group
        cells = [row.cells[i] for i in indices]
        lines.append(" & ".join(_latex_cell(cell, stacked) for cell in cells) + r" \\")
        if stacked and any(cell.detail for cell in cells):
            details = (
                rf"{{\tiny {escape_latex(cell.detail)}}}" if cell.detail else "" for cell in cells
            )
            lines.append(" & ".join(details) + r" \\[2pt]")
    return "\n".join([*lines, r"\end{longtable}}"])


def _latex_cell(cell: GridCell, stacked: bool) -> str:
    text = escape_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    text += rf"\,{escape_latex(cell.unit)}" if cell.unit else ""
    return text if stacked or not cell.detail else rf"{text}\,{{\tiny {escape_latex(cell.detail)}}}"


_FOOTNOTE = 28  # longer texts stand below a table in a terminal, where the cell has a letter
_GAP = 3  # the border and the spaces beside a cell


def terminal(grid: Grid, width: int = 200) -> list[Table | Text]:
    """The grid for rich's console: its title, tables with whole columns, then notes.

    A number is never cut or wrapped. Columns that do not fit beside each other continue in a
    further table that repeats those that name the row; long texts stand below, as footnotes.

    Args:
      grid: the table.
      width: the width of the terminal in characters.
    """
    cells = [[printable(c.whole) for c in row.cells] for row in grid.rows]
    footnotes = _footnotes(grid, cells)
    widths = [
        max(len(line[i]) for line in [[printable(c.label) for c in grid.columns], *cells])
        for i in range(len(grid.columns))
    ]
    named = min(grid.fixed, len(widths))
    room = width - 1 - _GAP * (named + 1) - max(widths[named:], default=0)
    for i in range(named):  # names fold where a number would not fit beside them
        widths[i] = min(widths[i], max(room // named, 6))
    shown: list[Table | Text] = [Text(printable(grid.title), style="italic")]
    parts = _parts(grid, widths, width)
    shown += [_part(grid, cells, part, widths) for part in parts if grid.rows]
    shown += [Text(text) for text in (*footnotes, *map(printable, grid.notes))]
    return shown


def _footnotes(grid: Grid, cells: list[list[str]]) -> list[str]:
    """Replaces long texts in `cells` by numbers in brackets; returns the numbered texts."""
    marks: dict[str, str] = {}
    for i, column in enumerate(grid.columns):
        if i < grid.fixed or column.numeric:
            continue
        if max((len(line[i]) for line in cells), default=0) <= _FOOTNOTE:
            continue
        for line in cells:
            if line[i]:
                line[i] = marks.setdefault(line[i], f"[{len(marks) + 1}]")
    return [f"{mark} {text}" for text, mark in marks.items()]


def _parts(grid: Grid, widths: list[int], width: int) -> list[list[int]]:
    """The columns of each table: those that name the row, then as many others as fit."""
    named = list(range(min(grid.fixed, len(widths))))
    start = 1 + sum(widths[i] + _GAP for i in named)
    parts, used = [list(named)], start
    for i in range(len(named), len(widths)):
        if used + widths[i] + _GAP > width and len(parts[-1]) > len(named):
            parts, used = [*parts, list(named)], start
        parts[-1].append(i)
        used += widths[i] + _GAP
    return parts


def _part(grid: Grid, cells: list[list[str]], indices: list[int], widths: list[int]) -> Table:
    table = Table()
    for i in indices:
        column = grid.columns[i]
        table.add_column(
            Text(printable(column.label)),
            justify="right" if column.numeric else "left",
            overflow="fold",
            min_width=widths[i],
            max_width=widths[i],
        )
    for at, (row, line) in enumerate(zip(grid.rows, cells, strict=True)):
        texts = [Text(line[i], style="bold" if row.cells[i].bold else "") for i in indices]
        last = at + 1 == len(grid.rows) or grid.rows[at + 1].group != row.group
        table.add_row(*texts, end_section=last)
    return table
