"""The settings of an analysis.

This module imports little, so that the command line starts quickly.
"""

import dataclasses
from typing import Annotated, Literal

from train import ranges
from train.ranges import Level, Range, Seed

FlopsConvention = Literal["forward", "without_head", "train_total", "per_batch"]
ParamsConvention = Literal["total", "non_embedding", "active"]
Variance = Literal["separate", "moderated", "pooled"]
Errors = Literal["size", "seed"]
Support = Literal["common", "all"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Choices of the analyses.

    Attributes:
      count_flops: what F means: forward FLOPs of a sequence, the same without the output head,
        those of the whole pretraining, or forward FLOPs of a batch of 65,536 input tokens. A
        constant factor moves no slope on a logarithmic axis; the head, whose share shrinks with
        size, does.
      count_params: what P means: all parameters, those outside the embedding, or those that a token
        uses.
      score: column of the downstream score, such as downstream_glue.
      reference: what all others are compared with; empty takes the vanilla transformer, or the
        first by name.
      variance: noise of each architecture by itself, the same shrunken towards each other, or one
        for all. The last two have more power, but call too many architectures different where one
        is noisier.
      errors: intervals from the scatter of the sizes around the line, or from the seeds only, the
        sizes taken as given.
      support: slopes are compared over the sizes in the range that both sides cover, or over all
        sizes: more of them, but on a bent law slopes over different ranges differ.
      log_base: base of every logarithm.
      level: confidence level of every interval.
      resampling_seed: of every bootstrap and permutation.
    """

    count_flops: FlopsConvention = "forward"
    count_params: ParamsConvention = "total"
    score: str = "downstream_mean"
    reference: str = ""
    variance: Variance = "separate"
    errors: Errors = "size"
    support: Support = "common"
    log_base: Annotated[float, Range(1, 1e6, low_open=True)] = 10.0
    level: Level = 0.95
    resampling_seed: Seed = 0

    def __post_init__(self):
        """Checks that every setting is in range."""
        ranges.check(self)


DEFAULTS = Settings()
