"""Niu et al. 2024 (arXiv 2405.08707): memorisation, and why larger is not always better.

All of its claims are about models that see a limited text many times.
"""

import math

import numpy as np
import pandas as pd
from scipy import stats

from eval.analyses.sources import inference as infer
from eval.analyses.sources.claim import SourceClaim, near
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.measured import DataGrid, Measured, same
from eval.stats.bootstrap import join
from eval.stats.decision import Finding, all_must, judge, one_enough
from eval.stats.regression import Estimate

FLOOR = 1.0
"""The training cross-entropy, in nats, that is claimed to be a floor."""
_SETTLED = 0.02  # a seen loss that falls by less than this share is at its floor
_LAST = 0.25  # the share of training over which it is asked
_MEMORISED = 0.1  # share by which the seen loss of memorised text is below the held-out one
_OPEN = 0.01  # nats; a smaller gap between the two losses is none
_STUDY, _SEEDS = "data_size", "seeds"


def larger_is_worse(m: Measured, loss: str) -> Finding:
    """Whether at some amount of data the largest model has a higher loss than the smallest.

    One amount is enough, so its p value is corrected for their number (Bonferroni).
    """
    grid = m.limited
    found = {level: e for level in grid.levels if (e := _largest_minus_smallest(grid, level, loss))}
    need(len(found) > 0, "no amount of data with three sizes")
    p_for = one_enough([float(e.p_above) for e in found.values()])
    p_against = all_must([float(e.p_below) for e in found.values()])
    verdict, p = judge(p_for, p_against, m.level)
    at = min(found, key=lambda level: float(np.nan_to_num(found[level].p_above, nan=1.0)))
    low, high = found[at].interval(m.level)
    tokens = float(grid.at(at)["D"].mean())
    seeds = grid.noise[loss][1] > 0
    how = "errors from the seeds" if seeds else "errors from the scatter around a line"
    note = f"at {tokens:.3g} different tokens, the surest of {len(found)}; {how}"
    return Finding(float(found[at].value), float(low), float(high), p, verdict, note)


def _largest_minus_smallest(grid: DataGrid, level: int, loss: str) -> Estimate | None:
    cells = grid.at(level).dropna(subset=loss)
    if len(cells) < 3:
        return None
    y, n = cells[loss].to_numpy(float), cells[f"{loss}_n"].to_numpy(float)
    noise, spare = grid.noise[loss]
    if spare:
        return infer.estimate(y[-1] - y[0], math.sqrt(noise * (1 / n[0] + 1 / n[-1])), spare)
    x = np.log(cells["N"].to_numpy(float))
    e = infer.slope(x, y)
    return infer.estimate(e.value * np.ptp(x), e.se * np.ptp(x), e.df)


def together_over_training(m: Measured) -> Finding:
    """How the held-out loss moves per nat of the seen loss, in the second half of training."""
    grid, course = m.limited, m.course("heldout", "seen")
    runs = m.usual[m.usual["run_id"].isin(course)]
    rows = []
    for run_id, size, tokens in runs[["run_id", "size", "U"]].itertuples(index=False):
        part = course[run_id]
        late = part[part["step"] >= part["step"].iloc[-1] / 2]
        seen = late["seen"].to_numpy(float)
        # A seen loss that stands still says nothing of what memorising brings.
        if len(late) >= 3 and seen[0] - seen[-1] > _OPEN:
            slope = np.polyfit(seen, late["heldout"].to_numpy(float), 1)[0]
            rows.append((size, tokens, float(slope)))
    table = pd.DataFrame(rows, columns=["size", "U", "slope"])
    cells = table.groupby(["size", table["U"].round(-3)])["slope"].mean().to_numpy()
    need(len(cells) >= 3, "fewer than three cells whose seen loss falls in the second half")
    note = f"mean over {len(cells)} of {len(grid.cells)} cells, those whose seen loss still falls"
    return infer.above(infer.mean(cells), m.level, note=note)


def together_over_sizes(m: Measured) -> Finding:
    """How both losses change with log N at equal data; the claim is that both fall.

    Not the slope of one loss on the other: the noise of a run moves both, and would support the
    claim whatever its truth.
    """
    cells = m.limited.cells.dropna(subset=["seen", "last"])
    need(len(cells) >= 4, "no run has recorded seen_nll")
    log_n, level = np.log10(cells["N"].to_numpy(float)), cells["level"].to_numpy()
    seen, last = (infer.slope(log_n, cells[c].to_numpy(float), level) for c in ("seen", "last"))
    verdict, p = judge(
        all_must([float(seen.p_below), float(last.p_below)]),
        all_must([float(seen.p_below), float(last.p_above)]),
        m.level,
    )
    low, high = last.interval(m.level)
    ends = seen.interval(m.level)
    note = f"the seen loss changes by {seen.value:.3g} [{ends[0]:.3g}, {ends[1]:.3g}]"
    return Finding(float(last.value), float(low), float(high), p, verdict, note)


def training_floor(m: Measured) -> Finding:
    """The lowest seen loss of any cell, and in how many cells the text is memorised.

    One cell that is below the floor for sure contradicts it, corrected for the number of cells.
    Support needs every cell above it, and at least one that has memorised its text: a model that is
    still learning may have a high loss whatever the floor.
    """
    grid, course = m.limited, m.course("seen")
    cells = grid.cells.dropna(subset=["seen", "last"])
    need(len(cells) > 0, "no run has recorded seen_nll")
    noise, spare = grid.noise["seen"]
    if not spare:
        raise Open("one seed for each cell: the error of a seen loss is unknown")
    seen = cells["seen"].to_numpy(float)
    settled = _settled(m, course)
    at_rest = [cell in settled for cell in zip(cells["size"], cells["level"], strict=True)]
    learned = np.array(at_rest) & (seen < (1 - _MEMORISED) * cells["last"].to_numpy(float))
    se = np.sqrt(noise / cells["seen_n"].to_numpy(float))
    t = (seen - FLOOR) / se
    p_for = all_must(stats.t.sf(t, spare)) if learned.any() else 1.0
    verdict, p = judge(p_for, one_enough(stats.t.cdf(t, spare)), m.level)
    i = int(seen.argmin())
    half = float(stats.t.ppf((1 + m.level) / 2, spare) * se[i])
    note = (
        f"memorised in {learned.sum()} of {len(cells)} cells: the seen loss has settled, "
        f"{_MEMORISED:.0%} or more below the held-out one",
        "nats are per token of this study's tokenizer, for which the source claims nothing",
    )
    return Finding(seen[i], seen[i] - half, seen[i] + half, p, verdict, join(*note))


def _settled(m: Measured, course: dict[str, pd.DataFrame]) -> set[tuple[str, int]]:
    """The cells, by size and level, all of whose runs ended with a steady seen loss."""
    runs, steady = m.usual.assign(level=same(m.usual["U"].to_numpy())), {}
    for run_id, size, level in runs[["run_id", "size", "level"]].itertuples(index=False):
        part = course.get(run_id)
        at_rest = False
        if part is not None:
            step, seen = part["step"].to_numpy(float), part["seen"].to_numpy(float)
            before = np.interp((1 - _LAST) * step[-1], step, seen)
            at_rest = bool(before - seen[-1] < _SETTLED * before)
        steady[size, level] = steady.get((size, level), True) and at_rest
    return {cell for cell, at_rest in steady.items() if at_rest}


def balanced(m: Measured) -> Finding:
    """The exponent x of D along which the gap stays the same as N grows: N ~ D^x.

    From log gap = c + p log N - q log D, x = q / p.
    """
    cells = m.limited.cells.dropna(subset=["seen", "last"])
    need(len(cells) >= 5, "no run has recorded seen_nll")
    gap = (cells["last"] - cells["seen"]).to_numpy(float)
    kept = cells[gap > _OPEN]
    if len(kept) < 5:
        raise Open(f"the gap has opened in {len(kept)} cells; five are needed")
    n, d = (np.log(kept[c].to_numpy(float)) for c in ("N", "D"))
    y = np.log(gap[gap > _OPEN])
    design_nP = np.column_stack([n, -d, np.ones(len(kept))])
    fit_of = lambda *w: infer.linear(design_nP, y, np.array([*w, 0.0]))
    p, q = fit_of(1.0, 0.0), fit_of(0.0, 1.0)
    if not float(p.p_above) < (1 - m.level) / 2:
        raise Open("it is not certain that the gap grows with N, so no best N can be given for a D")
    low, high = near(2.0)
    # x >= low exactly if q - low p >= 0, because p > 0: t tests of linear combinations (Fieller).
    over, under = fit_of(-low, 1.0), fit_of(-high, 1.0)
    verdict, p_two = judge(
        float(max(over.p_above, under.p_below)), float(min(over.p_below, under.p_above)), m.level
    )
    ends = _fieller(p, q, fit_of(1.0, 1.0), m.level)
    note = f"gap open in {len(kept)} of {len(cells)} cells" if len(kept) < len(cells) else ""
    return Finding(float(q.value / p.value), *ends, p_two, verdict, note)


def _fieller(p: Estimate, q: Estimate, both: Estimate, level: float) -> tuple[float, float]:
    """The interval of q / p, with p above 0 at this level; `both` estimates their sum."""
    t2 = float(stats.t.ppf((1 + level) / 2, p.df)) ** 2
    covariance = (both.se**2 - p.se**2 - q.se**2) / 2
    a = float(p.value**2 - t2 * p.se**2)
    b = float(p.value * q.value - t2 * covariance)
    root = math.sqrt(max(b * b - a * float(q.value**2 - t2 * q.se**2), 0.0))
    return (b - root) / a, (b + root) / a


_MORE_IS_WORSE = "Larger is not always better: with few data the larger model has the higher loss."
_TOGETHER = "Generalisation improves along with memorisation of the training samples."

CLAIMS = (
    *(
        SourceClaim(
            "N1",
            part,
            _MORE_IS_WORSE,
            f"at some amount of data the largest model has a higher {which} held-out loss than the "
            "smallest",
            f"{which} loss of the largest minus that of the smallest",
            "nats",
            _STUDY,
            f"{_SEEDS}, and fewer tokens",
            lambda m, loss=loss: larger_is_worse(m, loss),
        )
        for part, which, loss in (("a", "last", "last"), ("b", "lowest", "best"))
    ),
    SourceClaim(
        "N2",
        "a",
        _TOGETHER,
        "in the second half of training the held-out loss falls along with the seen loss",
        "change of the held-out loss per nat of the seen loss, mean over cells",
        "",
        _STUDY,
        "sizes and amounts of data",
        together_over_training,
    ),
    SourceClaim(
        "N2",
        "b",
        _TOGETHER,
        "at equal data larger models have a lower loss on seen text and on held-out text",
        "change of the held-out loss per tenfold N",
        "nats",
        _STUDY,
        "sizes",
        together_over_sizes,
    ),
    SourceClaim(
        "N3",
        "",
        "The training cross-entropy cannot fall below about 1.",
        f"once the data are memorised, the seen loss is above {FLOOR:g} nat in every cell",
        "lowest seen loss of any cell",
        "nats",
        f"{_STUDY}, capacity",
        "seeds, and training until the seen loss has settled",
        training_floor,
    ),
    SourceClaim(
        "N4",
        "",
        "Balanced models have N of the order of D^2.",
        "the gap between held-out and seen loss stays the same along N ~ D^x, x within 25 % of 2",
        "exponent x",
        "",
        _STUDY,
        "sizes whose gap has opened",
        balanced,
    ),
)
