"""The best and the last checkpoint of every run: whether it became worse late in training.

Godey et al. 2024 (arXiv 2404.07647) find it in small models and call it saturation.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from eval.data.study import read_study
from eval.data.table import Table
from eval.stats.decision import holm, verdict
from train.records import InputError

_FEW = 3  # checkpoints for a line with an error
_COLUMNS = (
    "run_id checkpoints best best_step last last_step last_over_best late_change ci_low ci_high p"
)


@dataclasses.dataclass(frozen=True)
class CheckpointColumns:
    """The meaning of the columns of a table with one row per checkpoint.

    Attributes:
      run_id: column that names the runs.
      step: column with the training step, or with the tokens read.
      value: column with the loss, the perplexity or the score.
      where: keep only the rows where these columns have these values: `shots=zero`; of a study's
        directory, the runs that meet these conditions.
      higher_is_better: large values are good, as of an accuracy.
    """

    run_id: str = "run_id"
    step: str = "step"
    value: str = "value"
    where: tuple[str, ...] = ()
    higher_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class CheckpointTable:
    """How the quality of runs changed over training.

    Attributes:
      frame: one row per run and checkpoint, with columns run_id, step (above 0) and value.
      higher_is_better: whether large values are good, as of an accuracy.
      left_out: the number of rows without a value.
    """

    frame: pd.DataFrame
    higher_is_better: bool = False
    left_out: int = 0

    def table(self, level: float = 0.95) -> pd.DataFrame:
        """The best and the last checkpoint of every run.

        The late change is that of a straight line through the second half of training, from its
        first checkpoint to its last. Its error takes the checkpoints for independent; where a
        course wanders slowly, it is too small.

        Returns:
          Columns run_id, checkpoints, best, best_step, last, last_step, last_over_best,
          late_change (in the unit of the value), ci_low, ci_high, p_holm (corrected for the number
          of runs), verdict (becomes worse, becomes better, or not told apart) and note. NaN and
          `not tested` where the second half has fewer than three checkpoints.
        """
        sign = 1.0 if self.higher_is_better else -1.0
        rows = []
        for run, part in self.frame.groupby("run_id", sort=True):
            part = part.sort_values("step", kind="stable")
            value, step = part["value"].to_numpy(float), part["step"].to_numpy(float)
            i = int((sign * value).argmax())
            ends = (value[i], step[i], value[-1], step[-1], value[-1] / value[i])
            rows.append((run, len(part), *ends, *_late(step, value, level)))
        table = pd.DataFrame(rows, columns=_COLUMNS.split())
        table["p_holm"] = holm(table.pop("p"))
        table["verdict"] = [
            verdict(sign * t, p, level, "becomes better", "becomes worse")
            for t, p in zip(table["late_change"], table["p_holm"], strict=True)
        ]
        few = f"fewer than {_FEW} checkpoints in the second half of training"
        table["note"] = ["" if known else few for known in table["p_holm"].notna()]
        return table


def _late(step: np.ndarray, value: np.ndarray, level: float) -> tuple[float, float, float, float]:
    """The change over the second half with its interval and p value; NaN with few checkpoints."""
    late = step >= step[-1] / 2
    if late.sum() < _FEW:
        return np.nan, np.nan, np.nan, np.nan
    x = step[late] / (step[-1] - step[late][0])
    change, _, _, p, error = np.asarray(stats.linregress(x, value[late]), float)
    half = float(stats.t.ppf((1 + level) / 2, len(x) - 2) * error)
    return float(change), float(change) - half, float(change) + half, float(p)


def of_study(path: Path, where: tuple[str, ...] = ()) -> CheckpointTable:
    """The held-out losses of a study's runs, in nats.

    Raises:
      InputError: from `read_study`, or no run was evaluated during training.
    """
    study = read_study(path, where)
    if study.runs.empty:
        raise InputError(f"{path}: no run is finished{study.not_finished}")
    rows = study.histories
    loss = rows[(rows.task == "corpus") & (rows.split == "validation") & (rows.metric == "nll")]
    frame = loss[loss.step > 0][["run_id", "step", "value"]]
    if frame.empty:
        raise InputError(f"{path}: no finished run was evaluated during pretraining (eval_every)")
    return CheckpointTable(frame)


def of_table(path: Path, columns: CheckpointColumns = CheckpointColumns()) -> CheckpointTable:
    """Reads a table with a row for every checkpoint; rows without a value are left out.

    Raises:
      InputError: the file or a column is missing or malformed, or a run has a step twice.
    """
    table = Table.read(path, columns.where)
    for option in ("run_id", "step", "value"):
        table.require(getattr(columns, option), option)
    known = table.numbers(columns.value).notna()
    table = table.take(table.frame.index[known])
    frame = pd.DataFrame(
        {
            "run_id": table.texts(columns.run_id),
            "step": table.wholes(columns.step),
            "value": table.numbers(columns.value),
        }
    )
    for row in frame.index[frame["step"] < 0]:
        table.refuse(row, columns.step, "is below 0")
    for row in frame.index[frame.duplicated(["run_id", "step"])]:
        again = f"is in the table twice for {frame['run_id'].loc[row]!r}; choose rows by --where"
        table.refuse(row, columns.step, again)
    frame = frame[frame["step"] > 0]
    if frame.empty:
        raise InputError(f"{path}: no row with a step above 0 has a {columns.value!r}")
    return CheckpointTable(frame, columns.higher_is_better, int((~known).sum()))
