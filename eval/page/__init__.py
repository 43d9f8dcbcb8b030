"""report.html: one self-contained page, made from an analysis; it asks the network for nothing."""

import json
from importlib import resources
from typing import Any

import jinja2
import plotly.offline

from eval import summary
from eval.analyses import Analysis
from eval.figures import flops_label
from eval.listing import finite
from eval.page import chart_data, sections
from eval.style import looks


def render(analysis: Analysis) -> str:
    """The whole page as text.

    Everything that comes from a record is escaped: by jinja in HTML, by `_script` where it is data for the charts.
    """
    files = resources.files(__name__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files.joinpath("report.html.j2").read_text(encoding="utf-8"))
    study = analysis.study
    return template.render(
        study=study,
        reference=analysis.reference,
        flops=flops_label(analysis.axes),
        warnings=summary.warnings(analysis),
        sentences=summary.sentences(analysis),
        looks=looks(analysis.table.architecture),
        sections=sections.sections(analysis),
        claims=sections.claims_count(analysis),
        style=files.joinpath("report.css").read_text(encoding="utf-8"),
        script=files.joinpath("report.js").read_text(encoding="utf-8"),
        plotly=plotly.offline.get_plotlyjs(),
        data=_script(chart_data.charts(analysis)),
    )


def _script(data: Any) -> str:
    """JSON that is safe inside a script element, whatever the names in it; NaN becomes null."""
    text = json.dumps(finite(data, digits=6), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
