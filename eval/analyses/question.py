"""What to ask of a study: the two quantities and every setting of the analysis."""

import dataclasses
from typing import Annotated, Any, ClassVar

import pandas as pd

from eval.analyses.settings import Errors, Support, Variance
from eval.data.cells import RunTable
from eval.data.quantity import (
    FLOPS,
    LOSS,
    Axis,
    Link,
    Quantities,
    Quantity,
    higher_slope_is_better,
)
from eval.data.study import Study
from train import ranges
from train.ranges import CountOrZero, Level, Range, Seed

REFERENCE = "transformer"


@dataclasses.dataclass(frozen=True)
class Question:
    """The quantities to analyse and the settings of the analysis.

    Example:
      >>> question = Question(x=FLOPS, y=LOSS, reference="transformer", level=0.9)
      >>> question.ask(y=SCORE)  # the same settings for another quantity

    Attributes:
      x: the quantity on the first axis; α_{x,y} is the slope of y on x.
      y: the quantity on the second axis.
      quantities: the columns for F, P, S, U and D, for analyses that need more than x and y.
      link: how qualities are read, see `eval.data.quantity.LINKS`.
      log_base: the base of every logarithm.
      reference: the architecture that every other one is compared with; None, for crossovers only,
        compares every pair.
      protocol: the scaling protocol; None takes the plain one, see `eval.data.cells.main_protocol`.
      errors: the source of randomness. `size`: the scatter of the sizes around the line. `seed`:
        the seeds only, with the sizes taken as given.
      variance: `separate`: a residual variance for each architecture and Welch's degrees of
        freedom. `moderated`: the same variances, shrunken towards each other. `pooled`: one
        variance for all. The last two have far more power with few sizes, but call an architecture
        different in far more than 5 % of studies if it, or the reference, is noisier than the
        others (`docs/verdicts.md` measures both). They are for noise that is known to be alike.
      support: `common`: slopes are compared over the sizes in the range that both architectures
        cover (to within half a size's step), because on a bent law slopes over different ranges
        differ; if too few sizes are left, there is no test. `all`: over all sizes.
      level: the confidence level; tests are at 1 - level.
      draws: the number of draws of every bootstrap.
      permutations: the number of permutations of every permutation test.
      seed: the seed of bootstraps and permutations.

    Raises:
      InputError: a setting is out of range.
    """

    x: Quantity = FLOPS
    y: Quantity = LOSS
    quantities: Quantities = Quantities()
    link: Link = "semilog"
    log_base: Annotated[float, Range(0, low_open=True)] = 10.0
    reference: str | None = REFERENCE
    protocol: str | None = None
    errors: Errors = "size"
    variance: Variance = "separate"
    support: Support = "common"
    level: Level = 0.95
    draws: CountOrZero = 2000
    permutations: CountOrZero = 2000
    seed: Seed = 0

    def __post_init__(self):
        """Checks that every setting is in range."""
        ranges.check(self)
        for quantity in (self.x, self.y):
            quantity.axis(self.link, self.log_base)

    def ask(self, **changes: Any) -> "Question":
        """The same question with some settings changed."""
        return dataclasses.replace(self, **changes)

    def axis(self, quantity: Quantity) -> Axis:
        """How a quantity is read under the settings of this question."""
        return quantity.axis(self.link, self.log_base)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """How x and y are read under these settings."""
        return self.axis(self.x), self.axis(self.y)

    @property
    def higher_slope_is_better(self) -> bool:
        """Whether a higher slope of y on x is better."""
        return higher_slope_is_better(*self.axes)

    @property
    def alpha(self) -> str:
        """The name of the slope, such as `F,U`."""
        return f"{self.x.symbol},{self.y.symbol}"

    def columns(self) -> dict[str, str]:
        """The columns that say what a row of a result is about."""
        x, y = self.axes
        return {"alpha": self.alpha, "link": self.link, "x_axis": x.label, "y_axis": y.label}


class Inquiry:
    """Base class of all analyses: a study, checked once, and a question about it.

    Attributes:
      needs: columns that the analysis needs besides architecture and size.
      question: the question, with every setting.
      runs: the checked runs of the protocol that is analysed.
      x: how the question's first quantity is read.
      y: how its second quantity is read.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, study: Study | pd.DataFrame | RunTable, question: Question | None = None):
        """Checks the study. Results are computed only when a method is called.

        Args:
          study: a study, its table of runs, or a table that is already checked.
          question: what to ask; by default upstream loss on FLOPs.

        Raises:
          InputError: see `eval.data.cells.RunTable`; or the protocol is not in the table; or this
            analysis cannot answer the question.
        """
        self.question = self._admitted(question or Question())
        self.x, self.y = self.question.axes
        self.runs = self._chosen(RunTable(study, *self.needs))

    def _admitted(self, question: Question) -> Question:
        """The question in the form that this analysis answers; raises InputError if it cannot."""
        return question

    def _chosen(self, everything: RunTable) -> RunTable:
        """Checks the numbers that are needed, and chooses the runs to analyse."""
        everything.check((self.question.x, self.question.y))
        return everything.main(self.question.protocol)
