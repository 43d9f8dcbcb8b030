"""The critical batch size: steps and examples needed to a loss, for several batch sizes.

Kaplan's (S / S_min - 1) (E / E_min - 1) = 1 with E = B S is S = S_min + E_min / B, a line in 1 / B.
The critical batch is E_min / S_min: there, a loss takes twice S_min steps and twice E_min tokens.
"""

import math

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.sources import inference as infer
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.measured import Measured, rows_of, same
from eval.stats.decision import Finding, all_must, judge, one_enough

_BATCHES = 4  # the fewest batch sizes of a size
_TARGETS = 4  # losses to which steps are counted


def critical(m: Measured) -> Finding:
    """Whether large batches save steps and small ones save examples, at the lowest common loss."""
    table = steps_needed(m)
    largest = table[table["N"] == table["N"].max()]
    lowest = largest[largest["target"] == largest["target"].min()]
    design_n2, one_n = relative_errors(lowest)
    s, e = (infer.linear(design_n2, one_n, weight_2) for weight_2 in np.eye(2))
    verdict, p = judge(
        all_must([float(s.p_above), float(e.p_above)]),
        one_enough([float(s.p_below), float(e.p_below)]),
        m.level,
    )
    # By the delta method, on a logarithm where there is one.
    at = float(e.value / s.value)
    positive = at > 0
    weight_2 = np.array([1 / s.value, -1 / e.value]) * (1 if positive else at)
    both = infer.linear(design_n2, one_n, weight_2)
    half = float(stats.t.ppf((1 + m.level) / 2, both.df) * both.se)
    ends = (at * math.exp(-half), at * math.exp(half)) if positive else (at - half, at + half)
    note = f"at {lowest['loss'].iloc[0]:.3g} nats, of the largest size"
    return Finding(at, *ends, p, verdict, note)


def grows(m: Measured) -> Finding:
    """The exponent of the critical batch in 1 / loss, with an error from leaving out each run."""
    table = steps_needed(m)
    whole = _exponent(table)
    runs = table["run"].unique()
    left = np.array([_exponent(table[table["run"] != run]) for run in runs])
    if not np.isfinite([whole, *left]).all():
        raise Open("a critical batch size is not above zero")
    df = len(runs) - 2 * table["N"].nunique()
    need(df > 0, "too few runs for an error")
    se = math.sqrt((len(runs) - 1) / len(runs) * float(((left - left.mean()) ** 2).sum()))
    return infer.above(infer.estimate(whole, se, df), m.level)


def steps_needed(m: Measured) -> pd.DataFrame:
    """Steps needed: one row per run and target, with run, N, B, target (its number), loss, S."""
    course = m.course("heldout")
    runs = rows_of(m.runs, [run for run in course if run in set(m.runs["run_id"])])
    runs = runs.assign(B=runs["T"] / runs["steps"])
    runs = runs[np.isfinite(runs["B"])].assign(level=same(runs["B"].to_numpy()))
    several = runs.groupby("size")["level"].transform("nunique")
    runs = runs[several >= _BATCHES]
    need(len(runs) > 0, f"no size that was trained with {_BATCHES} batch sizes")
    rows = []
    for _, part in runs.groupby("size", sort=True):
        lowest = {r: np.minimum.accumulate(course[r]["heldout"].to_numpy()) for r in part["run_id"]}
        first, last = max(b[-1] for b in lowest.values()), min(b[0] for b in lowest.values())
        if not first < last:
            continue
        targets = np.linspace(first, last, _TARGETS + 1)[:-1]
        for run, n, b in part[["run_id", "N", "B"]].itertuples(index=False):
            log_steps = np.log(course[run]["step"].to_numpy(float))
            steps = np.exp(np.interp(-targets, -lowest[run], log_steps))
            rows += [(run, n, b, k, targets[k], steps[k]) for k in range(_TARGETS)]
    if not rows:
        raise Open("no loss that all batch sizes reach after their first evaluation")
    return pd.DataFrame(rows, columns=["run", "N", "B", "target", "loss", "S"])


def relative_errors(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Design of S_min and E_min for relative errors of the steps: 1 = S_min / S + E_min / (B S)."""
    s, b = rows["S"].to_numpy(float), rows["B"].to_numpy(float)
    return np.column_stack([1 / s, 1 / (b * s)]), np.ones(len(s))


def _exponent(table: pd.DataFrame) -> float:
    """Minus the slope of log critical batch on log loss, mean over sizes; NaN if there is none."""
    slopes = []
    for _, part in table.groupby("N"):
        loss, log_b = [], []
        for _, rows in part.groupby("target"):
            s_min, e_min = np.linalg.lstsq(*relative_errors(rows), rcond=None)[0]
            loss.append(float(rows["loss"].iloc[0]))
            log_b.append(math.log(e_min / s_min) if e_min > 0 and s_min > 0 else np.nan)
        known = np.isfinite(log_b).all()
        slopes.append(-np.polyfit(np.log(loss), log_b, 1)[0] if known else np.nan)
    return float(np.mean(slopes))
