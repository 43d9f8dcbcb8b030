"""Every table that can be computed from a study, by name.

Each is a function of the runs and of the question's settings.
"""

from collections.abc import Callable

import pandas as pd

from eval.analyses import claims
from eval.analyses.comparison import Comparison
from eval.analyses.pareto import Frontier
from eval.analyses.protocols import DepthWidth, Protocols
from eval.analyses.question import Question
from eval.analyses.rank import Ranking
from eval.analyses.slopes import Slopes

Answer = Callable[..., pd.DataFrame]


def _method(kind: type, name: str, **own) -> Answer:
    return lambda table, **settings: getattr(kind(table, Question(**settings)), name)(**own)


def _function(function: Answer) -> Answer:
    return lambda table, **settings: function(table, Question(**settings))


COMPARISONS = {
    name: _method(Comparison, name)
    for name in ("equal_slopes", "contrasts", "equivalence", "levels", "multipliers", "crossovers")
}
RANKINGS = {
    name: _method(Ranking, name)
    for name in ("stability", "probability_best", "agreement", "discordant_pairs")
}
FRONTIERS = {
    name: _method(Frontier, name)
    for name in ("frontier", "membership", "attainment", "hypervolume", "gaps")
}
ANSWERS = {
    "slopes": _method(Slopes, "table"),
    **COMPARISONS,
    **RANKINGS,
    **FRONTIERS,
    "protocol_slopes": _method(Protocols, "table"),
    "protocol_differences": _method(Protocols, "differences"),
    "width_depth_grid": _method(DepthWidth, "grid"),
    "claims": _function(claims.scorecard),
}
