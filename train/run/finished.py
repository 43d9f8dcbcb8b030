"""The records and the parameters of a run that is finished."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

import arch_zoo
from train import records
from train.records import InputError
from train.run.checkpoint import Checkpoints
from train.run.start import checkpoints_of
from train.run.step import Model, make_model


class Restored(NamedTuple):
    """A model, its parameters after a stage's last step, and the number of that step."""

    model: Model
    params: Any
    step: int


def read(directory: Path) -> records.Run:
    """The records of a run.

    Raises:
      InputError: it is no run, or a record is malformed.
    """
    if not (directory / "config.json").exists():
        raise InputError(f"run: {str(directory)!r} is no run: it has no config.json")
    if "architectures" in records.read_json(directory / "config.json"):
        raise InputError(f"run: {directory} is a model, no run; `import` makes a run of it")
    return records.read_run(directory)


def restore(record: records.Run, stage: str) -> Restored:
    """Builds the model of a run, with the parameters of a stage's newest checkpoint.

    Raises:
      InputError: the stage is not finished, or its checkpoint is gone or damaged.
    """
    if stage not in record.status.get("finished", []):
        raise InputError(f"run: {record.path} has not finished {stage}")
    config = record.config
    model, params = make_model(arch_zoo.config_from_dict(config["model"]), config["seed"])
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), params)
    where = checkpoints_of(record.path, stage)
    if not where.is_dir():
        raise InputError(f"run: {record.path} has no checkpoints of {stage}")
    with Checkpoints(where, read_only=True) as checkpoints:
        restored = checkpoints.restore({"params": target})
    if restored is None:
        raise InputError(f"run: {where} holds no checkpoint")
    items, meta = restored
    return Restored(model, items["params"], meta["step"])
