"""report.html: one self-contained page, made from an analysis; it asks the network for nothing.

Its policy names the scripts and the styles by their hashes, so that a browser runs nothing else,
wherever it came from.
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
from eval.report import summary
from eval.report.figures import flops_label
from eval.report.listing import finite
from eval.report.page import chart_data, sections
from eval.report.style import looks


def render(analysis: Analysis) -> str:
    """The whole page as text.

    Everything that comes from a record is escaped: by jinja in HTML, by `_script` where it is data
    for the charts.
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
        reference=analysis.reference,
        flops=flops_label(analysis.axes),
        warnings=summary.warnings(analysis),
        sentences=summary.sentences(analysis),
        looks=shown,
        classes={name: f"look-{i}" for i, name in enumerate(shown)},
        sections=sections.sections(analysis),
        claims=sections.claims_count(analysis),
        style=style,
        script=script,
        plotly=plotly_js,
        # Plotly makes an empty style element and fills it rule by rule, which a policy allows by
        # the hash of nothing.
        policy=f"script-src {scripts}; style-src {_hash(style)} {_hash('')}",
        policy_js=policy_js,
        unstyled=_styles_of_maps(plotly_js),
        data=_script(chart_data.charts(analysis)),
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _colours(colours: list[str]) -> str:
    """A rule for each architecture: attributes with styles have no hash that a policy could name."""
    return "".join(f".look-{i} {{ --color: {colour}; }}\n" for i, colour in enumerate(colours))


def _styles_of_maps(plotly_js: str) -> list[str]:
    """Names of elements that plotly fills with styles of maps unless they are there; the page has no maps."""
    return re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly_js)


def _script(data: Any) -> str:
    """JSON that is safe inside a script element, whatever the names in it; NaN becomes null."""
    text = json.dumps(
        finite(data, digits=6), ensure_ascii=True, allow_nan=False, separators=(",", ":")
    )
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
