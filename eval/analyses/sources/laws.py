"""Laws in size and data, fitted to a study's cells, and how high their floor is."""

import math

import numpy as np
from scipy import stats

from eval.analyses.sources import inference as infer
from eval.analyses.sources.inference import Open
from eval.analyses.sources.measured import DataGrid
from eval.laws.fitting.fit import Fit, refit
from eval.laws.fitting.points import Runs, points
from eval.laws.forms.form import Form
from eval.stats.decision import Finding, judge

FLOOR = 0.25
"""The share of the lowest loss from which a floor counts: below it a law is nearly a power."""


def grid_points(grid: DataGrid, count: str = "N") -> Runs:
    """The cells of a grid as points of a law in N and D; `count` says which parameters N is."""
    cells = grid.cells
    return points(
        cells[grid.loss].to_numpy(float),
        N=cells[count].to_numpy(float),
        D=cells["D"].to_numpy(float),
    )


def floor_share(
    form: Form, runs: Runs, level: float, fixed: dict[str, float] | None = None, low: bool = True
) -> Finding:
    """The finding that a law's floor is below FLOOR of the lowest loss, or above it.

    The share is tested by its profile: the law is fitted again with the floor held. So a floor at
    the bound of its search has an interval, too.

    Args:
      form: a law with the floor E.
      runs: its points.
      level: of the test.
      fixed: symbols that are not searched.
      low: whether the hypothesis is a floor below FLOOR.
    """
    fixed = fixed or {}
    fitted = infer.law(form, runs, fixed)
    held = infer.law(form, runs, {**fixed, "E": FLOOR * float(runs.y.min())})
    shares, heights = _profile(fitted, held)
    spare = len(runs.y) - int(fitted.free_P.sum())
    lowest = min(fitted.value, float(heights.min()))
    variance = 2 * lowest / spare
    if not variance > 0:
        raise Open("no scatter around the law to test against")
    most = variance * float(stats.f.ppf(level, 1, spare))
    effect = float(fitted.params["E"] / runs.y.min())
    f = max(2 * (held.value - lowest) / variance, 0.0)
    tail = float(stats.f.sf(f, 1, spare)) / 2
    is_low = effect < FLOOR
    verdict, p = judge(*((tail, 1 - tail) if is_low == low else (1 - tail, tail)), level)
    x = np.append(shares, effect)
    rise = 2 * (np.append(heights, fitted.value) - lowest)
    first, last = (_end(x, rise, effect, most, side) for side in (-1, 1))
    return Finding(effect, 0.0 if first <= shares[0] else first, last, p, verdict)


def _end(x: np.ndarray, rise: np.ndarray, start: float, most: float, side: int) -> float:
    """Where a profile first rises above `most` on one side of its lowest point.

    Between two points, its square root is taken for a line: near its lowest point it is a parabola.
    """
    rise = np.sqrt(np.maximum(rise, 0.0))
    most = math.sqrt(most)
    order = np.argsort(side * x)
    x, rise = x[order], rise[order]
    x, rise = x[side * x >= side * start], rise[side * x >= side * start]
    if not (rise > most).any():
        return float(x[-1])
    i = int((rise > most).argmax())
    if i == 0:
        return start
    return float(np.interp(most, rise[[i - 1, i]], x[[i - 1, i]]))


def _profile(fitted: Fit, held: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the lowest loss that a floor may have, and the objective with each held.

    Every search starts from both fits, because one start may end in a local optimum.
    """
    shares = np.linspace(0.01, 0.99, 50)
    place = fitted.form.symbols.index("E")
    start_SP = np.repeat(np.stack([fitted.theta_P, held.theta_P]), len(shares), axis=0)
    start_SP[:, place] = np.tile(np.log(shares * fitted.runs.y.min()), 2)
    ends = [np.tile(end, (len(start_SP), 1)) for end in (fitted.lower_P, fitted.upper_P)]
    for end in ends:
        end[:, place] = start_SP[:, place]
    found = refit(fitted, start_SP=start_SP, lower_SP=ends[0], upper_SP=ends[1])
    return shares, found.value_S.reshape(2, -1).min(0)
