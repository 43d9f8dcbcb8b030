"""Parts of a corpus that are made independently of each other.

A part is one shard, or one split of one task. Whoever makes it writes its files first and then, atomically,
`parts/<name>.json` with their sizes and sha256 and the key of what it was made from. So a killed `prepare` goes on with
the parts that are left, a damaged file undoes its own part and no other, and workers on several machines share a
directory without talking to each other.
"""

import dataclasses
import hashlib
import json
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
      key: changes with anything that its content follows from.
      make: writes the files under the corpus's directory; returns facts, of which "files" describes each by name.
    """

    name: str
    key: str
    make: Callable[[Path], Facts]

    def done(self, root: Path) -> Facts | None:
        """The facts of the part if it is whole and was made from the same key; None where it has to be made."""
        try:
            facts = read_json(self._path(root), missing={})
        except InputError:  # a description that cannot be read describes nothing
            return None
        if facts.get("key") != self.key:
            return None
        damaged = any(shards.damage(root / file, found) for file, found in facts["files"].items())
        return None if damaged else facts

    def finish(self, root: Path) -> Facts:
        """Makes the part and writes its description last."""
        facts = {**self.make(root), "key": self.key}
        path = self._path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)
        return facts

    def _path(self, root: Path) -> Path:
        return root / "parts" / f"{self.name.replace('/', '.')}.json"


def key(*things: Any) -> str:
    """sha256 of plain values."""
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()


def files(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """The descriptions of all files of some parts, sorted by name."""
    return dict(sorted((file, found) for part in facts.values() for file, found in part["files"].items()))
