"""A study's declaration, its directory, and the progress of its cells."""

import dataclasses
import fnmatch
import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from arch_zoo import sizes
from train import records
from train.records import InputError
from train.study.config import (
    RunConfig,
    StudyConfig,
    differences,
    from_dict,
    identity,
    recorded_identity,
    to_dict,
)

MANIFEST = "study.json"
ATTEMPTS = "attempts.jsonl"  # in the directory of each cell

Programs = Sequence[Sequence[str]]  # names of cells; those of one program differ only in their seed


@dataclasses.dataclass(frozen=True)
class CellStatus:
    """The progress of one cell.

    Attributes:
      run_id: its name.
      state: one of `records.STATES`.
      stage: the stage that it is in or ended in, if it has started.
      done: steps done, over both stages.
      total: steps of both stages.
      work: what its training costs, in FLOPs: a rough estimate from dimensions alone, to compare
        the cells of a study.
      nll: the last recorded training loss, nats per token.
      rate: recent steps per second; None if none is recorded or no process is running the cell.
      left: seconds until it is done, at that rate.
      retries: how often it failed and was tried again, or may be.
      error: why it failed or stopped.
    """

    run_id: str
    state: str
    stage: str
    done: int
    total: int
    work: float
    nll: float | None
    rate: float | None
    left: float | None
    retries: int
    error: str | None


def load(name: str = "", path: Path | None = None) -> StudyConfig:
    """Loads the study `name` from `configs/studies`, or the one declared in the Python file `path`.

    Either module has a function `study()` that returns a StudyConfig.

    Raises:
      InputError: there is no such study, or the file does not declare one.
    """
    if path is not None:
        module = _module_from_file(path)
    else:
        if name not in known():
            raise InputError(
                f"study {name!r} is unknown; known: {', '.join(known())}; or give a file with "
                "--config"
            )
        module = importlib.import_module(f"configs.studies.{name}")
    declare: Callable[[], Any] | None = getattr(module, "study", None)
    try:
        study = declare() if callable(declare) else None
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{module.__file__}: study() raises {records.reason(error)}") from error
    if not isinstance(study, StudyConfig):
        raise InputError(f"{module.__file__}: has no function study() that returns a StudyConfig")
    return study


def known() -> list[str]:
    """The names of the studies in `configs/studies`."""
    directory = Path(next(iter(importlib.import_module("configs.studies").__path__)))
    return sorted(path.stem for path in directory.glob("*.py") if path.stem != "__init__")


def _module_from_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"config: {str(path)!r} is not a file")
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"config: {str(path)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"config: {path}: {records.reason(error)}") from error
    return module


def write_manifest(study: StudyConfig, directory: Path) -> None:
    """Writes the resolved declaration, which workers and launchers read.

    Args:
      study: the declaration.
      directory: the directory of its runs.

    Raises:
      InputError: a cell that was already started now has other settings, perhaps because a default
        changed; or the directory cannot be written.
    """
    for cell in study.cells:
        _check_same(cell, directory / cell.run_id / "config.json")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        records.write_json(directory / MANIFEST, to_dict(study))
    except OSError as error:
        raise InputError(f"runs: {str(directory)!r} cannot be written ({error.strerror})") from None


def _check_same(cell: RunConfig, path: Path) -> None:
    """Refuses a cell whose records, if there are any, have another configuration."""
    old = records.read_json(path, missing={})
    if not old:
        return
    from train.study import declare

    # This machine may have no accelerator, so the run's own record decides whether it used one.
    accelerator = old["model"]["dtype"] == "bfloat16"
    model = declare.model(cell, old["data"]["vocab_size"], accelerator=accelerator)
    new = json.loads(json.dumps({**identity(cell), "model": model.to_dict()}))
    before = {**recorded_identity(cell, old), "model": model.completed(old["model"])}
    changes = differences(before, new)
    if changes:
        run = f"{path.parent}: the run there has another configuration"
        raise InputError(f"{run}: {'; '.join(changes)}; use another --runs")


def read_manifest(directory: Path) -> StudyConfig:
    """Reads what `write_manifest` wrote.

    Raises:
      InputError: there is none, or it is not a study.
    """
    return from_dict(StudyConfig, records.read_json(directory / MANIFEST), MANIFEST)


# The settings of a run on which its progress depends.
_OF_PROGRESS = (
    "architecture",
    "size",
    "family",
    "protocol",
    "seed",
    "study",
    "pretrain",
    "finetune",
)


def declared(directory: Path) -> StudyConfig:
    """The study of a directory: its manifest, or without one the runs that are there.

    Raises:
      InputError: it has neither.
    """
    if (directory / MANIFEST).exists():
        return read_manifest(directory)
    if not directory.is_dir():
        raise InputError(f"{directory}: is no directory")
    found = []
    for path in sorted(directory.glob("*/config.json")):
        record = records.read_json(path)
        if record.get("pretrain"):  # imported models have none
            values = {name: record[name] for name in _OF_PROGRESS if name in record}
            found.append(from_dict(RunConfig, values, str(path)))
    if not found:
        raise InputError(f"{directory}: has neither {MANIFEST} nor directories of runs")
    return StudyConfig(directory.name, tuple(found))


def statuses(study: StudyConfig, directory: Path) -> list[CellStatus]:
    """The progress of every cell, from the records alone.

    A cell that no process is running does not count as "running".
    """
    ids = _vocab_size(study)
    return [_status(cell, directory / cell.run_id, ids) for cell in study.cells]


def work(cell: RunConfig, vocab_size: int) -> float:
    """The FLOPs of a cell's training, roughly: those of the vanilla model's matrices.

    Tracing the model would count them exactly, but takes seconds for each size.
    """
    dims = sizes.dimensions(cell.size)
    attention = 4 * dims.embed_dim * dims.num_heads * dims.head_dim
    layers = (dims.num_encoder_layers + dims.num_decoder_layers) / 2  # a token passes one stack
    if cell.family == "decoder_only":
        layers = dims.num_decoder_layers
    head = dims.embed_dim * vocab_size
    params = layers * (attention + 2 * dims.embed_dim * dims.mlp_dim) + head
    stages = [name for name in records.STAGES if getattr(cell, name)]
    tokens = [getattr(cell, name).steps * cell.shape(name).tokens for name in stages]
    return 6.0 * params * sum(tokens)


def _vocab_size(study: StudyConfig) -> int:
    """The number of ids of the study's corpus; before it is prepared, some number."""
    if all(cell.pretrain.probe for cell in study.cells):
        return study.cells[0].pretrain.made_probe().vocab_size
    found = records.read_json(Path(study.corpus) / "corpus.json", missing={})
    return found.get("vocab_size", 2**15)


def _status(cell: RunConfig, directory: Path, vocab_size: int) -> CellStatus:
    status = records.read_status(directory)
    state, stage, done = status["state"], status.get("stage", ""), status.get("step", 0)
    stages = {name: getattr(cell, name) for name in records.STAGES}
    steps = {name: settings.steps for name, settings in stages.items() if settings}
    if state == "running" and is_free(directory):
        state = "preempted"  # its process is gone and could not record that
    if state == "done":
        done = sum(steps.values())
    else:
        done += sum(steps.get(name, 0) for name in status.get("finished", []))
    total = sum(steps.values())
    rate = _last_rate(directory / "metrics.jsonl") if state == "running" else None
    left = (total - done) / rate if rate else None
    failures = [row for row in attempts(directory) if row["state"] == "failed"]
    retries = max(len(failures) - (state == "failed"), 0)
    error = status.get("error")
    if state == "preempted" and error is None and failures:
        error = failures[-1].get("error")  # it was killed, which only the launcher has recorded
    return CellStatus(
        cell.run_id,
        state,
        stage,
        done,
        total,
        work(cell, vocab_size),
        status.get("nll"),
        rate,
        left,
        retries,
        error,
    )


def unfinished(study: StudyConfig, directory: Path, patterns: Sequence[str] = ()) -> list[str]:
    """The cells that are not done and match one of the patterns, or all if there are no patterns.

    Raises:
      InputError: no cell matches.
    """
    names = [cell.run_id for cell in study.cells]
    chosen = [
        name
        for name in names
        if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)
    ]
    if not chosen:
        raise InputError(
            f"cells: nothing matches {' '.join(patterns)}; the first cell is {names[0]}"
        )
    done = {status.run_id for status in statuses(study, directory) if status.state == "done"}
    return [name for name in chosen if name not in done]


def programs(cells: Sequence[str], together: Programs) -> list[tuple[str, ...]]:
    """The programs to start: cells that run together as one, every other cell alone, in order."""
    of = {name: tuple(program) for program in together for name in program}
    return list(dict.fromkeys(of.get(name, (name,)) for name in cells))


def strangers(study: StudyConfig, directory: Path) -> list[str]:
    """Runs in a study's directory that it does not declare, perhaps of an earlier version."""
    declared = {cell.run_id for cell in study.cells}
    return sorted(
        path.parent.name
        for path in directory.glob("*/config.json")
        if path.parent.name not in declared
    )


_TAIL = 4096  # bytes to read at the end of a file, which may have many thousand rows


def _last_rate(path: Path) -> float | None:
    """Steps per second in the last row that has them."""
    try:
        with open(path, "rb") as file:
            start = file.seek(max(path.stat().st_size - _TAIL, 0))
            lines = file.read().split(b"\n")[
                1 if start else 0 : -1
            ]  # the first line may be cut, the last is empty or torn
    except OSError:
        return None
    rates = [json.loads(line).get("steps_per_second") for line in lines]
    return next((rate for rate in reversed(rates) if rate), None)


def attempts(directory: Path) -> list[records.Row]:
    """The attempts to run a cell, in order.

    Rows of {"launch", "host", "started", "seconds", "state", "error"}. Those of a worker also have
    "together": the number of cells in its program.
    """
    return records.read_jsonl(directory / ATTEMPTS, {"state": str}, allow_torn=True)


def is_free(directory: Path) -> bool:
    """Whether no process is running a cell, judged by the lock of its directory."""
    try:
        with records.lock(directory, patience=0) as free:
            return free
    except InputError:  # another user's directory, which cannot be locked
        return False
