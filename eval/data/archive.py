"""The records of a study in one file: what a report needs, without checkpoints and logs.

An archive (.tar.gz) is written in one order and without times, so the same records give the same
bytes. Every verb that reads a study's directory reads an archive as well.
"""

import atexit
import dataclasses
import gzip
import io
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from train import records
from train.records import InputError

KIND = ".tar.gz"
_KEPT = (".json", ".jsonl")


def write(directory: Path, out: Path) -> int:
    """Writes the records of every run under a study's directory; returns the number of runs.

    Raises:
      InputError: there is no run, `out` has another ending, or it cannot be written.
    """
    runs = records.find_runs(directory)
    if not runs:
        raise InputError(f"runs: {str(directory)!r} holds no run")
    if not out.name.endswith(KIND):
        raise InputError(f"out = {str(out)!r}: an archive ends in {KIND}")
    files = [path for path in sorted(directory.glob("*")) if path.suffix in _KEPT]
    for run in runs:
        files += [path for path in sorted(run.glob("*")) if path.suffix in _KEPT]
        files += sorted((run / records.HELDOUT).glob("*"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in dict.fromkeys(file for file in files if file.is_file()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(
                str(Path(directory.resolve().name, path.relative_to(directory)))
            )
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(gzip.compress(packed.getvalue(), mtime=0))
    except OSError as error:
        raise InputError(f"out = {str(out)!r}: cannot be written ({error.strerror})") from None
    return len(runs)


def opened(path: Path) -> Path:
    """The directory that an archive holds, unpacked until this process ends; others as they are.

    Raises:
      InputError: the file is damaged, or holds something other than one directory.
    """
    if not path.name.endswith(KIND) or not path.is_file():
        return path
    folder = Path(tempfile.mkdtemp(prefix="records-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be unpacked ({records.reason(error)})") from None
    found = list(folder.iterdir())
    if len(found) != 1 or not found[0].is_dir():
        raise InputError(f"{path}: is no archive of a study, which holds one directory")
    return found[0]


def with_opened(verb: Any) -> Any:
    """A verb whose options that name an archive name its directory instead."""
    changed = {}
    for field in dataclasses.fields(verb):
        value = getattr(verb, field.name)
        if isinstance(value, Path):
            changed[field.name] = opened(value)
        elif isinstance(value, tuple) and any(isinstance(one, Path) for one in value):
            changed[field.name] = tuple(opened(one) for one in value)
        elif dataclasses.is_dataclass(value):
            changed[field.name] = with_opened(value)
    return dataclasses.replace(verb, **changed)
