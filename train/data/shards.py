"""Files of a corpus: written atomically, described by size and sha256, and checked."""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from train import records
from train.records import InputError

_CHUNK = 1 << 22
_HASHING_THREADS = 8


class _Bytes:
    """A file that numpy writes to through `write`.

    If numpy writes to a file directly, its error on a full disk does not give the reason.
    """

    def __init__(self, file: BinaryIO):
        self.write = file.write


def write_array(path: Path, array: np.ndarray) -> dict[str, Any]:
    """Writes an .npy file atomically; returns its description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with records.replacing(path) as file:
        # Anything with `write` will do, although numpy's types do not say so.
        np.save(_Bytes(file), array, allow_pickle=False)  # pyright: ignore
    return describe(path)


def write_bytes(path: Path, content: bytes) -> dict[str, Any]:
    """Writes a file atomically; returns its description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with records.replacing(path) as file:
        file.write(content)
    return describe(path)


def remove_leftovers(root: Path, age: float) -> None:
    """Removes half-written files whose writers are dead, which means that their lock is free.

    Args:
      root: the corpus.
      age: least seconds since their last change; needed because some file systems do not share
        locks between machines.
    """
    for left in root.rglob("*.tmp-*"):
        with contextlib.suppress(OSError), open(left, "rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime >= age:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def read_array(path: Path) -> np.ndarray:
    """Memory-maps an .npy file read-only.

    Raises:
      InputError: the file is missing or not an array.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"corpus: {path} cannot be read as an array ({error})") from None


def describe(path: Path) -> dict[str, Any]:
    """{"bytes", "sha256"} of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def damage(path: Path, description: Mapping[str, Any], *, hashes: bool = True) -> str | None:
    """What is wrong with a file, in a few words; None if it matches the description."""
    try:
        size = path.stat().st_size
        if size != description["bytes"]:
            return f"{size} bytes where the index has {description['bytes']}"
        if hashes and describe(path)["sha256"] != description["sha256"]:
            return "its sha256 differs from the index"
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    return None


def verify(root: Path, files: Mapping[str, Mapping[str, Any]], *, hashes: bool = True) -> None:
    """Checks files against their descriptions.

    Args:
      root: directory that the names are relative to.
      files: description of each file by name.
      hashes: reads the files and compares their sha256, not only their sizes.

    Raises:
      InputError: names the first file that differs, and how.
    """
    with concurrent.futures.ThreadPoolExecutor(_HASHING_THREADS) as pool:
        found = pool.map(lambda name: damage(root / name, files[name], hashes=hashes), files)
        for name, wrong in zip(files, found, strict=True):
            if wrong:
                raise InputError(
                    f"corpus: {root / name} is damaged: {wrong}; run `prepare` again to redo it"
                )
