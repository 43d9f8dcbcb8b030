"""The interface of every law: its symbols, a prediction with its gradient, and starts for a search.

A form predicts a whole batch of parameter rows at once. It takes the natural logarithms of its
inputs and works in search coordinates, in which a positive parameter is its logarithm; `publish`
turns these into the published symbols. Axes: `S` rows of parameters, `P` parameters, `n` points.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import numpy as np

Inputs = Mapping[str, np.ndarray]  # input name -> natural logarithm of its values, [n]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One symbol of a law.

    Attributes:
      symbol: as published, in ASCII.
      meaning: what it means for the models, in words.
      lower: the smallest value searched, in published units.
      upper: the largest value searched.
      positive: whether it is searched as a logarithm.
    """

    symbol: str
    meaning: str
    lower: float
    upper: float
    positive: bool = False


class Form:
    """Base class of all laws.

    Attributes:
      name: the value of `--form`.
      formula: as published.
      source: the paper.
      meaning: what the law claims.
      inputs: names of the inputs, from N, D, C, S, U, experts, x and L (loss).
      output: what it predicts: loss, error or accuracy.
      scale: the largest possible value, 1 for fractions and 100 for percent; None for losses.
      space: whether `evaluate` returns logarithms or raw values.
      parameters: in the order of the last axis of theta.
      floor_symbol: the irreducible part, whose lower bound counts as zero; None if there is none.
    """

    name: str
    formula: ClassVar[str]
    source: ClassVar[str]
    meaning: ClassVar[str]
    inputs: tuple[str, ...]
    output: str = "loss"
    scale: float | None = None
    space: Literal["log", "raw"] = "log"
    parameters: tuple[Parameter, ...]
    floor_symbol: str | None = None

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Predictions [S,n] in `space`, and their gradient [S,P,n] in search coordinates."""
        raise NotImplementedError

    def starts(self, x: Inputs, y: np.ndarray) -> np.ndarray:
        """A grid of starts [S,P] in search coordinates, scaled to the data; y [n] is raw."""
        raise NotImplementedError

    def curvature(self, theta_SP: np.ndarray, x: Inputs, weight_Sn: np.ndarray) -> np.ndarray:
        """sum_n weight * d2 f / d theta2 [S,P,P].

        Forward differences of the analytic gradient, unless overridden.
        """
        columns, base_SP = [], contract(self.evaluate(theta_SP, x)[1], weight_Sn)
        for p in range(theta_SP.shape[1]):
            step_S = 1e-6 * (1 + np.abs(theta_SP[:, p]))
            moved_SP = theta_SP.copy()
            moved_SP[:, p] += step_S
            columns.append(
                (contract(self.evaluate(moved_SP, x)[1], weight_Sn) - base_SP) / step_S[:, None]
            )
        hess_SPP = np.stack(columns, -1)
        # Forward differences are not exactly symmetric.
        return 0.5 * (hess_SPP + hess_SPP.swapaxes(1, 2))

    def centre(self, x: Inputs) -> np.ndarray:
        """Matrix [P,P] from nearly independent coordinates to search coordinates.

        Damping acts on the former. The estimate of a coefficient at input 1 depends strongly on
        that of its exponent, because the data are some twenty powers of e away; at the middle of
        the data it does not.
        """
        return np.eye(len(self.parameters))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Published symbols, in the order of `publish`'s last axis."""
        return tuple(p.symbol for p in self.parameters)

    @property
    def coefficient_symbols(self) -> tuple[str, ...]:
        """Parameters that only scale a term; these are the ones that `centre` moves."""
        probe = {name: np.array([1.0, 2.0]) for name in self.inputs}
        moved = (self.centre(probe) != np.eye(len(self.parameters))).any(1)
        return tuple(symbol for symbol, yes in zip(self.symbols, moved, strict=True) if yes)

    @property
    def exponent_symbols(self) -> tuple[str, ...]:
        """Parameters that shape the law: neither coefficients nor the floor."""
        rest = {*self.coefficient_symbols, self.floor_symbol}
        return tuple(symbol for symbol in self.symbols if symbol not in rest)

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Converts search coordinates [..., P] to published values [..., P]."""
        return np.where(self._positive, np.exp(np.where(self._positive, theta, 0.0)), theta)

    def search(self, published: Mapping[str, float]) -> np.ndarray:
        """Converts published values to search coordinates [P]; the inverse of `publish`."""
        values = np.array([published[s] for s in self.symbols], float)
        return np.where(self._positive, np.log(np.where(self._positive, values, 1.0)), values)

    def behind(self, symbol: str, theta_P: np.ndarray) -> np.ndarray:
        """Which search coordinates the published value of a symbol is computed from, [P]."""
        place, moved_PP = self.symbols.index(symbol), theta_P + 1e-3 * np.diag(1 + np.abs(theta_P))
        return self.publish(moved_PP)[:, place] != self.publish(theta_P[None])[:, place]

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds [P] in search coordinates."""
        box = np.array([(p.lower, p.upper) for p in self.parameters], float)
        box = np.where(
            self._positive[:, None], np.log(np.where(self._positive[:, None], box, 1.0)), box
        )
        return box[:, 0], box[:, 1]

    @property
    def _positive(self) -> np.ndarray:
        return np.array([p.positive for p in self.parameters])

    def best_log_n(self, theta_SP: np.ndarray, log_nd_m: np.ndarray) -> np.ndarray | None:
        """Log of the best N at fixed N D [S,m]; None if there is no closed form."""
        return None

    def predict(self, published: Mapping[str, float], **inputs: np.ndarray | float) -> np.ndarray:
        """The law's value at raw inputs, for parameters given by their published symbols."""
        x = {
            name: np.log(np.atleast_1d(np.asarray(value, float))) for name, value in inputs.items()
        }
        x = dict(zip(x, np.broadcast_arrays(*x.values()), strict=True))
        return self.values(self.search(published)[None], x)[0]

    def values(self, theta_SP: np.ndarray, x: Inputs) -> np.ndarray:
        """Predictions [S,n] in the unit of the data."""
        values_Sn = self.evaluate(theta_SP, x)[0]
        return np.exp(values_Sn) if self.space == "log" else values_Sn


def contract(jac_SPn: np.ndarray, weight_Sn: np.ndarray) -> np.ndarray:
    """sum_n weight * jacobian [S,P]."""
    return (jac_SPn @ weight_Sn[..., None])[..., 0]


def centred(size: int, pairs: Iterable[tuple[int, int, np.ndarray]]) -> np.ndarray:
    """The matrix of `Form.centre` [size,size] for terms log c - k * z.

    Args:
      size: number of parameters.
      pairs: for each term the position of c, the position of k, and z [n].
    """
    matrix_PP = np.eye(size)
    for coefficient, exponent, z in pairs:
        matrix_PP[coefficient, exponent] = np.mean(z)
    return matrix_PP


def grid(*axes: np.ndarray | list[float] | tuple[float, ...]) -> np.ndarray:
    """Every combination of the axes' values, [product of lengths, number of axes]."""
    return np.stack(np.meshgrid(*(np.asarray(a, float) for a in axes), indexing="ij"), -1).reshape(
        -1, len(axes)
    )
