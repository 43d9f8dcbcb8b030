"""Predicts the downstream score from N and D through the loss, in two steps or chained.

The two-step fit fits the score to the measured loss. The chained fit fits it to the loss that the
first law predicts, so the second law can absorb the bias of the first. Both predict through the
predicted loss. The laws of the two-step fit are resampled independently: given the measured losses,
the residuals of the score (from the task) say nothing about those of the loss law (from training).
In the chained fit the second law depends on the first one's predictions, so it has no intervals.
"""

import dataclasses
from typing import Literal

import numpy as np
import pandas as pd

from eval.laws.fitting import uncertainty
from eval.laws.fitting.fit import Fit, fit
from eval.laws.fitting.objective import HOFFMANN, LEAST_SQUARES, Objective
from eval.laws.forms.form import Form, Inputs
from eval.laws.law_table import Runs

Through = Literal["measured", "predicted"]


@dataclasses.dataclass(frozen=True)
class Chain:
    """A law of the loss and a law of the score.

    Attributes:
      loss: fit of the loss to the models' inputs.
      score: fit of the score to the loss.
      through: the loss that the score was fitted to.
    """

    loss: Fit
    score: Fit
    through: Through = "measured"

    def predict(
        self, x: Inputs, loss_SP: np.ndarray | None = None, score_SP: np.ndarray | None = None
    ) -> np.ndarray:
        """Scores at logarithms of the models' inputs: [n], or [S,n] for rows of both laws."""
        if loss_SP is None or score_SP is None:
            return self.score.predict({"L": np.log(self.loss.predict(x))})
        pairs = zip(np.log(self.loss.predict(x, loss_SP)), score_SP, strict=True)
        return np.stack(
            [
                self.score.predict({"L": log_loss_n}, theta_P[None])[0]
                for log_loss_n, theta_P in pairs
            ]
        )


def chain(
    loss_form: Form,
    score_form: Form,
    loss_runs: Runs,
    score_runs: Runs,
    through: Through = "measured",
    loss_objective: Objective = HOFFMANN,
    score_objective: Objective = LEAST_SQUARES,
) -> Chain:
    """Fits both laws.

    Args:
      loss_form: law of the loss, in N, D and so on.
      score_form: law of the score, in L.
      loss_runs: points with the loss as y.
      score_runs: points with the score as y, the measured loss as input L, and loss_form's inputs.
      through: `measured` is the two-step fit, `predicted` the chained one.
      loss_objective: objective of the first fit.
      score_objective: objective of the second fit.
    """
    first = fit(loss_form, loss_runs, loss_objective)
    if through == "predicted":
        score_runs = dataclasses.replace(
            score_runs, x={**score_runs.x, "L": np.log(first.predict(score_runs.x))}
        )
    return Chain(first, fit(score_form, score_runs, score_objective), through)


def predict(
    both: Chain, x: Inputs, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Scores at logarithms of inputs: columns `prediction`, `lower`, `upper`.

    Each draw pairs one refit of the loss law with one refit of the score law. The chained fit has
    no interval (NaN).
    """
    if both.through == "predicted":
        return pd.DataFrame({"prediction": both.predict(x), "lower": np.nan, "upper": np.nan})
    first = uncertainty.bootstrap(both.loss, draws, seed)
    second = uncertainty.bootstrap(both.score, draws, seed + 1)
    rows = min(len(first.theta_BP), len(second.theta_BP))
    drawn = both.predict(x, first.theta_BP[:rows], second.theta_BP[:rows])
    low, high = min(first, second, key=lambda d: d.degrees).interval(drawn, level)
    return pd.DataFrame({"prediction": both.predict(x), "lower": low, "upper": high})
