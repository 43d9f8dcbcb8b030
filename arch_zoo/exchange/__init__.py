"""Weights in and out: which models of other projects the zoo's architectures are, tensor by tensor.

One file for each architecture that has a counterpart in Hugging Face's transformers. Its table is
what importing, exporting and the parity tests all use. Nothing here needs transformers or PyTorch.
"""

import importlib
import pkgutil

from arch_zoo.config import ModelConfig
from arch_zoo.exchange.exchange import Exchange, export_tensors, import_tensors
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.table import row
from arch_zoo.registry import ConfigError

__all__ = [
    "Exchange",
    "ForeignConfig",
    "export_tensors",
    "import_tensors",
    "find",
    "maps",
    "of_architecture",
    "row",
]


def maps() -> dict[str, Exchange]:
    """Every map by the name of its architecture."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    found: dict[str, Exchange] = {}
    kinds = [Exchange]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if "name" in vars(kind):
            found[kind.name] = kind()
    return dict(sorted(found.items()))


def of_architecture(cfg: ModelConfig) -> Exchange:
    """The map of a model of ours.

    Raises:
      ConfigError: there is none; says why.
    """
    exchange = maps().get(cfg.name)
    if exchange is None:
        raise ConfigError(f"{cfg.name}: Hugging Face's transformers have no such architecture")
    if reason := exchange.refusal(cfg):
        raise ConfigError(f"{cfg.name}: {reason}")
    return exchange


def find(settings: ForeignConfig) -> Exchange:
    """The map of a model of theirs.

    Raises:
      ConfigError: the zoo has no such model.
    """
    known = maps()
    for exchange in known.values():
        if exchange.accepts(settings):
            return exchange
    classes = ", ".join(sorted({exchange.theirs for exchange in known.values()}))
    if settings.architecture in classes.split(", "):
        details = settings.get("feed_forward_proj")
        own = " and a head of its own" if "lm_head.weight" in settings.tensors else ""
        raise ConfigError(
            f"config.json: {settings.architecture} with feed_forward_proj = {details!r}{own}: the "
            "zoo has no such model"
        )
    raise ConfigError(
        f"config.json: architectures = {settings.architecture!r}: known are {classes}"
    )
