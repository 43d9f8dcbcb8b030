"""Configuration of the documentation site; `make docs` builds it at `build/docs`."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.pop("MPLBACKEND", None)  # notebooks show figures with a backend of their own

import arch_zoo  # noqa: E402

project = "arch-scaling"
author = "the arch-scaling contributors"
version = release = arch_zoo.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "zoo_pages"]
exclude_patterns = ["README.md"]
nitpicky = True  # a reference to something that is not on the site is a warning, except these types
nitpick_ignore_regex = [
    ("py:class", r"(collections|jax|numpy|pandas|pathlib)\..*"),
    (
        "py:class",
        r"eval\.(analyses\.(settings|tuning)|data\.cells|laws\.(diagnostics|fitting))\..*",
    ),
    ("py:class", r"train\.(data|run\.finished|use\.tokenizers)\..*"),
]
default_role = "code"  # names in docstrings stand in single backticks
highlight_language = "none"

myst_enable_extensions = ["dollarmath", "deflist", "fieldlist"]
myst_heading_anchors = 3
myst_update_mathjax = False
html_math_renderer = "mathml"

html_theme = "furo"
html_title = f"arch-scaling {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_domain_indices = False
html_show_copyright = False
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures in the docstrings' own words are shorter to read
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# The notebook analyses the records of a real study, which the tests keep.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_render_markdown_format = "myst"

os.environ["STUDY"] = str(ROOT / "examples" / "cpu.tar.gz")
