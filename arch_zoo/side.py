"""The sides of a model, its stacks: encoder and decoder, and how they differ."""

import dataclasses
from typing import Literal

Family = Literal["encoder_decoder", "decoder_only"]
Prefix = Literal["causal", "bidirectional"]


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a model. The seams of `Architecture` take the side that they build for.

    Attributes:
      name: `encoder` or `decoder`, as in the names of parameters, of a batch's features and of a
        configuration's keys.
      causal: a position sees only those up to itself, and the side can decode step by step.
      reads_memory: its blocks attend to the output of another side.
      prefix: on a causal side, the positions of a prefix see all of that prefix.
    """

    name: str
    causal: bool
    reads_memory: bool
    prefix: bool = False

    @property
    def looks_ahead(self) -> bool:
        """Whether some position may see a later one."""
        return self.prefix or not self.causal

    @property
    def limit(self) -> str:
        """The configuration's key for the longest row of this side."""
        return "max_target_length" if self.causal else "max_input_length"


ENCODER = Side("encoder", causal=False, reads_memory=False)
DECODER = Side("decoder", causal=True, reads_memory=True)
CAUSAL = Side("decoder", causal=True, reads_memory=False)
PREFIX = Side("decoder", causal=True, reads_memory=False, prefix=True)

SIDES: dict[tuple[str, str], tuple[Side, ...]] = {
    ("encoder_decoder", "causal"): (ENCODER, DECODER),
    ("decoder_only", "causal"): (CAUSAL,),
    ("decoder_only", "bidirectional"): (PREFIX,),
}
"""The sides of a model by its family and prefix; a pair that is missing is no model."""
