"""Formulas as MathML, by the converter that docutils has.

Browsers show it without a script, a font or a network.
"""

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def _mathml(node: Any, *, block: bool) -> str:
    try:
        return tex2mathml(node.astext(), as_block=block)
    except (MathError, SyntaxError) as error:
        raise ExtensionError(f"formula {node.astext()!r}: {error}") from error


def inline(writer: Any, node: nodes.math) -> None:
    """Writes a formula inside a line."""
    writer.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """Writes a formula on lines of its own. It scrolls where the page is narrower."""
    writer.body.append(f'<div class="formula">{_mathml(node, block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Adds the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
