"""In-context recall with noise (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from typing import Annotated, ClassVar

from train.probes.probe import Ids
from train.probes.recall import Recall
from train.ranges import Range, Rate


@dataclasses.dataclass(frozen=True)
class NoisyRecall(Recall):
    """Recall in which a fifth of the pairs is noise from ids of its own.

    Chance is one over the number of values.
    """

    name: ClassVar[str] = "noisy_recall"
    ids: Ids = 32
    noise_ids: Annotated[int, Range(0, 2**20)] = 16
    noise: Rate = 0.2
