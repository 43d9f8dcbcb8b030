"""How an architecture of the zoo is written as a model of another project: the base of all maps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

import arch_zoo
from arch_zoo import sizes
from arch_zoo.config import ModelConfig
from arch_zoo.exchange.foreign_config import ForeignConfig
from arch_zoo.exchange.table import Row
from arch_zoo.registry import ConfigError

# Settings that change what a model computes, and the only values that other projects can have.
_PLAIN: Mapping[str, Any] = {
    "parametrization": "standard",
    "short_conv": "",
    "shared_heads": False,
    "tied_keys_values": False,
    "readout": "each",
    "prefix": "causal",
}


class Exchange:
    """A map between an architecture of the zoo and a class of Hugging Face's transformers.

    Attributes:
      name: the architecture's name.
      family: the family that the class belongs to.
      theirs: the name of the class.
      model_type: its name in config.json.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    theirs: ClassVar[str]
    model_type: ClassVar[str]

    def accepts(self, settings: ForeignConfig) -> bool:
        """Whether a model of theirs is this architecture."""
        return settings.architecture == self.theirs

    def refusal(self, cfg: ModelConfig) -> str:
        """Why a model of ours is none of theirs; empty if it is one."""
        if cfg.family != self.family:
            return f"{self.theirs} has no family={cfg.family!r}"
        for name, value in _PLAIN.items():
            if getattr(cfg, name) != value:
                return f"{self.theirs} has no {name}={getattr(cfg, name)!r}"
        return ""

    def settings(self, cfg: ModelConfig) -> dict[str, Any]:
        """The config.json of a model, without what every model has."""
        raise NotImplementedError

    def config(self, settings: ForeignConfig) -> ModelConfig:
        """The configuration of a model of theirs.

        Raises:
          ConfigError: a setting is missing, or asks for what the zoo does not have.
        """
        raise NotImplementedError

    def rows(self, cfg: ModelConfig, settings: ForeignConfig) -> Iterator[Row]:
        """The table: every parameter of ours, and every tensor of theirs."""
        raise NotImplementedError

    @staticmethod
    def tied_factor(cfg: ModelConfig) -> float:
        """What the last norm of ours is theirs times, where they never scale logits."""
        scaled = cfg.architecture.tied_logits and cfg.scale_tied_logits
        return cfg.embed_dim**0.5 if scaled else 1.0

    def written(self, cfg: ModelConfig) -> ForeignConfig:
        """The whole config.json of a model, and which tensors would be in its file."""
        kind = {"architectures": [self.theirs], "model_type": self.model_type, "dtype": "float32"}
        settings = {**kind, **self.settings(cfg)}
        own = [] if cfg.architecture.tied_logits else ["lm_head.weight"]
        return ForeignConfig(settings, frozenset(own))

    def renamed(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The tensors of a file by the names of the table, without those that hold no parameter."""
        return dict(tensors)

    def copies(self, cfg: ModelConfig) -> Mapping[str, str]:
        """Tensors that a file may have as well, each with the one that it must be equal to."""
        return {}


def make(
    name: str, family: str, dims: Mapping[str, int], other: Mapping[str, Any], **options: Any
) -> ModelConfig:
    """A model's configuration of its dimensions, with the name of the nearest size.

    Args:
      name: the architecture.
      family: its family.
      dims: the fields of `sizes.Dimensions` that a size sets.
      other: more fields of the configuration.
      **options: the architecture's own options.

    Raises:
      ConfigError: the zoo has no such model.
    """
    vanilla = arch_zoo.get(name).dimensions is arch_zoo.Architecture.dimensions
    # What a size says of the hidden units is about the vanilla Transformer.
    named = {key: value for key, value in dims.items() if vanilla or key != "mlp_dim"}
    size = sizes.nearest(named)
    return arch_zoo.config(name, size, family=family, **dims, **other, **options)


def import_tensors(
    rows: Sequence[Row], tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Our parameters, made of their tensors.

    Args:
      rows: the table.
      tensors: what a file holds, by name.
      shapes: of our parameters, by path.

    Raises:
      ConfigError: a tensor is missing, has another shape than it should, or is in no row.
    """
    found: dict[str, np.ndarray] = {}
    for row in rows:
        for name, wanted in zip(row.theirs, _shapes_of(row, shapes), strict=True):
            if name not in tensors:
                raise ConfigError(f"tensor {name}: missing; its shape should be {list(wanted)}")
            if tensors[name].shape != wanted:
                shape = list(tensors[name].shape)
                raise ConfigError(f"tensor {name}: its shape is {shape}, not {list(wanted)}")
        params = row.from_theirs(*(tensors[name] for name in row.theirs))
        found |= dict(zip(row.ours, map(np.ascontiguousarray, params), strict=True))
    known = {name for row in rows for name in row.theirs}
    if unknown := sorted(set(tensors) - known):
        raise ConfigError(f"tensor {unknown[0]}: the zoo's model has none like it")
    return found


def export_tensors(rows: Sequence[Row], params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their tensors, made of our parameters."""
    found: dict[str, np.ndarray] = {}
    for row in rows:
        tensors = row.from_ours(*(params[path] for path in row.ours))
        found |= dict(zip(row.theirs, map(np.ascontiguousarray, tensors), strict=True))
    return found


def _shapes_of(row: Row, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The shapes that the tensors of a row should have."""
    # One byte for each parameter at most: most moves only change how it is looked at.
    zeros = [np.broadcast_to(np.int8(0), shapes[path]) for path in row.ours]
    return [tensor.shape for tensor in row.move.theirs(*zeros)]
