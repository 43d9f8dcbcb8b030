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

_MODULES = (
    "store",
    "foreign",
    "slopes",
    "compare",
    "crossover",
    "rank",
    "pareto",
    "protocols",
    "claims",
    "simulate",
    "scaling_laws",
    "analyses",
    "tables",
    "figures",
    "report",
)


def __getattr__(name: str) -> ModuleType:
    """Loads a module of the evaluation on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'eval' has no attribute {name!r}")
    return importlib.import_module(f"eval.{name}")
