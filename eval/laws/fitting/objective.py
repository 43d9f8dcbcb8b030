"""The objectives of a fit: the SUM over points of rho(residual), never its mean.

A mean would only rescale the objective, but tolerances do not rescale with it. A published fit of
the mean stopped early for that reason (alpha .38 instead of .35 on the Chinchilla points).

| name  | rho(r)                                                       | residual        |
|-------|--------------------------------------------------------------|-----------------|
| huber | r^2 / 2 for abs(r) <= delta, else delta (abs(r) - delta / 2) | log y - log f   |
| l1    | abs(r)                                                       | log y - log f   |
| l2    | r^2 / 2                                                      | log y - log f   |

Hoffmann's delta is 1e-3. With `space="raw"` the residual is y - f.
"""

import dataclasses
from typing import Literal

import numpy as np

from train.records import InputError

Name = Literal["huber", "l1", "l2"]
Space = Literal["log", "raw"]

_L1_DELTAS = (3e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
_L1_NEAR = (
    1e-3,
    1e-4,
    1e-5,
)  # for refits, which start near the optimum
_WIDER = 30  # width of the first Huber zone, in units of delta


@dataclasses.dataclass(frozen=True)
class Objective:
    """A sum of rho over residuals.

    Attributes:
      name: huber, l1 or l2.
      delta: half-width of Huber's quadratic zone, in the residual's unit.
      space: residuals of the logarithm, or of the value itself.
    """

    name: Name = "huber"
    delta: float = 1e-3
    space: Space = "log"

    def __post_init__(self):
        """Raises InputError if a name, space or delta is invalid."""
        if self.name not in ("huber", "l1", "l2"):
            raise InputError(f"objective: {self.name!r} is not one of huber, l1, l2")
        if self.space not in ("log", "raw"):
            raise InputError(f"space: {self.space!r} is not one of log, raw")
        if not self.delta > 0:
            raise InputError(f"delta: {self.delta!r} is not above zero")

    def rho(self, r: np.ndarray) -> np.ndarray:
        """The terms of the objective, elementwise."""
        if self.name == "l2":
            return 0.5 * r * r
        if self.name == "l1":
            return np.abs(r)
        size = np.abs(r)
        return np.where(size <= self.delta, 0.5 * r * r, self.delta * (size - 0.5 * self.delta))

    def psi(self, r: np.ndarray) -> np.ndarray:
        """The derivative of rho."""
        if self.name == "l2":
            return r
        if self.name == "l1":
            return np.sign(r)
        return np.clip(r, -self.delta, self.delta)

    def curvature(self, r: np.ndarray) -> np.ndarray:
        """The derivative of psi; zero outside Huber's zone."""
        return np.ones_like(r) if self.name == "l2" else (np.abs(r) <= self.delta).astype(float)

    def majorizer(self, r: np.ndarray) -> np.ndarray:
        """psi(r) / r: the curvature of the parabola that touches rho at r from above."""
        return (
            np.ones_like(r) if self.name == "l2" else self.delta / np.maximum(np.abs(r), self.delta)
        )

    def stages(self, scale: float = 1.0, near: bool = False) -> tuple["Objective", ...]:
        """Smooth objectives to minimise in turn, each started from the optimum of the one before.

        Far from the optimum no residual is inside a narrow Huber zone, so there is no curvature to
        guide the search. So a wide zone comes first: without it 70 % of the 4,500 published
        Chinchilla starts reach the optimum, with it all do. L1 has no curvature at all. It is
        approached through zones that shrink to 1e-8 of `scale` (the size of y in raw space), or to
        1e-5 from a start that is `near`.
        """
        if self.name == "l1":
            deltas = _L1_NEAR if near else _L1_DELTAS
            return tuple(Objective("huber", delta * scale, self.space) for delta in deltas)
        if self.name == "huber":
            return Objective("huber", _WIDER * self.delta, self.space), self
        return (self,)


HOFFMANN = Objective("huber", 1e-3, "log")
LEAST_SQUARES = Objective("l2", space="raw")
