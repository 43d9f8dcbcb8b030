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
    """The settings of all analyses.

    Attributes:
      count_flops: what F means: forward FLOPs of a sequence, the same without the output head,
        those of the whole pretraining, or forward FLOPs of a batch of 65,536 input tokens (of
        encoder-decoders only). A constant factor moves no slope on a logarithmic axis; the head,
        whose share shrinks with size, does.
      count_params: what P means: all parameters, those outside the embedding, or those that a token
        uses.
      score: column of the downstream score, such as downstream_glue.
      reference: the architecture that all others are compared with; empty takes the vanilla
        transformer, or the first architecture by name.
      variance: separate estimates the noise of each architecture; moderated shrinks these estimates
        towards each other; pooled has one for all. The last two have more power, but call too many
        architectures different if one is noisier.
      errors: size computes intervals from the scatter of the sizes around the line, seed only from
        the scatter of the seeds, with the sizes taken as given.
      support: common compares slopes over the sizes in the range that both architectures cover, all
        over all sizes; these are more, but on a bent law slopes over different ranges differ.
      log_base: base of every logarithm.
      tuning: a file of `python -m eval tune RUNS --out FILE`, for the regrets of the learning rates
        that were used; empty for none.
      level: confidence level of every interval.
      resampling_seed: seed of every bootstrap and permutation test.
    """

    count_flops: FlopsConvention = "forward"
    count_params: ParamsConvention = "total"
    score: str = "downstream_mean"
    reference: str = ""
    variance: Variance = "separate"
    errors: Errors = "size"
    support: Support = "common"
    log_base: Annotated[float, Range(1, 1e6, low_open=True)] = 10.0
    tuning: str = ""
    level: Level = 0.95
    resampling_seed: Seed = 0

    def __post_init__(self):
        """Checks that every setting is in range."""
        ranges.check(self)


DEFAULTS = Settings()
