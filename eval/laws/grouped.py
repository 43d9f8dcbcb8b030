"""One form for the laws of several groups, which may share some of their parameters."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from eval.laws.forms.form import Form, Inputs


class Grouped(Form):
    """A law for each group, as one form; `x["group"]` holds the number of each point's group.

    Args:
      base: the law.
      labels: the groups' names.
      shared: symbols that all groups share.
    """

    def __init__(self, base: Form, labels: list[str], shared: frozenset[str]):
        """Names the parameters: the shared ones first, then each group's own as `symbol[label]`."""
        self.base, self.labels, self.shared = base, labels, shared
        self.space, self.output, self.floor_symbol = base.space, base.output, None
        self.name, self.inputs = base.name, base.inputs
        common = [p for p in base.parameters if p.symbol in shared]
        own = [p for p in base.parameters if p.symbol not in shared]
        named = [
            dataclasses.replace(p, symbol=f"{p.symbol}[{label}]") for label in labels for p in own
        ]
        self.parameters = (*common, *named)
        places = {p.symbol: i for i, p in enumerate(self.parameters)}
        self.index_GP = np.array(
            [
                [places.get(p.symbol, places.get(f"{p.symbol}[{g}]")) for p in base.parameters]
                for g in labels
            ]
        )

    def evaluate(self, theta_SP: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates each group's points with the group's parameters."""
        n = len(x["group"])
        values_Sn, jac_SPn = (
            np.empty((len(theta_SP), n)),
            np.zeros((len(theta_SP), len(self.parameters), n)),
        )
        for index_P, at in self._parts(x):
            part = {name: x[name][at] for name in self.inputs}
            values_Sn[:, at], jac_SPn[:, index_P[:, None], at[None]] = self.base.evaluate(
                theta_SP[:, index_P], part
            )
        return values_Sn, jac_SPn

    def curvature(self, theta_SP: np.ndarray, x: Inputs, weight_Sn: np.ndarray) -> np.ndarray:
        """The sum over the groups."""
        hess_SPP = np.zeros((len(theta_SP),) + (len(self.parameters),) * 2)
        for index_P, at in self._parts(x):
            part = {name: x[name][at] for name in self.inputs}
            block_SPP = self.base.curvature(theta_SP[:, index_P], part, weight_Sn[:, at])
            hess_SPP[:, index_P[:, None], index_P[None]] += block_SPP
        return hess_SPP

    def centre(self, x: Inputs) -> np.ndarray:
        """Measures each group's coefficients at the middle of its data."""
        matrix_PP = np.eye(len(self.parameters))
        for index_P, at in self._parts(x):
            matrix_PP[index_P[:, None], index_P[None]] = self.base.centre(
                {name: x[name][at] for name in self.inputs}
            )
        return matrix_PP

    def _parts(self, x: Inputs):
        for g, index_P in enumerate(self.index_GP):
            if len(
                at := np.flatnonzero(x["group"] == g)
            ):  # a search may first use only some of the points
                yield index_P, at

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of the base law, for every group."""
        lower_P, upper_P = np.empty(len(self.parameters)), np.empty(len(self.parameters))
        for index_P in self.index_GP:
            lower_P[index_P], upper_P[index_P] = self.base.bounds()
        return lower_P, upper_P

    def publish(self, theta: np.ndarray) -> np.ndarray:
        """Published values of every group."""
        values = np.empty_like(theta)
        for index_P in self.index_GP:
            values[..., index_P] = self.base.publish(theta[..., index_P])
        return values

    def search(self, published: Mapping[str, float]) -> np.ndarray:
        """The inverse of `publish`."""
        theta_P = np.empty(len(self.parameters))
        for index_P in self.index_GP:
            here = (published[self.parameters[p].symbol] for p in index_P)
            theta_P[index_P] = self.base.search(dict(zip(self.base.symbols, here, strict=True)))
        return theta_P
