"""The list of architectures. Each class in `arch_zoo/architectures/` registers itself."""

import importlib
import pkgutil
from collections.abc import Callable

_CLASSES: dict[str, type] = {}


class ConfigError(ValueError):
    """A configuration that cannot be built.

    The message is one line with the key, its value and what is allowed.
    """


def register(name: str) -> Callable[[type], type]:
    """Registers an `Architecture` subclass under `name`."""

    def add(cls: type) -> type:
        if _CLASSES.get(name, cls).__qualname__ != cls.__qualname__:
            raise ConfigError(
                f"architecture {name!r} is registered twice: {_CLASSES[name]} and {cls}"
            )
        cls.name = name
        _CLASSES[name] = cls
        return cls

    return add


def _load_all() -> None:
    from arch_zoo import architectures

    for module in pkgutil.iter_modules(architectures.__path__):
        importlib.import_module(f"arch_zoo.architectures.{module.name}")


def names() -> tuple[str, ...]:
    """The registered architectures, the vanilla Transformer first, the others by name."""
    _load_all()
    return tuple(sorted(_CLASSES, key=lambda name: (name != "transformer", name)))


def get(name: str) -> type:
    """The `Architecture` class registered under `name`.

    Raises:
      ConfigError: there is no such architecture.
    """
    if name not in names():
        raise ConfigError(f"architecture {name!r} is unknown; known: {', '.join(names())}")
    return _CLASSES[name]
