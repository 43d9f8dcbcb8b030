"""Functions to declare a study: products of cells, scaling protocols, token budgets, seeds.

Every function takes cells and returns cells, so a study can be written as one expression:

    cells = grid(configs.presets.cpu, architecture=("transformer", "glu"), size=("base", "small"))
    cells = exclude(cells, architecture="glu", size="small")
    cells = seeds(fixed_tokens(cells, 1e8), 3)

A token budget is not a separate setting: it becomes `pretrain.steps`, which the records contain.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import arch_zoo
from arch_zoo import sizes
from train.records import InputError, read_json
from train.study.config import RunConfig, digest, from_dict, identity, to_dict

Cost = Literal["flops", "params"]
RunConfigs = tuple[RunConfig, ...]

PYTHON_VOCABULARY = 2048  # ids of the vocabulary that `prepare --source python` trains
PYTHON_TASKS = 5  # downstream tasks that it makes
RANDOM_VOCABULARY = 67  # of `prepare --source random`, which has no tasks
T5_VOCABULARY = 32_128
T5_TASKS = 17  # of GLUE, SuperGLUE and SQuAD
PREPARED = {"python": (PYTHON_VOCABULARY, PYTHON_TASKS), "random": (RANDOM_VOCABULARY, 0)}
"""Vocabulary size and number of tasks of what `prepare` makes from a source; T5's for others."""


def grid(make: Callable[..., RunConfig], **axes: Iterable[Any]) -> RunConfigs:
    """One cell for each combination of values; the last axis varies fastest.

    Args:
      make: a preset, such as `configs.presets.cpu`.
      **axes: arguments of `make` and their values, such as `size=("base", "small")`.
    """
    return tuple(
        make(**dict(zip(axes, point, strict=True))) for point in itertools.product(*axes.values())
    )


def matches(cell: RunConfig, **fields: Any) -> bool:
    """Whether every named field of `cell` has the given value, or one of the values of a tuple.

    Raises:
      InputError: cells do not have such a field.
    """
    for name in fields:
        if name not in {field.name for field in dataclasses.fields(cell)}:
            known = ", ".join(field.name for field in dataclasses.fields(cell))
            raise InputError(f"cells have no field {name!r}; known: {known}")
    wanted = {
        name: value if isinstance(value, tuple) else (value,) for name, value in fields.items()
    }
    return all(getattr(cell, name) in values for name, values in wanted.items())


def exclude(cells: RunConfigs, **fields: Any) -> RunConfigs:
    """The cells without those that match.

    For example `exclude(cells, architecture="mos", size=("xl", "xxl"))`.
    """
    return tuple(cell for cell in cells if not matches(cell, **fields))


def override(cells: RunConfigs, settings: Mapping[str, Any], **fields: Any) -> RunConfigs:
    """Changes settings of the cells that match.

    Args:
      cells: all cells.
      settings: values by their dotted keys, such as {"pretrain.optimizer.learning_rate": 0.5}.
      **fields: selects the cells, as in `matches`; without any, all cells are changed.
    """
    return tuple(
        with_settings(cell, settings) if matches(cell, **fields) else cell for cell in cells
    )


def with_settings(cell: RunConfig, settings: Mapping[str, Any], where: str = "set") -> RunConfig:
    """One cell with the settings of these dotted keys changed.

    Raises:
      InputError: a key is unknown, or its value has the wrong type. Names it after `where`.
    """
    values = to_dict(cell)
    for key, value in settings.items():
        *path, last = key.split(".")
        inner = values
        for part in path:
            inner = inner.get(part)
            if not isinstance(inner, dict):
                raise InputError(f"{where}: {key!r}: {part!r} has no settings")
        inner[last] = value
    return from_dict(RunConfig, values, where)


def seeds(cells: RunConfigs, count: int) -> RunConfigs:
    """Every cell with the seeds 0, 1, ... `count` - 1, seed by seed."""
    return tuple(dataclasses.replace(cell, seed=seed) for seed in range(count) for cell in cells)


def sweep(cells: RunConfigs, settings: Mapping[str, Iterable[Any]]) -> RunConfigs:
    """Every cell with each combination of values of some settings.

    The value stands in the protocol, and so in the run's name: `learning_rate0.3`.

    Args:
      cells: all cells.
      settings: the values of each setting by its dotted key, such as
        {"pretrain.optimizer.learning_rate": (0.2, 0.3, 0.45)}.
    """
    found = []
    for cell in cells:
        for point in itertools.product(*settings.values()):
            chosen = dict(zip(settings, point, strict=True))
            named = [f"{key.split('.')[-1]}{value}" for key, value in chosen.items()]
            protocol = "-".join(filter(None, (cell.protocol, *named)))
            found.append(dataclasses.replace(with_settings(cell, chosen), protocol=protocol))
    return tuple(found)


def tuned(
    cells: RunConfigs,
    path: str | Path,
    vocab_size: int = PYTHON_VOCABULARY,
    otherwise: str = "",
) -> RunConfigs:
    """Every cell at the best learning rate of its architecture, size and protocol.

    Best rates under no protocol are those of cells whose own protocol was not swept. A size that
    was not swept has the rate of the size nearest in parameters outside the embedding, times (N / N
    of that size) ^ exponent; likewise for the tokens of pretraining.

    Args:
      cells: all cells.
      path: a file from `python -m eval tune RUNS --out FILE`.
      vocab_size: counts parameters where a size was not swept.
      otherwise: what was not swept has the rates of the other family, or else those of this
        architecture; empty refuses it.

    Raises:
      InputError: the file cannot be read, or says nothing about an architecture.
    """
    content = _read_tuning(Path(path))
    return tuple(
        with_settings(
            cell, {content["setting"]: _tuned_rate(cell, content, path, vocab_size, otherwise)}
        )
        for cell in cells
    )


def _read_tuning(path: Path) -> dict[str, Any]:
    content = read_json(path)
    for key, kind in (("setting", str), ("cells", list)):
        if not isinstance(content.get(key), kind):
            raise InputError(f"{path}: {key} = {content.get(key)!r}: not a file of `eval tune`")
    return content


def _tuned_rate(
    cell: RunConfig, content: dict[str, Any], path: str | Path, vocab_size: int, otherwise: str
) -> float:
    found = [one for one in content["cells"] if one["best_rate"]]
    same = [one for one in found if one["architecture"] == cell.architecture]
    known = [one for one in same if one["family"] in ("", cell.family)]
    if otherwise:
        known = known or same or [one for one in found if one["architecture"] == otherwise]
    protocol = cell.protocol if any(one["protocol"] == cell.protocol for one in known) else ""
    known = [one for one in known if one["protocol"] == protocol]
    tokens = float(tokens_per_step(cell) * cell.pretrain.steps)
    apart = lambda one: abs(math.log(tokens / one["tokens"])) if one["tokens"] else 0.0
    same = [one for one in known if one["size"] == cell.size]
    if same:
        return _carried(min(same, key=apart), None, tokens)
    known = [one for one in known if one["params"] and one["exponent"] is not None]
    if not known:
        raise InputError(
            f"{path}: no best rate of {cell.architecture} ({cell.family}) at {cell.size}, and no "
            "exponent from two other sizes"
        )
    params = _params(cell, vocab_size, embedding=False)
    nearest = min(known, key=lambda one: (abs(math.log(params / one["params"])), apart(one)))
    return _carried(nearest, params, tokens)


def _carried(known: Mapping[str, Any], params: int | None, tokens: float) -> float:
    """The best rate of a cell of a sweep, carried over by its exponents."""
    rate = known["best_rate"]
    if params is not None:
        rate *= (params / known["params"]) ** known["exponent"]
    if known["tokens"] and known["tokens_exponent"] is not None:
        rate *= (tokens / known["tokens"]) ** known["tokens_exponent"]
    return float(f"{rate:.3g}")


def scale(size: str, operator: str, value: int) -> str:
    """A size with one dimension set, such as `base-NL24`; replaces the operator's earlier value.

    The operator W is the width: it sets the model dimension, and the feed-forward dimension in
    proportion. The heads keep their dimension if it divides the width. If not, their number is
    kept.

    Raises:
      ConfigError: the size or the operator is unknown.
    """
    name, *given = size.split("-")
    if operator != "W":
        return "-".join(
            [name, *(o for o in given if o.rstrip("0123456789") != operator), f"{operator}{value}"]
        )
    old = sizes.dimensions(size)
    heads = (
        {"NH": value // old.head_dim}
        if value % old.head_dim == 0
        else {"KV": value // old.num_heads}
    )
    for code, number in {"DM": value, "FF": value * old.mlp_dim // old.embed_dim, **heads}.items():
        size = scale(size, code, number)
    sizes.dimensions(size)
    return size


def ladder(cells: RunConfigs, protocol: str, operator: str, values: Iterable[int]) -> RunConfigs:
    """Each cell at each value of a scaling operator, as cells of one protocol.

    Args:
      cells: the cells to scale.
      protocol: the protocol's name; `depth` and `width` are drawn in figures 4 and 5.
      operator: one of `arch_zoo.sizes.OPERATORS`, or W for the width (see `scale`).
      values: the values of the operator.
    """
    return tuple(
        dataclasses.replace(cell, size=scale(cell.size, operator, value), protocol=protocol)
        for value in values
        for cell in cells
    )


def matched(
    cells: RunConfigs,
    protocol: str,
    operator: str,
    base: str,
    by: Cost = "flops",
    grain: int = 1,
    vocab_size: int = T5_VOCABULARY,
) -> RunConfigs:
    """For each cell a counterpart of equal cost: `base`, scaled by another operator.

    Args:
      cells: the cells whose costs are matched.
      protocol: the protocol of the counterparts.
      operator: the operator that scales them (see `scale`).
      base: the size that is scaled.
      by: FLOPs of one sequence with the lengths of pretraining, or parameters (both without what is
        counted separately, see `arch_zoo.accounting`).
      grain: the operator takes multiples of this.
      vocab_size: the vocabulary size of the corpus.

    Raises:
      InputError: no value of the operator comes within 20 % of a cell's cost, or one value matches
        two cells.
    """
    found = tuple(_matched(cell, protocol, operator, base, by, grain, vocab_size) for cell in cells)
    for cell in found:
        if found.count(cell) > 1:
            raise InputError(
                f"{cell.run_id}: two cells are matched to {operator}; use a grain below {grain}"
            )
    return found


def _matched(
    cell: RunConfig, protocol: str, operator: str, base: str, by: Cost, grain: int, vocab: int
) -> RunConfig:
    def at(value: int) -> RunConfig:
        return dataclasses.replace(
            cell, size=scale(base, operator, value * grain), protocol=protocol
        )

    target, low, high = cost(cell, by, vocab), 0, 1
    # Doubling, then bisection: the cost grows with the operator.
    while cost(at(high), by, vocab) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(at(middle), by, vocab) < target else (low, middle)
    near = [at(value) for value in (low, high) if value]
    best = min(near, key=lambda candidate: abs(math.log(cost(candidate, by, vocab) / target)))
    if abs(math.log(cost(best, by, vocab) / target)) > math.log(1.2):
        raise InputError(
            f"{cell.run_id}: no {operator} on {base} in steps of {grain} comes within 20 % of its "
            f"{by}"
        )
    return best


def twins(
    cells: RunConfigs, by: Cost, protocol: str = "", vocab_size: int = T5_VOCABULARY
) -> RunConfigs:
    """For each encoder-decoder a decoder-only model of equal cost: the same size, another depth.

    Args:
      cells: encoder-decoders.
      by: FLOPs of one pretraining sequence, or parameters outside the tables, which both have.
      protocol: the protocol of the twins.
      vocab_size: the vocabulary size of the corpus.

    Raises:
      InputError: no depth comes within 20 % of a cell's cost.
    """
    return tuple(_twin(cell, by, protocol, vocab_size) for cell in cells)


def _twin(cell: RunConfig, by: Cost, protocol: str, vocab_size: int) -> RunConfig:
    def cost_of(candidate: RunConfig) -> float:
        if by == "flops":
            return cost(candidate, by, vocab_size)
        return _params(candidate, vocab_size, embedding=False)

    alone = dataclasses.replace(cell, family="decoder_only", protocol=protocol)
    layers = sizes.dimensions(cell.size).num_decoder_layers
    deep = [
        dataclasses.replace(alone, size=scale(cell.size, "DL", depth))
        for depth in range(1, 4 * layers + 1)
        if depth != layers
    ]
    target = cost_of(cell)
    best = min((alone, *deep), key=lambda candidate: abs(math.log(cost_of(candidate) / target)))
    if abs(math.log(cost_of(best) / target)) > math.log(1.2):
        raise InputError(f"{cell.run_id}: no depth of a decoder-only model comes within 20 % of it")
    return best


def cost(cell: RunConfig, by: Cost, vocab_size: int = T5_VOCABULARY) -> int:
    """The cost of a cell: forward FLOPs of one pretraining sequence, or parameters."""
    cfg = model(cell, vocab_size)
    if by == "params":
        return arch_zoo.count_params(cfg).total
    return _flops(cfg, tuple(cell.shape("pretrain").counted_lengths.values()))


@functools.lru_cache(maxsize=4096)  # matching the cells of a ladder tries the same widths again
def _flops(cfg: arch_zoo.ModelConfig, lengths: tuple[int, ...]) -> int:
    return arch_zoo.count_flops(cfg, *lengths).forward


NOT_OF_THE_MODEL = {
    "architecture": "the run's architecture",
    "size": "the run's size",
    "family": "the run's family",
    "vocab_size": "that of the corpus or the probe",
    "dropout_rate": "set for each stage, as in pretrain.dropout_rate",
}


_OF_THE_STAGE = ("vocab_size", "max_input_length", "max_target_length", "dropout_rate")
_OF_THE_MACHINE = ("dtype", "remat", "scan_layers")


def like(cell: RunConfig, record: Mapping[str, Any]) -> RunConfig:
    """A cell with the model of a run, whose `model` is in its config.json.

    What stages and the machine decide stays the cell's own: lengths, dropout, types.

    Raises:
      ConfigError: there is no such model.
    """
    kept = {**arch_zoo.config_from_dict(dict(record)).to_dict()}
    name, size, family, options = (
        kept.pop(key) for key in ("architecture", "size", "family", "options")
    )
    plain = arch_zoo.config(name, size, family=family).to_dict()
    free = (*_OF_THE_STAGE, *_OF_THE_MACHINE)
    other = {key: value for key, value in kept.items() if value != plain[key] and key not in free}
    own = {key: value for key, value in cell.model.items() if key in free}
    found = {**own, **other, **options}
    return dataclasses.replace(cell, architecture=name, size=size, family=family, model=found)


def model(cell: RunConfig, vocab_size: int, *, accelerator: bool = False) -> arch_zoo.ModelConfig:
    """The resolved model of a cell for a vocabulary, without dropout, which each stage sets.

    A cell that is trained on a probe has the probe's vocabulary and options.

    It computes in bfloat16 on accelerators and in float32 on CPU, where bfloat16 is no faster,
    unless `cell.model` says otherwise.

    Raises:
      ConfigError: the architecture, the size or a model option is unknown or not allowed.
      InputError: `cell.model` sets an option that is determined elsewhere.
    """
    for key, source in NOT_OF_THE_MODEL.items():
        if key in cell.model:
            raise InputError(f"model.{key} = {cell.model[key]!r}: it is {source}")
    defaults = {
        **cell.max_lengths,
        "dtype": "bfloat16" if accelerator else "float32",
    }
    if cell.pretrain.probe:
        probe = cell.pretrain.made_probe()
        vocab_size, defaults = probe.vocab_size, {**defaults, **probe.model}
    fixed = {"vocab_size": vocab_size, "family": cell.family}
    return arch_zoo.config(cell.architecture, cell.size, **{**defaults, **cell.model, **fixed})


def tokens_per_step(cell: RunConfig) -> int:
    """Tokens of one step of pretraining, inputs and targets."""
    return cell.shape("pretrain").tokens


def fixed_tokens(cells: RunConfigs, tokens: float) -> RunConfigs:
    """The cells pretrained on equally many tokens, inputs plus targets; steps are rounded up."""
    return tuple(_with_steps(cell, tokens / tokens_per_step(cell)) for cell in cells)


def tokens_per_parameter(
    cells: RunConfigs, ratio: float, vocab_size: int = T5_VOCABULARY, *, embedding: bool = False
) -> RunConfigs:
    """The cells pretrained on `ratio` tokens per parameter.

    Parameters of embedding tables count only with `embedding`.
    """
    return tuple(
        _with_steps(
            cell, ratio * _params(cell, vocab_size, embedding=embedding) / tokens_per_step(cell)
        )
        for cell in cells
    )


def isoflop(
    cells: RunConfigs, flops: Iterable[float], vocab_size: int = T5_VOCABULARY
) -> RunConfigs:
    """Each cell pretrained for each training budget in FLOPs.

    A budget is a protocol with a name such as `iso3e17`.
    """
    return tuple(
        dataclasses.replace(
            _with_steps(
                cell, budget / (3 * cost(cell, "flops", vocab_size) * cell.pretrain.batch_size)
            ),
            protocol=f"iso{budget:.3g}".replace("+", ""),
        )
        for budget in flops
        for cell in cells
    )


def branches(cells: RunConfigs, steps: Iterable[int], decay: float = 0.2) -> RunConfigs:
    """Each cell at several lengths, whose learning rate is constant until it falls to zero.

    The longest is a trunk that the others leave where their rate starts to fall, so together they
    cost little more than it (`train.study.trunks`). The length stands in the protocol: `steps1250`.

    Args:
      cells: all cells.
      steps: the steps before the decay.
      decay: the share of a run's steps over which the rate falls.

    Raises:
      InputError: no steps, or a share that is not between 0 and 1.
    """
    before = sorted(set(steps), reverse=True)
    if not before or before[-1] < 1:
        raise InputError(f"steps = {before}: a branch needs steps before its decay")
    if not 0 < decay < 1:
        raise InputError(f"decay = {decay!r}: must be between 0 and 1")
    return tuple(_branch(cell, step, decay, before) for step in before for cell in cells)


def _branch(cell: RunConfig, step: int, decay: float, before: Sequence[int]) -> RunConfig:
    falling = max(round(step * decay / (1 - decay)), 1)
    optimizer = dataclasses.replace(
        cell.pretrain.optimizer, schedule="constant", decay_steps=falling
    )
    stage = dataclasses.replace(
        cell.pretrain,
        steps=step + falling,
        optimizer=optimizer,
        keep_at=tuple(other for other in before if other <= step),
    )
    protocol = "-".join(filter(None, (cell.protocol, f"steps{step + falling}")))
    return dataclasses.replace(cell, pretrain=stage, protocol=protocol)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A published rule for AdamW, from sweeps of language models.

    Attributes:
      rate: the learning rate, given parameters N and tokens D.
      batch: tokens of a step, given the same.
      counts_head: whether N contains the head's table; never that of the embedding.
      source: who published it.
    """

    rate: Callable[[float, float], float]
    batch: Callable[[float, float], float]
    counts_head: bool
    source: str


RULES = {
    "porian": Rule(
        rate=lambda n, d: 0.0047 * (n / 108e6) ** (-1 / 3),
        batch=lambda n, d: 160 * 2048 * (n / 108e6) ** (2 / 3),
        counts_head=True,
        source="Porian et al., 2024, arXiv 2406.19146",
    ),
    "step_law": Rule(
        rate=lambda n, d: 1.79 * n**-0.713 * d**0.307,
        batch=lambda n, d: 0.58 * d**0.571,
        counts_head=False,
        source="Li et al., 2025, arXiv 2503.04715",
    ),
}


def by_rule(cells: RunConfigs, name: str, vocab_size: int = T5_VOCABULARY) -> RunConfigs:
    """The cells at the learning rate and the batch size of a published rule.

    Their tokens stay the same, so steps follow from the batch size, which is rounded to whole rows.

    Args:
      cells: cells with AdamW.
      name: one of `RULES`.
      vocab_size: the vocabulary size of the corpus.

    Raises:
      InputError: the rule is unknown, or a cell has another optimizer.
    """
    if name not in RULES:
        raise InputError(f"rule = {name!r} is not one of {', '.join(RULES)}")
    return tuple(_by_rule(cell, name, vocab_size) for cell in cells)


def _by_rule(cell: RunConfig, name: str, vocab_size: int) -> RunConfig:
    rule, stage = RULES[name], cell.pretrain
    if stage.optimizer.name != "adamw":
        raise InputError(
            f"{cell.run_id}: pretrain.optimizer.name = {stage.optimizer.name!r}: the rule {name} "
            "is for adamw"
        )
    params = _params(cell, vocab_size, embedding=False)
    if rule.counts_head:
        params += model(cell, vocab_size).embed_dim * vocab_size
    tokens = tokens_per_step(cell) * stage.steps
    row = tokens_per_step(cell) / stage.batch_size
    rows = max(round(rule.batch(params, tokens) / row), 1)
    settings = {
        "pretrain.optimizer.learning_rate": rule.rate(params, tokens),
        "pretrain.batch_size": rows,
        "pretrain.steps": max(round(tokens / (rows * row)), 1),
    }
    return with_settings(cell, settings)


def _params(cell: RunConfig, vocab_size: int, *, embedding: bool) -> int:
    found = arch_zoo.count_params(model(cell, vocab_size))
    return found.total if embedding else found.non_embedding


def _with_steps(cell: RunConfig, steps: float) -> RunConfig:
    return dataclasses.replace(
        cell, pretrain=dataclasses.replace(cell.pretrain, steps=math.ceil(steps))
    )


def cell_hash(cell: RunConfig, vocab_size: int, *, accelerator: bool = False) -> str:
    """A stable hash of everything that determines a cell's result, except the training text."""
    resolved = model(cell, vocab_size, accelerator=accelerator)
    return digest({**identity(cell), "model": resolved.identity()})
