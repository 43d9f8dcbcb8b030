"""What a fit minimises: the SUM over points of rho(residual), never its mean.

A mean only rescales the objective, but tolerances do not rescale with it, and fits of the mean have
been published that stopped early (alpha .38 instead of .35 on the Chinchilla points).

| name  | rho(r)                                                        | residual                          |
|-------|---------------------------------------------------------------|-----------------------------------|
| huber | r^2 / 2 for abs(r) <= delta, else delta (abs(r) - delta / 2)   | log y - log f (Hoffmann: 1e-3)    |
| l1    | abs(r)                                                        | log y - log f                     |
| l2    | r^2 / 2                                                       | log y - log f                     |

With `space="raw"` the residual is y - f.
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
)  # for refits, which start at an optimum and need only resolve their own spread
_WIDER = 30  # times delta: the zone through which a narrow Huber zone is entered


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
        """Raises InputError on a name, space or delta that has no meaning."""
        if self.name not in ("huber", "l1", "l2"):
            raise InputError(f"objective: {self.name!r} is not one of huber, l1, l2")
        if self.space not in ("log", "raw"):
            raise InputError(f"space: {self.space!r} is not one of log, raw")
        if not self.delta > 0:
            raise InputError(f"delta: {self.delta!r} is not above zero")

    def rho(self, r: np.ndarray) -> np.ndarray:
        """The objective's terms, elementwise."""
        if self.name == "l2":
            return 0.5 * r * r
        if self.name == "l1":
            return np.abs(r)
        size = np.abs(r)
        return np.where(size <= self.delta, 0.5 * r * r, self.delta * (size - 0.5 * self.delta))

    def psi(self, r: np.ndarray) -> np.ndarray:
        """D rho / d r."""
        if self.name == "l2":
            return r
        if self.name == "l1":
            return np.sign(r)
        return np.clip(r, -self.delta, self.delta)

    def curvature(self, r: np.ndarray) -> np.ndarray:
        """D psi / d r, zero outside Huber's zone."""
        return np.ones_like(r) if self.name == "l2" else (np.abs(r) <= self.delta).astype(float)

    def majorizer(self, r: np.ndarray) -> np.ndarray:
        """psi(r) / r: the weight of the parabola that touches rho at r and lies above it."""
        return (
            np.ones_like(r) if self.name == "l2" else self.delta / np.maximum(np.abs(r), self.delta)
        )

    def stages(self, scale: float = 1.0, near: bool = False) -> tuple["Objective", ...]:
        """Smooth objectives to minimise in turn, each started from the optimum of the one before.

        Far from the optimum a narrow Huber zone is empty and says nothing of the way, so a wide one
        comes first: of the 4,500 published Chinchilla starts 70 % reach the optimum without it and
        all with it. L1 has no curvature and is approached through zones that shrink to 1e-8 of
        `scale` (the size of y in raw space), or to 1e-5 from a start that is `near`.
        """
        if self.name == "l1":
            deltas = _L1_NEAR if near else _L1_DELTAS
            return tuple(Objective("huber", delta * scale, self.space) for delta in deltas)
        if self.name == "huber":
            return Objective("huber", _WIDER * self.delta, self.space), self
        return (self,)


HOFFMANN = Objective("huber", 1e-3, "log")
LEAST_SQUARES = Objective("l2", space="raw")
