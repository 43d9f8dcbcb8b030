"""The architecture zoo: encoder-decoder models that differ only in their inductive bias.

Modules that need JAX are imported on first use, so that `import arch_zoo` is fast.
"""

import importlib

from arch_zoo.config import ConfigError, ModelConfig, config, config_from_dict
from arch_zoo.conventions import Convention
from arch_zoo.registry import get, names, register

__version__ = "0.2.0"  # of the whole project; pyproject.toml reads it here

_LAZY = {
    "Architecture": "architecture",
    "Seq2Seq": "seq2seq",
    "build": "seq2seq",
    "count_params": "accounting",
    "count_flops": "accounting",
    "estimate_memory": "memory",
}

__all__ = [
    "ConfigError",
    "Convention",
    "ModelConfig",
    "config",
    "config_from_dict",
    "get",
    "names",
    "register",
    *_LAZY,
]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'arch_zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"arch_zoo.{_LAZY[name]}"), name)
