"""The scaling laws of a study: the richest form that its records can determine.

There is a page for each architecture. The points are cell means, because the seeds of a cell share
the misfit of their size. The fit is least squares of log losses, the most precise choice for few
points. If the records support no form, the result says why.

Whether architectures scale differently is answered by their slopes (`eval.analyses.verdicts`), not
once more by their laws. `python -m eval fit --group` compares laws where that is the question.
"""

import dataclasses

import numpy as np
import pandas as pd

from eval.analyses.question import Question
from eval.data.cells import RunTable, frame_of, main_protocol, seed_averages
from eval.data.quantity import Quantities
from eval.data.study import Study
from eval.laws.diagnostics import LawPage, law_page
from eval.laws.fitting.fit import fit
from eval.laws.fitting.objective import Objective
from eval.laws.forms import FORMS
from eval.laws.forms.form import Form
from eval.laws.law_table import Runs, points
from eval.stats.resampling import Resampling

_LEAST_SQUARES = Objective("l2")
LADDER = ("chinchilla", "offset", "power")  # from the richest to the simplest
_SPARE = 2  # points needed beyond the parameters; with fewer, intervals are useless
_DISTINCT = 3  # least number of distinct values of an input
_TIED = 0.99
_LAW = ["architecture", "form", "symbol", "value", "lower", "upper", "points", "note"]
_CHECKLIST = ["architecture", "part", "question", "answer"]


@dataclasses.dataclass(frozen=True)
class StudyLaws:
    """Every law of a study.

    Attributes:
      pages: pages by architecture, for those whose records support the form.
      parameters: one row per architecture and symbol, with columns architecture, form, symbol,
        value, lower, upper (bootstrap interval), points (cells fitted), note (warnings; an
        architecture without a law has a single row that says why).
      checklist: the (Mis)Fitting checklist: architecture, part, question, answer.
    """

    pages: dict[str, LawPage]
    parameters: pd.DataFrame
    checklist: pd.DataFrame


def laws(
    study: Study | pd.DataFrame | RunTable, question: Question | None = None, draws: int = 500
) -> StudyLaws:
    """Fits the richest form of LADDER that most architectures support and most fits determine.

    Args:
      study: a study, or a table of runs; those of one size and seed may differ in their tokens.
      question: its quantities say which columns hold parameters, FLOPs and loss; its level and seed
        are used for the intervals. Tokens are `tokens_seen`; x is `flops_train_total`, or the
        column of the FLOPs if that is not known.
      draws: number of bootstrap refits.
    """
    table, question = frame_of(study), question or Question()
    level, quantities = question.level, question.quantities
    cells = _cells(main_protocol(table, question.protocol), quantities)
    names = sorted(table["architecture"].astype(str).unique())
    parts = {name: cells[cells["architecture"] == name] for name in names}
    lacks = {
        form: {name: _lack(FORMS[form], part) for name, part in parts.items()} for form in LADDER
    }
    chosen = _choose(parts, lacks)
    fitted = [name for name in names if not lacks[chosen][name]]
    form = FORMS[chosen]
    counts = (
        f"parameters: {quantities.params.column}; FLOPs: {cells.attrs['x']}; tokens: tokens_seen"
    )
    column = str(cells.attrs["x"])
    x_name = "training FLOPs" if column == "flops_train_total" else column
    resampling = Resampling(draws, level, question.seed)
    pages = {
        name: law_page(_points(parts[name], form), form, _LEAST_SQUARES, resampling, counts, x_name)
        for name in fitted
    }
    rows = [
        row for name in names for row in _rows(name, pages.get(name), chosen, lacks[chosen][name])
    ]
    checked = [page.checklist.assign(architecture=name) for name, page in pages.items()]
    checklist = (
        pd.concat(checked, ignore_index=True) if checked else pd.DataFrame(columns=_CHECKLIST)
    )
    return StudyLaws(
        pages,
        pd.DataFrame(rows, columns=_LAW),
        checklist.reindex(columns=_CHECKLIST),
    )


def _choose(parts: dict[str, pd.DataFrame], lacks: dict[str, dict[str, str]]) -> str:
    """The form that most architectures support, and of several the richest.

    A form is skipped if at least half of its fits have warnings.
    """
    supported = [form for form in LADDER if not all(lacks[form].values())] or list(LADDER[-1:])
    fewest = min(sum(map(bool, lacks[form].values())) for form in supported)
    for name in supported:
        able = [part for label, part in parts.items() if not lacks[name][label]]
        if len(parts) - len(able) > fewest:
            continue
        warned = sum(
            bool(fit(FORMS[name], _points(part, FORMS[name]), _LEAST_SQUARES).warnings)
            for part in able
        )
        if name == LADDER[-1] or 2 * warned < len(able):
            return name
    return LADDER[-1]


def _cells(table: pd.DataFrame, quantities: Quantities) -> pd.DataFrame:
    """Means over seeds: architecture, N, D, x, y; runs without a loss are left out."""
    known = "flops_train_total" in table and np.isfinite(table["flops_train_total"]).any()
    x = "flops_train_total" if known else quantities.flops.column
    frame = pd.DataFrame(
        {
            "architecture": table["architecture"].astype(str),
            "size": table["size"].astype(str),
            "N": table[quantities.params.column],
            "D": table.get("tokens_seen", np.nan),
            "x": table[x],
            "y": table[quantities.loss.column],
        }
    ).astype({name: float for name in ("N", "D", "x", "y")})
    frame = frame[np.isfinite(frame["y"]) & (frame["y"] > 0)]
    frame["data"] = frame["D"].fillna(0.0)
    cells = seed_averages(frame, ["N", "D", "x", "y"], ["architecture", "size", "data"])
    cells = cells.sort_index().reset_index()
    cells.attrs["x"] = x
    return cells


def _lack(form: Form, cells: pd.DataFrame) -> str:
    """Why these cells do not determine a form; empty if they do."""
    for name in form.inputs:
        values = cells[name].to_numpy()
        if not (np.isfinite(values) & (values > 0)).all():
            return f"{form.name}: some run does not record {name}"
        if len(np.unique(values)) < _DISTINCT:
            return (
                f"{form.name}: {name} takes {len(np.unique(values))} values, {_DISTINCT} are needed"
            )
    needed = len(form.parameters) + _SPARE
    if len(cells) < needed:
        return (
            f"{form.name}: {len(cells)} cells, {needed} are needed for {len(form.parameters)} "
            "parameters"
        )
    if (
        form.inputs == ("N", "D")
        and abs(np.corrcoef(np.log(cells["N"]), np.log(cells["D"]))[0, 1]) > _TIED
    ):
        return f"{form.name}: D is tied to N"
    return ""


def _points(cells: pd.DataFrame, form: Form) -> Runs:
    inputs = {name: cells[name].to_numpy() for name in form.inputs}
    flops = cells["x"].to_numpy() if cells.attrs["x"] == "flops_train_total" else None
    return points(
        cells["y"].to_numpy(), group=cells["architecture"].to_numpy(object), flops=flops, **inputs
    )


def _rows(name: str, page: LawPage | None, form: str, lack: str) -> list[tuple]:
    if page is None:
        return [(name, form, "", np.nan, np.nan, np.nan, 0, f"no law: {lack}")]
    note = "; ".join(page.warnings)
    found = zip(*(page.parameters[c] for c in ("symbol", "value", "lower", "upper")), strict=True)
    return [(name, form, *row, len(page.points), note) for row in found]
