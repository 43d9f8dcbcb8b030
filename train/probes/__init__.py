"""Probes: small tasks that say what an architecture can learn, one file each.

A probe makes its examples itself, as a pure function of its settings, a seed and the example's
number. A run is trained on one instead of a corpus if its pretraining names one:
`pretrain.probe = {"task": "mqar", "pairs": 8}`; the other keys are settings of the probe.
"""

import dataclasses
import functools
import importlib
import json
import pkgutil
from collections.abc import Mapping
from typing import Any

from train.probes.probe import PROBES, Probe
from train.records import InputError

__all__ = ["Probe", "get", "names"]


@functools.cache
def _load() -> None:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)


def names() -> list[str]:
    """Every probe, in alphabetical order."""
    _load()
    return sorted(PROBES)


def get(settings: Mapping[str, Any]) -> Probe:
    """The probe of these settings: `task` is its name, the other keys are its fields.

    Raises:
      InputError: there is no such probe or setting, or a value is not allowed.
    """
    return _get(json.dumps(dict(settings), sort_keys=True))


@functools.cache
def _get(settings: str) -> Probe:
    values = json.loads(settings)
    name = values.pop("task", None)
    _load()
    if not isinstance(name, str) or name not in PROBES:
        raise InputError(f"probe.task = {name!r} is not one of {', '.join(names())}")
    known = [field.name for field in dataclasses.fields(PROBES[name])]
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"probe: {name} has no setting {unknown[0]!r}; known: {', '.join(known)}")
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    try:
        return PROBES[name](**{**values, **lists})
    except InputError as error:
        raise InputError(f"probe.{error}") from None
