"""The sides of a model: encoder and decoder, and how they differ."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a model. The seams of `Architecture` take the side that they build for.

    Attributes:
      name: `encoder` or `decoder`, as in the names of parameters, of a batch's features and of a
        configuration's keys.
      causal: a position sees only those up to itself, and the side can decode step by step.
      reads_memory: its blocks attend to the output of another side.
    """

    name: str
    causal: bool
    reads_memory: bool


ENCODER = Side("encoder", causal=False, reads_memory=False)
DECODER = Side("decoder", causal=True, reads_memory=True)
