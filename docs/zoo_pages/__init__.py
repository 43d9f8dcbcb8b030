"""The part of the site that is computed from the code: facts, pictures and formulas.

`facts` counts, `diagram` and `plot` draw what it found, `directives` puts both into pages, and
`mathml` writes formulas that a browser shows without a script.
"""

from typing import Any

from sphinx.application import Sphinx

from zoo_pages import directives, mathml


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directives and the renderer of formulas with Sphinx."""
    directives.setup(app)
    mathml.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
