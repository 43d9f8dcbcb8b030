"""Parts of a corpus that are made independently of each other.

A part is one shard, or one split of one task. A worker first writes its files and then, atomically,
`parts/<name>.json` with their sizes and sha256 and the key of what it was made from. So a killed
`prepare` continues with the remaining parts, and a damaged file affects only its own part. Workers
on several machines share a directory without communicating: they only see each other's heartbeats.
If two of them make the same part, they write the same files.
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
      key: changes with anything that affects the content.
      make: writes the files into the corpus's directory and returns facts; "files" describes each
        file by name.
    """

    name: str
    key: str
    make: Callable[[Path], Facts]

    def done(self, root: Path) -> Facts | None:
        """The facts of the part if it is complete and has the same key; None if it must be made."""
        try:
            facts = read_json(self._path(root), missing={})
        except InputError:  # an unreadable description counts as missing
            return None
        if facts.get("key") != self.key:
            return None
        damaged = any(shards.damage(root / file, found) for file, found in facts["files"].items())
        return None if damaged else facts

    def finish(self, root: Path) -> Facts:
        """Makes the part, and writes its description last."""
        facts = {**self.make(root), "key": self.key}
        path = self._path(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, facts)
        return facts

    def _path(self, root: Path) -> Path:
        return root / "parts" / f"{self.name.replace('/', '.')}.json"


class Team:
    """The workers of one directory. As a context manager, it sends this worker's heartbeats.

    Attributes:
      number: the number of this worker.
      count: the number of workers; part i belongs to worker i % count.
      patience: seconds without a heartbeat after which a worker is considered dead, permanently.
    """

    def __init__(self, root: Path, number: int, count: int, patience: float):
        """Starts with all other workers considered alive."""
        self.number, self.count, self.patience = number, count, patience
        self._folder, self._gone = root / "parts", threading.Event()
        self._seen: dict[
            int, tuple[int, float]
        ] = {}  # each worker's last heartbeat, and when this process first saw it
        self._dead: set[int] = set()

    def __enter__(self) -> "Team":
        """Starts to send heartbeats."""
        if self.count > 1:
            threading.Thread(target=self._give_signs, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops sending heartbeats."""
        self._gone.set()

    def order(self, count: int) -> list[int]:
        """The order in which to make all parts: this worker's own first, then the others'.

        Each worker starts with different parts of the others.
        """
        own = list(range(self.number, count, self.count))
        others = [i for i in range(count) if i % self.count != self.number]
        turn = self.number * len(others) // self.count
        return own + others[turn:] + others[:turn]

    def alive(self, worker: int) -> bool:
        """Whether another worker sent a heartbeat lately, by this clock; False for itself."""
        if worker == self.number or worker in self._dead:
            return False
        try:
            sign = self._sign(worker).stat().st_mtime_ns
        except OSError:
            sign = 0
        last, when = self._seen.get(worker, (-1, 0.0))
        if sign != last:
            # The clocks of other machines may be wrong, so only this one's is used.
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
    """The sha256 of JSON values."""
    return hashlib.sha256(json.dumps(things, sort_keys=True).encode()).hexdigest()


def files(facts: Mapping[str, Facts]) -> dict[str, Any]:
    """The descriptions of all files of these parts, sorted by name."""
    return dict(
        sorted((file, found) for part in facts.values() for file, found in part["files"].items())
    )
