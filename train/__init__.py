"""Pretrains and finetunes the cells of a study. Other packages read its records by `train.records`.

Importing the package is fast: jax is imported only by modules that compute, TensorFlow only by
`prepare`.

    run = train.load("runs/cpu/glu-centi-s0")
    run.generate(["..."])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.use.loaded import Decoding, LoadedRun, load

__all__ = ["Decoding", "LoadedRun", "load"]


def __getattr__(name: str) -> Any:
    """Imports what needs jax when it is first asked for."""
    if name in __all__:
        from train.use import loaded

        return getattr(loaded, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names too, which are not imported yet."""
    return sorted({*globals(), *__all__})
