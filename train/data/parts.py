"""Parts of a corpus that are made independently of each other.

A part is one shard, or one split of one task. Whoever makes it writes its files first and then, atomically,
`parts/<name>.json` with their sizes and sha256 and the key of what it was made from. So a killed `prepare` goes on with
the parts that are left, a damaged file undoes its own part and no other, and workers on several machines share a
directory without talking to each other.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from train.data import shards
from train.records import InputError, read_json, write_json

Facts = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of work.

    Attributes:
      name: for example "pretrain/train-00003" or "tasks/squad/validation".
      make: writes the files under the corpus's directory; returns facts, of which "files" describes each by name.
    """

    name: str
    make: Callable[[Path], Facts]


def done(root: Path, name: str, key: str) -> Facts | None:
    """The facts of a part that is whole and was made from `key`; None where it has to be made."""
    try:
        facts = read_json(_path(root, name), missing={})
    except InputError:  # a description that cannot be read describes nothing
        return None
    if facts.get("key") != key:
        return None
    damaged = any(shards.damage(root / file, found) for file, found in facts["files"].items())
    return None if damaged else facts


def make(root: Path, part: Part, key: str) -> Facts:
    """Makes a part and writes its description last."""
    facts = {**part.make(root), "key": key}
    path = _path(root, part.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, facts)
    return facts


def files(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """The descriptions of all files of some parts, sorted by name."""
    return dict(sorted((file, found) for part in facts.values() for file, found in part["files"].items()))


def _path(root: Path, name: str) -> Path:
    return root / "parts" / f"{name.replace('/', '.')}.json"
