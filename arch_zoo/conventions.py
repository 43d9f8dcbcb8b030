"""What counts as a floating point operation. Papers differ, and their conclusions can depend on it.

Counting the output layer alone moves the compute-optimal exponent of Kaplan et al. (2020) from .83
to .70 (Porian et al., 2024, arXiv 2406.19146). This module does not need JAX.
"""

import dataclasses
from typing import Any, Literal, get_args, get_type_hints

from arch_zoo.registry import ConfigError


@dataclasses.dataclass(frozen=True)
class Convention:
    """What `count_flops` counts. By default these are the products in the definition of the model.

    Attributes:
      head: whether the products of the output layer count.
      embedding: how a token gets its vector: by `lookup`, which costs nothing, or as a `one_hot`
        row times the table, as in Mesh TensorFlow and in Hoffmann et al. (2022, arXiv 2203.15556,
        appendix F).
      attention: which products of queries with keys and of weights with values count: all pairs of
        positions (`full`), in causal self-attention only pairs that are not masked (`causal`), or
        none (`none`, as in C = 6 N D).
      experts: `active` counts the experts that a token uses; `padded` counts all places that
        experts hold in training, including those that stay empty.
      sharing: whether a block that runs at many depths counts at each `application`, or once, by
        its `weights`.
    """

    head: bool = True
    embedding: Literal["lookup", "one_hot"] = "lookup"
    attention: Literal["full", "causal", "none"] = "full"
    experts: Literal["active", "padded"] = "active"
    sharing: Literal["application", "weights"] = "application"

    def __post_init__(self):
        """Refuses values that are not listed above."""
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
