"""Reads run tables and analyses them: slopes, comparisons, frontiers, claims, reports.

Read a study once and put a question to it. The answer is a tidy table:

    import eval
    from eval.data.quantity import FLOPS, LOSS

    study = eval.read_study("runs/cpu")
    comparison = eval.Comparison(study, eval.Question(x=FLOPS, y=LOSS, level=0.9))
    comparison.contrasts()

The names below are loaded when they are first used, so `import eval` is fast.
"""

import importlib
from typing import Any

_WHERE = {
    "read_study": "eval.data.study",
    "read_table": "eval.data.run_table",
    "Question": "eval.analyses.question",
    "Comparison": "eval.analyses.comparison",
    "Frontier": "eval.analyses.pareto",
    "Ranking": "eval.analyses.rank",
    "analyse": "eval.analyses.everything",
}

__all__ = list(_WHERE)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Loads one of the public names when it is first used."""
    if name not in _WHERE:
        raise AttributeError(f"module 'eval' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    """The public names too, which are not loaded yet."""
    return sorted({*globals(), *__all__})
