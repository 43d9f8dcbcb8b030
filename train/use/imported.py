"""What a run's config.json says of a model that others trained, and the order of its ids."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from arch_zoo.config import ModelConfig
from train.records import Row
from train.use.tokenizers import Order

OWN = "ArchZoo"
"""The name of the class of models that are written under the zoo's own names."""

KEY = "arch_zoo"
"""Under which config.json says how a model of ours was trained."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a model was trained, as far as using it depends on that.

    Attributes:
      inputs_end: its inputs end with the end token.
      objective: of pretraining.
      input_length: tokens of an input in pretraining.
      target_length: of a target.
    """

    inputs_end: bool
    objective: str
    input_length: int
    target_length: int


def usual(cfg: ModelConfig) -> Trained:
    """What is assumed of a model that others trained: T5's lengths, or rows of 512 tokens."""
    most = cfg.max_input_length, cfg.max_target_length
    if cfg.family == "encoder_decoder":
        known = {"inputs_end": True, "objective": "span_corruption"}
        return Trained(**known, input_length=min(512, most[0]), target_length=min(114, most[1]))
    known = {"inputs_end": False, "objective": "causal_lm"}
    return Trained(**known, input_length=0, target_length=min(512, most[1]))


@dataclasses.dataclass(frozen=True)
class Imported:
    """Where a model is from.

    Attributes:
      kind: its class.
      start: their id of the token that rows start with.
      end: their id of the token that ends a text.
      size: the number of ids.
      files: the sha256 of each file of weights.
      trained: how it was trained, known or assumed.
    """

    kind: str
    start: int
    end: int
    size: int
    files: Mapping[str, str]
    trained: Trained

    @staticmethod
    def of(config: Row) -> "Imported | None":
        """That of a run; None if the run was trained here."""
        found = config.get("imported")
        if found is None:
            return None
        return Imported(**{**found, "trained": Trained(**found["trained"])})

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
