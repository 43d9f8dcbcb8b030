"""A question to a study: which quantity on which, and every setting of the answer."""

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
    """What is asked of a study, and how the answer is made.

    Attributes:
      x: the quantity on the first axis; α_{x,y} is the slope of y on x.
      y: the quantity on the second axis.
      quantities: which columns F, P, S, U and D mean, for what needs more than x and y.
      link: how qualities are read, see `eval.data.quantity.LINKS`.
      log_base: base of every logarithm.
      reference: the architecture that every other one is compared with; None is for crossovers of
        every pair.
      protocol: the scaling protocol; None takes the plain one, see `eval.data.cells.main_protocol`.
      errors: what is random. `size`: the scatter of the sizes around the line. `seed`: the seeds, the
        sizes taken as given.
      variance: `separate`: a residual variance for each architecture and Welch's degrees of freedom.
        `pooled`: one for all; more power, but in simulation it calls an architecture with three times
        the noise different in 10-25 % of studies.
      support: `common`: slopes are compared over the sizes in the range that both architectures cover
        (to within half a size's step), since on a bent law slopes over different ranges differ; where
        that leaves too few sizes there is no test. `all`: over all sizes.
      level: confidence level; tests are at 1 - level.
      draws: of every bootstrap.
      permutations: of every permutation test.
      seed: of bootstraps and permutations.
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
        """Refuses values out of range."""
        ranges.check(self)
        for quantity in (self.x, self.y):
            quantity.axis(self.link, self.log_base)

    def ask(self, **changes: Any) -> "Question":
        """The same question with other settings."""
        return dataclasses.replace(self, **changes)

    def axis(self, quantity: Quantity) -> Axis:
        """How this question reads a quantity."""
        return quantity.axis(self.link, self.log_base)

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """How x and y are read."""
        return self.axis(self.x), self.axis(self.y)

    @property
    def higher_slope_is_better(self) -> bool:
        """Whether a higher slope of y on x is better."""
        return higher_slope_is_better(*self.axes)

    @property
    def alpha(self) -> str:
        """The slope's name: `F,U`."""
        return f"{self.x.symbol},{self.y.symbol}"

    def columns(self) -> dict[str, str]:
        """The columns that say what a row of a table is about."""
        x, y = self.axes
        return {"alpha": self.alpha, "link": self.link, "x_axis": x.label, "y_axis": y.label}


class Inquiry:
    """A study that is asked a question: checked once, the protocol chosen. Every analysis is one.

    Attributes:
      needs: columns without which there is no answer, beside architecture and size.
      question: what is asked; every setting is there.
      runs: the checked runs of the protocol that is analysed.
      x: how the question's first quantity is read.
      y: how its second one is read.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, study: Study | pd.DataFrame | RunTable, question: Question | None = None):
        """Checks the study; nothing is computed before it is asked for.

        Args:
          study: a study, its table of runs, or a table that was checked already.
          question: what is asked of it; by default upstream loss on FLOPs.

        Raises:
          InputError: see `eval.data.cells.RunTable`; the protocol is not in the table; or the
            analysis does not answer such a question.
        """
        self.question = self._admitted(question or Question())
        self.x, self.y = self.question.axes
        self.runs = self._chosen(RunTable(study, *self.needs))

    def _admitted(self, question: Question) -> Question:
        """The question as this analysis answers it; refuses one that it cannot."""
        return question

    def _chosen(self, everything: RunTable) -> RunTable:
        """Checks the numbers that are needed, and chooses the runs that are analysed."""
        everything.check((self.question.x, self.question.y))
        return everything.main(self.question.protocol)
