"""The data of the page's charts as plain lists: cells, lines with bands, slopes, surfaces, laws."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from eval.analyses.everything import Analysis, question_of
from eval.data.cells import CELL, seed_averages
from eval.data.study import GROUP_COLUMNS, MEAN_OF_TASKS, MOST_POINTS, task_columns
from eval.report import summary, words
from eval.report.figures import (
    errors_in_words,
    flops_label,
    lines_and_bands,
    quality_label,
    surface_steps,
)
from eval.report.style import looks
from eval.report.tables import cells, error_of, label, size_order

COSTS = {
    "params_total": "Parameters",
    "params_active": "Parameters used by a token",
    "params_non_embedding": "Parameters outside the embedding",
    "flops_train_total": "FLOPs, whole pretraining",
    "steps_per_second": "Steps per second",
}
INPUTS = {"N": "Parameters", "D": "Tokens"}
_POINTS = 17


def charts(analysis: Analysis) -> dict[str, Any]:
    """All data that the page's script needs, ready for JSON."""
    look = looks(analysis.table.architecture)
    return {
        "reference": analysis.reference,
        "level": analysis.settings.level,
        "looks": {name: dataclasses.asdict(one) for name, one in look.items()},
        "protocols": sorted(analysis.table.protocol.unique()),
        "x": _x_axes(analysis),
        "y": _y_axes(analysis),
        "bars": {y: errors_in_words(analysis, [y]) for y in _y_axes(analysis)},
        "no_scores": summary.no_scores(analysis),
        "words": _words(analysis),
        "cells": _cells(analysis),
        "lines": _lines(analysis),
        "slopes": _slopes(analysis),
        "curves": _curves(analysis),
        "best": [] if analysis.one_seed else _best(analysis),
        "grid": _grid(analysis),
        "attainment": [] if analysis.one_seed else _attainment(analysis),
        "laws": _laws(analysis),
    }


def _words(analysis: Analysis) -> dict[str, str]:
    """Every axis that a table names, in words."""
    columns = ("x_axis", "y_axis", "cost_axis")
    tables = [*analysis.results.values()]
    found = {str(name) for t in tables for c in columns if c in t for name in t[c].unique()}
    slopes = {str(alpha): words.slope(str(alpha)) for alpha in analysis.results["slopes"].alpha}
    return {name: words.axis(name) for name in sorted(found)} | slopes


def _x_axes(analysis: Analysis) -> dict[str, str]:
    flops = analysis.quantities.flops
    costs = {flops.column: flops_label(flops)} | COSTS
    costs = {column: text for column, text in costs.items() if column in analysis.table}
    known = {column: text for column, text in costs.items() if analysis.table[column].notna().any()}
    return known | {"upstream_nll": "Upstream: held-out loss (nats)"}


def _y_axes(analysis: Analysis) -> dict[str, str]:
    """The qualities to choose from, the two main ones first."""
    runs = analysis.study.runs
    choices = {quality.column: quality_label(quality) for quality in analysis.qualities}
    for column in (*GROUP_COLUMNS, *task_columns(runs)):
        if runs[column].notna().any():
            choices.setdefault(column, f"Downstream: {label(column)} (percent)")
    return choices


def _oriented(table: pd.DataFrame, column: str) -> pd.Series:
    """The column with the sign that makes higher better, as on every quality axis."""
    return -table[column] if column == "upstream_nll" else table[column]


def _cells(analysis: Analysis) -> list[dict[str, Any]]:
    """One entry per cell: means, standard errors, and the single runs."""
    table, runs = cells(analysis.study, analysis.paired_errors), analysis.table
    x_axes, y_axes = _x_axes(analysis), _y_axes(analysis)
    groups = dict(list(runs.groupby(list(CELL), sort=False)))
    params = analysis.quantities.params.column
    runs = runs.assign(**{column: _oriented(runs, column) for column in y_axes})
    means = seed_averages(runs, sorted({*x_axes, *y_axes, params}))
    entries = []
    for record in table.to_dict("records"):
        cell = tuple(record[key] for key in CELL)
        members, mean = groups[cell], means.loc[cell]
        entry: dict[str, Any] = {key: str(record[key]) for key in CELL} | {
            "n": int(record["n_seeds"])
        }
        entry["x"] = {column: float(mean[column]) for column in x_axes}
        entry["y"], entry["se"], entry["runs"] = {}, {}, {}
        for column in y_axes:
            entry["y"][column] = float(mean[column])
            entry["runs"][column] = [float(value) for value in _oriented(members, column)]
            entry["se"][column] = error_of(record, column)[0]
        entry["params"] = float(mean[params])
        entry["seeds"] = [int(seed) for seed in members.seed]
        entries.append(entry)
    return entries


def _lines(analysis: Analysis) -> list[dict[str, Any]]:
    """Semilog lines with bands, per protocol, x-axis (FLOPs and parameters) and quality."""
    quantities, entries = analysis.quantities, []
    for protocol, table in analysis.table.groupby("protocol", sort=True):
        runs = analysis.runs.take(table)
        for column in _y_axes(analysis):
            y = quantities.loss if column == quantities.loss.column else quantities.score.of(column)
            for x in (quantities.flops, quantities.params):
                if not runs.knows(x):
                    continue
                question = question_of(analysis.settings).ask(x=x, y=y)
                for (architecture, _), one in lines_and_bands(runs, question, _POINTS).items():
                    entry = {"protocol": str(protocol), "x_axis": x.column, "y_axis": column}
                    entry |= {"architecture": architecture, "slope": one.slope}
                    entries.append(
                        entry
                        | {key: getattr(one, key).tolist() for key in ("x", "y", "low", "high")}
                    )
    return entries


def _slopes(analysis: Analysis) -> list[dict[str, Any]]:
    keep = [
        "architecture",
        "alpha",
        "link",
        "x_axis",
        "y_axis",
        "slope",
        "ci_low",
        "ci_high",
        "n_sizes",
        "note",
    ]
    return _records(analysis.results["slopes"], keep)


def _curves(analysis: Analysis) -> dict[str, Any]:
    """The learning curves of every run, and the names of what can be shown."""
    runs, columns = [], ["tokens", "step", "value"]
    tasks = sorted(set(analysis.curves.task) - {"", MEAN_OF_TASKS})
    kinds = {"train": "Upstream: training loss", "heldout": "Upstream: held-out loss"}
    kinds |= {f"score:{MEAN_OF_TASKS}": "Downstream: mean score over the tasks"}
    kinds |= {f"score:{task}": f"Downstream: {label(f'downstream_{task}')}" for task in tasks}
    own = dict(list(analysis.curves.groupby("run_id", sort=False)))
    keys = ["run_id", "architecture", "size", "protocol"]
    for run_id, architecture, size, protocol in analysis.table[keys].itertuples(index=False):
        curves = {}
        for (curve, task), part in own.get(run_id, analysis.curves.head(0)).groupby(
            ["curve", "task"], sort=False
        ):
            tokens, steps, values = (part[c].tolist() for c in columns)
            key = f"score:{task}" if curve == "score" else str(curve)
            curves[key] = {"steps": steps, "values": values}
            if curve != "score":
                curves[key]["tokens"] = tokens
        if curves:
            entry = {"run": run_id, "architecture": architecture, "size": size}
            runs.append(entry | {"protocol": protocol, "curves": curves})
    seen = {key for run in runs for key in run["curves"]}
    return {
        "runs": runs,
        "kinds": {key: text for key, text in kinds.items() if key in seen},
        "sizes": size_order(analysis.table),
        "most": MOST_POINTS,
    }


def _best(analysis: Analysis) -> list[dict[str, Any]]:
    table = analysis.results["probability_best"]
    table = table[table.candidates > 1] if len(table) else table
    return _records(
        table, ["budget", "architecture", "y_axis", "quality", "rank", "probability_best"]
    )


def _grid(analysis: Analysis) -> list[dict[str, Any]]:
    return _records(
        analysis.results["width_depth"],
        ["architecture", "depth", "width", "y_axis", "quality", "n_runs"],
    )


def _attainment(analysis: Analysis) -> list[dict[str, Any]]:
    """One entry per cost, quality and level: the corners of the surface, extended to the end."""
    table, entries = analysis.results["attainment"], []
    if "level" not in table:
        return entries
    flops = analysis.quantities.flops.column
    for _, part in table[table.cost_axis == flops].groupby(["y_axis", "level"]):
        x, y = surface_steps(part, float(analysis.table[flops].max()))
        first = part.iloc[0]
        entry = {
            "y_axis": first.y_axis,
            "level": float(first.level),
            "repetitions": int(first.repetitions),
        }
        entries.append(entry | {"x": x.tolist(), "y": y.tolist()})
    return entries


def _laws(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """The data of every law: curves, points, residuals, isoFLOP profiles, starts."""
    entries = {}
    for name, page in analysis.laws.pages.items():
        first = page.law.form.inputs[0]
        points = {
            "x": page.points[first],
            "y": page.points["loss"],
            "residual": page.points["residual"],
            "prediction": page.points["prediction"],
        }
        entries[name] = {
            "title": page.title,
            "warnings": list(page.warnings),
            "input": INPUTS.get(first, words.column(page.x_name)),
            "points": {key: values.tolist() for key, values in points.items()},
            "curves": [
                _columns(part, value) for value, part in page.curves.groupby("series", dropna=False)
            ],
            "isoflops": [
                _columns(part.rename(columns={"N": "x"}), value)
                for value, part in page.isoflops.groupby("flops")
            ],
            "starts": page.landscape["objective"].tolist(),
            "agreed": page.law.agreed,
        }
    return entries


def _columns(table: pd.DataFrame, series: Any) -> dict[str, Any]:
    keep = [column for column in ("x", "prediction", "lower", "upper") if column in table]
    return {"series": float(series)} | {column: table[column].tolist() for column in keep}


def _records(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    if table.empty:
        return []
    plain = lambda v: v.item() if isinstance(v, np.generic) else v
    return [{str(k): plain(v) for k, v in row.items()} for row in table[columns].to_dict("records")]
