"""Reads run tables and says what they can and cannot support: slopes, comparisons, frontiers, claims, reports.

Every analysis is a function from a run table (one row per run) to a tidy table, and lives in the
module of its subject; `import eval` is enough to reach them all, and a module is loaded when it is
first used:

    runs = eval.data.study.read_study("runs/cpu").runs
    eval.analyses.slopes.slopes(runs)
    eval.analyses.comparison.contrasts(runs)
"""

import importlib
from types import ModuleType

_MODULES = {
    **dict.fromkeys(("study", "run_table", "cells"), "data"),
    **dict.fromkeys(("regression", "bootstrap", "decision"), "stats"),
    **dict.fromkeys(
        (
            "slopes",
            "comparison",
            "crossover",
            "rank",
            "pareto",
            "protocols",
            "claims",
            "simulate",
            "everything",
        ),
        "analyses",
    ),
    **dict.fromkeys(("tables", "figures", "write"), "report"),
}


def __getattr__(name: str) -> ModuleType:
    """Loads a module of the evaluation on first use."""
    if name == "laws":
        return importlib.import_module("eval.laws")
    if name not in _MODULES:
        raise AttributeError(f"module 'eval' has no attribute {name!r}")
    return importlib.import_module(f"eval.{_MODULES[name]}.{name}")
