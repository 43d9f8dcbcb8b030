"""Shows indented examples of docstrings as code.

In Sphinx's markup a line that ends in one colon begins a quotation, and in two begins code. Most
docstrings are read in an editor, where one colon is enough.
"""

from typing import Any

from sphinx.application import Sphinx

_BEFORE_NAPOLEON = 400
_NOTHING = "\\ "  # a line that is not empty and shows nothing


def mark_code(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Doubles the colon before a blank line and an indented block.

    Of an attribute's docstring napoleon takes what stands before a colon in the first line for its
    type, so a line without a colon is put before it.
    """
    for i in range(len(lines) - 2):
        line, blank, block = lines[i : i + 3]
        indented = _indent(block) > _indent(line) + 1
        if line.rstrip().endswith(":") and not blank.strip() and block.strip() and indented:
            lines[i] = line.rstrip().removesuffix(":") + "::"
    if what in ("attribute", "data", "property"):
        lines.insert(0, _NOTHING)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def setup(app: Sphinx) -> None:
    """Runs before napoleon, which rewrites the sections."""
    app.connect("autodoc-process-docstring", mark_code, priority=_BEFORE_NAPOLEON)
