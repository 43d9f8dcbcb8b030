"""The best learning rate of each architecture and size, and what another rate costs: the regret.

A sweep trains the same cell at several rates. Its loss is flat at low rates and rises like a cliff
at high ones, so a parabola in the logarithm of the rate is fitted only near the lowest loss: to
that rate, its neighbours, and others within a factor of NEAR. Runs of one seed share the order of
their data. All numbers here are differences between rates, in which what a seed adds to every rate
cancels out, so the noise is what remains after the means of seeds and of rates are taken off.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from train.records import InputError

_CELL = ("architecture", "size", "protocol", "tokens")
NEAR = 1.6
"""Rates within this factor of that of the lowest loss take part in the parabola."""
_FINE = 201  # rates at which an interval looks for its ends
EDGE = "the lowest loss is at the edge of the rates that were tried: the best rate lies beyond"
ALL = "all"
FLAT = "the loss does not depend on the rate for sure"


@dataclasses.dataclass(frozen=True)
class Curve:
    """The loss of one cell against the rate.

    Attributes:
      architecture: its name.
      size: the size's label.
      params: parameters outside the embedding; NaN if unknown.
      rates: in rising order.
      losses: the mean over seeds at each rate, in nats.
      seeds: the number of seeds; every rate has all of them.
      noise: the standard deviation of a run without what its seed adds to every rate; NaN with one
        seed.
      df: degrees of freedom of the noise.
      level: of intervals.
      family: encoder_decoder, decoder_only, or empty if unknown.
      left_out: rates at which a seed has no loss, such as those that diverged.
      protocol: the cell's protocol without the rate, such as the name of an optimizer.
      tokens: tokens of pretraining; NaN if unknown.
    """

    architecture: str
    size: str
    params: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    seeds: int = 1
    noise: float = math.nan
    df: int = 0
    level: float = 0.95
    family: str = ""
    left_out: tuple[float, ...] = ()
    protocol: str = ""
    tokens: float = math.nan

    @functools.cached_property
    def lowest(self) -> int:
        """The place of the rate with the lowest loss."""
        return int(np.argmin(self.losses))

    @property
    def problem(self) -> str:
        """Why the best rate is not known; empty if it is."""
        if self.lowest in (0, len(self.rates) - 1):
            return EDGE
        return "" if self._bend[0] > 0 else FLAT

    @functools.cached_property
    def near(self) -> np.ndarray:
        """The places of the rates that take part in the parabola."""
        apart = np.abs(self._x - self._x[self.lowest])
        place = np.arange(len(self.rates))
        return place[(apart <= math.log(NEAR)) | (np.abs(place - self.lowest) <= 1)]

    @property
    def _x(self) -> np.ndarray:
        return np.log(self.rates)

    @functools.cached_property
    def _weights(self) -> np.ndarray:
        """Coefficients (square, linear, constant) of the parabola, as sums of losses: [3, near].

        It is centred at the rate of the lowest loss.
        """
        x = self._x[self.near] - self._x[self.lowest]
        return np.linalg.pinv(np.column_stack([x * x, x, np.ones_like(x)]))

    @functools.cached_property
    def _bend(self) -> np.ndarray:
        return self._weights[:2] @ np.asarray(self.losses)[self.near]

    def _slope(self, at: float) -> tuple[float, float]:
        """The parabola's slope at the logarithm of a rate, and its standard error.

        The error contains that of the parabola: how far the slope of a cubic through one more rate
        is from it.
        """
        z = at - self._x[self.lowest]
        weights = np.zeros(len(self.rates))
        weights[self.near] = 2 * z * self._weights[0] + self._weights[1]
        noise = lambda w: self.noise**2 * float(w @ w) / self.seeds
        misfit = 0.0
        if (wider := self._wider) is not None:
            cubic, square, linear = wider
            apart = 3 * z * z * cubic + 2 * z * square + linear - weights
            misfit = float(apart @ np.asarray(self.losses)) ** 2
        return float(weights @ np.asarray(self.losses)), math.sqrt(noise(weights) + misfit)

    @functools.cached_property
    def _wider(self) -> np.ndarray | None:
        """Coefficients (cube, square, linear) of a cubic, as sums of losses: [3, rates].

        It goes through the rates of the parabola and the better one of those beside them; None if
        there is none.
        """
        beside = [i for i in (self.near[0] - 1, self.near[-1] + 1) if 0 <= i < len(self.rates)]
        if not beside:
            return None
        place = np.sort([*self.near, min(beside, key=lambda i: self.losses[i])])
        z = self._x[place] - self._x[self.lowest]
        weights = np.zeros((3, len(self.rates)))
        weights[:, place] = np.linalg.pinv(np.vander(z, 4))[:3]
        return weights

    @property
    def _reach(self) -> float:
        return float(stats.t.ppf((1 + self.level) / 2, self.df)) if self.df else math.nan

    @functools.cached_property
    def best(self) -> float:
        """The best rate; NaN if it is not known."""
        return math.nan if self.problem else math.exp(self._vertex)

    @property
    def _vertex(self) -> float:
        square, linear = self._bend
        return float(self._x[self.lowest] - linear / (2 * square))

    def parabola(self, rates: np.ndarray) -> np.ndarray:
        """The loss of the parabola at these rates."""
        z = np.log(rates) - self._x[self.lowest]
        coefficients = self._weights @ np.asarray(self.losses)[self.near]
        return np.polyval(coefficients, z)

    @property
    def error(self) -> float:
        """The standard error of the logarithm of the best rate."""
        return math.nan if self.problem else self._slope(self._vertex)[1] / (2 * self._bend[0])

    def interval(self) -> tuple[float, float]:
        """The rates at which the slope of the parabola may be zero.

        NaN if the best rate or the noise is not known; 0 and infinity where these runs set no end.
        """
        if self.problem or not self._reach > 0:
            return math.nan, math.nan
        x = np.linspace(self._x[self.near[0]], self._x[self.near[-1]], _FINE)
        slopes = [self._slope(at) for at in x]
        kept = x[[abs(slope) <= self._reach * error for slope, error in slopes]]
        if not len(kept):  # narrower than the distance of these rates
            return self.best, self.best
        low = 0.0 if kept[0] == x[0] else math.exp(kept[0])
        return low, math.inf if kept[-1] == x[-1] else math.exp(kept[-1])

    def regret(self, rate: float) -> "Regret":
        """How much higher the loss is at this rate than at the best one.

        Near the lowest loss it is g^2 / 4a, from the slope g and the bend a of the parabola; its
        interval comes from that of g, which may contain 0. Farther away it is the loss there, on a
        line between the rates that were tried, less that of the parabola's lowest point.
        """
        x = math.log(rate)
        # Rates that were tried may differ from this one by a rounding error.
        if not self._x[0] - 1e-9 <= x <= self._x[-1] + 1e-9:
            return Regret(note="outside the rates that were tried")
        if self.problem == EDGE:
            over = float(np.interp(x, self._x, self.losses)) - min(self.losses)
            return Regret(over, over, math.inf, EDGE)
        if self.problem:
            return Regret(note=self.problem)
        square, linear = self._bend
        inside = self._x[self.near[0]] - 1e-9 <= x <= self._x[self.near[-1]] + 1e-9
        if inside:
            slope, error = self._slope(x)
            root, half = slope / (2 * math.sqrt(square)), self._reach * error
            half = half / (2 * math.sqrt(square))
            ends = sorted([(root - half) ** 2, (root + half) ** 2])
            low = 0.0 if abs(root) <= half else ends[0]
            return Regret(root**2, low, ends[1])
        weights = np.array([np.interp(x, self._x, row) for row in np.eye(len(self.rates))])
        z = -linear / (2 * square)
        weights[self.near] -= self._weights.T @ np.array([z * z, z, 1.0])
        value = float(weights @ np.asarray(self.losses))
        half = self._reach * self.noise * math.sqrt(float(weights @ weights) / self.seeds)
        return Regret(value, value - half, value + half)


@dataclasses.dataclass(frozen=True)
class Regret:
    """A regret with its interval, in nats; NaN where it is not known, with the reason.

    Attributes:
      value: the regret.
      low: lower end of its interval.
      high: upper end of its interval.
      note: what limits it, in words.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""


def curves(runs: pd.DataFrame, level: float = 0.95) -> list[Curve]:
    """The curves of a sweep.

    Args:
      runs: one row per run, with columns architecture, size, params, rate, seed, loss and, if they
        are known, family, protocol and tokens. A cell is an architecture at a size, under a
        protocol and for so many tokens.
      level: of the intervals.

    Raises:
      InputError: a cell has two runs of one rate and seed, or no rate has a loss for every seed.
    """
    found = []
    for (architecture, size, _, _), part in _by_cell(runs):
        cell = f"{architecture} at {size}"
        again = part[part.duplicated(["rate", "seed"])]
        if len(again):
            one = again.iloc[0]
            raise InputError(
                f"{cell}: two runs with rate {one['rate']:g} and seed {one['seed']}; a sweep "
                "varies the rate alone"
            )
        table = part.pivot(index="seed", columns="rate", values="loss").sort_index(axis=1)
        if table.isna().any().all():
            raise InputError(f"{cell}: no rate has a loss for every seed")
        found.append(_curve(str(architecture), str(size), part, table, level))
    return found


def _by_cell(runs: pd.DataFrame) -> Iterable[tuple[tuple, pd.DataFrame]]:
    unknown = {"protocol": "", "tokens": math.nan}
    runs = runs.assign(**{name: runs.get(name, default) for name, default in unknown.items()})
    return runs.groupby(list(_CELL), sort=False, dropna=False)


def _curve(
    architecture: str, size: str, part: pd.DataFrame, table: pd.DataFrame, level: float
) -> Curve:
    lacking = table.columns[table.isna().any()]
    table = table.drop(columns=lacking)
    losses = table.mean()
    curve = Curve(
        architecture,
        size,
        float(part["params"].mean()),
        tuple(map(float, table.columns)),
        tuple(map(float, losses)),
        len(table),
        level=level,
        family=str(part["family"].iloc[0]) if "family" in part else "",
        left_out=tuple(map(float, lacking)),
        protocol=str(part["protocol"].iloc[0]),
        tokens=float(part["tokens"].iloc[0]),
    )
    # Rates far from the best one may diverge, and say nothing about the noise near it.
    near = table.iloc[:, curve.near]
    df = (near.shape[0] - 1) * (near.shape[1] - 1)
    if not df:
        return curve
    rest = near.sub(near.mean(axis=1), axis=0).sub(near.mean() - near.to_numpy().mean(), axis=1)
    noise = math.sqrt(float((rest.to_numpy() ** 2).sum()) / df)
    return dataclasses.replace(curve, noise=noise, df=df)


def optima(found: Iterable[Curve]) -> pd.DataFrame:
    """The best rate of every cell.

    Returns:
      Columns architecture, size, protocol, tokens, params, rates (how many), seeds, lowest (the
      rate of the lowest mean loss), loss (that loss), best_rate, ci_low, ci_high, interval
      (`unbounded` if these runs set one end or none), note (why the best rate is unknown; rates at
      which a seed has no loss).
    """
    rows = [
        (
            *_cell(c), c.params, len(c.rates), c.seeds, c.rates[c.lowest],
            c.losses[c.lowest], c.best, *c.interval(), _kind(*c.interval()), _note(c),
        )
        for c in found
    ]  # fmt: skip
    columns = "params rates seeds lowest loss best_rate ci_low ci_high interval note"
    return pd.DataFrame(rows, columns=[*_CELL, *columns.split()])


def _cell(curve: Curve) -> tuple[Any, ...]:
    return tuple(getattr(curve, name) for name in _CELL)


def _kind(low: float, high: float) -> str:
    return "unbounded" if low == 0 or high == math.inf else ""


def _note(curve: Curve) -> str:
    lost = ", ".join(f"{rate:g}" for rate in curve.left_out)
    return "; ".join(filter(None, (curve.problem, lost and f"a seed has no loss at {lost}")))


def regrets(found: Iterable[Curve], used: float | None = None) -> pd.DataFrame:
    """The regret of every rate of every cell, or of one rate.

    Returns:
      Columns architecture, size, protocol, tokens, rate, regret, ci_low, ci_high (nats), note.
    """
    rows = []
    for c in found:
        for rate in (used,) if used is not None else c.rates:
            r = c.regret(rate)
            rows.append((*_cell(c), rate, r.value, r.low, r.high, r.note))
    columns = [*_CELL, "rate", "regret", "ci_low", "ci_high", "note"]
    return pd.DataFrame(rows, columns=columns)


def exponents(found: Sequence[Curve]) -> pd.DataFrame:
    """How the best rate depends on the parameters and on the tokens: rate ~ N^a D^b.

    A weighted plane through the logarithms, for each architecture under each protocol; only what
    varies takes part. If there are no more best rates than exponents and constants, the error is
    that of the best rates; otherwise it is at least that of their scatter about the plane. The row
    `all` has planes that are parallel.

    Returns:
      Columns architecture, protocol, rates (best rates that are known), exponent (a), ci_low,
      ci_high, tokens_exponent (b), tokens_low, tokens_high, note.
    """
    rows = []
    known = [c for c in found if not c.problem and c.params > 0]
    groups = list(dict.fromkeys((c.architecture, c.protocol) for c in found))
    if len(groups) > 1:
        groups.append((ALL, ""))
    for name, protocol in groups:
        own = [c for c in known if name == ALL or (c.architecture, c.protocol) == (name, protocol)]
        plane = _plane(own)
        of_params, of_tokens = (plane.get(key, (math.nan,) * 3) for key in ("params", "tokens"))
        note = "" if plane else "two sizes or lengths with a best rate are needed"
        rows.append((name, protocol, len(own), *of_params, *of_tokens, note))
    columns = (
        "architecture protocol rates exponent ci_low ci_high tokens_exponent tokens_low "
        "tokens_high note"
    )
    return pd.DataFrame(rows, columns=columns.split())


def _plane(own: Sequence[Curve]) -> dict[str, tuple[float, float, float]]:
    """The exponent of what varies, with its interval; empty if there are too few best rates."""
    groups = list(dict.fromkeys((c.architecture, c.protocol) for c in own))
    varying = [
        name
        for name in ("params", "tokens")
        if any(
            np.ptp([getattr(c, name) for c in own if (c.architecture, c.protocol) == group]) > 0
            for group in groups  # not if NaN
        )
    ]
    if not varying:
        return {}
    x = np.array(
        [
            [math.log(getattr(c, name)) for name in varying]
            + [float((c.architecture, c.protocol) == group) for group in groups]
            for c in own
        ]
    )
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return {}
    y, se = np.log([c.best for c in own]), np.array([c.error for c in own])
    known = bool(np.isfinite(se).all())
    weight = 1 / se**2 if known and (se > 0).all() else np.ones(len(own))
    spread = np.linalg.inv((x.T * weight) @ x)
    across = spread @ (x.T * weight)
    values = across @ y
    errors = np.sqrt((across**2) @ (se**2)) if known else np.full(len(values), math.nan)
    df, left = min(c.df for c in own), len(own) - len(values)
    if left:
        scatter = np.sqrt(float(weight @ (y - x @ values) ** 2) / left * np.diag(spread))
        if not (scatter <= errors).all():
            errors, df = scatter, left
    reach = float(stats.t.ppf((1 + own[0].level) / 2, df)) if df else math.nan
    return {
        name: (float(value), float(value - reach * error), float(value + reach * error))
        for name, value, error in zip(varying, values, errors, strict=False)
    }


def at_best(runs: pd.DataFrame, reference: str = "", level: float = 0.95) -> pd.DataFrame:
    """Every cell at its own best rate of the sweep, beside the reference at its own.

    The difference is that of runs of one seed, which share the order of their data. A lowest loss
    is lower than the rate's true one by chance, by about as much for both.

    Args:
      runs: see `curves`.
      reference: an architecture. Without it the first one of the sweep. Where the sweep has it
        under one protocol, cells are compared with that, and otherwise with their own protocol;
        its own cells with its first protocol.
      level: of the intervals; NaN with one seed.

    Returns:
      Columns architecture, size, protocol, tokens, rate, loss (its mean), difference, ci_low,
      ci_high (nats; NaN for the reference), seeds.
    """
    lowest = {}
    for cell, part in _by_cell(runs):
        table = part.pivot(index="seed", columns="rate", values="loss").dropna(axis=1)
        if len(table.columns):
            place = int(table.mean().to_numpy().argmin())
            lowest[cell] = float(table.columns[place]), table.iloc[:, place]
    names = list(dict.fromkeys(cell[0] for cell in lowest))
    reference = reference if reference in names else names[0] if names else ""
    protocols = list(dict.fromkeys(cell[2] for cell in lowest if cell[0] == reference))
    rows = []
    for cell, (rate, losses) in lowest.items():
        architecture, size, protocol, tokens = cell
        own = architecture != reference and protocol in protocols
        of = protocol if own else protocols[0]
        beside = [
            one
            for (name, s, p, t), (_, one) in lowest.items()
            if (name, s, p) == (reference, size, of)
            and (t == tokens or (t != t and tokens != tokens))
        ]
        apart = math.nan, math.nan, math.nan
        if beside and beside[0] is not losses:
            apart = _mean_of((losses - beside[0]).dropna().to_numpy(float), level)
        rows.append((*cell, rate, float(losses.mean()), *apart, len(losses)))
    columns = "rate loss difference ci_low ci_high seeds"
    return pd.DataFrame(rows, columns=[*_CELL, *columns.split()])


def _mean_of(values: np.ndarray, level: float) -> tuple[float, float, float]:
    """The mean of one value for each seed, and its interval."""
    mean, half = float(values.mean()) if len(values) else math.nan, math.nan
    if (count := len(values)) > 1:
        error = float(np.std(values, ddof=1)) / math.sqrt(count)
        half = float(stats.t.ppf((1 + level) / 2, count - 1)) * error
    return mean, mean - half, mean + half


def expected_best(runs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The expected lowest loss of the best of n tries, by cell.

    Somebody who tunes with one seed tries rates drawn evenly from those of the sweep (Dodge et al.
    2019, arXiv 1909.03004): with F the share of a seed's losses up to v, the sum over v of v
    (F(v)^n - F(v-)^n), for the lowest. The mean over seeds estimates what another seed would give.

    Args:
      runs: see `curves`.
      level: of the interval, from the spread of the seeds; NaN with one seed.

    Returns:
      Columns architecture, size, protocol, tokens, tries, loss, ci_low, ci_high, for 1 up to as
      many tries as rates.
    """
    rows = []
    for cell, part in _by_cell(runs):
        seeds = [own["loss"].to_numpy(float) for _, own in part.groupby("seed")]
        for n in range(1, part["rate"].nunique() + 1):
            each = np.array([_best_of(losses, n) for losses in seeds])
            rows.append((*cell, n, *_mean_of(each, level)))
    return pd.DataFrame(rows, columns=[*_CELL, "tries", "loss", "ci_low", "ci_high"])


def _best_of(losses: np.ndarray, n: int) -> float:
    """The expected lowest of n values drawn with replacement."""
    y = np.sort(losses)
    above = (len(y) - np.arange(len(y) + 1)) / len(y)  # the share at or above each
    return float(y @ (above[:-1] ** n - above[1:] ** n))
