"""Compares two studies, such as before and after a change, or from two clusters.

Says what differs, by how much, and whether the difference is more than noise. Cells are matched by
architecture, family, size, protocol and seed. Differences are the second study minus the first.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from eval.data.cells import CELL, seed_averages
from eval.data.study import Study, read_study, task_columns
from train import records
from train.records import InputError

_CELL = [*CELL, "family"]  # the studies may differ in their families, so no name has one
KEYS = [*_CELL, "seed"]
QUANTITIES = {
    "upstream_nll": "nats, lower is better",
    "downstream_mean": "percent, higher is better",
    "log10_steps_per_second": "decades, higher is faster",
}
_SETTINGS = ("model", "pretrain", "finetune", "data")


def compare_studies(
    first: str | Path, second: str | Path, *, level: float = 0.95
) -> dict[str, pd.DataFrame]:
    """Compares the finished runs of two study directories.

    Args:
      first: the directory of a study.
      second: the directory of another study.
      level: the confidence level of the intervals.

    Returns:
      `overall`: a row for each of QUANTITIES, with columns quantity, unit, n_cells (that both
        have),
        difference (mean over cells, seeds averaged within a cell), ci_low, ci_high, p (paired t
        over cells), identical (runs whose values are equal to the last digit), note.
      `cells`: a row for each run that both have, with architecture, size, protocol, family,
        seed, upstream_first, upstream_second, upstream_change, ci_low, ci_high (from the standard
        errors of both held-out losses; too wide if both saw the same examples), downstream_first,
        downstream_second, downstream_change, speed_ratio, note (another corpus, other settings).
      `missing`: a row for each run that is finished in only one study, with architecture, size,
        protocol, family, seed, state in `first` and in `second`, and error, the reason for a
        failure.
      `settings`: settings that are not the same in all common runs, with first, second and runs.

    Raises:
      InputError: a directory is not a study, or the two have no finished run in common.
    """
    if not 0 < level < 1:
        raise InputError(f"level = {level} is not between 0 and 1")
    one, two = read_study(first), read_study(second)
    for path, study in ((first, one), (second, two)):
        if study.runs.empty:
            raise InputError(f"{path}: no run is finished, so there is nothing to compare")
    both = _runs(one).merge(_runs(two), on=KEYS, suffixes=("_1", "_2"))
    if both.empty:
        raise InputError(f"{first} and {second} have no finished run in common")
    same = both["corpus_fingerprint_1"] == both["corpus_fingerprint_2"]
    both, of_tasks = _of_common_tasks(both, one, two)
    changed = _changes(Path(first), Path(second), both)
    return {
        "overall": _overall(both, same, level, of_tasks),
        "cells": _cells(both, same, {run for _, runs in changed for run in runs}, level),
        "missing": _missing(one, two),
        "settings": pd.DataFrame(
            [{**setting, "runs": len(runs)} for setting, runs in changed],
            columns=["setting", "first", "second", "runs"],
        ),
    }


_WORDS = {
    "upstream_nll": ("upstream", "nats", -1.0),
    "downstream_mean": ("downstream", "points", 1.0),
}


def sentence(found: dict[str, pd.DataFrame], level: float) -> str:
    """What `compare_studies` found, in words: whether the second study is better or worse."""
    parts = []
    for row in found["overall"].to_dict("records"):
        over = f"over {row['n_cells']} cell{'s' if row['n_cells'] != 1 else ''}"
        if not row["n_cells"]:
            continue
        if row["quantity"] not in _WORDS:
            low, high = (10 ** row[end] for end in ("ci_low", "ci_high"))
            within = "" if math.isnan(low) else f" ({level:.0%} interval {low:.3g} to {high:.3g})"
            times = f"{10 ** row['difference']:.3g} times"
            parts.append(f"its speed is {times} that of the first{within}")
            continue
        where, unit, better = _WORDS[row["quantity"]]
        size = f"{abs(row['difference']):.3g} {unit} {over}"
        known = not math.isnan(row["ci_low"])
        if row["difference"] == 0:
            parts.append(f"{where} it is the same {over}")
        elif known and (row["ci_low"] > 0 or row["ci_high"] < 0):
            word = "better" if better * row["difference"] > 0 else "worse"
            ends = sorted((abs(row["ci_low"]), abs(row["ci_high"])))
            within = f"{level:.0%} interval {ends[0]:.3g} to {ends[1]:.3g}"
            parts.append(f"{where} it is {word} by {size} ({within})")
        elif known:
            parts.append(
                f"{where} the two are not told apart (difference {row['difference']:.3g} {unit}, "
                f"{level:.0%} interval {row['ci_low']:.3g} to {row['ci_high']:.3g}, {over})"
            )
        else:
            parts.append(f"{where} it differs by {size}, too few for a test")
    changed = len(found["settings"])
    said = f"The second study against the first: {'; '.join(parts)}." if parts else ""
    return f"{said} {changed} setting{'s differ' if changed != 1 else ' differs'}.".strip()


def counted(missing: pd.DataFrame) -> pd.DataFrame:
    """How many runs are finished in only one study: by architecture, states and kind of failure."""
    keys = ["architecture", "first", "second", "error"]
    return missing.groupby(keys, sort=True).size().rename("runs").reset_index()


def _runs(study: Study) -> pd.DataFrame:
    return study.runs.merge(study.provenance[["run_id", "corpus_fingerprint"]], on="run_id")


def _of_common_tasks(both: pd.DataFrame, one: Study, two: Study) -> tuple[pd.DataFrame, str]:
    """Means over the tasks that both studies have, and a note if these are not all."""
    tasks = [
        {task for task in task_columns(study.runs) if study.runs[task].notna().any()}
        for study in (one, two)
    ]
    if tasks[0] == tasks[1]:
        return both, ""
    common = sorted(tasks[0] & tasks[1])
    means = {
        f"downstream_mean_{side}": both[[f"{task}_{side}" for task in common]].mean(
            axis=1, skipna=False
        )
        if common
        else math.nan
        for side in (1, 2)
    }
    names = ", ".join(task.removeprefix("downstream_") for task in common) or "none"
    return both.assign(**means), f"only tasks that both have: {names}"


def _values(both: pd.DataFrame, quantity: str, side: int) -> pd.Series:
    if quantity.startswith("log10_"):
        return both[f"{quantity.removeprefix('log10_')}_{side}"].map(math.log10, na_action="ignore")
    return both[f"{quantity}_{side}"]


def _overall(both: pd.DataFrame, same: pd.Series, level: float, of_tasks: str) -> pd.DataFrame:
    rows = []
    for quantity, unit in QUANTITIES.items():
        known = (
            both[KEYS]
            .assign(change=_values(both, quantity, 2) - _values(both, quantity, 1))
            .dropna()
        )
        note = of_tasks if quantity == "downstream_mean" else ""
        if quantity == "upstream_nll" and not same.all():
            known, note = (
                known[same.loc[known.index]],
                f"{(~same).sum()} runs on another corpus are left out",
            )
        cells = seed_averages(known, ["change"], _CELL)["change"]
        count, mean = len(cells), cells.mean() if len(cells) else math.nan
        low = high = p = math.nan
        spread = cells.std() / math.sqrt(count) if count > 1 else math.nan
        if spread > 0:
            half = stats.t.ppf((1 + level) / 2, count - 1) * spread
            low, high, p = mean - half, mean + half, 2 * stats.t.sf(abs(mean) / spread, count - 1)
        # Equal changes in all cells leave no variance for a t test.
        elif spread == 0:
            low, high, p, note = (
                mean,
                mean,
                math.nan,
                note or "every cell changed alike: nothing to test",
            )
        else:
            note = note or f"{count} cells: not enough for an interval"
        identical = int((known["change"] == 0).sum())
        rows.append(
            {
                "quantity": quantity,
                "unit": unit,
                "n_cells": count,
                "difference": mean,
                "ci_low": low,
                "ci_high": high,
                "p": p,
                "identical": identical,
                "note": note,
            }
        )
    return pd.DataFrame(rows)


def _cells(both: pd.DataFrame, same: pd.Series, changed: set[str], level: float) -> pd.DataFrame:
    change = both["upstream_nll_2"] - both["upstream_nll_1"]
    half = stats.norm.ppf((1 + level) / 2) * np.hypot(
        both["upstream_nll_stderr_1"], both["upstream_nll_stderr_2"]
    )
    notes = [
        ", ".join(
            filter(
                None,
                ("" if alike else "another corpus", "other settings" if run in changed else ""),
            )
        )
        for alike, run in zip(same, both["run_id_1"], strict=True)
    ]
    found = both[KEYS].assign(
        upstream_first=both["upstream_nll_1"],
        upstream_second=both["upstream_nll_2"],
        upstream_change=change.where(same),
        ci_low=(change - half).where(same),
        ci_high=(change + half).where(same),
        downstream_first=both["downstream_mean_1"],
        downstream_second=both["downstream_mean_2"],
        downstream_change=both["downstream_mean_2"] - both["downstream_mean_1"],
        speed_ratio=both["steps_per_second_2"] / both["steps_per_second_1"],
        note=notes,
    )
    return found.sort_values(KEYS).reset_index(drop=True)


def _missing(one: Study, two: Study) -> pd.DataFrame:
    states = [
        _states(study).rename(columns={"state": side})
        for study, side in ((one, "first"), (two, "second"))
    ]
    found = states[0].merge(states[1], on=KEYS, how="outer", suffixes=("", "_2"))
    found = found.fillna({"first": "absent", "second": "absent"})
    found["error"] = found["error"].fillna(found.pop("error_2")).fillna("")
    lost = found[(found["first"] == "done") != (found["second"] == "done")]
    return lost[[*KEYS, "first", "second", "error"]].sort_values(KEYS).reset_index(drop=True)


def _states(study: Study) -> pd.DataFrame:
    done = study.runs[KEYS].assign(state="done", error=None).astype(object)
    left = study.unfinished[[*KEYS, "state", "error"]].astype(object)
    return pd.concat([frame for frame in (done, left) if len(frame)], ignore_index=True)


def _changes(
    first: Path, second: Path, both: pd.DataFrame
) -> list[tuple[dict[str, str], list[str]]]:
    """Settings that differ between common runs: the setting, its two values, and the runs."""
    places = [{_run_id(path): path for path in records.find_runs(root)} for root in (first, second)]
    found: dict[tuple[str, str, str], list[str]] = {}
    for mine, theirs in zip(both["run_id_1"], both["run_id_2"], strict=True):
        pair = (
            records.read_json(places[0][mine] / "config.json"),
            records.read_json(places[1][theirs] / "config.json"),
        )
        flat = [dict(_flat({key: config.get(key) for key in _SETTINGS})) for config in pair]
        for key in sorted(flat[0].keys() | flat[1].keys()):
            values = [json.dumps(side[key]) if key in side else "absent" for side in flat]
            if values[0] != values[1]:
                found.setdefault((key, *values), []).append(mine)  # pyright: ignore[reportArgumentType]
    return [
        ({"setting": key, "first": a, "second": b}, runs) for (key, a, b), runs in found.items()
    ]


def _run_id(path: Path) -> str:
    return records.read_json(path / "config.json").get("run_id", path.name)


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(prefix.removesuffix("."), value)]
    return [pair for key, inner in value.items() for pair in _flat(inner, f"{prefix}{key}.")]
