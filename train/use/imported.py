"""What a run's config.json says of a model that others trained, and the order of its ids."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from train.records import Row
from train.use.tokenizers import Order

OWN = "ArchZoo"
"""The name of the class of models that are written under the zoo's own names."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """Where a model is from.

    Attributes:
      kind: its class.
      start: their id of the token that rows start with.
      end: their id of the token that ends a text.
      size: the number of ids.
      files: the sha256 of each file of weights.
    """

    kind: str
    start: int
    end: int
    size: int
    files: Mapping[str, str]

    @staticmethod
    def of(config: Row) -> "Imported | None":
        """That of a run; None if the run was trained here."""
        found = config.get("imported")
        return None if found is None else Imported(**found)

    @property
    def order(self) -> Order:
        """The order of its ids."""
        return Order(self.start, self.end, self.size)


def reordered(
    params: Mapping[str, Any], axes: Mapping[str, tuple[str, ...]], ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Parameters with the vocabulary in another order.

    Args:
      params: by path.
      axes: the logical axes of each.
      ids: for each new place the old one.
    """
    found = {}
    for path, value in params.items():
        array = np.asarray(value)
        if "vocab" in axes[path]:
            array = np.take(array, ids, axis=axes[path].index("vocab"))
        found[path] = array
    return found
