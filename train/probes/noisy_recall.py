"""In-context recall with noise (Poli et al., 2024, arXiv 2403.17844)."""

import dataclasses
from typing import Annotated, ClassVar

from train.probes.recall import Recall
from train.ranges import Range, Rate


@dataclasses.dataclass(frozen=True)
class NoisyRecall(Recall):
    """Recall in which a fifth of the pairs is noise from ids of its own.

    Chance is 1 of the values.
    """

    name: ClassVar[str] = "noisy_recall"
    ids: Annotated[int, Range(4, 2**20)] = 32
    noise_ids: Annotated[int, Range(0, 2**20)] = 16
    noise: Rate = 0.2
