"""A golden: what an independent implementation computed, under the zoo's names of parameters.

This module uses only numpy. A golden of a whole model holds a batch, the logits, and the gradients
of the mean loss over the weighted target tokens. A golden of a single layer (`layer` is its path in
the model) holds the layer's inputs and a `cotangent`, its outputs, and the gradients of sum(output
* cotangent), including the gradient of the input `x`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "goldens"
_GROUPS = ("inputs", "weights", "outputs", "gradients", "constants")


@dataclasses.dataclass(frozen=True)
class Golden:
    """One case.

    Attributes:
      oracle: whose code it was, with versions.
      model: `name`, `size` and the overrides of the zoo's configuration.
      inputs: a batch in seqio's names, or a layer's inputs.
      weights: every parameter, by its path in the zoo joined with dots, in the zoo's layout.
      outputs: what was computed.
      gradients: one for every parameter.
      layer: the path of the layer that this golden is of, or None for a whole model.
      constants: state that is no parameter, such as random features.
    """

    oracle: str
    model: dict[str, Any]
    inputs: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    layer: str | None = None
    constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def save(self, name: str) -> None:
        """Writes `goldens/<name>.npz`; floats as float32."""
        about = json.dumps({"oracle": self.oracle, "model": self.model, "layer": self.layer})
        arrays: dict[str, np.ndarray] = {"about": np.array(about)}
        for group in _GROUPS:
            for key, array in getattr(self, group).items():
                kind = np.float32 if array.dtype.kind == "f" else np.int32
                arrays[f"{group}/{key}"] = np.asarray(array, kind)
        missing = set(self.weights) - set(self.gradients)
        if missing or not all(
            np.isfinite(array).all() for key, array in arrays.items() if key != "about"
        ):
            raise ValueError(f"{name}: not finite, or no gradient for {sorted(missing)}")
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)  # pyright: ignore[reportArgumentType]
        print(
            f"{name}: {len(self.weights)} parameters, "
            f"{(FOLDER / f'{name}.npz').stat().st_size / 1024:.0f} kB"
        )


def load(path: Path) -> Golden:
    """Reads one golden."""
    with np.load(path, allow_pickle=False) as file:
        groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _GROUPS}
        for key in file.files:
            if key != "about":
                group, name = key.split("/", 1)
                groups[group][name] = file[key]
        about = json.loads(str(file["about"]))
    inputs, weights, outputs, gradients, constants = (groups[group] for group in _GROUPS)
    return Golden(
        about["oracle"],
        about["model"],
        inputs,
        weights,
        outputs,
        gradients,
        about["layer"],
        constants,
    )
