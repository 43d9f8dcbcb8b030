"""Costs of hundreds of models: `arch_zoo`'s counts, computed in parallel and cached on disk.

To count a model, every layer is traced abstractly. This takes a second for `base` and several for
`xl`, most of it for layers that are alike. If the stacks repeat after some number of layers, their
period, every count is linear in the number of periods, so two shallow traces give the exact count
(a test compares it with a trace of the whole model). Counts of the large presets are stored in
`configs/studies/counts.json`; a test recomputes them.
"""

import concurrent.futures
import dataclasses
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import arch_zoo
from arch_zoo import ConfigError, ModelConfig
from train import records
from train.data.batch_shape import BatchShape
from train.study.config import OptimizerConfig, digest

PRESETS = Path(__file__).parents[2] / "configs" / "studies" / "counts.json"
CACHE = Path(".cache/counts.json")
_CHUNK = 32  # number of models between two writes of the cache
_FEW = 6  # for this many models or fewer, starting a pool of processes costs more than it saves


@dataclasses.dataclass(frozen=True)
class Counts:
    """The costs of one model.

    Attributes:
      params: number of all parameters.
      embedding: number of parameters in the tables of tokens, positions and steps.
      active: number of parameters that one token uses.
      experts: number of experts, 0 for none.
      spread: number of parameters in experts, which are sharded over the expert axis.
      flops: FLOPs of one forward pass of one sequence.
      activations: bytes per sequence: what is kept for the backward pass, and the largest
        temporary value.
      gpu_activations: the same on a GPU with fused attention, which needs training without dropout.
      moments: number of second moments that Adafactor stores; it factors large matrices.
    """

    params: int
    embedding: int
    active: int
    experts: int
    spread: int
    flops: int
    activations: int
    gpu_activations: int
    moments: int


@dataclasses.dataclass(frozen=True)
class Query:
    """What the counts of a stage depend on.

    Attributes:
      model: the model.
      lengths: those of its sequences, by the names that `arch_zoo.count_flops` gives them.
      min_factored_size: the smallest size of a matrix that Adafactor factors.
    """

    model: ModelConfig
    lengths: Mapping[str, int]
    min_factored_size: int

    @property
    def key(self) -> str:
        """A stable name: the hash of everything that affects the counts."""
        optimizer = {"min_factored_size": self.min_factored_size}
        return digest({**self.lengths, **optimizer, "model": self.model.identity()})


def count(queries: Sequence[Query], cache: Path = CACHE, *, every: float = 10.0) -> list[Counts]:
    """The counts of all queries, in their order; new counts are added to the file `cache`.

    Prints to stderr how many are done, at most every so many seconds.
    """
    code = _code()
    cached = _read(cache) if records.read_json(cache, missing={}).get("code") == code else {}
    known = {key: Counts(**values) for key, values in {**_read(PRESETS), **cached}.items()}
    new = {query.key: query for query in queries if query.key not in known}
    last = time.monotonic()
    for start in range(0, len(new), _CHUNK):  # in chunks, so that an interrupted count is not lost
        keys = list(new)[start : start + _CHUNK]
        for number, (key, found) in enumerate(_counted([new[key] for key in keys], keys), start):
            known[key] = found
            if time.monotonic() - last >= every:
                print(f"plan: counted {number + 1} of {len(new)} models", file=sys.stderr)
                last = time.monotonic()
        cached |= {key: dataclasses.asdict(known[key]) for key in keys}
        cache.parent.mkdir(parents=True, exist_ok=True)
        records.write_json(cache, {"code": code, "counts": cached})
    return [known[query.key] for query in queries]


def _read(path: Path) -> dict[str, dict[str, int]]:
    """The counts stored in a file, except those written by a version with other fields."""
    fields = {field.name for field in dataclasses.fields(Counts)}
    stored = records.read_json(path, missing={"counts": {}})["counts"]
    return {key: values for key, values in stored.items() if set(values) == fields}


def _code() -> str:
    """A hash of the models' source code; the cache is only valid for the code that wrote it."""
    sources = sorted(Path(arch_zoo.__file__).parent.rglob("*.py"))
    return digest([source.read_text(encoding="utf-8") for source in sources])


def _counted(queries: list[Query], keys: list[str]) -> Iterator[tuple[str, Counts]]:
    """The keys with their counts, one after another as they are done."""
    processes = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, len(queries)
    )
    if processes == 1 or len(queries) <= _FEW:
        yield from zip(keys, map(count_one, queries), strict=True)
        return
    context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    with concurrent.futures.ProcessPoolExecutor(
        processes, context, _leave_accelerators_alone
    ) as pool:
        yield from zip(keys, pool.map(count_one, queries), strict=True)


def _leave_accelerators_alone() -> None:
    """Restricts JAX to the CPU: nothing is computed here, and an accelerator may be in use."""
    os.environ["JAX_PLATFORMS"] = "cpu"


def count_one(query: Query) -> Counts:
    """Counts one model, by tracing two shallow models instead if its stacks repeat."""
    cfg = query.model
    flops, activations, on_gpu = _traced(query)
    params = arch_zoo.count_params(cfg)
    weights = _weights(query)
    return Counts(
        params.total,
        params.embedding,
        params.active,
        *weights[:2],
        flops,
        activations,
        on_gpu,
        weights[2],
    )


def _traced(query: Query) -> tuple[int, int, int]:
    """Forward FLOPs of one sequence, and its bytes of activations: in general, and on a GPU."""
    cfg = query.model
    depths, period = {cfg.num_layers(side) for side in cfg.sides}, _period(cfg)
    depth = max(depths)
    low = 2 * period if cfg.scan_layers else period  # a scan needs two periods
    # A model so shallow that two traces would cost as much as one is traced whole.
    if not period or depth % period or len(depths) > 1 or 2 * low + period >= depth:
        return _trace_whole(query)
    shallow, deeper = (
        _trace_whole(dataclasses.replace(query, model=cfg.with_layers(n)))
        for n in (low, low + period)
    )
    times = (depth - low) // period
    flops, activations, on_gpu = (a + times * (b - a) for a, b in zip(shallow, deeper, strict=True))
    return flops, activations, on_gpu


def _trace_whole(query: Query) -> tuple[int, int, int]:
    from arch_zoo import memory

    cfg, lengths = query.model, query.lengths.values()
    held = [memory.estimate_memory(cfg, *lengths, gpu=gpu) for gpu in (False, True)]
    activations, on_gpu = (one.activations + one.largest for one in held)
    return arch_zoo.count_flops(cfg, *lengths).forward, activations, on_gpu


def _period(cfg: ModelConfig) -> int:
    """The number of layers after which both stacks repeat; 0 if they never do."""
    from arch_zoo.accounting import abstract_model

    try:
        model = abstract_model(dataclasses.replace(cfg, scan_layers=True))
        return math.lcm(*(getattr(model, side.name).period() for side in cfg.sides))
    except ConfigError:
        return 0


def _weights(query: Query) -> tuple[int, int, int]:
    """The number of experts, their parameters, and the numbers that Adafactor stores."""
    from flax import nnx

    from arch_zoo.accounting import abstract_model
    from train.run.optimizers import is_factored

    experts = spread = moments = 0
    for _, param in nnx.to_flat_state(nnx.state(abstract_model(query.model), nnx.Param)):
        shape, size = param.shape, math.prod(param.shape)
        if "expert" in param.axes:
            experts, spread = shape[param.axes.index("expert")], spread + size
        factored = is_factored(shape, param.axes, query.min_factored_size)
        # A factored matrix stores one number per row and one per column.
        moments += size // shape[-1] + size // shape[-2] if factored else size
    return experts, spread, moments


def write_presets(queries: Sequence[Query]) -> None:
    """Writes the counts of these models to the file next to the presets.

    Cached counts are used only if the models' source code has not changed since.
    """
    keys = {query.key: found for query, found in zip(queries, count(queries), strict=True)}
    lines = [
        f"{json.dumps(key)}: {json.dumps(dataclasses.asdict(keys[key]))}" for key in sorted(keys)
    ]
    PRESETS.write_text('{"counts": {\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


def query(model: ModelConfig, shape: BatchShape, optimizer: OptimizerConfig) -> Query:
    """The query for the counts of a stage."""
    return Query(model, shape.counted_lengths, optimizer.min_factored_size)
