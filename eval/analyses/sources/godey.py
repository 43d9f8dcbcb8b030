"""Godey et al. 2024 (arXiv 2404.07647): the softmax bottleneck, by which small models saturate.

The narrow models are the lower half of the study's widths, the wide ones the rest. All tests
compare the last third of training, by the logarithm of tokens, with what came before.
"""

import dataclasses

import numpy as np
import pandas as pd

from eval.analyses.sources import inference as infer
from eval.analyses.sources.claim import SourceClaim
from eval.analyses.sources.inference import Open, need
from eval.analyses.sources.measured import Measured
from eval.laws import forms
from eval.laws.fitting.fit import Fit
from eval.laws.fitting.points import points
from eval.stats.decision import (
    CANNOT_BE_TOLD,
    CONTRADICTED,
    SUPPORTED,
    Finding,
    all_must,
    judge,
    one_enough,
)

LONG = 1000.0
"""Tokens for each parameter of the narrowest model, below which no saturation is expected."""
TOGETHER = 0.3
"""Decades of tokens within which two events count as one."""
WEAK = 0.3
"""A correlation between minus and plus this number is weak."""
MISSED = 0.1
"""A matrix with a larger W-error than this has too low a rank for the corpus."""
_WIDTHS = 3  # the fewest widths
_PER_RUN = 8  # points of a wide run that a law is fitted to
_SMOOTH = 3  # evaluations over which a rise is measured
_CERTAIN = 1e6  # degrees of freedom of an error that is known
_STUDY = "saturation"


@dataclasses.dataclass(frozen=True)
class Courses:
    """How narrow and wide models went.

    Attributes:
      narrow: evaluations of each run, one frame for each.
      wide: the same of wide models.
      sizes: N by run id.
    """

    narrow: tuple[pd.DataFrame, ...]
    wide: tuple[pd.DataFrame, ...]
    sizes: dict[str, float]


def courses(m: Measured, *measures: str) -> Courses:
    """The runs of narrow and of wide models.

    Raises:
      Untestable: there are too few widths, or no narrow model was trained for long.
    """
    runs = m.usual.dropna(subset=["width"])
    widths = np.unique(runs["width"])
    need(len(widths) >= _WIDTHS, f"{len(widths)} widths; {_WIDTHS} are needed")
    narrowest = runs[runs["width"] == widths[0]]
    long = float((narrowest["T"] / narrowest["P"]).max())
    need(
        long >= LONG,
        f"the narrowest model was trained on {long:.3g} tokens for each parameter; saturation is "
        f"asked for from {LONG:g}",
    )
    found = m.course(*measures)
    limit = widths[(len(widths) + 1) // 2 - 1]
    split = [
        tuple(found[run] for run in part["run_id"] if run in found)
        for part in (runs[runs["width"] <= limit], runs[runs["width"] > limit])
    ]
    need(all(split), "narrow or wide models were not evaluated during training")
    return Courses(split[0], split[1], dict(zip(runs["run_id"], runs["N"], strict=True)))


def trend(part: pd.DataFrame, measure: str, last: bool = True) -> float:
    """The slope of a measure on log10 tokens in the last third of training, or in the first."""
    x = np.log10(part["tokens"].to_numpy(float))
    third = (x[-1] - x[0]) / 3
    kept = x >= x[-1] - third if last else x <= x[0] + third
    if kept.sum() < 3:
        raise Open("fewer than three evaluations in a third of training")
    return float(np.polyfit(x[kept], part[measure].to_numpy(float)[kept], 1)[0])


def rises(m: Measured, measure: str) -> Finding:
    """The late trend of a measure in narrow models."""
    found = courses(m, measure)
    values = np.array([trend(part, measure) for part in found.narrow])
    return infer.above(infer.mean(values), m.level, note=f"{len(values)} narrow runs")


def only_narrow(m: Measured, measure: str) -> Finding:
    """The late trend of a measure in narrow models minus that in wide ones."""
    found = courses(m, measure)
    late = [np.array([trend(p, measure) for p in group]) for group in (found.narrow, found.wide)]
    note = f"{len(late[0])} narrow and {len(late[1])} wide runs"
    return infer.above(infer.difference(*late), m.level, note=note)


def law_of_wide(found: Courses) -> Fit:
    """The law in N and D of the wide models' courses.

    Raises:
      Open: there are too few wide sizes.
    """
    rows = []
    for part in found.wide:
        kept = np.unique(np.linspace(0, len(part) - 1, _PER_RUN).round().astype(int))
        n = found.sizes[str(part["run_id"].iloc[0])]
        rows += [
            (part["run_id"].iloc[0], n, tokens, y)
            for tokens, y in part.iloc[kept][["tokens", "heldout"]].to_numpy(float)
        ]
    table = pd.DataFrame(rows, columns=["run", "N", "D", "y"])
    if table["N"].nunique() < _WIDTHS:
        raise Open(f"{table['N'].nunique()} wide sizes; a law in N and D needs {_WIDTHS}")
    runs = points(
        table["y"].to_numpy(float),
        cluster=table["run"].to_numpy(object),
        N=table["N"].to_numpy(float),
        D=table["D"].to_numpy(float),
    )
    return infer.law(forms.get("chinchilla"), runs)


def excess(m: Measured, best: bool) -> Finding:
    """How far narrow models are above the law of the wide ones, at their best or last loss."""
    found = courses(m, "heldout")
    fitted = law_of_wide(found)
    ends = []
    for part in found.narrow:
        row = part.iloc[int(part["heldout"].to_numpy().argmin()) if best else -1]
        ends.append((found.sizes[str(row["run_id"])], float(row["tokens"]), float(row["heldout"])))
    n, d, y = (np.array(column) for column in zip(*ends, strict=True))
    over = lambda p: np.log(y / fitted.form.predict(p, N=n, D=d))
    scatter = infer.mean(over(fitted.params))
    # The law is common to all narrow models, so its error does not average out.
    of_law = infer.of_law(fitted, lambda p: float(np.mean(over(p))))
    still = dataclasses.replace(of_law, value=np.asarray(0.0))
    e = infer.combined(scatter, still)
    return infer.above(e, m.level, note=f"{len(y)} narrow runs, extrapolated in N")


def coincide(m: Measured) -> Finding:
    """When anisotropy rises fastest, against when the loss is lowest, in decades of tokens.

    Over the narrow models whose loss rises in the last third: others have no point to meet at.
    """
    found = courses(m, "heldout", "anisotropy")
    turned = [part for part in found.narrow if trend(part, "heldout") > 0]
    if len(turned) < 2:
        raise Open(f"the loss of {len(turned)} narrow models rises late in training")
    apart, steps_apart = [], []
    for part in turned:
        x = np.log10(part["tokens"].to_numpy(float))
        rise = part["anisotropy"].to_numpy(float)
        steps_apart.append(float(np.median(np.diff(x))))
        steps = (rise[_SMOOTH:] - rise[:-_SMOOTH]) / (x[_SMOOTH:] - x[:-_SMOOTH])
        i = int(steps.argmax())
        apart.append((x[i] + x[i + _SMOOTH]) / 2 - x[int(part["heldout"].to_numpy().argmin())])
    note = f"{len(turned)} of {len(found.narrow)} narrow runs, those whose loss rises"
    # Both times are known to half an evaluation's distance, which is the same for all runs.
    grid = infer.estimate(0.0, float(np.mean(steps_apart)) / np.sqrt(6), _CERTAIN)
    e = infer.combined(infer.mean(np.array(apart)), grid)
    return infer.inside(e, (-TOGETHER, TOGETHER), m.level, note)


def flat_then_spiked(m: Measured) -> Finding:
    """The late trend of the head's singular entropy; it must fall early and rise late."""
    found = courses(m, "entropy")
    late, early = (
        infer.mean(np.array([trend(part, "entropy", last) for part in found.narrow]))
        for last in (True, False)
    )
    verdict, p = judge(
        all_must([float(late.p_above), float(early.p_below)]),
        one_enough([float(late.p_below), float(early.p_above)]),
        m.level,
    )
    low, high = late.interval(m.level)
    first = early.interval(m.level)
    note = f"in the first third {early.value:.3g} [{first[0]:.3g}, {first[1]:.3g}]"
    return Finding(float(late.value), float(low), float(high), p, verdict, note)


def comes_with_the_loss(m: Measured, given: bool) -> Finding:
    """The correlation of the head's effective rank with the loss, at equal size.

    Args:
      m: the runs.
      given: whether batch size and weight decay are held equal, too.
    """
    last = m.histories.dropna(subset="rank").drop_duplicates("run_id", keep="last")
    need(len(last) > 0, "no run has recorded effective_rank")
    ranks = last.set_index("run_id")["rank"].astype(float)
    runs = m.runs.assign(rank=m.runs["run_id"].map(ranks)).dropna(subset=["rank", "last"])
    recipe = runs[["batch_size", "weight_decay"]].astype(float)
    varied = [str(c) for c in recipe if recipe[c].nunique(dropna=False) >= 3]
    need(len(varied) > 0, "no three batch sizes or weight decays")
    sizes = pd.get_dummies(runs["size"]).to_numpy(float)
    # log(1 + x): a weight decay may be 0.
    held = [np.log1p(recipe[c].to_numpy(float)) for c in varied] if given else []
    design_nP = np.column_stack([sizes, *held])
    rest = []
    for column in ("rank", "last"):
        y = np.log(runs[column].to_numpy(float))
        rest.append(y - design_nP @ np.linalg.lstsq(design_nP, y, rcond=None)[0])
    df = len(runs) - design_nP.shape[1] - 2
    if df < 2 or not all(r @ r > 0 for r in rest):
        raise Open("too few runs")
    a, b = rest
    r = float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -0.999999, 0.999999))
    # Fisher's z; its variance is 1 / (n - 3), less the variables held equal.
    z = infer.estimate(np.arctanh(r), 1 / np.sqrt(df - 1), _CERTAIN)
    if given:
        found = infer.inside(z, (-float(np.arctanh(WEAK)), float(np.arctanh(WEAK))), m.level)
    else:
        found = infer.below(z, m.level)
    low, high = np.tanh([found.low, found.high])
    note = f"{len(runs)} runs; differ in {' and '.join(varied)}"
    return dataclasses.replace(found, effect=r, low=float(low), high=float(high), note=note)


def low_rank_costs(m: Measured) -> Finding:
    """The loss of halving the rank of the head, from the two largest ranks of each run."""
    rows = m.by_rank("rank_limited_head").sort_values("rank")
    widths = rows["width"].nunique()
    need(widths >= 2, f"heads of limited rank of models of {widths} width; 2 are needed")
    costs = []
    for _, part in rows.groupby("run_id"):
        if len(part) < 2:
            raise Open("a run whose head was limited to one rank only")
        (less, more), (worse, better) = part[["rank", "value"]].tail(2).to_numpy(float).T
        costs.append((worse - better) / np.log2(more / less))
    note = f"{len(costs)} runs of {widths} widths; ranks up to {rows['rank'].max():.0f}"
    return infer.above(infer.mean(np.array(costs)), m.level, note=note)


def needs_rank(m: Measured) -> Finding:
    """The W-error of the corpus at the width of the widest model; exact, so it has no p value."""
    rows = m.by_rank("context_rank")
    width = m.runs["width"].max()
    at = []
    for _, part in rows.sort_values("rank").groupby("run_id"):
        ranks, values = part[["rank", "value"]].to_numpy(float).T
        if not ranks[0] <= width <= ranks[-1]:
            raise Open(f"the ranks measured are {ranks[0]:.0f} to {ranks[-1]:.0f}, not {width:.0f}")
        at.append(np.interp(np.log(width), np.log(ranks), values))
    value, low, high = (float(f(at)) for f in (np.mean, np.min, np.max))
    verdict = SUPPORTED if low > MISSED else CONTRADICTED if high <= MISSED else CANNOT_BE_TOLD
    return Finding(value, low, high, np.nan, verdict, f"at width {width:.0f}", exact=True)


_SATURATE = "Small models saturate: late in training their loss rises, to 8 % above the law of"
_ANISOTROPY = "At that point the last layer turns anisotropic, in small models only."
_CAUSE = (
    "Low rank goes with a high loss but does not cause it; batch size and weight decay drive it."
)
_MORE = "narrow and wide runs, trained for longer"
_TREND = "per tenfold tokens"

CLAIMS = (
    SourceClaim(
        "G1",
        "a",
        f"{_SATURATE} large ones.",
        "in the last third of training the held-out loss of narrow models rises",
        "slope of the loss, mean over narrow runs",
        f"nats {_TREND}",
        _STUDY,
        _MORE,
        lambda m: rises(m, "heldout"),
    ),
    SourceClaim(
        "G1",
        "b",
        f"{_SATURATE} large ones.",
        "in the last third of training the loss of narrow models falls less than that of wide ones",
        "slope of the loss, narrow minus wide",
        f"nats {_TREND}",
        _STUDY,
        _MORE,
        lambda m: only_narrow(m, "heldout"),
    ),
    *(
        SourceClaim(
            "G1",
            part,
            f"{_SATURATE} large ones.",
            f"at their {which} loss narrow models are above the law of the wide ones",
            f"log of the loss over that law (published: {published})",
            "",
            _STUDY,
            f"wide sizes: three or more; {_MORE}",
            lambda m, best=best: excess(m, best),
        )
        for part, which, published, best in (
            ("c", "last", 0.08, False),
            ("d", "lowest", 0.04, True),
        )
    ),
    SourceClaim(
        "G2",
        "a",
        _ANISOTROPY,
        "in the last third of training anisotropy rises more in narrow models than in wide ones",
        "slope of anisotropy, narrow minus wide",
        _TREND,
        _STUDY,
        _MORE,
        lambda m: only_narrow(m, "anisotropy"),
    ),
    SourceClaim(
        "G2",
        "b",
        _ANISOTROPY,
        "in narrow models anisotropy rises fastest where the loss is lowest, to a factor of two",
        "decades of tokens from the lowest loss to the fastest rise, mean over narrow runs",
        "",
        _STUDY,
        _MORE,
        coincide,
    ),
    SourceClaim(
        "G3",
        "",
        "Singular values of the head flatten, then one spikes.",
        "in narrow models the singular entropy falls in the first third of training and rises in "
        "the last",
        "slope of the singular entropy in the last third, mean over narrow runs",
        f"nats {_TREND}",
        _STUDY,
        _MORE,
        flat_then_spiked,
    ),
    SourceClaim(
        "G4",
        "",
        "A head of rank below about 1,000 costs perplexity, whatever the model.",
        "the loss of heads trained on frozen states still falls between the two largest ranks that "
        "were tried (`python -m train rank-heads RUN`)",
        "loss of halving the rank, mean over runs",
        "nats",
        _STUDY,
        "runs measured by `python -m train rank-heads`",
        low_rank_costs,
    ),
    SourceClaim(
        "G5",
        "",
        "Contexts of natural language need a rank of thousands.",
        f"a matrix whose rank is the width of the widest model misses more than {MISSED:g} of the "
        "corpus's next-token frequencies (`python -m train context-rank --run-directory RUN`)",
        "W-error at that width",
        "",
        _STUDY,
        "ranks, up to the width, for `python -m train context-rank`",
        needs_rank,
    ),
    SourceClaim(
        "G6",
        "a",
        f"{_CAUSE} (Kulkarni, arXiv 2602.20433)",
        "at equal size, runs with a lower effective rank of the head have a higher loss",
        "correlation of log rank and log loss",
        "",
        "batch_size",
        "batch sizes and weight decays",
        lambda m: comes_with_the_loss(m, given=False),
    ),
    SourceClaim(
        "G6",
        "b",
        f"{_CAUSE} (Kulkarni, arXiv 2602.20433)",
        f"with batch size and weight decay equal, too, that correlation is within {WEAK:g} of 0",
        "partial correlation of log rank and log loss",
        "",
        "batch_size",
        "runs at several batch sizes and weight decays",
        lambda m: comes_with_the_loss(m, given=True),
    ),
)
