"""The study's claims as hypotheses: an effect, an interval, a verdict, and what would settle it."""

from collections.abc import Mapping

import pandas as pd

from eval.cells import AXES, Axes
from eval.compare import REFERENCE

VERDICTS = ("supported", "contradicted", "cannot be told from these data", "not tested")


def scorecard(
    table: pd.DataFrame, *, axes: Axes = AXES, reference: str = REFERENCE, names: Mapping[str, str] | None = None,
    protocol: str | None = None, errors: str = "size", variance: str = "separate", level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Every claim of Tay et al. (2022, arXiv 2207.10551) against these runs.

    Args:
      names: the table's names for the architectures of the claims, where they differ from the zoo's (`{"mos": "my-mos"}`).

    Returns:
      One row per claim or part of a claim, in the paper's order, with columns
        claim (1 to 9), part (`a`, `b`, ... or empty), text (what the paper says), hypothesis (what was tested here),
        measure (what `effect` is, with its unit), effect, ci_low, ci_high, p (of the verdict), verdict (of VERDICTS),
        would_settle (in plain words: which runs would decide it), note.
    """
    raise NotImplementedError
