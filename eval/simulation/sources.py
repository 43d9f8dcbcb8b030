"""Studies of known truth for the claims of the sources: decoders on much or little text.

`data_size` follows Kaplan's L(N, D) for the lowest loss, from which the last loss rises where text
is repeated too often; seen text is predicted better by a gap of the form N^p D^-q.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from eval.data.study import (
    EVAL_COLUMNS,
    MEASURE_COLUMNS,
    RECIPE_COLUMNS,
    SHAPE_COLUMNS,
    UNFINISHED_COLUMNS,
    Study,
    complete,
)
from eval.laws import forms

SIZES = (2e4, 6e4, 2e5, 6e5)  # parameters outside the embedding
TEXTS = (3e4, 1e5, 3e5, 1e6, 3e6)  # different tokens
BATCH = 2048.0  # tokens of a step


@dataclasses.dataclass(frozen=True)
class Truth:
    """What is true of the simulated runs.

    Attributes:
      alpha_n: exponent of N in L(N, D) = ((N_c/N)^(alpha_n/alpha_d) + D_c/D)^alpha_d.
      alpha_d: exponent of D there.
      floor: a loss added to it, nats.
      slower: the steps needed to any loss grow as N^slower.
      overfit: how far the last loss is above the lowest, nats at the smallest text, of the largest
        model; smaller models overfit less, in proportion to their rank.
      worse: the same for the lowest loss.
      gap: the last held-out loss is above the seen one by so much at the smallest size and text.
      gap_n: exponent p of the gap in N.
      gap_d: exponent q of the gap in D.
      stop: the step of the lowest loss over Kaplan's bound.
      length: steps of a run over that step.
      tilt: what the loss still falls by from Kaplan's bound to its lowest, nats.
      noise: standard deviation between seeds, nats.
      wobble: standard deviation between evaluations of a run, nats.
    """

    alpha_n: float = 0.076
    alpha_d: float = 0.103
    floor: float = 0.0
    slower: float = 0.0
    overfit: float = 0.3
    worse: float = 0.0
    gap: float = 0.05
    gap_n: float = 0.4
    gap_d: float = 0.8
    stop: float = 3.0
    length: float = 1.6
    tilt: float = 0.01
    noise: float = 0.01
    wobble: float = 0.0005


Row = tuple[str, str, str, str, float, float]  # of a run's histories
N_C, D_C = 2e11, 5e9  # of L(N, D)
S_C, ALPHA_S = 200.0, 0.76  # of the loss over steps
MEMORISES = 6.0  # the gap opens as 1 - exp(-MEMORISES t), over the time t from 0 to 1
EVALUATIONS = 40  # of a run


def assembled(
    runs: pd.DataFrame, histories: Sequence[Row], recipes: pd.DataFrame, tasks: Sequence[str] = ()
) -> Study:
    """A study of these runs, whose other columns are filled in.

    Args:
      runs: with the columns size, seed, protocol, params_non_embedding, tokens_seen, unique_tokens,
        steps, upstream_nll, and others of `Study.runs`.
      histories: from `measurements`.
      recipes: rows of RECIPE_COLUMNS; columns that are missing are NaN.
      tasks: names of tasks that the runs have scores on.
    """
    table = runs.assign(
        study="simulated", family="decoder_only", corpus="simulated", device="1 x cpu"
    )
    if "architecture" not in table:
        table = table.assign(architecture="transformer")
    if "params_total" not in table:
        table = table.assign(params_total=1.2 * table["params_non_embedding"])
    table["flops_forward"] = 2.0 * table["params_non_embedding"] * 128
    table["flops_train_total"] = 6.0 * table["params_non_embedding"] * table["tokens_seen"]
    columns = list(EVAL_COLUMNS)
    rows = pd.DataFrame(histories, columns=["run_id", "task", "split", "metric", "step", "value"])
    rows = rows.assign(stage="pretrain", n=1000.0, stderr=0.01).reindex(columns=columns)
    return Study(
        name="simulated",
        runs=complete(table, tasks),
        evals=rows.drop_duplicates(columns[:5], keep="last"),
        unfinished=pd.DataFrame(columns=list(UNFINISHED_COLUMNS)),
        settings=pd.DataFrame(columns=["setting", "value", "runs"]),
        provenance=pd.DataFrame(columns=["run_id"]),
        histories=rows,
        recipes=recipes.reindex(columns=list(RECIPE_COLUMNS)),
    )


def measurements(run_id: str, step: np.ndarray, **values: np.ndarray) -> list[Row]:
    """Rows of a run's histories; the names of the values are those of NAMES."""
    return [
        (run_id, *NAMES[name], at, y)
        for name, of_it in values.items()
        for at, y in zip(step.tolist(), of_it.tolist(), strict=True)
    ]


NAMES = {
    "heldout": ("corpus", "validation", "nll"),
    "seen": ("memorisation", "train", "seen_nll"),
    "anisotropy": ("representation", "validation", "anisotropy"),
    "entropy": ("representation", "validation", "singular_entropy"),
    "rank": ("representation", "validation", "effective_rank"),
}
"""The task, split and metric of every measure."""


def data_size(
    truth: Truth = Truth(),
    seeds: int = 2,
    seed: int = 0,
    sizes: Sequence[float] = SIZES,
    texts: Sequence[float] = TEXTS,
) -> Study:
    """Sizes times amounts of text, each with a course of the loss and of the seen loss."""
    rng = np.random.default_rng(seed)
    runs, histories = [], []
    for s, n in enumerate(sizes):
        for d in texts:
            for i in range(seeds):
                run_id = f"transformer-size{s}-unique{d:.0f}-s{i}"
                row, part = _run(truth, n, d, (s + 1) / len(sizes), (min(texts), max(texts)), rng)
                name = {"run_id": run_id, "size": f"size{s}", "protocol": f"unique{d:.0f}"}
                runs.append(name | {"seed": i} | row)
                histories += part(run_id)
    recipes = pd.DataFrame({"run_id": [run["run_id"] for run in runs], "batch_size": 16.0})
    return assembled(pd.DataFrame(runs), histories, recipes)


def _run(truth: Truth, n: float, d: float, place: float, texts: tuple[float, float], rng):
    """One run: its row, and a function that makes its histories."""
    law, (least, most) = forms.get("kaplan_nd"), texts
    constants = {"N_c": N_C, "D_c": D_C, "alpha_N": truth.alpha_n, "alpha_D": truth.alpha_d}
    little = place * (least / d) ** 0.5  # 1 for the largest model on the smallest text
    free = float(law.predict(constants, N=n, D=1e18)[0]) + truth.floor
    lowest = float(law.predict(constants, N=n, D=d)[0]) + truth.floor + truth.worse * little
    # Without limits on the text the loss is L(N, inf) + (S_c / S)^alpha_S; it ends at `lowest`.
    s_c = S_C * (n / SIZES[0]) ** truth.slower
    stop = truth.stop * s_c / (lowest - free) ** (1 / ALPHA_S)
    steps = max(int(truth.length * stop), EVALUATIONS, int(2 * d / BATCH))  # two epochs or more
    at = np.unique(np.geomspace(40, steps, EVALUATIONS).round().astype(int))
    at = np.unique(np.append(at, min(int(np.ceil(stop)), steps)))
    # Text that is learned before the bound is learned faster than endless text.
    pace = max(1 / truth.stop, 1.0) if d < most else 1.0
    course = np.maximum(free + (s_c / (at * pace)) ** ALPHA_S, lowest)
    course = course - truth.tilt * np.minimum(at / stop, 1.0)
    course += truth.overfit * little * np.clip((at - stop) / max(steps - stop, 1), 0, None)
    noise = truth.noise * rng.standard_normal(2)
    course = course + noise[0] + truth.wobble * rng.standard_normal(len(at))
    gap = truth.gap * (n / SIZES[0]) ** truth.gap_n * (d / least) ** -truth.gap_d
    seen = course - gap * -np.expm1(-MEMORISES * at / steps) * np.exp(noise[1])
    row = {
        "params_non_embedding": n,
        "tokens_seen": steps * BATCH,
        "unique_tokens": d,
        "steps": steps,
        "upstream_nll": float(course[-1]),
    }
    return row, lambda run_id: measurements(run_id, at, heldout=course, seen=seen)


def lengths(
    loss: Callable[[float, float], float],
    tokens: Sequence[float] | Callable[[float], Sequence[float]] = (1e6, 3e6, 1e7, 3e7, 1e8),
    sizes: Sequence[float] = SIZES,
    seeds: int = 2,
    seed: int = 0,
    noise: float = 0.003,
    *,
    evaluated: bool = False,
) -> Study:
    """Sizes trained on several numbers of new tokens each.

    Args:
      loss: the last loss for N and D.
      tokens: the lengths of training, or those of each size.
      sizes: parameters outside the embedding.
      seeds: runs of every cell.
      seed: of the generator.
      noise: standard deviation of log loss between runs.
      evaluated: whether the runs were evaluated during training, on the same law.
    """
    rng, runs, histories = np.random.default_rng(seed), [], []
    for s, n in enumerate(sizes):
        for k, d in enumerate(tokens(n) if callable(tokens) else tokens):
            for i in range(seeds):
                factor = np.exp(noise * rng.standard_normal())
                name = {"run_id": f"transformer-size{s}-steps{k}-s{i}", "size": f"size{s}"}
                costs = {"params_non_embedding": n, "tokens_seen": d, "steps": d / BATCH}
                more = {"protocol": f"steps{k}", "seed": i, "unique_tokens": min(d, 3e7)}
                runs.append(name | costs | more | {"upstream_nll": loss(n, d) * factor})
                if evaluated:
                    at = np.geomspace(d / 100, d, EVALUATIONS)
                    y = np.array([loss(n, tokens_) * factor for tokens_ in at])
                    histories += measurements(name["run_id"], at / BATCH, heldout=y)
    recipes = pd.DataFrame({"run_id": [run["run_id"] for run in runs], "batch_size": 16.0})
    return assembled(pd.DataFrame(runs), histories, recipes)


def repeated(
    star: float, seeds: int = 2, seed: int = 0, noise: float = 0.003, epochs: float = 32.0
) -> Study:
    """Sizes and texts whose loss follows the data-constrained law, for up to so many epochs.

    Args:
      star: R_D*, the repetitions after which 63 % of what repeating can give is gained.
      seeds: runs of every cell.
      seed: of the generator.
      noise: standard deviation between seeds, and a third of it between evaluations, of log loss.
      epochs: how often the smallest text is read; larger ones are read for as many tokens.
    """
    rng, form = np.random.default_rng(seed), forms.get("data_constrained")
    law = {"A": 60.0, "B": 200.0, "E": 1.5, "alpha": 0.35, "beta": 0.4}
    law |= {"R_D_star": star, "R_N_star": 1e4}
    runs, histories = [], []
    for (s, n), d, i in itertools.product(enumerate(SIZES), TEXTS[1:], range(seeds)):
        steps = int(epochs * TEXTS[1] * (d / TEXTS[1]) ** 0.5 / BATCH)
        at = np.unique(np.linspace(steps / EVALUATIONS, steps, EVALUATIONS).round().astype(int))
        y = form.predict(law, N=n, D=at * BATCH, U=np.minimum(d, at * BATCH))
        y = y * np.exp(noise * rng.standard_normal() + noise / 3 * rng.standard_normal(len(at)))
        run_id = f"transformer-size{s}-unique{d:.0f}-s{i}"
        name = {"run_id": run_id, "size": f"size{s}", "protocol": f"unique{d:.0f}", "seed": i}
        costs = {"params_non_embedding": n, "tokens_seen": steps * BATCH, "steps": steps}
        runs.append(name | costs | {"unique_tokens": d, "upstream_nll": float(y[-1])})
        histories += measurements(run_id, at, heldout=y)
    recipes = pd.DataFrame({"run_id": [run["run_id"] for run in runs], "batch_size": 16.0})
    return assembled(pd.DataFrame(runs), histories, recipes)


def shapes(
    spread: float = 0.3,
    doubling: float = 0.1,
    embedding: bool = False,
    per_size: int = 8,
    seeds: int = 2,
    seed: int = 0,
    noise: float = 0.003,
) -> Study:
    """Two sizes outside the embedding, each built in several shapes.

    Args:
      spread: standard deviation of the loss over shapes, over the effect of doubling N.
      doubling: that effect, nats.
      embedding: whether the loss is a line in all parameters; else in those outside the embedding.
      per_size: shapes of each size.
      seeds: runs of every cell.
      seed: of the generator.
      noise: standard deviation between seeds, nats.
    """
    rng, runs, dimensions = np.random.default_rng(seed), [], []
    for n, shape in itertools.product((1e5, 4e5), range(per_size)):
        width = 32 * 2 ** (3 * shape / per_size) * (n / 1e5) ** 0.5
        total = n + 2048 * width
        y = 4.0 - doubling * np.log2((total if embedding else n) / 1e5)
        y += spread * doubling * rng.standard_normal()
        for i in range(seeds):
            size = f"n{n:.0f}-shape{shape}"
            costs = {"params_non_embedding": n, "params_total": total, "tokens_seen": 5e6}
            more = {"steps": 2400, "unique_tokens": 3e6, "protocol": "", "seed": i, "size": size}
            loss = {"upstream_nll": y + noise * rng.standard_normal()}
            runs.append({"run_id": f"transformer-{size}-s{i}"} | costs | more | loss)
            layers, mlp_dim, heads = per_size - shape, width * 2 ** (shape % 4), 2.0 ** (shape % 3)
            dimensions.append((runs[-1]["run_id"], layers, width, mlp_dim, heads))
    recipes = pd.DataFrame({"run_id": [run["run_id"] for run in runs], "batch_size": 16.0})
    made = assembled(pd.DataFrame(runs), (), recipes)
    return dataclasses.replace(made, shapes=pd.DataFrame(dimensions, columns=list(SHAPE_COLUMNS)))


def batches(
    critical: float = 2e4, exponent: float = 4.8, seed: int = 0, noise: float = 0.02
) -> Study:
    """Two sizes, each trained with eight batch sizes on one course of the loss over steps.

    Args:
      critical: tokens of the critical batch at 3 nats; below 0, larger batches need more steps.
      exponent: of the critical batch in 1 / loss.
      seed: of the generator.
      noise: standard deviation between runs of the log of steps, and of its change on the way.
    """
    rng, runs, histories = np.random.default_rng(seed), [], []
    loss = np.linspace(6.0, 2.6, EVALUATIONS)
    for (s, n), b in itertools.product(enumerate(SIZES[:2]), np.geomspace(1e3, 1.28e5, 8)):
        least = 400 * (n / SIZES[0]) ** -0.2 * np.exp(1.5 * (6 - loss) / 3)
        steps = least * (1 + critical * (loss / 3) ** -exponent / b)
        drift = rng.standard_normal(2)
        steps = steps * np.exp(noise * (drift[0] + drift[1] * (4.3 - loss) / 3.4))
        run_id = f"transformer-size{s}-batch{b:.0f}-s0"
        name = {"run_id": run_id, "size": f"size{s}", "protocol": f"batch{b:.0f}", "seed": 0}
        costs = {"params_non_embedding": n, "tokens_seen": steps[-1] * b, "steps": steps[-1]}
        runs.append(name | costs | {"unique_tokens": 3e6, "upstream_nll": loss[-1]})
        histories += measurements(run_id, steps, heldout=loss)
    recipes = pd.DataFrame({"run_id": [run["run_id"] for run in runs]})
    recipes["batch_size"] = [run["tokens_seen"] / run["steps"] / 128 for run in runs]
    return assembled(pd.DataFrame(runs), histories, recipes)


_SEEDS_OF_WIDTH = 3  # runs of every width in a study of saturation


def saturation(
    rise: float = 0.1,
    excess: float = 0.05,
    late: float = 0.0,
    spike: float = 0.3,
    learns: float = 80.0,
    seed: int = 0,
    noise: float = 0.01,
) -> Study:
    """Six widths trained for long; in the lower three the loss, anisotropy and entropy turn late.

    Args:
      rise: of the narrow models' loss in the last third of training, nats per decade of tokens.
      excess: how far narrow models are above the law of the wide ones before that, log of the loss.
      late: decades of tokens from the turn of the loss to that of anisotropy.
      spike: rise of anisotropy of narrow models; of their singular entropy, twice that per decade.
      learns: coefficient B of tokens in the law of all.
      seed: of the generator.
      noise: standard deviation between runs, of log loss and of the trends.
    """
    rng, form = np.random.default_rng(seed), forms.get("chinchilla")
    law = {"A": 30.0, "B": learns, "E": 2.0, "alpha": 0.35, "beta": 0.35}
    tokens = np.geomspace(1e5, 1e9, EVALUATIONS)
    decades = np.log10(tokens / tokens[-1]) + 4 / 3  # from the turn, where the last third begins
    after = np.maximum(decades, 0.0)
    runs, histories = [], []
    for width, i in itertools.product((8, 16, 32, 64, 128, 256), range(_SEEDS_OF_WIDTH)):
        n, narrow = 12.0 * 2 * width**2, float(width <= 32)
        drift = noise * rng.standard_normal(4)
        y = form.predict(law, N=n, D=tokens) * np.exp(excess * narrow + drift[0])
        y = y + narrow * rise * after + drift[1] * after
        anisotropy = 0.2 + narrow * spike / (1 + np.exp(-8 * (decades - late))) + drift[2] * decades
        entropy = 0.5 - 0.1 * (decades - after) + narrow * 2 * spike * after
        entropy = entropy + drift[3] * decades
        run_id = f"transformer-w{width}-s{i}"
        name = {"run_id": run_id, "size": f"w{width}", "protocol": "", "seed": i}
        costs = {"params_non_embedding": n, "tokens_seen": tokens[-1], "steps": 1e5}
        runs.append(name | costs | {"unique_tokens": tokens[-1], "upstream_nll": float(y[-1])})
        measured = {"heldout": y, "anisotropy": anisotropy, "entropy": entropy}
        histories += measurements(run_id, tokens / tokens[-1] * 1e5, **measured)
    table = pd.DataFrame(runs)
    recipes = pd.DataFrame({"run_id": table["run_id"], "batch_size": 16.0})
    width = table["size"].str.removeprefix("w").astype(float)
    shape = pd.DataFrame({"run_id": table["run_id"], "num_layers": 2.0, "embed_dim": width})
    return dataclasses.replace(assembled(table, histories, recipes), shapes=shape)


def finished(
    cost: float = 0.05, error: float = 0.5, seed: int = 0, noise: float = 0.01, widest: int = 64
) -> Study:
    """Runs of several widths whose heads and whose corpus were measured at several ranks.

    Args:
      cost: of halving the rank of a head, nats.
      error: the share that a matrix of rank 32 misses of the corpus's; less at larger ranks.
      seed: of the generator.
      noise: standard deviation of the loss of a head.
      widest: the largest width.
    """
    rng, runs, measures = np.random.default_rng(seed), [], []
    widths = [w for w in (16, 32, 64, 128, 256) if w <= widest]
    for width, i in itertools.product(widths, range(_SEEDS_OF_WIDTH)):
        run_id = f"transformer-w{width}-s{i}"
        costs = {"params_non_embedding": 24.0 * width**2, "tokens_seen": 1e7, "steps": 5000}
        name = {"run_id": run_id, "size": f"w{width}", "protocol": "", "seed": i}
        runs.append(name | costs | {"unique_tokens": 3e6, "upstream_nll": 3.0})
        for rank in (4.0, 8.0, 16.0):
            y = 3 - cost * np.log2(rank / width) + noise * rng.standard_normal()
            measures.append((run_id, "rank_limited_head", rank, y))
        measures.append((run_id, "rank_limited_head", np.nan, 3.0))
    for rank in (16.0, 32.0, 64.0, 128.0):
        measures.append((runs[0]["run_id"], "context_rank", rank, error * (32 / rank) ** 0.5))
    table = pd.DataFrame(runs)
    width = table["size"].str.removeprefix("w").astype(float)
    made = assembled(table, [], pd.DataFrame({"run_id": table["run_id"], "batch_size": 16.0}))
    return dataclasses.replace(
        made,
        shapes=pd.DataFrame({"run_id": table["run_id"], "num_layers": 2.0, "embed_dim": width}),
        measures=pd.DataFrame(measures, columns=list(MEASURE_COLUMNS)),
    )


def recipes(
    own: float = 0.0, driven: float = 1.0, runs: int = 36, seed: int = 0, noise: float = 0.02
) -> Study:
    """One size trained with several batch sizes and weight decays, which move loss and rank.

    Args:
      own: how much lower the log of the loss is per unit of log rank that no recipe explains.
      driven: the effect of the recipe on both, as a share of its default.
      runs: the number of runs.
      seed: of the generator.
      noise: standard deviation of the log of the loss and of the log of the rank.
    """
    rng, rows, histories, made = np.random.default_rng(seed), [], [], []
    for i in range(runs):
        batch, decay = 2.0 ** (3 + i % 6), 0.02 * (i // 6 % 3)
        pull = driven * (0.05 * np.log1p(batch) - 2 * np.log1p(decay))
        drift = noise * rng.standard_normal(2)
        loss = 3.0 * np.exp(pull - own * drift[0] + drift[1])
        run_id = f"transformer-one-recipe{i}-s0"
        name = {"run_id": run_id, "size": "one", "protocol": f"recipe{i}", "seed": 0}
        costs = {"params_non_embedding": 1e5, "tokens_seen": 1e7, "steps": 1e7 / batch / 128}
        rows.append(name | costs | {"unique_tokens": 3e6, "upstream_nll": loss})
        made.append({"run_id": run_id, "batch_size": batch, "weight_decay": decay})
        rank = 40 * np.exp(drift[0] - pull)
        histories += measurements(run_id, np.array([100.0]), rank=np.array([rank]))
    return assembled(pd.DataFrame(rows), histories, pd.DataFrame(made))


def mixtures(agreement: float = 1.0, count: int = 6, seed: int = 0, noise: float = 0.01) -> Study:
    """Two sizes, each trained with two seeds on several mixtures of text.

    Args:
      agreement: the correlation of the mixtures' effects in the two sizes.
      count: mixtures.
      seed: of the generator.
      noise: standard deviation between seeds, nats; that of the mixtures' effects is .1.
    """
    rng, runs, made = np.random.default_rng(seed), [], []
    effects = 0.1 * rng.standard_normal((2, count))
    effects[1] = agreement * effects[0] + math.sqrt(1 - agreement**2) * effects[1]
    for (s, n), k, i in itertools.product(enumerate(SIZES[:2]), range(count), range(2)):
        run_id = f"transformer-size{s}-mixture{k}-s{i}"
        name = {"run_id": run_id, "size": f"size{s}", "protocol": f"mixture{k}", "seed": i}
        costs = {"params_non_embedding": n, "tokens_seen": 5e6, "steps": 1350}
        y = 3.0 - 0.2 * s + effects[s, k] + noise * rng.standard_normal()
        runs.append(name | costs | {"unique_tokens": 3e6, "upstream_nll": y})
        mixture = f"docs {k / count:.3g}, source {1 - k / count:.3g}"
        made.append({"run_id": run_id, "batch_size": 16.0, "mixture": mixture})
    return assembled(pd.DataFrame(runs), (), pd.DataFrame(made))


def tasks(
    slopes: Sequence[float], sizes: int = 6, seeds: int = 3, seed: int = 0, noise: float = 0.5
) -> Study:
    """Sizes with scores on several tasks, each with its points of score per nat of loss saved."""
    rng, runs = np.random.default_rng(seed), []
    for s, i in itertools.product(range(sizes), range(seeds)):
        loss = 4.0 - 0.2 * s
        names = {"run_id": f"transformer-size{s}-s{i}", "size": f"size{s}", "protocol": ""}
        costs = {"params_non_embedding": 1e4 * 3.0**s, "tokens_seen": 1e7, "steps": 5000}
        scores = {
            f"downstream_task{k}": 60 + slope * (4.0 - loss) + noise * rng.standard_normal()
            for k, slope in enumerate(slopes)
        }
        more = {"seed": i, "unique_tokens": 3e6, "upstream_nll": loss + 0.002 * rng.normal()}
        runs.append(names | costs | more | scores)
    recipe = pd.DataFrame({"run_id": [run["run_id"] for run in runs], "batch_size": 16.0})
    named = tuple(f"task{k}" for k in range(len(slopes)))
    return assembled(pd.DataFrame(runs), (), recipe, named)
