"""The cost of a study, cell by cell, without running it: FLOPs, memory, disk, time, money."""

import collections
import dataclasses
import functools
import heapq
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from arch_zoo.sizes import dimensions
from train import power
from train.plan import counts
from train.plan.calibrate import FURTHER, TOGETHER, Calibration
from train.plan.counts import Counts
from train.plan.devices import Device
from train.records import STAGES
from train.study import declare
from train.study.config import RunConfig, StageConfig, StudyConfig
from train.study.trunks import trunk_of
from train.study.watch import clock

_FREE = 0.9  # share of a device's memory for a step; the rest is for runtime and input
_FLOAT = 4  # bytes of a weight, a gradient or a moment, for every dtype of the layers
_MOST_DEVICES = 4096
_WORTH = 0.9  # of the time alone; seeds run together only below it, as less gain may be noise


@dataclasses.dataclass(frozen=True)
class CellPlan:
    """The cost of one cell.

    Attributes:
      run_id: its name.
      hash: the hash of its resolved declaration.
      params: parameters.
      flops_forward: FLOPs of a forward pass of one pretraining sequence.
      flops_total: training FLOPs of all stages; a multiply-add counts as two.
      steps: steps of all stages.
      tokens: pretraining tokens, inputs and targets.
      memory: bytes that a step needs on each device.
      disk: bytes of checkpoints that are kept.
      seconds: from start to end.
      dollars: at the device's price.
      problem: why it cannot run, and which mesh could run it; empty if it can.
    """

    run_id: str
    hash: str
    params: int
    flops_forward: int
    flops_total: float
    steps: int
    tokens: int
    memory: float
    disk: float
    seconds: float
    dollars: float
    problem: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """The cost of a study.

    Attributes:
      cells: in the order in which they are started.
      seconds: until the last cell is done, with `workers` cells at a time.
      together: groups of cells, by name, that gain if they are trained in one program
        (`--vmap-seeds auto`): seeds of one cell.
      seconds_together: until the last cell is done in that case; None if no cell has several seeds,
        or on several devices, where it is not possible.
      device_hours: hours of all devices.
      basis: what the times are based on.
      power: which differences in slope the study can find, as a sentence; empty if not asked for.
    """

    cells: tuple[CellPlan, ...]
    seconds: float
    together: tuple[tuple[str, ...], ...]
    seconds_together: float | None
    device_hours: float
    basis: str
    power: str = ""

    def total(self, name: str) -> float:
        """The sum of one of the numbers over the cells."""
        return sum(getattr(cell, name) for cell in self.cells)


@dataclasses.dataclass(frozen=True)
class Machines:
    """Where and how the cells of a study run.

    Attributes:
      device: the device of the cells.
      devices: number of devices for each cell.
      workers: cells that run at the same time.
      calibration: measured speed, which replaces the device's assumed one.
      always: puts seeds together wherever they fit the device, not only where this gains.
      own_process: each program has its own process, as under Slurm, instead of one worker running
        one after another. Then seeds together start once instead of once each.
    """

    device: Device
    devices: int = 1
    workers: int = 1
    calibration: Calibration | None = None
    always: bool = False
    own_process: bool = False


def make(
    study: StudyConfig, vocab_size: int, machines: Machines, num_tasks: int = declare.T5_TASKS
) -> Plan:
    """Estimates the cost of every cell.

    Args:
      study: the cells.
      vocab_size: the vocabulary size of the corpus.
      machines: where the cells run.
      num_tasks: the corpus's number of tasks, for stages that take all of them.

    Raises:
      ConfigError: an architecture, a size or a model option is unknown or not allowed.
    """
    device, calibration, workers = machines.device, machines.calibration, machines.workers
    accelerator = device.name != "cpu"
    found = iter(counts.count(queries(study, vocab_size, accelerator=accelerator)))
    cells, prices = [], []
    for cell in study.cells:
        stages = [(*stage, next(found)) for stage in _stages(cell)]
        dtype = declare.model(cell, vocab_size, accelerator=accelerator).dtype
        name = declare.cell_hash(cell, vocab_size, accelerator=accelerator)
        disk = sum(
            _kept(stage, s, num_tasks) * _FLOAT * (c.params + _moments(s, c))
            for stage, s, c in stages
        )
        shared = cell.pretrain.decay_starts if trunk_of(cell, study.cells) else 0
        declared = _Declared(cell, name, dtype, stages, disk, shared)
        price = functools.partial(_price, declared, machines)
        prices.append(price)
        cells.append(prices[-1]())
    basis = (
        f"measured on {calibration.device}" if calibration else f"{device.name}: {device.source}"
    )
    hours = sum(cell.seconds for cell in cells) * machines.devices / 3600
    apart = schedule([cell.seconds for cell in cells], workers)
    programs, together = (
        _programs(study.cells, prices, workers, always=machines.always)
        if machines.devices == 1
        else ([], None)
    )
    several = tuple(
        tuple(cells[number].run_id for number in program)
        for program in programs
        if len(program) > 1
    )
    return Plan(tuple(cells), apart, several, together, hours, basis)


def power_of(
    cells: Sequence[RunConfig], flops: Sequence[int], noise: power.ExpectedNoise = power.USUAL
) -> str:
    """Which differences in slope a study can find, as a sentence; empty for one architecture.

    Args:
      cells: the cells of the study; those of further scaling protocols do not count.
      flops: forward FLOPs of each.
      noise: the assumed noise.
    """
    decades: dict[str, dict[str, float]] = collections.defaultdict(dict)
    seeds: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
    for cell, number in zip(cells, flops, strict=True):
        if cell.protocol == cells[0].protocol:
            decades[cell.architecture][cell.size] = math.log10(number)
            seeds[cell.architecture, cell.size].add(cell.seed)
    if len(decades) < 2:
        return ""
    reference = "transformer" if "transformer" in decades else min(decades)
    fewest = min(map(len, seeds.values()))
    own = {name: list(sizes.values()) for name, sizes in decades.items()}
    found = power.smallest_slope(own, reference, fewest, noise)
    sizes = min(map(len, own.values()))
    if found is None:
        return (
            f"with {sizes} sizes, slopes cannot be compared: that takes {power.LEAST_SIZES} sizes "
            "of each architecture"
        )
    shares = " to ".join(dict.fromkeys(f"{100 * share:.0f}" for share in found))
    return (
        f"this study can tell slopes that differ by {shares} % from {reference}'s, with a "
        f"probability of {100 * power.POWER:.0f} % ({sizes} sizes, {fewest} "
        f"seed{'s' * (fewest > 1)}, {len(decades)} architectures; assumed: noise of {noise.size:g} "
        f"nats around a slope of {noise.slope:g} nats per decade of FLOPs, {noise.seed:g} between "
        "seeds)"
    )


CellGroup = tuple[int, ...]  # numbers of the cells that are trained together


def _programs(
    configs: Sequence[RunConfig],
    prices: Sequence[Callable[..., CellPlan]],
    workers: int,
    *,
    always: bool,
) -> tuple[list[CellGroup], float | None]:
    """The cells to run together, and the time when the last one is done.

    The seeds of a cell are put into one program, or into two, four ... if one does not fit the
    device or leaves workers idle. Without `always`, they stay alone if no such division gains.
    """
    alike = collections.defaultdict(list)
    for number, config in enumerate(configs):
        alike[repr(dataclasses.replace(config, seed=0))].append(number)
    if len(alike) == len(configs):
        return [], None
    chosen: dict[CellGroup, float] = {
        (number,): price().seconds for number, price in enumerate(prices)
    }

    def seconds(programs: dict[CellGroup, float]) -> float:
        return schedule(
            [programs[program] for program in sorted(programs)], workers
        )  # in the order of their first cells

    for numbers in alike.values():
        alone = {(number,): chosen[number,] for number in numbers}
        rest = {program: time for program, time in chosen.items() if program not in alone}
        trials = []
        for parts in (2**i for i in range((len(numbers) // 2).bit_length())):
            bounds = [len(numbers) * i // parts for i in range(parts + 1)]
            divided = [tuple(numbers[a:b]) for a, b in itertools.pairwise(bounds)]
            priced = {program: prices[program[0]](seeds=len(program)) for program in divided}
            if any(price.problem for price in priced.values()):
                continue
            times = {program: price.seconds for program, price in priced.items()}
            if always or sum(times.values()) <= _WORTH * sum(alone.values()):
                trials.append(rest | times)
        if not always or not trials:
            trials.insert(0, chosen)
        chosen = min(
            trials, key=lambda trial: round(seconds(trial), 3)
        )  # the first of equally fast ones
    return sorted(chosen), seconds(chosen)


def queries(study: StudyConfig, vocab_size: int, *, accelerator: bool) -> list[counts.Query]:
    """Everything in a study that has to be counted: each stage of each cell."""
    models = [
        (cell, declare.model(cell, vocab_size, accelerator=accelerator)) for cell in study.cells
    ]
    return [
        counts.query(model, cell.shape(name), stage.optimizer)
        for cell, model in models
        for name, stage in _stages(cell)
    ]


def step_flops(study: StudyConfig, vocab_size: int) -> dict[str, float]:
    """Training FLOPs of a step of each cell's first stage, by run id."""
    found = iter(counts.count(queries(study, vocab_size, accelerator=False)))
    counted = [(cell, [(stage, next(found)) for _, stage in _stages(cell)]) for cell in study.cells]
    return {
        cell.run_id: 3.0 * stages[0][1].flops * stages[0][0].batch_size for cell, stages in counted
    }


def _stages(cell: RunConfig) -> list[tuple[str, StageConfig]]:
    return [(name, stage) for name in STAGES if (stage := getattr(cell, name))]


def schedule(seconds: Sequence[float], workers: int) -> float:
    """When the last job ends if each of `workers` takes the next one as soon as it is free."""
    free = [0.0] * workers
    for duration in seconds:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


Priced = tuple[str, StageConfig, Counts]


@dataclasses.dataclass(frozen=True)
class _Declared:
    """A cell with its hash, the type of its layers, its counted stages, and bytes on disk.

    `shared` are the steps that it need not take, because it leaves a trunk after them.
    """

    cell: RunConfig
    hash: str
    dtype: str
    stages: list[Priced]
    disk: float
    shared: int = 0


def _layers(cell: RunConfig) -> int:
    """The layers of all stacks of a cell's size."""
    dims = dimensions(cell.size)
    encoder = 0 if cell.family == "decoder_only" else dims.num_encoder_layers
    return encoder + dims.num_decoder_layers


def _price(declared: _Declared, machines: Machines, seeds: int = 1) -> CellPlan:
    """The cost of one cell, or with several `seeds` the time and memory of their common program.

    Sharing a program saves time besides steps only if each cell alone would have its own process. A
    worker that continues with the next cell saves that time too, because it is already started and
    has compiled the programs.
    """
    cell, stages = declared.cell, declared.stages
    device, devices, calibration = machines.device, machines.devices, machines.calibration
    first, pretrain, main = stages[0]
    steps = {
        name: 3 * c.flops * stage.batch_size for name, stage, c in stages
    }  # training FLOPs of a step of one seed
    if calibration:
        times = {
            name: calibration.step_seconds(cell.architecture, flops)
            for name, flops in steps.items()
        }
        setup = calibration.setup_seconds(cell.architecture, steps[first])
    else:
        share = device.float32 if declared.dtype == "float32" else 1.0
        floor = device.layer_seconds * _layers(cell)
        times = {
            name: max(flops / (devices * device.flops * share * device.mfu), floor)
            for name, flops in steps.items()
        }
        setup = device.setup
    if seeds > 1:
        ratio = (
            calibration.together_ratio(cell.architecture, steps[first]) if calibration else TOGETHER
        )
        times = {name: seeds * ratio * seconds for name, seconds in times.items()}
        share = (
            calibration.further_share(cell.architecture, steps[first]) if calibration else FURTHER
        )
        setup *= 1 + (seeds - 1) * (share if machines.own_process else 1.0)
    seconds = setup + sum(stage.steps * times[name] for name, stage, _ in stages)
    if seeds == 1:
        seconds -= declared.shared * times[first]
    gpu = device.is_gpu and seeds == 1  # several seeds use XLA's attention
    held = seeds * max(
        _memory(cell, stage, c, _mesh(cell, c, devices), gpu=gpu) for _, stage, c in stages
    )
    return CellPlan(
        run_id=cell.run_id,
        hash=declared.hash,
        params=main.params,
        flops_forward=main.flops,
        flops_total=float(seeds * sum(stage.steps * steps[name] for name, stage, _ in stages)),
        steps=sum(stage.steps for _, stage, _ in stages),
        tokens=pretrain.steps * declare.tokens_per_step(cell),
        memory=held,
        disk=declared.disk,
        seconds=seconds,
        dollars=seconds / 3600 * devices * device.dollars,
        problem=_problem(cell, stages, device, devices, held),
    )


def _kept(name: str, stage: StageConfig, num_tasks: int) -> int:
    """Checkpoints at the end of a stage: the last two, the best ones and the milestones.

    The best ones are those of the loss or of each task.
    """
    tasks = 1 if name == "pretrain" else len(stage.tasks) or num_tasks
    saved = stage.steps // stage.checkpoint_every + 1
    evaluated = stage.steps // stage.eval_every if stage.eval_every else 1
    best = min(evaluated, tasks)
    kept = len(stage.keep_at) + (stage.steps // stage.keep_every if stage.keep_every else 0)
    return min(saved, 2 + best) + kept


Mesh = tuple[int, int, int]


def _mesh(cell: RunConfig, found: Counts, devices: int) -> Mesh:
    """The (data, model, expert) axes of a cell on so many devices, as in `train.run.parallel`."""
    if cell.parallel == "mesh":
        data, model, expert = cell.mesh
        return (max(devices // (model * expert), 1) if data == -1 else data), model, expert
    spread = math.gcd(devices, found.experts) if found.experts else 1
    return devices // spread, 1, spread


def _moments(stage: StageConfig, found: Counts) -> int:
    """The numbers that the optimizer keeps from step to step; those of Muon at most."""
    kept = {"adafactor": found.moments, "lion": found.params}
    return kept.get(stage.optimizer.name, 2 * found.params)


def _memory(cell: RunConfig, stage: StageConfig, found: Counts, mesh: Mesh, *, gpu: bool) -> float:
    """Bytes of a step on each device: weights, gradients, moments, activations of its micro-batch.

    Activations are assumed to be whole on every device of a model axis, which is true between
    layers. With dropout or packed rows, the larger of the two estimates is used on a GPU too: with
    dropout XLA computes the attention, and with packed rows cuDNN stores a mask.
    """
    data, model, expert = mesh
    moments = _moments(stage, found)
    dense = 2 * (found.params - found.spread) + moments * (1 - found.spread / found.params)
    spread = 2 * found.spread + moments * found.spread / found.params
    sequences = math.ceil(stage.batch_size / stage.accumulate / (data * expert))
    activations = (
        found.gpu_activations
        if gpu and not (stage.dropout_rate or stage.pack)
        else found.activations
    )
    return _FLOAT * (dense / model + spread / (model * expert)) + sequences * activations


def _problem(
    cell: RunConfig, stages: list[Priced], device: Device, devices: int, held: float
) -> str:
    found = stages[0][2]
    data, model, expert = _mesh(cell, found, devices)
    limit = _FREE * device.memory
    if data * model * expert != devices:
        return f"mesh = {list(cell.mesh)} does not make {devices} devices"
    for name, stage, _ in stages:
        if stage.batch_size // stage.accumulate % (data * expert):
            return (
                f"{name}.batch_size = {stage.batch_size} does not divide into {data * expert} parts"
            )
    if held <= limit:
        return ""
    need = f"{held / 1e9:.1f} GB a device of {device.name}'s {device.memory / 1e9:.0f}"
    return (
        f"{need}; "
        f"{_advice(cell, stages, device, devices) or 'no mesh of up to 4096 devices fits either'}"
    )


def _advice(cell: RunConfig, stages: list[Priced], device: Device, devices: int) -> str:
    """The least sharded mesh that fits, on as few further devices as possible.

    Uses micro-batches if necessary.
    """
    count, limit = devices, _FREE * device.memory
    while count <= _MOST_DEVICES:
        for mesh in _meshes(count, stages[0][2].experts):
            for parts in (1, 2, 4, 8):
                split = [
                    (dataclasses.replace(s, accumulate=parts), c)
                    for _, s, c in stages
                    if not s.batch_size % parts
                ]
                if len(split) < len(stages) or any(
                    s.batch_size // parts % (mesh[0] * mesh[2]) for s, _ in split
                ):
                    continue
                held = max(
                    _memory(cell, stage, found, mesh, gpu=device.is_gpu) for stage, found in split
                )
                if held <= limit:
                    return (
                        f"{_settings(mesh, parts, stages, more=count > devices)} needs "
                        f"{held / 1e9:.1f} GB"
                    )
        count *= 2
    return ""


def _settings(mesh: Mesh, parts: int, stages: list[Priced], *, more: bool) -> str:
    """The options to type for a mesh and micro-batches."""
    settings = [f"--set {name}.accumulate={parts}" for name, *_ in stages if parts > 1]
    settings += (
        ["--set parallel=mesh", f"--set 'mesh={list(mesh)}'"] if mesh[1] > 1 or parts == 1 else []
    )
    return " ".join(settings) + (f" on {math.prod(mesh)} devices" if more else "")


def _meshes(devices: int, experts: int) -> list[Mesh]:
    """Meshes over so many devices, the least sharded first."""
    splits = [2**i for i in range(devices.bit_length()) if devices % 2**i == 0]
    found = [
        (devices // (model * expert), model, expert)
        for model in splits
        for expert in splits
        if devices % (model * expert) == 0 and (expert == 1 or (experts and experts % expert == 0))
    ]
    return sorted(found, key=lambda mesh: (mesh[1] * mesh[2], mesh[1]))


def to_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain JSON values, with totals."""
    names = ("params", "flops_total", "steps", "tokens", "disk", "dollars")
    totals = {name: plan.total(name) for name in names}
    return {**dataclasses.asdict(plan), "totals": totals}


def table(plan: Plan) -> list[str]:
    """A plan as lines of text: one for each cell, with its seeds, and its totals.

    Parameters, FLOPs, tokens, memory and time of a line are those of one seed.
    """
    folded: dict[tuple, list[CellPlan]] = {}
    for cell in plan.cells:
        name = re.sub(r"-s\d+$", "", cell.run_id)
        numbers = (cell.params, cell.flops_total, cell.steps, cell.seconds, cell.problem)
        folded.setdefault((name, *numbers), []).append(cell)
    names = {
        cells[0].run_id: cells[0].run_id if len(cells) == 1 else f"{key[0]}, {len(cells)} seeds"
        for key, cells in folded.items()
    }
    width = max(map(len, names.values()))
    head = (
        f"{'cell':{width}}  {'params':>7}  {'FLOPs/seq':>9}  {'FLOPs':>8}  {'steps':>7}  "
        f"{'tokens':>7}"
    )
    lines = [f"{head}  {'memory':>8}  {'disk':>8}  {'time':>9}  {'cost':>9}"]
    for c in (cells[0] for cells in folded.values()):
        numbers = (
            f"{short(c.params):>7}  {c.flops_forward:>9.2e}  {c.flops_total:>8.1e}  {c.steps:>7}"
        )
        sizes = f"{short(c.tokens):>7}  {short(c.memory):>7}B  {short(c.disk):>7}B"
        lines.append(
            f"{names[c.run_id]:{width}}  {numbers}  {sizes}  {clock(c.seconds):>9}  "
            f"{'$' + short(c.dollars):>9}"
        )
    flops, tokens, disk = plan.total("flops_total"), plan.total("tokens"), plan.total("disk")
    lines.append(
        f"{len(plan.cells)} cells: {short(plan.total('params'))} parameters, {flops:.2e} training "
        "FLOPs, "
        f"{short(tokens)} tokens, {short(disk)}B of checkpoints"
    )
    dollars = f", ${short(plan.total('dollars'))}" if plan.total("dollars") else ""
    lines.append(
        f"time: {clock(plan.seconds)}, {plan.device_hours:,.1f} device hours{dollars} "
        f"({plan.basis})"
    )
    if plan.power:
        lines.append(f"power: {plan.power}")
    if plan.seconds_together is not None:
        number = len(plan.together)
        several = f"{sum(map(len, plan.together))} cells in {number} program{'s' * (number > 1)}"
        gain = (
            f"{clock(plan.seconds_together)}, {several}"
            if plan.together
            else "the same, as no cell would gain"
        )
        lines.append(f"with --vmap-seeds auto: {gain}")
    return lines


def short(number: float) -> str:
    """A number with three digits and a letter, such as 12.3M."""
    for letter, unit in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= unit:
            return (
                f"{number / unit:.3g}{letter}"
                if number < 1000 * unit
                else f"{number / unit:,.0f}{letter}"
            )
    return f"{number:.3g}"
