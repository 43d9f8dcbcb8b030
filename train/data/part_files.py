"""Parts of a corpus that are made independently of each other.

A part is one shard, or one split of one task. Whoever makes it writes its files first and then,
atomically, `parts/<name>.json` with their sizes and sha256 and the key of what it was made from. So
a killed `prepare` goes on with the parts that are left, a damaged file undoes its own part and no
other, and workers on several machines share a directory without talking to each other: they only
see each other's signs of life. A part that two of them make is the same twice.
"""

import contextlib
import dataclasses
import hashlib
import json
import threading
import time
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


class Team:
    """The workers of one directory; a context manager that gives signs of life while this one is at work.

    Attributes:
      number: this worker's.
      count: how many there are; part i belongs to worker i % count.
      patience: seconds without a sign after which a worker is taken for dead, once and for all.
    """

    def __init__(self, root: Path, number: int, count: int, patience: float):
        """Nobody is dead yet."""
        self.number, self.count, self.patience = number, count, patience
        self._folder, self._gone = root / "parts", threading.Event()
        self._seen: dict[
            int, tuple[int, float]
        ] = {}  # of each worker the last sign, and when it was new
        self._dead: set[int] = set()

    def __enter__(self) -> "Team":
        """Starts to give signs."""
        if self.count > 1:
            threading.Thread(target=self._give_signs, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives no more signs."""
        self._gone.set()

    def order(self, count: int) -> list[int]:
        """All parts: one's own first, then the others', from another place for each worker."""
        own = list(range(self.number, count, self.count))
        others = [i for i in range(count) if i % self.count != self.number]
        turn = self.number * len(others) // self.count
        return own + others[turn:] + others[:turn]

    def alive(self, worker: int) -> bool:
        """Whether another worker has given a sign lately, by this machine's clock; False of oneself."""
        if worker == self.number or worker in self._dead:
            return False
        try:
            sign = self._sign(worker).stat().st_mtime_ns
        except OSError:
            sign = 0
        last, when = self._seen.get(worker, (-1, 0.0))
        if sign != last:
            self._seen[worker] = (sign, time.monotonic())
        elif time.monotonic() - when > self.patience:
            self._dead.add(worker)
        return worker not in self._dead

    def _give_signs(self) -> None:
        while not self._gone.is_set():
            with contextlib.suppress(OSError):
                self._sign(self.number).touch()
            self._gone.wait(min(10.0, self.patience / 4))

    def _sign(self, worker: int) -> Path:
        return self._folder / f"worker-{worker}"


def key(*things: Any) -> str:
    """sha256 of plain values."""
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()


def files(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """The descriptions of all files of some parts, sorted by name."""
    return dict(
        sorted((file, found) for part in facts.values() for file, found in part["files"].items())
    )
