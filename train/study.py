"""A study: its declaration, its directory, and how far its cells are. Nothing here imports jax."""

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train import config as configs
from train import records
from train.config import StudyConfig
from train.records import InputError

MANIFEST = "study.json"


@dataclasses.dataclass(frozen=True)
class CellStatus:
    """How far one cell is.

    Attributes:
      run_id: its name.
      state: one of `records.STATES`.
      stage: the stage that it is in or ended in, if it has started.
      done: steps done, over both stages.
      total: steps of both stages.
      nll: the last training loss recorded, nats per token.
      error: why it failed or stopped.
    """

    run_id: str
    state: str
    stage: str
    done: int
    total: int
    nll: float | None
    error: str | None


def load(name: str = "", path: Path | None = None) -> StudyConfig:
    """Loads the study `name` of `configs/studies`, or the one that the Python file `path` declares.

    Either module has a function `study()` that returns a StudyConfig.

    Raises:
      InputError: there is no such study, or the file does not declare one.
    """
    if path is not None:
        module = _module_from_file(path)
    else:
        known = sorted(p.stem for p in _studies_directory().glob("*.py") if p.stem != "__init__")
        if name not in known:
            raise InputError(f"study {name!r} is unknown; known: {', '.join(known)}; or give a file with --config")
        module = importlib.import_module(f"configs.studies.{name}")
    declare: Callable[[], Any] | None = getattr(module, "study", None)
    study = declare() if declare else None
    if not isinstance(study, StudyConfig):
        raise InputError(f"{module.__file__}: has no function study() that returns a StudyConfig")
    return study


def _studies_directory() -> Path:
    import configs.studies

    return Path(next(iter(configs.studies.__path__)))


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
        raise InputError(f"config: {path}: {type(error).__name__}: {error}") from error
    return module


def write_manifest(study: StudyConfig, directory: Path) -> None:
    """Writes the resolved declaration that workers and launchers read.

    Raises:
      InputError: a cell that has been started has other settings now, or the directory cannot be written.
    """
    if (directory / MANIFEST).exists():
        started = {
            c.run_id: c for c in read_manifest(directory).cells if (directory / c.run_id / "config.json").exists()
        }
        for cell in study.cells:
            _check_same(started.get(cell.run_id, cell), cell, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        records.write_json(directory / MANIFEST, configs.to_dict(study))
    except OSError as error:
        raise InputError(f"runs: {str(directory)!r} cannot be written ({error.strerror})") from None


def _check_same(old: configs.RunConfig, new: configs.RunConfig, directory: Path) -> None:
    changes = configs.differences(configs.identity(old), configs.identity(new))
    if changes:
        where = directory / new.run_id
        raise InputError(f"{where}: the run there has another configuration: {'; '.join(changes)}; use another --runs")


def read_manifest(directory: Path) -> StudyConfig:
    """Reads what `write_manifest` wrote.

    Raises:
      InputError: there is none, or it is not a study.
    """
    return configs.from_dict(StudyConfig, records.read_json(directory / MANIFEST), MANIFEST)


def statuses(study: StudyConfig, directory: Path) -> list[CellStatus]:
    """How far every cell is, from the records alone; a cell that nobody works on is not "running"."""
    return [_status(cell, directory / cell.run_id) for cell in study.cells]


def _status(cell: configs.RunConfig, directory: Path) -> CellStatus:
    status = records.read_json(directory / "status.json", missing={"state": "queued"})
    state, stage, done = status["state"], status.get("stage", ""), status.get("step", 0)
    steps = {"pretrain": cell.pretrain.steps, "finetune": cell.finetune.steps if cell.finetune else 0}
    if state == "running" and _is_free(directory):
        state = "preempted"  # its process is gone and could not say so
    if state == "done":
        done = sum(steps.values())
    elif "pretrain" in status.get("finished", []):
        done += steps["pretrain"]
    return CellStatus(cell.run_id, state, stage, done, sum(steps.values()), status.get("nll"), status.get("error"))


def _is_free(directory: Path) -> bool:
    try:
        with records.lock(directory, patience=0) as free:
            return free
    except InputError:  # somebody else's directory, which can only be read
        return False
