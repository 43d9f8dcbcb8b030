"""What counts as a floating point operation: papers differ, and conclusions have turned on it.

Porian et al. (2024, arXiv 2406.19146) move the compute-optimal exponent of Kaplan et al. (2020)
from .83 to .70 only by counting the output layer. Nothing here needs JAX.
"""

import dataclasses
from typing import Any, Literal, get_args, get_type_hints

from arch_zoo.registry import ConfigError


@dataclasses.dataclass(frozen=True)
class Convention:
    """What `count_flops` counts; by default the products that the definition of the model asks for.

    Attributes:
      head: whether the products of the output layer count.
      embedding: how a token finds its vector: by `lookup`, free of charge, or as a `one_hot` row
        times the table, as in Mesh TensorFlow and in Hoffmann et al. (2022, arXiv 2203.15556,
        appendix F).
      attention: products of queries with keys and of weights with values: those of all pairs of
        positions (`full`), in causal self-attention only of pairs that are not masked (`causal`),
        or of none (`none`, as in C = 6 N D).
      experts: `active`, a token meets its one expert; or `padded`, all places that experts hold in
        training, also those that stay empty.
      sharing: a block that runs at many depths counts at each `application`, or once, by its
        `weights`.
    """

    head: bool = True
    embedding: Literal["lookup", "one_hot"] = "lookup"
    attention: Literal["full", "causal", "none"] = "full"
    experts: Literal["active", "padded"] = "active"
    sharing: Literal["application", "weights"] = "application"

    def __post_init__(self):
        """Refuses what is not among the named values."""
        for name, allowed in choices().items():
            if getattr(self, name) not in allowed:
                names = ", ".join(map(str, allowed))
                raise ConfigError(
                    f"convention {name}={getattr(self, name)!r}: must be one of {names}"
                )


def choices() -> dict[str, tuple[Any, ...]]:
    """The allowed values of every field of `Convention`, the default first."""
    return {
        name: get_args(kind) or (True, False) for name, kind in get_type_hints(Convention).items()
    }


DEFAULT = Convention()
