"""The architecture zoo: models of two families that differ only in their inductive bias.

Modules that need JAX are imported on first use, so that `import arch_zoo` is fast.
"""

import importlib
from typing import TYPE_CHECKING

from arch_zoo.config import ModelConfig
from arch_zoo.conventions import Convention
from arch_zoo.registry import ConfigError, get, names, register
from arch_zoo.resolve import config, config_from_dict

__version__ = "0.2.0"  # of the whole project; pyproject.toml reads it here

if TYPE_CHECKING:
    from arch_zoo.accounting import count_flops, count_params, count_state
    from arch_zoo.architecture import Architecture
    from arch_zoo.families import build
    from arch_zoo.language_model import LanguageModel
    from arch_zoo.memory import estimate_memory
    from arch_zoo.seq2seq import Seq2Seq
    from arch_zoo.skeleton import Skeleton

_LAZY = {
    "Architecture": "architecture",
    "Skeleton": "skeleton",
    "Seq2Seq": "seq2seq",
    "LanguageModel": "language_model",
    "build": "families",
    "count_params": "accounting",
    "count_flops": "accounting",
    "count_state": "accounting",
    "estimate_memory": "memory",
}

__all__ = [
    "Architecture",
    "ConfigError",
    "Convention",
    "LanguageModel",
    "Skeleton",
    "ModelConfig",
    "Seq2Seq",
    "build",
    "config",
    "config_from_dict",
    "count_flops",
    "count_params",
    "count_state",
    "estimate_memory",
    "get",
    "names",
    "register",
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'arch_zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"arch_zoo.{_LAZY[name]}"), name)
