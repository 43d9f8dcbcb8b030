"""A small library that tests prepare: a copy of a few packages of the running interpreter."""

import shutil
import sysconfig
from pathlib import Path

_PARTS = (
    "asyncio",
    "email",
    "json",
    "logging",
    "unittest",
    "xml",
    "pydoc_data",
    "argparse.py",
    "dataclasses.py",
    "heapq.py",
)


def copy_library(path: Path) -> Path:
    """Copies the packages to `path` and returns it."""
    source = Path(sysconfig.get_paths()["stdlib"])
    for name in _PARTS:
        if (source / name).is_dir():
            shutil.copytree(
                source / name, path / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            path.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, path / name)
    return path
