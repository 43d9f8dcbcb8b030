"""Renders report.html: one self-contained page that loads nothing from the network.

Its content security policy lists the scripts and styles by their hashes, so a browser runs nothing
else, whatever text the records contain.
"""

import base64
import hashlib
import json
import re
from importlib import resources
from typing import Any

import jinja2
import plotly.offline

from eval.analyses.everything import Analysis
from eval.data.cells import main_protocol
from eval.data.families import several
from eval.data.neutral import finite
from eval.report import summary, words
from eval.report.figures import flops_label
from eval.report.page import chart_data, sections
from eval.report.style import looks
from eval.report.tables import size_order


def render(analysis: Analysis) -> str:
    """Renders the whole page.

    All text from records is escaped: by jinja in HTML, by `_script` in the data for the charts.
    """
    files = resources.files(__name__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files.joinpath("report.html.j2").read_text(encoding="utf-8"))
    study = analysis.study
    shown = looks(analysis.table.architecture)
    style = files.joinpath("report.css").read_text(encoding="utf-8") + _colours(
        [look.color for look in shown.values()]
    )
    script = files.joinpath("report.js").read_text(encoding="utf-8")
    policy_js = files.joinpath("policy.js").read_text(encoding="utf-8")
    plotly_js = plotly.offline.get_plotlyjs()
    scripts = " ".join(map(_hash, (policy_js, plotly_js, script)))
    return template.render(
        study=study,
        terms=words.terms(
            flops_label(analysis.quantities.flops),
            analysis.reference,
            size_order(main_protocol(analysis.table)),
            analysis.settings.log_base,
            analysis.table.protocol.nunique() > 1,
            several(analysis.table),
        ),
        warnings=summary.warnings(analysis),
        sentences=summary.sentences(analysis),
        looks=shown,
        classes={
            name: f"look-{i}{'' if look.filled else ' open'}"
            for i, (name, look) in enumerate(shown.items())
        },
        sections=sections.sections(analysis),
        claims=sections.claims_count(analysis),
        style=style,
        script=script,
        plotly=plotly_js,
        # Plotly makes an empty style element and adds rules to it. The policy allows that by the
        # hash of an empty text.
        policy=f"script-src {scripts}; style-src {_hash(style)} {_hash('')}",
        policy_js=policy_js,
        unstyled=_styles_of_maps(plotly_js),
        data=_script(chart_data.charts(analysis)),
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _colours(colours: list[str]) -> str:
    """A CSS rule for each architecture; inline styles could not be allowed by a hash."""
    return "".join(f".look-{i} {{ --color: {colour}; }}\n" for i, colour in enumerate(colours))


def _styles_of_maps(plotly_js: str) -> list[str]:
    """Names of elements that plotly fills with styles for maps unless they exist already.

    The page has no maps, so it adds the elements empty.
    """
    return re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly_js)


def _script(data: Any) -> str:
    """JSON that is safe inside a script element, whatever names it contains; NaN becomes null."""
    text = json.dumps(
        finite(data, digits=6), ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
