"""The parts of a report page on one fitted law, as plain tables; the figures are drawn elsewhere.

page = law_page(runs, forms.get("chinchilla"))
page.warnings, page.parameters, page.curves, page.residuals, page.isoflops, page.landscape
page.checklist
"""

import dataclasses

import numpy as np
import pandas as pd

from eval.laws import choice
from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import Fit, fit
from eval.laws.fitting.objective import HOFFMANN, Objective
from eval.laws.fitting.uncertainty import Draws
from eval.laws.forms.form import Form
from eval.laws.law_table import Runs
from eval.stats.resampling import DEFAULT, Resampling

_CURVES = 6  # curves shown for a law of two inputs
_BUDGETS = 5


@dataclasses.dataclass(frozen=True)
class LawPage:
    """The contents of a page on one law.

    Attributes:
      title: the law, and the group if there is one.
      law: the fit itself.
      warnings: why the data may not determine the law; shown first.
      parameters: `symbol`, `value`, `lower`, `upper`, `meaning`.
      points: the inputs (raw), the output, `prediction`, `residual` (of logarithms), `line` (of the
        file).
      curves: `series` (value of the second input, or empty), `x` (first input), `prediction`,
        `lower`, `upper`.
      isoflops: `flops`, `N`, `prediction`; empty for a law without N and D.
      landscape: one row per start, best first: `start`, `objective`, `converged`.
      checklist: the questions of (Mis)Fitting (Li et al. 2025) with this fit's answers: `part`,
        `question`, `answer`.
      x_name: the name of the input x of power, offset and bnsl.
    """

    title: str
    law: Fit
    warnings: tuple[str, ...]
    parameters: pd.DataFrame
    points: pd.DataFrame
    curves: pd.DataFrame
    isoflops: pd.DataFrame
    landscape: pd.DataFrame
    checklist: pd.DataFrame
    x_name: str = "x"


def law_page(
    runs: Runs,
    form: Form,
    objective: Objective = HOFFMANN,
    resampling: Resampling = DEFAULT,
    counts: str = "as the table's columns count them",
    x_name: str = "x",
) -> LawPage:
    """Fits a law and collects the contents of its page.

    Args:
      runs: the points of one group.
      form: the law.
      objective: what is minimised.
      resampling: refits behind bands and intervals; none are made where no residual is left.
      counts: how parameters and FLOPs were counted, for the checklist.
      x_name: the name of the input x of power, offset and bnsl.
    """
    law = fit(form, runs, objective)
    level, drawn = resampling.level, None
    if len(runs.y) > law.free_P.sum():
        drawn = uncertainty.bootstrap(law, resampling.draws, resampling.seed)
    group = str(runs.group[0])
    return LawPage(
        title=f"{form.name}: {form.formula}" + (f" ({group})" if group else ""),
        law=law,
        warnings=(*law.warnings, *(drawn.warnings if drawn else ())),
        parameters=_parameters(law, drawn, level),
        points=_points(law),
        curves=_curves(law, drawn, level),
        isoflops=_isoflops(law, runs.k),
        landscape=_landscape(law),
        checklist=checklist(law, drawn, level, counts),
        x_name=x_name,
    )


def _parameters(law: Fit, drawn: Draws | None, level: float) -> pd.DataFrame:
    spans = drawn.intervals(level) if drawn else dict.fromkeys(law.form.symbols, (np.nan, np.nan))
    rows = [
        (symbol, value, *spans[symbol], parameter.meaning)
        for (symbol, value), parameter in zip(law.params.items(), law.form.parameters, strict=True)
    ]
    return pd.DataFrame(rows, columns=["symbol", "value", "lower", "upper", "meaning"])


def _points(law: Fit) -> pd.DataFrame:
    runs, prediction = law.runs, law.predict(law.runs.x)
    columns = {name: np.exp(values) for name, values in runs.x.items()}
    residual = np.log(np.maximum(runs.y, 1e-12) / np.maximum(prediction, 1e-12))
    measured = {
        law.form.output: runs.y,
        "prediction": prediction,
        "residual": residual,
        "line": runs.row,
    }
    return pd.DataFrame(columns | measured)


def _curves(law: Fit, drawn: Draws | None, level: float) -> pd.DataFrame:
    """The law along its first input, at a few values of the second, else at medians."""
    first, *others = law.form.inputs
    x = law.runs.x
    line = np.linspace(x[first].min(), x[first].max(), 60)
    held = {name: np.full(60, np.median(x[name])) for name in others}
    values = (
        np.unique(np.quantile(x[others[0]], np.linspace(0, 1, _CURVES), method="nearest"))
        if others
        else [np.nan]
    )
    parts = []
    for value in values:
        at = {first: line, **held} | ({others[0]: np.full(60, value)} if others else {})
        if drawn:
            part = uncertainty.predict(drawn, at, level)[["prediction", "lower", "upper"]]
        else:
            part = pd.DataFrame({"prediction": law.predict(at), "lower": np.nan, "upper": np.nan})
        parts.append(part.assign(series=np.exp(value) if others else np.nan, x=np.exp(line)))
    return pd.concat(parts, ignore_index=True)


def _isoflops(law: Fit, k: float) -> pd.DataFrame:
    if law.form.inputs != ("N", "D"):
        return pd.DataFrame(columns=["flops", "N", "prediction"])
    x = law.runs.x
    log_c = x["N"] + x["D"] + np.log(k)
    parts = []
    for budget in np.linspace(log_c.min(), log_c.max(), _BUDGETS):
        log_n = np.linspace(x["N"].min(), x["N"].max(), 60)
        prediction = law.predict({"N": log_n, "D": budget - np.log(k) - log_n})
        parts.append(
            pd.DataFrame({"flops": np.exp(budget), "N": np.exp(log_n), "prediction": prediction})
        )
    return pd.concat(parts, ignore_index=True)


def _landscape(law: Fit) -> pd.DataFrame:
    order = np.argsort(law.found.value_S)
    columns = {
        "start": order,
        "objective": law.found.value_S[order],
        "converged": law.found.converged_S[order],
    }
    return pd.DataFrame(columns)


def checklist(law: Fit, drawn: Draws | None, level: float, counts: str) -> pd.DataFrame:
    """The settings that affect a fit, by the parts of the (Mis)Fitting checklist."""
    runs, objective = law.runs, law.objective
    spans = "; ".join(
        f"{name} {np.exp(v.min()):.3g} to {np.exp(v.max()):.3g}" for name, v in runs.x.items()
    )
    clusters = runs.clusters
    criteria = choice.criteria(law)
    zone = f", delta {objective.delta:g}" if objective.name == "huber" else ""
    noise = uncertainty.seed_noise(law)
    resampled = (
        f"{len(drawn.theta_BP)} refits, {drawn.kind}, {100 * drawn.failed:.1f} % failed"
        if drawn
        else "none"
    )
    rows = [
        (
            "form",
            "What is the law, and where is it from?",
            f"{law.form.formula} ({law.form.source})",
        ),
        (
            "form",
            "How many parameters are fitted?",
            f"{int(law.free_P.sum())} of {len(law.free_P)}",
        ),
        (
            "form",
            "How was it chosen?",
            f"given; AICc {criteria['aicc']:.1f}, BIC {criteria['bic']:.1f}",
        ),
        (
            "training",
            "How many runs, over what range?",
            f"{clusters} runs, {len(runs.y)} points; {spans}",
        ),
        (
            "training",
            "How large is the noise between seeds?",
            "unknown" if np.isnan(noise) else f"{noise:.2g}",
        ),
        ("extraction", "How are parameters and FLOPs counted?", counts),
        (
            "extraction",
            "Do points share a run?",
            "yes" if clusters < len(runs.y) else "no: one point for each run",
        ),
        (
            "fit",
            "What is minimised?",
            f"sum of {objective.name}{zone} of {objective.space} residuals, weighted",
        ),
        (
            "fit",
            "How, and from which starts?",
            f"damped Newton, all of {len(law.start_SP)} starts at once",
        ),
        ("fit", "How many starts agree?", f"{100 * law.agreed:.0f} %"),
        (
            "fit",
            "Is the problem well conditioned?",
            f"condition number {law.condition:.3g} (centred, scaled)",
        ),
        ("fit", "Is any parameter at a bound?", ", ".join(law.at_bounds) or "no"),
        (
            "validation",
            "How are intervals made?",
            f"{resampled}; {100 * level:g} %, widened by Student's t",
        ),
        (
            "validation",
            "Do the data determine the law?",
            "; ".join((*law.warnings, *(drawn.warnings if drawn else ())))
            or "no sign that they do not",
        ),
    ]
    return pd.DataFrame(rows, columns=["part", "question", "answer"])
