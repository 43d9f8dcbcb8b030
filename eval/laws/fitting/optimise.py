"""Runs many fits at once: a damped Newton method over a batch axis, in numpy.

Starts, bootstrap replicates, profile points and leave-one-out refits are all rows of one batch,
each with its own start, bounds, targets and weights. Axes: `S` rows of the batch, `P` parameters,
`n` points.

Far starts are first optimised on a few of the points. Then there are two phases on all points. The
first is majorize-minimize: the curvature of rho is replaced by that of a parabola above rho, and
the second derivatives of the form are dropped, so every step goes downhill from any start. The
second is Newton with the true Hessian. It converges quadratically, so no tolerance is needed that
might stop too early. Both phases are damped like Levenberg-Marquardt, in coordinates where the
majorizing Hessian has a unit diagonal.
"""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from eval.laws.fitting.objective import Objective, Space
from eval.laws.forms.form import Form, Inputs, contract

_WINDOW = 60_000  # rows times points that are moved at once; their arrays fit in the cache
_SLICE = 4  # windows per task; fixed, so that results do not depend on the number of threads
_MAJORIZE_STEPS = 100
_NEWTON_STEPS = 60
_SCOUTS = 40  # number of points for the first phase of far starts
_LOOSE = 1e-4  # Newton takes over below this relative decrease
_TIGHT = 1e-13  # a row is finished below this Newton decrement, relative to the objective
_EXACT = 1e-30  # below this mean objective a row fits up to rounding error
_MAX_STEP = 1.0  # largest change of a parameter in one step, in centred coordinates
_MAX_DAMPING = 1e8


@dataclasses.dataclass(frozen=True)
class Surface:
    """A form at given inputs that predicts in the objective's space."""

    form: Form
    x: Inputs
    space: Space

    def evaluate(self, theta_SP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions [S,n] and gradient [S,P,n]."""
        values_Sn, jac_SPn = self.form.evaluate(theta_SP, self.x)
        if self.form.space == self.space:
            return values_Sn, jac_SPn
        if self.space == "raw":
            values_Sn = np.exp(values_Sn)
            return values_Sn, jac_SPn * values_Sn[:, None]
        return np.log(values_Sn), jac_SPn / values_Sn[:, None]

    def curvature(self, theta_SP: np.ndarray, weight_Sn: np.ndarray) -> np.ndarray:
        """sum_n weight * second derivatives [S,P,P], by the chain rule if the two spaces differ."""
        if self.form.space == self.space:
            return self.form.curvature(theta_SP, self.x, weight_Sn)
        values_Sn, jac_SPn = self.evaluate(theta_SP)
        factor_Sn, sign = (values_Sn, 1) if self.space == "raw" else (np.exp(-values_Sn), -1)
        outer_Sn = weight_Sn / values_Sn if self.space == "raw" else weight_Sn
        outer_SPP = (jac_SPn * outer_Sn[:, None]) @ jac_SPn.swapaxes(1, 2)
        return self.form.curvature(theta_SP, self.x, weight_Sn * factor_Sn) + sign * outer_SPP


@dataclasses.dataclass(frozen=True)
class Optima:
    """The result of each row.

    Attributes:
      theta_SP: parameters in search coordinates.
      value_S: the summed objective.
      converged_S: whether the Newton decrement vanished; False if a row ran out of steps.
    """

    theta_SP: np.ndarray
    value_S: np.ndarray
    converged_S: np.ndarray


def minimise(
    surface: Surface,
    start_SP: np.ndarray,
    box: tuple[np.ndarray, np.ndarray],
    y_Sn: np.ndarray,
    weight_Sn: np.ndarray,
    objective: Objective,
    near: bool = False,
) -> Optima:
    """Minimises sum_n weight * rho(y - f(theta)) for every row, inside the bounds.

    Args:
      surface: the form at the data's inputs; called from several threads.
      start_SP: starts in search coordinates.
      box: lower and upper bounds, [S, P] each; [P] broadcasts, and equal bounds fix a parameter.
      y_Sn: targets in the objective's space; [n] broadcasts.
      weight_Sn: weights; [n] broadcasts.
      objective: what is summed.
      near: whether the starts are optima of almost the same problem.
    """
    rows, n = len(start_SP), y_Sn.shape[-1]
    lower_SP, upper_SP = (np.broadcast_to(bound, start_SP.shape) for bound in box)
    y_Sn, weight_Sn = (np.broadcast_to(array, (rows, n)) for array in (y_Sn, weight_Sn))
    scale = float(np.median(np.abs(y_Sn))) if objective.space == "raw" else 1.0

    def one(chunk: slice) -> Optima:
        theta, problem = (
            start_SP[chunk],
            (lower_SP[chunk], upper_SP[chunk], y_Sn[chunk], weight_Sn[chunk]),
        )
        stages = objective.stages(scale, near)
        if n > 2 * _SCOUTS and not near:
            part = Surface(
                surface.form, {name: z[few] for name, z in surface.x.items()}, surface.space
            )
            theta = _descend(
                part, theta, *problem[:2], problem[2][:, few], problem[3][:, few], stages[0]
            ).theta_SP
        for stage in stages:
            found = _descend(surface, theta, *problem, stage)
            theta = found.theta_SP
        with np.errstate(all="ignore"):
            residual_Sn = problem[2] - surface.evaluate(theta)[0]
            value_S = (problem[3] * objective.rho(residual_Sn)).sum(-1)
        return Optima(theta, np.where(np.isfinite(value_S), value_S, np.inf), found.converged_S)

    few = np.sort(np.random.default_rng(0).permutation(n)[:_SCOUTS])
    size = max(1, _WINDOW // max(n, 1)) * _SLICE
    chunks = [slice(i, i + size) for i in range(0, rows, size)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(one, chunks))
    return Optima(
        *(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Optima))
    )


def _descend(surface, theta_SP, lower_SP, upper_SP, y_Sn, weight_Sn, objective) -> Optima:
    rows, window = len(theta_SP), max(2, _WINDOW // max(y_Sn.shape[-1], 1))
    theta_SP = np.clip(theta_SP, lower_SP, upper_SP)
    value_S, converged_S = np.full(rows, np.inf), np.zeros(rows, bool)
    for newton, steps in ((False, _MAJORIZE_STEPS), (True, _NEWTON_STEPS)):
        problem = theta_SP, lower_SP, upper_SP, y_Sn, weight_Sn
        batch, waiting = _Batch(surface, objective, problem, np.arange(min(window, rows))), window
        while len(batch.row_S):
            finished = batch.step(newton)
            leaving = finished | (batch.age_S >= steps)
            if not leaving.any():
                continue
            index = batch.row_S[leaving]
            theta_SP[index], value_S[index] = batch.theta_SP[leaving], batch.value_S[leaving]
            converged_S[index] = newton & finished[leaving]
            batch.keep(~leaving)
            # A step of a nearly empty window costs as much as one of a full window, so waiting rows
            # enter as others leave.
            if waiting < rows and 2 * len(batch.row_S) < window:
                batch.enter(
                    _Batch(
                        surface,
                        objective,
                        problem,
                        np.arange(waiting, min(waiting + window // 2, rows)),
                    )
                )
                waiting += window // 2
    return Optima(theta_SP, value_S, converged_S)


class _Batch:
    """Rows that move together, with the values and derivatives at their current parameters."""

    _PER_ROW = (
        "row_S",
        "age_S",
        "theta_SP",
        "lower_SP",
        "upper_SP",
        "y_Sn",
        "weight_Sn",
        "residual_Sn",
        "jac_SPn",
        "value_S",
        "damping_S",
    )

    def __init__(self, surface, objective, problem, row_S):
        self.surface, self.objective, self.centre_PP = (
            surface,
            objective,
            surface.form.centre(surface.x),
        )
        self.row_S, self.age_S, self.damping_S = (
            row_S,
            np.zeros(len(row_S), int),
            np.full(len(row_S), 1e-3),
        )
        self.theta_SP, self.lower_SP, self.upper_SP, self.y_Sn, self.weight_Sn = (
            a[row_S] for a in problem
        )
        self.residual_Sn, self.jac_SPn, self.value_S = self._at(self.theta_SP)

    def enter(self, other):
        for name in self._PER_ROW:
            setattr(self, name, np.concatenate([getattr(self, name), getattr(other, name)]))

    def _at(self, theta_SP):
        with np.errstate(all="ignore"):  # a bad step may overflow; it is rejected below
            values_Sn, jac_SPn = self.surface.evaluate(theta_SP)
            residual_Sn = self.y_Sn - values_Sn
            value_S = (self.weight_Sn * self.objective.rho(residual_Sn)).sum(-1)
            sound_S = np.isfinite(value_S) & np.isfinite(jac_SPn.sum((1, 2)))
        return residual_Sn, jac_SPn, np.where(sound_S, value_S, np.inf)

    def keep(self, mask_S):
        for name in self._PER_ROW:
            setattr(self, name, getattr(self, name)[mask_S])

    def _gradient(self):
        weighted_Sn = self.weight_Sn * self.objective.psi(self.residual_Sn)
        return weighted_Sn, -contract(self.jac_SPn, weighted_Sn)

    def _gauss_newton(self, point_Sn):
        return (self.jac_SPn * (self.weight_Sn * point_Sn)[:, None]) @ self.jac_SPn.swapaxes(1, 2)

    def _move(self, newton):
        """The damped step, the parameters that may move, and the expected decrease without damping.

        Shapes are [S,P], [S,P] and [S].
        """
        weighted_Sn, grad_SP = self._gradient()
        blocked_SP = ((self.theta_SP <= self.lower_SP) & (grad_SP > 0)) | (
            (self.theta_SP >= self.upper_SP) & (grad_SP < 0)
        )
        free_SP = ~blocked_SP
        centred = self.centre_PP.T
        hess_SPP = major_SPP = self._gauss_newton(self.objective.majorizer(self.residual_Sn))
        if newton:
            with np.errstate(all="ignore"):
                second_SPP = np.nan_to_num(self.surface.curvature(self.theta_SP, weighted_Sn))
            hess_SPP = self._gauss_newton(self.objective.curvature(self.residual_Sn)) - second_SPP
        both_SPP = free_SP[:, :, None] & free_SP[:, None, :]
        hess_SPP, major_SPP = (
            centred @ (h * both_SPP) @ self.centre_PP for h in (hess_SPP, major_SPP)
        )
        diagonal_SP = np.einsum("spp->sp", major_SPP)
        scale_SP = np.sqrt(
            np.maximum(diagonal_SP, 1e-30 * diagonal_SP.max(-1, keepdims=True)) + 1e-300
        )
        grad_SP = (grad_SP * free_SP) @ self.centre_PP / scale_SP
        hess_SPP = np.nan_to_num(
            hess_SPP / (scale_SP[:, :, None] * scale_SP[:, None, :]), posinf=1e150, neginf=-1e150
        )
        values_SP, vectors_SPP = np.linalg.eigh(hess_SPP)
        size_SP = np.maximum(
            np.abs(values_SP), 1e-14
        )  # negative curvature counts as positive, to leave saddles quickly
        along_SP = (grad_SP[:, None] @ vectors_SPP)[:, 0]
        move_SP = (
            -(vectors_SPP @ (along_SP / (size_SP + self.damping_S[:, None]))[..., None])[..., 0]
            / scale_SP
        )
        clipped_SP = np.clip(
            move_SP, -_MAX_STEP, _MAX_STEP
        )  # clipped per parameter, because a vanished term may jump
        self.clipped_S = (clipped_SP != move_SP).any(-1)
        return clipped_SP @ centred, free_SP, (along_SP**2 / size_SP).sum(-1)

    def step(self, newton) -> np.ndarray:
        """Moves every row that can go downhill; returns which rows are finished [S]."""
        move_SP, free_SP, decrement_S = self._move(newton)
        self.age_S += 1
        trial_SP = np.clip(
            self.theta_SP + np.where(free_SP, move_SP, 0), self.lower_SP, self.upper_SP
        )
        residual_Sn, jac_SPn, value_S = self._at(trial_SP)
        better_S = value_S < self.value_S
        with np.errstate(invalid="ignore"):
            small_S = self.value_S - value_S <= _LOOSE * self.value_S
        self.theta_SP = np.where(better_S[:, None], trial_SP, self.theta_SP)
        worse = np.flatnonzero(~better_S)  # few rows, whose previous values are restored
        residual_Sn[worse], jac_SPn[worse] = self.residual_Sn[worse], self.jac_SPn[worse]
        self.residual_Sn, self.jac_SPn = residual_Sn, jac_SPn
        self.value_S = np.where(better_S, value_S, self.value_S)
        self.damping_S = np.where(
            better_S, self.damping_S / 8, np.maximum(self.damping_S, 1e-6) * 5
        )
        if not newton:
            return (
                (better_S & small_S & ~self.clipped_S)
                | (self.damping_S > _MAX_DAMPING)
                | ~np.isfinite(self.value_S)
            )
        exact_S = self.value_S <= _EXACT * self.weight_Sn.sum(-1)
        return (decrement_S <= _TIGHT * self.value_S) | exact_S | (self.damping_S > _MAX_DAMPING)
