"""How many bits a model memorises per parameter, by architecture.

On uniform random tokens nothing can be learned but the tokens themselves. The memorised bits rise
with the number of tokens, up to a plateau: the capacity (Morris et al., 2025, arXiv 2505.24832).
"""

import dataclasses

import numpy as np
import pandas as pd
from scipy import stats

from eval.data.study import Study

TASK, METRIC = "memorisation", "memorised_bits"
MOST_GAIN = 0.02
"""A capacity is converged if neither twice the steps nor most text adds more than this share."""


@dataclasses.dataclass(frozen=True)
class Capacity:
    """The capacities of a study.

    Attributes:
      study: runs on random tokens, several numbers of rows for each cell of architecture and size.
      level: of the intervals.
    """

    study: Study
    level: float = 0.95

    def points(self) -> pd.DataFrame:
        """The memorised bits per parameter on each number of tokens, at the best rate.

        Returns:
          Columns architecture, size, unique_tokens, steps, bits (all that was memorised),
          bits_per_param and runs (from which the best was taken). Empty if no run was trained on
          random tokens.
        """
        evals = self.study.evals
        bits = evals[(evals.task == TASK) & (evals.metric == METRIC)]
        runs = self.study.runs.merge(bits[["run_id", "value"]], on="run_id")
        keys = ["architecture", "size", "unique_tokens", "steps"]
        best = runs.sort_values("value").groupby(keys, as_index=False).tail(1)
        counts = runs.groupby(keys).size().rename("runs")
        found = best[[*keys, "params_total", "value"]].rename(columns={"value": "bits"})
        found["bits_per_param"] = found.bits / found.params_total
        found = found.join(counts, on=keys).drop(columns="params_total")
        return found.sort_values(keys).reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        """The capacity of each architecture.

        The plateau of a size is every number of tokens from the one of the most memorised bits on,
        and that one; an architecture's capacity is the mean over the plateaus of its sizes, with an
        interval from their scatter.

        Returns:
          Columns architecture, bits_per_param, ci_low, ci_high (NaN with one point), points, gain
          (the largest share that twice the steps added; NaN if none was tried) and converged
          (False: a lower bound, as more steps or more text memorise more). The largest first.
        """
        points = self.points()
        rows = []
        for architecture, own in points.groupby("architecture"):
            usual = own.groupby("size").steps.transform("min")
            sizes = [part for _, part in own[own.steps == usual].groupby("size")]
            values = pd.concat(map(_plateau, sizes)).bits_per_param.to_numpy()
            gain, reached = _gain(own, usual), all(map(_is_flat, sizes))
            low, high = _interval(values, self.level)
            converged = reached and bool(gain < MOST_GAIN)
            rows.append((architecture, values.mean(), low, high, len(values), gain, converged))
        columns = [
            "architecture", "bits_per_param", "ci_low", "ci_high", "points", "gain", "converged"
        ]  # fmt: skip
        table = pd.DataFrame(rows, columns=columns)
        return table.sort_values("bits_per_param", ascending=False).reset_index(drop=True)


def _plateau(own: pd.DataFrame) -> pd.DataFrame:
    """The points of one size from the most memorised bits on."""
    own = own.sort_values("unique_tokens")
    return own.iloc[int(own.bits_per_param.to_numpy().argmax()) :]


def _is_flat(own: pd.DataFrame) -> bool:
    """Whether most text adds little to the bits of the amount before it."""
    bits = own.sort_values("unique_tokens").bits.to_numpy()
    return len(bits) > 1 and bool(bits[-1] < (1 + MOST_GAIN) * bits[-2])


def _gain(own: pd.DataFrame, usual: pd.Series) -> float:
    """The largest share that more steps added to the bits on the same tokens."""
    keys = ["size", "unique_tokens"]
    before = own[own.steps == usual].set_index(keys).bits
    longer = own[own.steps > usual].set_index(keys).bits
    shares = longer / before.reindex(longer.index) - 1
    return float(shares.max()) if len(shares.dropna()) else np.nan


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Student's interval for the mean."""
    if len(values) < 2:
        return np.nan, np.nan
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * error
    return float(values.mean() - half), float(values.mean() + half)
