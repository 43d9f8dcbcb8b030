"""Kaplan et al. 2020 (arXiv 2001.08361): power laws in size, data and compute; shape; batch size.

N counts parameters outside the embedding, as in the paper. Where text is limited, D counts
different tokens and the loss is the lowest of the run, as of a model that is stopped in time; else
D counts tokens read and the loss is the last one.
"""

import dataclasses
import math

import numpy as np
import pandas as pd

from eval.analyses.sources import batch, growth, shape
from eval.analyses.sources import inference as infer
from eval.analyses.sources.claim import SourceClaim, near
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.laws import FLOOR, floor_share, grid_points
from eval.analyses.sources.measured import DataGrid, Measured, rows_of, same
from eval.laws import choice, forms
from eval.laws.fitting.fit import Fit
from eval.laws.fitting.points import Runs, points
from eval.laws.kaplan_implications import PUBLISHED, Constants, early_stopping_step
from eval.stats.bootstrap import join
from eval.stats.decision import Finding

OVERFITTING = 0.74
"""The published exponent of N in N^x / D; the fitted laws of the paper give .076 / .103."""
_FEW = 3  # sizes, or amounts of data, for a line with an error
_FRONTIER = 4  # cells on the frontier of compute
_TARGETS = 5  # losses at which the tokens needed are compared
_PER_RUN = 8  # points of a run's course that a law is fitted to


def in_parameters(m: Measured, ends: tuple[float, float]) -> Finding:
    """The exponent in N, with as much data as any of the study's sizes had."""
    grid = m.grid
    counts = grid.cells.groupby("level").size()
    enough = counts[counts >= _FEW]
    need(len(enough) > 0, f"no {_FEW} sizes with the same amount of data")
    cells = grid.at(int(enough.index.max()))
    return _exponent(cells["N"], cells[grid.loss], ends, m.level)


def in_data(m: Measured, ends: tuple[float, float]) -> Finding:
    """The exponent in D of the largest size."""
    grid = m.grid
    counts = grid.cells.groupby("size")["level"].nunique()
    wide = counts[counts >= _FEW].index
    need(len(wide) > 0, f"no size with {_FEW} amounts of data")
    cells = grid.cells[grid.cells["size"].isin(wide)]
    cells = cells[cells["N"] == cells["N"].max()]
    return _exponent(cells["D"], cells[grid.loss], ends, m.level)


def in_compute(m: Measured, ends: tuple[float, float]) -> Finding:
    """The exponent in C of the cells that no cheaper cell beats."""
    grid = m.grid
    cells = grid.cells[grid.cells["C"] > 0].sort_values("C")
    best = cells[cells[grid.loss] < cells[grid.loss].cummin().shift(fill_value=np.inf)]
    need(len(best) >= _FRONTIER, f"{len(best)} cells on the frontier; {_FRONTIER} are needed")
    return _exponent(best["C"], best[grid.loss], ends, m.level)


def _exponent(x: pd.Series, y: pd.Series, ends: tuple[float, float], level: float) -> Finding:
    e = infer.slope(np.log(x.to_numpy(float)), np.log(y.to_numpy(float)))
    found = infer.inside(dataclasses.replace(e, value=-e.value), ends, level)
    return dataclasses.replace(found, note=join(found.note, _against_offset(x, y)))


def _against_offset(x: pd.Series, y: pd.Series) -> str:
    """Whether a law with a floor describes the points better, in words; empty for few points."""
    runs = points(y.to_numpy(float), x=x.to_numpy(float))
    if len(runs.y) < 6:  # with fewer, the corrected criterion of the law with a floor is infinite
        return ""
    laws = [forms.get(name) for name in ("power", "offset")]
    aicc = [choice.criteria(infer.law(form, runs))["aicc"] for form in laws]
    order = np.argsort(runs.x["x"])
    smaller, largest = runs.take(order[:-1]), runs.take(order[-1:])
    off = [
        abs(math.log(infer.law(form, smaller).predict(largest.x)[0] / largest.y[0]))
        for form in laws
    ]
    return (
        f"a law with an offset: AICc {aicc[1] - aicc[0]:+.1f}, error at the largest point "
        f"{100 * off[1]:.2g} % instead of {100 * off[0]:.2g} %"
    )


def no_floor(m: Measured) -> Finding:
    """Whether Kaplan's L(N, D) needs a floor; with a floor it is `chinchilla_gamma`, beta = 1."""
    form = forms.get("chinchilla_gamma")
    return floor_share(form, grid_points(m.grid), m.level, {"beta": 1.0})


def diminishing(m: Measured) -> Finding:
    """The interaction of log N and log D in log loss; below 0 if larger models gain more."""
    grid = m.grid
    n, d, y = (np.log(grid.cells[c].to_numpy(float)) for c in ("N", "D", grid.loss))
    n, d = n - n.mean(), d - d.mean()
    design_nP = np.column_stack([n * d, np.ones(len(n)), n, d])
    e = infer.linear(design_nP, y, np.array([-math.log(10), 0.0, 0.0, 0.0]))
    return infer.above(e, m.level)


def overfitting_exponent(m: Measured) -> Finding:
    """alpha_N / alpha_D of Kaplan's L(N, D)."""
    fitted = nd_law(m.limited)
    e = infer.of_law(fitted, lambda p: p["alpha_N"] / p["alpha_D"], "alpha_N", "alpha_D")
    return infer.inside(e, near(OVERFITTING), m.level)


def nd_law(grid: DataGrid) -> Fit:
    """Kaplan's L(N, D), fitted to the cells of a grid."""
    return infer.law(forms.get("kaplan_nd"), grid_points(grid))


def tokens_to_loss(m: Measured) -> Finding:
    """The slope of log tokens on log N, for losses that every run reaches, with most data."""
    course = m.course("heldout")
    runs = rows_of(m.usual, [run for run in course if run in set(m.usual["run_id"])])
    data = "U" if _limited(m) else "T"
    runs = runs[same(runs[data].to_numpy()) == same(runs[data].to_numpy()).max()]
    need(
        runs["N"].nunique() >= _FEW,
        f"no {_FEW} sizes with equal data, evaluated in training",
    )
    best = {run: np.minimum.accumulate(course[run]["heldout"].to_numpy()) for run in runs["run_id"]}
    first, last = max(b[-1] for b in best.values()), min(b[0] for b in best.values())
    if not first < last:
        raise Open("no loss that all runs reach after their first evaluation")
    # Without the ends: the highest loss is that of a first evaluation, and to the lowest the worst
    # run takes as long as it was trained.
    targets = np.linspace(first, last, _TARGETS + 2)[1:-1]
    logs = {
        run: np.mean(np.interp(-targets, -b, np.log(course[run]["tokens"].to_numpy(float))))
        for run, b in best.items()
    }
    runs = runs.assign(log_n=np.log(runs["N"]), y=runs["run_id"].map(logs))
    cells = runs.groupby("size")[["log_n", "y"]].mean()
    return infer.below(infer.slope(cells["log_n"].to_numpy(), cells["y"].to_numpy()), m.level)


def _limited(m: Measured) -> bool:
    try:
        return m.grid.limited
    except infer.Untestable:
        return False


def best_step(m: Measured) -> Finding:
    """The best step against equation 5.7, with L(N, D) and L(N, S) fitted to this study."""
    grid, course = m.limited, m.course("heldout")
    early = grid.cells[(grid.cells["best_step"] < 0.9 * grid.cells["steps"])]
    early = early[early["level"] < max(grid.levels)]
    need(len(early) >= _FEW, f"{len(early)} cells overfit before they ended; {_FEW} are needed")
    law_d, law_s = nd_law(grid), infer.law(forms.get("kaplan_ns"), _courses(m, course))
    logs = np.log10(early["best_step"].to_numpy(float))
    n, d = (early[c].to_numpy(float) for c in ("N", "D"))

    def gap(by_d: dict[str, float], by_s: dict[str, float]) -> np.ndarray:
        bound = early_stopping_step(n, d, _constants(by_d, by_s))
        return logs - np.log10(bound)

    scatter = infer.mean(gap(law_d.params, law_s.params))
    # The fitted constants are common to all cells, so their errors do not average out.
    from_d = infer.of_law(
        law_d, lambda p: float(np.mean(gap(p, law_s.params))), "alpha_N", "alpha_D"
    )
    from_s = infer.of_law(law_s, lambda p: float(np.mean(gap(law_d.params, p))), "alpha_S")
    still = lambda e: dataclasses.replace(e, value=np.asarray(0.0))
    e = infer.combined(infer.combined(scatter, still(from_d)), still(from_s))
    return infer.above(e, m.level, note=f"{len(early)} cells overfit")


def _constants(by_d: dict[str, float], by_s: dict[str, float]) -> Constants:
    return dataclasses.replace(
        PUBLISHED,
        nd_n_c=by_d["N_c"],
        nd_d_c=by_d["D_c"],
        nd_alpha_n=by_d["alpha_N"],
        nd_alpha_d=by_d["alpha_D"],
        ns_s_c=by_s["S_c"],
        ns_alpha_s=by_s["alpha_S"],
    )


def _courses(m: Measured, course: dict[str, pd.DataFrame]) -> Runs:
    """Losses over the first epoch of the runs with most data; one cluster for a run."""
    runs = m.usual[same(m.usual["U"].to_numpy()) == same(m.usual["U"].to_numpy()).max()]
    rows = []
    columns = ["run_id", "N", "U", "best_step"]
    for run_id, n, unique, stop in runs[columns].itertuples(index=False):
        part = course.get(run_id)
        if part is None:
            continue
        # After the first epoch the text is repeated, and L(N, S) is of text that is not.
        part = part[(part["step"] <= stop) & (part["tokens"] <= unique)]
        if part.empty:
            continue
        kept = np.unique(
            np.linspace(0, len(part) - 1, min(_PER_RUN, len(part))).round().astype(int)
        )
        rows += [(run_id, n, s, y) for s, y in part.iloc[kept][["step", "heldout"]].to_numpy()]
    table = pd.DataFrame(rows, columns=["run", "N", "S", "y"])
    if table.empty:
        raise Open("no run with most data was evaluated in its first epoch")
    return points(
        table["y"].to_numpy(),
        cluster=table["run"].to_numpy(object),
        N=table["N"].to_numpy(float),
        S=table["S"].to_numpy(float),
    )


_POWERS = "Loss falls as a power law in parameters, data and compute: exponents .076, .095, .050."
_LIMITS = "With size or data fixed returns diminish; overfitting depends on N^.74 / D."
_SHAPE = "At equal size outside the embedding, shape matters little over a wide range."
_COUNT = "Counting without the embedding puts all depths on one curve, counting with it does not."
_GROWTH = "Most of a growing budget goes into size: N ~ C^.73."
_BATCH = "There is a critical batch size, a power of the loss with exponent 1 / .21."

CLAIMS = (
    *(
        SourceClaim(
            "K1",
            part,
            _POWERS,
            f"the exponent of the loss in {what} is within 25 % of {published:g}",
            f"exponent in {what}",
            "",
            "kaplan, data_size",
            "sizes and amounts of data, so that the exponent's interval becomes narrower",
            lambda m, test=test, published=published: test(m, near(published)),
        )
        for part, what, published, test in (
            ("a", "parameters", PUBLISHED.alpha_n, in_parameters),
            ("b", "data", PUBLISHED.alpha_d, in_data),
            ("c", "compute", PUBLISHED.alpha_cmin, in_compute),
        )
    ),
    SourceClaim(
        "K1",
        "d",
        _POWERS,
        f"a floor under the law in parameters and data, if any, is below {FLOOR:.0%} of the lowest "
        "loss",
        "floor over the lowest loss",
        "",
        "kaplan, data_size",
        "sizes and amounts of data over a wider range",
        no_floor,
    ),
    SourceClaim(
        "K2",
        "",
        _SHAPE,
        "the spread of the loss over shapes of equal N is less than what doubling N changes",
        "standard deviation over shapes, over the effect of doubling N",
        "times",
        "shape",
        "shapes of each size, and seeds",
        shape.spread,
    ),
    SourceClaim(
        "K3",
        "",
        _COUNT,
        "the loss scatters more around a line in the parameters with the embedding than without it",
        "scatter around the line with the embedding, over that without it",
        "times",
        "shape",
        "shapes",
        shape.counting,
    ),
    SourceClaim(
        "K4",
        "a",
        _LIMITS,
        "the gain of a larger model grows with the data",
        "change of the exponent in N per tenfold D",
        "",
        "data_size, kaplan",
        "seeds",
        diminishing,
    ),
    SourceClaim(
        "K4",
        "b",
        _LIMITS,
        f"the exponent of N in N^x / D is within 25 % of {OVERFITTING:g}",
        "exponent x, alpha_N / alpha_D of L(N, D)",
        "",
        "data_size",
        "seeds and amounts of data",
        overfitting_exponent,
    ),
    SourceClaim(
        "K5",
        "",
        "Larger models are more sample-efficient: they need fewer tokens to the same loss.",
        "the tokens needed to reach a loss fall as the model grows",
        "exponent of the tokens needed in N",
        "",
        "data_size",
        "sizes and seeds",
        tokens_to_loss,
    ),
    SourceClaim(
        "K6",
        "",
        "Training on D tokens should stop no earlier than S_c (L(N,D) - L(N,inf))^(-1/alpha_S).",
        "on average over cells that overfit, the step of the lowest loss is at or above the bound, "
        "whose constants are fitted here",
        "log10 of that step over the bound, mean over cells",
        "",
        "data_size",
        "amounts of data, and evaluations during training",
        best_step,
    ),
    *(
        SourceClaim(
            "K7",
            part,
            _GROWTH,
            f"by {name}, the exponent of N in C is above one half",
            "exponent of N, outside the embedding",
            "",
            "isoflop, kaplan",
            "budgets and seeds",
            lambda m, of=of: infer.above(of(m, "N"), m.level, 0.5),
        )
        for part, name, of in growth.APPROACHES
    ),
    SourceClaim(
        "K8",
        "a",
        _BATCH,
        "small batches save examples and large ones save steps: S_min and E_min are above 0",
        "critical batch size E_min / S_min",
        "tokens",
        "batch_size",
        "batch sizes and seeds",
        batch.critical,
    ),
    SourceClaim(
        "K8",
        "b",
        _BATCH,
        "the critical batch size grows as the loss falls",
        "exponent of the critical batch size in 1 / loss (published: 4.8)",
        "",
        "batch_size",
        "batch sizes and seeds",
        batch.grows,
    ),
)
