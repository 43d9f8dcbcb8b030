"""Probes: small tasks that say what an architecture can learn, one file each.

A probe makes its examples itself, as a pure function of its settings, a seed and the example's
number. A run is trained on one instead of a corpus if its pretraining names one:
`pretrain.probe = {"task": "mqar", "pairs": 8}`; the other keys are settings of the probe.
"""

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
    from train.study.config import from_dict

    values = json.loads(settings)
    name = values.pop("task", None)
    _load()
    if name not in PROBES:
        raise InputError(f"probe.task = {name!r} is not one of {', '.join(names())}")
    return from_dict(PROBES[name], values, "probe")
