"""The vanilla Transformer in the form of T5.1.0. It overrides nothing.

Pre-norm residual layers with RMSNorm, ReLU feed-forward layers, relative position biases shared by
the layers of a stack, no biases in dense layers, one embedding for inputs, targets and logits
(Raffel et al., 2020, arXiv 1910.10683).
"""

import dataclasses

from arch_zoo.architecture import Architecture
from arch_zoo.registry import register


@register("transformer")
@dataclasses.dataclass(frozen=True)
class Transformer(Architecture):
    """The architecture that all others are compared with."""
