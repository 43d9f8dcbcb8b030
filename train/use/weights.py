"""Files of weights: a folder with config.json and tensors in the safetensors format.

Nothing is unpickled: PyTorch's `.bin` files are refused.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, numpy, safe_open

from train import records
from train.records import InputError

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST = 5 * 10**9
"""Bytes of a file; larger models get several."""

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.msgpack", "*.h5")


def read(folder: Path) -> tuple[records.Row, dict[str, np.ndarray]]:
    """The config.json of a folder, and its tensors by name; floats as float32.

    Raises:
      InputError: a file is missing or damaged, or holds what this cannot read. Names the file.
    """
    if not folder.is_dir():
        raise InputError(f"import: {str(folder)!r} is not a directory")
    config = records.read_json(folder / CONFIG)
    if "run_id" in config:
        raise InputError(f"import: {folder} is a run already; `export` writes it for others")
    tensors: dict[str, np.ndarray] = {}
    for file, names in _files(folder).items():
        found = _read_file(folder / file)
        for name in names or found:
            if name not in found:
                raise InputError(f"{folder / file}: tensor {name}: missing; {INDEX} names it")
            tensors[name] = found[name]
    return config, tensors


def _files(folder: Path) -> dict[str, list[str]]:
    """The files with tensors, and the names that each must hold; none given means all it has."""
    if (folder / INDEX).exists():
        places = records.read_json(folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(
            isinstance(x, str) for pair in places.items() for x in pair
        ):
            raise InputError(f"{folder / INDEX}: weight_map is not an object of file names")
        files: dict[str, list[str]] = {}
        for name, file in places.items():
            if Path(file).name != file:
                raise InputError(f"{folder / INDEX}: {name}: {file!r} is not in the same directory")
            files.setdefault(file, []).append(name)
        return files
    if (folder / WHOLE).exists():
        return {WHOLE: []}
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        raise InputError(
            f"{folder / pickled[0]}: only safetensors are read; to convert it, load the model with "
            "transformers and call save_pretrained"
        )
    raise InputError(f"{folder}: has no {WHOLE}")


def _read_file(path: Path) -> dict[str, np.ndarray]:
    try:
        # The reader for flax, since that for numpy does not know bfloat16.
        with safe_open(path, framework="flax") as file:
            return {name: _float32(np.asarray(file.get_tensor(name))) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: is damaged or no safetensors file ({error})") from None


def _float32(array: np.ndarray) -> np.ndarray:
    """Floats of any width as float32; others as they are."""
    kind = array.dtype.kind
    return array.astype(np.float32) if kind in "fV" or "float" in str(array.dtype) else array


def check_new(folder: Path) -> None:
    """Refuses a folder that has files.

    Raises:
      InputError: it has.
    """
    if os.path.exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"out: {folder} exists already; nothing is overwritten")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that gets its name only if the block ends without an error."""
    check_new(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: {folder} cannot be made ({error.strerror})") from None
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as name:
        made = Path(name) / folder.name
        made.mkdir()
        yield made
        os.replace(made, folder)


def write(
    folder: Path, files: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes JSON files, and tensors in one file or several.

    Args:
      folder: where.
      files: JSON objects by file name.
      tensors: by name.
    """
    groups = _groups(tensors)
    names = [
        f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        for number in range(1, len(groups) + 1)
    ]
    if len(groups) == 1:
        names = [WHOLE]
    for name, group in zip(names, groups, strict=True):
        numpy.save_file({key: tensors[key] for key in group}, folder / name, {"format": "pt"})
    if len(groups) > 1:
        places = {key: name for name, group in zip(names, groups, strict=True) for key in group}
        total = sum(tensor.nbytes for tensor in tensors.values())
        records.write_json(
            folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places}
        )
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _groups(tensors: Mapping[str, np.ndarray]) -> list[list[str]]:
    """The names of the tensors of each file."""
    groups: list[list[str]] = [[]]
    size = 0
    for name in sorted(tensors):
        if groups[-1] and size + tensors[name].nbytes > LARGEST:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += tensors[name].nbytes
    return groups
