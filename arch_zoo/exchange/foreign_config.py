"""The settings of another project's model, as its config.json has them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from arch_zoo.registry import ConfigError


@dataclasses.dataclass(frozen=True)
class ForeignConfig:
    """Reads a config.json with checks.

    Attributes:
      values: its content.
      tensors: the names of the tensors beside it that are not copies of others, which also says
        what a model is.
    """

    values: Mapping[str, Any]
    tensors: frozenset[str] = frozenset()

    @property
    def architecture(self) -> str:
        """The name of the model's class.

        Raises:
          ConfigError: there is none.
        """
        names = self.values.get("architectures")
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            raise ConfigError(f"config.json: architectures = {names!r}: must name one class")
        return names[0]

    def get(self, key: str, default: Any = None) -> Any:
        """A setting of any type; null counts as absent."""
        value = self.values.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> float:
        """A number.

        Raises:
          ConfigError: it is absent and has no default, or is no number.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"config.json: {key} = {value!r}: must be a number")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number.

        Raises:
          ConfigError: it is absent and has no default, or is no whole number.
        """
        value = self.number(key, default)
        if not isinstance(value, int):
            raise ConfigError(f"config.json: {key} = {value!r}: must be a whole number")
        return value

    def require(self, **allowed: Any) -> None:
        """Refuses settings that the zoo's model does not have.

        Args:
          **allowed: the value that each must have if it is there, or a tuple of such values.

        Raises:
          ConfigError: one has another value.
        """
        for key, wanted in allowed.items():
            choices = wanted if isinstance(wanted, tuple) else (wanted,)
            value = self.get(key, choices[0])
            if value not in choices:
                said = " or ".join(map(repr, choices))
                raise ConfigError(f"config.json: {key} = {value!r}: the zoo's model has {said}")

    def rotary_base(self, default: float = 10_000.0) -> float:
        """The base of the rotary wavelengths, which older files keep in another place.

        Raises:
          ConfigError: the wavelengths are changed in a way that the zoo does not have.
        """
        found = self.get("rope_parameters", self.get("rope_scaling", {}))
        if not isinstance(found, Mapping):
            raise ConfigError(f"config.json: rope_parameters = {found!r}: must be an object")
        kind = found.get("rope_type", found.get("type", "default"))
        if kind != "default":
            raise ConfigError(
                f"config.json: rope_type = {kind!r}: the zoo's model has 'default' only"
            )
        partial = found.get("partial_rotary_factor", self.get("partial_rotary_factor", 1.0))
        if partial != 1.0:
            raise ConfigError(
                f"config.json: partial_rotary_factor = {partial!r}: the zoo's model has 1.0"
            )
        theta = found.get("rope_theta", self.get("rope_theta", default))
        if isinstance(theta, bool) or not isinstance(theta, int | float):
            raise ConfigError(f"config.json: rope_theta = {theta!r}: must be a number")
        return float(theta)
