"""The part of the site that is computed from the code: facts, pictures and formulas.

`facts` counts, `diagram` and `plot` draw what it found, `directives` puts both into pages, `mathml`
writes formulas that a browser shows without a script, and `docstrings` marks code in docstrings.
"""

from typing import Any

from sphinx.application import Sphinx

from zoo_pages import directives, docstrings, mathml


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers all of it with Sphinx."""
    directives.setup(app)
    mathml.setup(app)
    docstrings.setup(app)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
