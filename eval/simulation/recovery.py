"""Checks on simulated studies that the analyses find a known truth.

Measures the coverage of intervals, the level of tests, and power. `benchmarks/coverage.py` prints
the long version, the tests run a short one. Each share comes with its Monte Carlo standard error:
95 % from 1,000 studies is known to +-0.7 %.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from eval.analyses import claims
from eval.analyses.comparison import Comparison
from eval.analyses.pareto import Frontier
from eval.analyses.protocols import Protocols
from eval.analyses.question import Question
from eval.analyses.rank import Ranking
from eval.analyses.slopes import Slopes
from eval.simulation.simulate import ORIGIN, Line, Noise, study
from eval.stats.decision import CONTRADICTED, SUPPORTED

DESIGNS = ((3, 1), (3, 3), (4, 1), (4, 3), (5, 3), (7, 1), (7, 5))
"""Sizes and seeds of the simulated studies."""

_ALIKE = {name: Line() for name in ["transformer", *(f"other{i:02d}" for i in range(11))]}
_CROSSING = {
    "transformer": Line(),
    "other": Line(upstream=-3.4, upstream_slope=0.46),
}  # the lines cross after 1.25 decades

Measure = tuple[str, float, str]  # quantity, share (NaN: no interval was given), nominal share


def coverage_of_slopes(sizes: int, seeds: int, replicates: int, seed: int) -> Iterator[Measure]:
    """Coverage of the intervals of slopes; each replicate is one architecture of a large table.

    The sizes have no misfit in the studies for `errors="seed"`, because those intervals do not
    cover it.
    """
    lines = {f"r{i:05d}": Line() for i in range(replicates)}
    table = Slopes(study(lines, sizes=sizes, seeds=seeds, seed=seed)).table(
        pairs=("FU", "FD", "UD"), links=("semilog",)
    )
    for alpha, truth in (("F,U", 0.54), ("F,D", 6.0), ("U,D", 6.0 / 0.54)):
        rows = table[table["alpha"] == alpha]
        yield f"interval of α_{{{alpha}}}", _covered(rows["ci_low"], truth, rows["ci_high"]), "95 %"
    sen = _covered(rows["theil_sen_low"], truth, rows["theil_sen_high"])
    yield "Theil-Sen of α_{U,D}", sen, "at least 95 %"  # rank intervals come in steps
    yield "Deming of α_{U,D}", _covered(rows["deming_low"], truth, rows["deming_high"]), "95 %"
    exact = study(lines, sizes=sizes, seeds=seeds, seed=seed, noise=Noise(upstream_size=0.0))
    rows = Slopes(exact).table(pairs=("FU",), links=("semilog",))
    yield (
        "interval of α_{F,U} over seeds only",
        _covered(rows["seed_low"], 0.54, rows["seed_high"]),
        "95 %",
    )


def coverage_of_differences(
    sizes: int, seeds: int, replicates: int, seed: int
) -> Iterator[Measure]:
    """Contrast, level, multiplier and crossing of two lines that cross after 1.25 decades."""
    hits: dict[str, list[float]] = {}
    a, b = _CROSSING.values()
    for i in range(replicates):
        table = study(_CROSSING, sizes=sizes, seeds=seeds, seed=seed + i)
        c = Comparison(table, Question(permutations=0, draws=200))
        row = c.contrasts().iloc[0]
        difference = b.upstream_slope - a.upstream_slope
        hits.setdefault("contrast of slopes", []).append(
            _inside(row, "ci_low", difference, "ci_high")
        )
        for _, row in c.levels().iterrows():
            lead = b.upstream - a.upstream + difference * (np.log10(row["budget"]) - ORIGIN)
            hits.setdefault("level at equal FLOPs", []).append(
                _inside(row, "ci_low", lead, "ci_high")
            )
        row = c.multipliers().iloc[2]
        lead = b.upstream - a.upstream + difference * (np.log10(row["budget"]) - ORIGIN)
        hits.setdefault("multiplier", []).append(
            _inside(row, "ci_low", 10 ** (-lead / b.upstream_slope), "ci_high")
        )
        row = c.crossovers().iloc[0]
        truth = 10 ** (ORIGIN + (b.upstream - a.upstream) / (a.upstream_slope - b.upstream_slope))
        hits.setdefault("crossing, Fieller", []).append(_in_fieller(row, truth))
        hits.setdefault("crossing, bootstrap check", []).append(
            _inside(row, "bootstrap_low", truth, "bootstrap_high")
        )
        hits.setdefault("crossing has a bounded interval", []).append(
            float(row["interval"] == "bounded")
        )
    nominal = {
        "crossing, bootstrap check": "at least 95 %",
        "crossing has a bounded interval": "reported",
    }
    for what, found in hits.items():
        yield what, _mean(found), nominal.get(what, "95 %")


def level_of_tests(sizes: int, seeds: int, replicates: int, seed: int) -> Iterator[Measure]:
    """How often a test finds a difference among twelve architectures that scale alike.

    All have the same noise, or one is three times as noisy.
    """
    for label, lines in (("", _ALIKE), (", one 3x noisier", _ALIKE | {"other03": Line(noise=3.0)})):
        hits: dict[str, list[float]] = {}
        for i in range(replicates):
            table = study(lines, sizes=sizes, seeds=seeds, seed=seed + i)
            for variance in ("separate", "pooled"):
                drawn = 200 if variance == "separate" else 0
                asked = Question(variance=variance, permutations=drawn)
                rows = Comparison(table, asked).contrasts()
                hits.setdefault(f"any contrast, Holm, {variance} variance", []).append(
                    _any(rows["p_holm"])
                )
                if variance == "separate":
                    hits.setdefault("any contrast, permutation", []).append(
                        _any(rows["p_permutation"])
                    )
            c = Comparison(table, Question(permutations=200))
            rows = c.equal_slopes()
            for test, column in (
                ("own noise each", "p_separate"),
                ("F", "p"),
                ("permutation", "p_permutation"),
            ):
                hits.setdefault(f"equal slopes, {test}", []).append(_any(rows[column][:1]))
            rows = c.levels()
            hits.setdefault("any level, Holm", []).append(
                _any(rows["p_holm"][rows["position"] == "high"])
            )
        for what, found in hits.items():
            equal = any(
                word in what for word in ("pooled", "permutation", ", F")
            )  # these tests assume equal noise
            yield what + label, _mean(found), "reported" if label and equal else "at most 5 %"


def level_of_claims(sizes: int, seeds: int, replicates: int, seed: int) -> Iterator[Measure]:
    """False verdicts on claims that are not true, where all architectures scale alike."""
    named = ("transformer", "evolved", "performer", "funnel", "albert", "mos", "lconv", "mixer")
    lines: dict[str, Line] = {name: Line() for name in named}
    false: dict[str, list[float]] = {}
    for i in range(replicates):
        rows = claims.scorecard(study(lines, sizes=sizes, seeds=seeds, seed=seed + i))
        verdict = rows.set_index(rows["claim"].astype(str) + rows["part"])["verdict"]
        for key in ("1a", "1b", "1c", "2a", "2b", "3a", "4a", "4d", "5a", "6a", "7a"):
            false.setdefault(key, []).append(float(verdict[key] == SUPPORTED))
        for key in ("1a", "2a", "3a", "4a", "6a"):
            false.setdefault(f"{key} contradicted", []).append(float(verdict[key] == CONTRADICTED))
    for key, found in false.items():
        what = key if "contradicted" in key else f"{key} supported"
        yield f"claim {what} though all scale alike", _mean(found), "at most 5 %"


def power(sizes: int, seeds: int, replicates: int, seed: int) -> Iterator[Measure]:
    """How often slopes are called different or alike.

    Different: one of eleven contrasts, after Holm. Alike: within 10 %, tested alone.
    """
    for change in (0.9, 0.8, 0.6):
        lines = _ALIKE | {"other00": Line(upstream_slope=0.54 * change)}
        found = []
        for i in range(replicates):
            table = study(lines, sizes=sizes, seeds=seeds, seed=seed + i)
            rows = Comparison(table, Question(permutations=0)).contrasts()
            found.append(float(rows["p_holm"][0] < 0.05))
        yield f"slope {1 - change:.0%} below vanilla's among twelve is found", _mean(found), "power"
    for ratio in (1.0, 1.1):
        lines = {"transformer": Line(), "other": Line(upstream_slope=0.54 * ratio)}
        tables = (study(lines, sizes=sizes, seeds=seeds, seed=seed + i) for i in range(replicates))
        found = [float(Comparison(table).equivalence()["equivalent"][0]) for table in tables]
        yield (
            f"slope {ratio:g} times vanilla's is called equivalent to within 10 %",
            _mean(found),
            ("power" if ratio == 1.0 else "at most 5 %"),
        )


def recovery_of_frontiers(sizes: int, seeds: int, replicates: int, seed: int) -> Iterator[Measure]:
    """The bootstrap over seeds against the frontier of the same cells without seed noise."""
    hits: dict[str, list[float]] = {}
    for i in range(replicates):
        lines, noise = _random_lines(seed + i), Noise()
        table = study(lines, sizes=sizes, seeds=seeds, seed=seed + i, noise=noise)
        exact = dataclasses.replace(noise, upstream_seed=0.0, downstream_seed=0.0)
        truth = study(lines, sizes=sizes, seeds=seeds, seed=seed + i, noise=exact)
        asked = Question(draws=500)
        frontiers = [Frontier(t, asked) for t in (table, truth)]
        found, true = (f.frontier().set_index(["architecture", "size"]) for f in frontiers)
        true = true["on_frontier"].loc[found.index].to_numpy()
        p = found["probability_on_frontier"].to_numpy()
        hits.setdefault("cells given 95 % or more are on the frontier", []).extend(
            true[p >= 0.95].astype(float)
        )
        hits.setdefault("cells given 5 % or less are not on the frontier", []).extend(
            1.0 - true[p <= 0.05]
        )
        corner = (float(truth["flops_forward"].max()), -4.0)
        found, true = (f.hypervolume(corner) for f in frontiers)
        hits.setdefault("hypervolume", []).append(
            _inside(found.iloc[0], "ci_low", true["hypervolume"][0], "ci_high")
        )
        found, true = (f.gaps() for f in frontiers)
        for (_, row), gap in zip(found.iterrows(), true["quality_gap"], strict=True):
            inside = _inside(row, "quality_gap_low", gap, "quality_gap_high")
            hits.setdefault("gap to the others' frontier", []).append(inside)
        found, true = (Ranking(t, asked).probability_best(3) for t in (table, truth))
        best = true.loc[true["rank"] == 1, "architecture"].tolist()  # by budget, as in `found`
        found["best"] = [best[int(place) - 1] for place in found["budget"].rank(method="dense")]
        sure = found[(found["probability_best"] >= 0.95) & (found["candidates"] > 1)]
        right = (sure["best"] == sure["architecture"]).astype(float)
        hits.setdefault("architectures given 95 % or more are best", []).extend(right)
    for what, shares in hits.items():
        yield what, _mean(shares), "95 %" if "given" not in what else "at least 95 %"


def recovery_of_protocols(sizes: int, seeds: int, replicates: int, seed: int) -> Iterator[Measure]:
    """Coverage of the difference between two protocols; depth is steeper by 0.1 nats per decade."""
    found = []
    for i in range(replicates):
        ladders = [
            study(
                {"transformer": Line(upstream_slope=slope)},
                sizes=sizes,
                seeds=seeds,
                protocol=name,
                seed=seed + 2 * i + k,
            )
            for k, (name, slope) in enumerate((("depth", 0.6), ("width", 0.5)))
        ]
        row = Protocols(pd.concat(ladders, ignore_index=True)).differences().iloc[0]
        found.append(_inside(row, "ci_low", 0.1, "ci_high"))
    yield "depth slope minus width slope", _mean(found), "95 %"


EXPERIMENTS: tuple[tuple[Callable[[int, int, int, int], Iterator[Measure]], bool], ...] = (
    (coverage_of_slopes, False),
    (coverage_of_differences, False),
    (level_of_tests, False),
    (power, False),
    (recovery_of_protocols, False),
    (recovery_of_frontiers, True),
    (level_of_claims, False),
)
"""Each experiment, and whether it needs two seeds."""


def _random_lines(seed: int) -> dict[str, Line]:
    """Eight architectures with different levels, slopes and costs."""
    rng = np.random.default_rng(seed)
    return {
        f"a{i}": Line(
            upstream=-3.5 + 0.05 * rng.normal(),
            upstream_slope=0.54 + 0.03 * rng.normal(),
            flops=10 ** (0.1 * rng.normal()),
        )
        for i in range(8)
    }


def _covered(low: pd.Series, truth: float, high: pd.Series) -> float:
    known = low.notna() & high.notna()
    return float(((low <= truth) & (truth <= high))[known].mean()) if known.any() else np.nan


def _inside(row: pd.Series, low: str, truth: float, high: str) -> float:
    ends = float(row[low]), float(row[high])
    return np.nan if np.isnan(ends).any() else float(ends[0] <= truth <= ends[1])


def _in_fieller(row: pd.Series, truth: float) -> float:
    if row["interval"] == "outside":
        return float(not row["ci_low"] < truth < row["ci_high"])
    return np.nan if row["interval"] == "none" else _inside(row, "ci_low", truth, "ci_high")


def _any(p: pd.Series) -> float:
    return float((p < 0.05).any()) if p.notna().any() else np.nan


def _mean(values: list[float]) -> float:
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else np.nan
