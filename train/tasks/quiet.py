"""Imports the catalog of tasks, and TensorFlow with it, without TensorFlow's start messages."""

import contextlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType


def catalog() -> ModuleType:
    """The module `train.tasks.catalog`; its first import takes seconds."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with discarded():
        from train.tasks import catalog
    return catalog


@contextlib.contextmanager
def discarded() -> Iterator[None]:
    """Discards what native code writes to stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
