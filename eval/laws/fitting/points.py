"""The points of a fit: inputs, fitted values, and which of them are independent."""

import dataclasses

import numpy as np
import pandas as pd

USUAL_K = 6.0  # forward and backward pass of a model that uses every parameter for every token
_KNOWN_K = (
    0.1,
    1e3,
)  # outside this range FLOPs or tokens have another unit


@dataclasses.dataclass(frozen=True)
class Runs:
    """The points of a fit.

    Attributes:
      x: natural logarithms of the inputs, name -> [n].
      y: the values to fit, raw [n].
      weight: [n]; scaled to mean one, so that a common factor has no effect.
      cluster: number of the run that each point belongs to [n].
      group: label [n]; all empty without groups.
      row: line in the file, where the header is line 1 [n].
      flops: measured training FLOPs [n], NaN where unknown.
    """

    x: dict[str, np.ndarray]
    y: np.ndarray
    weight: np.ndarray
    cluster: np.ndarray
    group: np.ndarray
    row: np.ndarray
    flops: np.ndarray

    def __post_init__(self):
        """Scales the weights to mean one."""
        if len(self.weight):
            object.__setattr__(self, "weight", self.weight / self.weight.mean())

    def take(self, index: np.ndarray) -> "Runs":
        """Only these points; `index` is a mask or positions."""
        rest = {
            f.name: getattr(self, f.name)[index] for f in dataclasses.fields(self) if f.name != "x"
        }
        return Runs(x={name: values[index] for name, values in self.x.items()}, **rest)

    @property
    def groups(self) -> list[str]:
        """Labels in order of appearance."""
        return list(dict.fromkeys(self.group))

    @property
    def clusters(self) -> int:
        """The number of independent runs."""
        return len(np.unique(self.cluster))

    @property
    def dependent(self) -> str:
        """Why statistics that assume independent points are not computed; empty if they are."""
        if self.clusters == len(self.y):
            return ""
        return f"{len(self.y)} rows are {self.clusters} independent runs or cells"

    @property
    def k(self) -> float:
        """FLOPs per parameter and token: the median of C / (N D) if FLOPs were measured, else 6."""
        ratio = self._ratio()
        return float(np.median(ratio)) if len(ratio) else USUAL_K

    def doubts_of_k(self) -> list[str]:
        """Warnings if the measured FLOPs do not agree with C = k N D for one k."""
        ratio = self._ratio()
        if not len(ratio):
            return []
        if not _KNOWN_K[0] < self.k < _KNOWN_K[1]:
            what = "are these the FLOPs of the whole training? Are N and D counted one by one?"
            return [f"C / (N D) is {self.k:.3g}, where 6 is usual: {what}"]
        if ratio.max() > 2 * ratio.min():
            return [
                f"C / (N D) runs from {ratio.min():.3g} to {ratio.max():.3g}; budgets use the "
                f"median, {self.k:.3g}"
            ]
        return []

    def _ratio(self) -> np.ndarray:
        if not {"N", "D"} <= set(self.x):
            return np.empty(0)
        ratio = self.flops / np.exp(self.x["N"] + self.x["D"])
        return ratio[np.isfinite(ratio)]


def points(
    y: np.ndarray,
    group: np.ndarray | None = None,
    cluster: np.ndarray | None = None,
    weight: np.ndarray | None = None,
    flops: np.ndarray | None = None,
    **inputs,
) -> Runs:
    """Makes Runs from arrays of raw values, with inputs by name: N=..., D=...

    By default every point is a run of its own.
    """
    n = len(y)
    weight, flops = (
        np.ones(n) if weight is None else weight,
        np.full(n, np.nan) if flops is None else flops,
    )
    x = {
        name: np.log(np.broadcast_to(np.asarray(values, float), n))
        for name, values in inputs.items()
    }
    labels = np.full(n, "") if group is None else np.asarray(group)
    codes = np.arange(n) if cluster is None else pd.factorize(np.asarray(cluster))[0]
    y, weight, flops = (np.asarray(values, float) for values in (y, weight, flops))
    return Runs(x, y, weight, codes, labels, np.arange(n) + 2, flops)
