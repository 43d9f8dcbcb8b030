"""Run records: the files of one run directory, written by the trainer and read by everything else.

    runs/<study>/<run_id>/
      config.json      resolved configuration and its hash; written before step 0
      env.json         versions, devices, host, git commit, corpus fingerprint
      metrics.jsonl    one row per logged step
      evals.jsonl      one row per (step, stage, task, split, metric)
      events.jsonl     interventions: resumes, roll-backs, damaged checkpoints; never cut
      status.json      state, stage, step, error

The JSONL files are authoritative. Rows are only appended, each with one write, so a killed process
leaves at most one torn last line. Uses only the standard library: `eval` imports this module and
nothing else of `train`.
"""

import contextlib
import dataclasses
import errno
import fcntl
import json
import math
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

Row = dict[str, Any]

STAGES = ("pretrain", "finetune")
STATES = ("queued", "running", "done", "failed", "preempted")

LOST = "records lost"  # an event: rows recorded before a checkpoint have disappeared

CUT = ("metrics.jsonl", "evals.jsonl")  # a resumed run cuts the rows that it repeats from these

EXAMPLES = "examples"  # of a row of a final evaluation: rows of the values of every example
HELDOUT = "heldout"  # the directory, in that of a run, of the values of every held-out example

# Metrics that depend on the machine and the moment; all others are the same in every training of a
# configuration.
CLOCK = frozenset({"tokens_per_second", "steps_per_second", "mfu", "memory_bytes"})

_NUMBER = (int, float, type(None))  # numbers that are not finite are written as null
_EVAL_TYPES = {
    "step": int,
    "stage": str,
    "task": str,
    "split": str,
    "metric": str,
    "value": _NUMBER,
    "n": _NUMBER,
    "stderr": _NUMBER,
}
_METRIC_TYPES = {"step": int, "stage": str}
_MEASURE_TYPES = {"step": int, "measure": str, "value": _NUMBER}

MEASURES = "measures.jsonl"
"""The file of the measures that take too long for an evaluation: rows with step, measure, value and
what the value depends on."""


class InputError(ValueError):
    """Invalid user input; the message is one line with key, value, allowed values, file and row."""


def reason(error: BaseException) -> str:
    """An exception in one line; some, such as MemoryError, have no text."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that one run has recorded.

    Attributes:
      path: the run directory.
      config: config.json, with keys run_id, study, architecture, size, protocol, seed, hash, model,
        pretrain, finetune, data and accounting.
      env: env.json; empty if the run has not started.
      status: status.json; {"state": "queued"} if there is none.
      metrics: rows of metrics.jsonl in order.
      evals: rows of evals.jsonl in order.
      measures: rows of measures.jsonl, which the verbs that measure a finished run write.
    """

    path: Path
    config: Row
    env: Row
    status: Row
    metrics: list[Row]
    evals: list[Row]
    measures: list[Row] = dataclasses.field(default_factory=list)


def find_runs(root: str | os.PathLike[str]) -> list[Path]:
    """Directories that contain a config.json, sorted: `root`, and at most two levels below it.

    Raises:
      InputError: `root` is not a directory.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"runs: {str(root)!r} is not a directory")
    return sorted(
        {p.parent for depth in ("", "*/", "*/*/") for p in root.glob(f"{depth}config.json")}
    )


def read_run(path: str | os.PathLike[str], *, allow_torn: bool = False) -> Run:
    """Reads and checks one run directory.

    Args:
      path: a directory with a config.json.
      allow_torn: drops a torn last line of a JSONL file (a run being written, or killed) instead of
        raising.

    Raises:
      InputError: a file is missing, is not JSON, or has a field of the wrong type. Names file and
        row.
    """
    path = Path(path)
    return Run(
        path=path,
        config=read_json(path / "config.json"),
        env=read_json(path / "env.json", missing={}),
        status=read_status(path),
        metrics=read_jsonl(path / "metrics.jsonl", _METRIC_TYPES, allow_torn=allow_torn),
        evals=read_jsonl(path / "evals.jsonl", _EVAL_TYPES, allow_torn=allow_torn),
        measures=read_jsonl(path / MEASURES, _MEASURE_TYPES, allow_torn=allow_torn),
    )


def read_json(path: Path, missing: Row | None = None) -> Row:
    """Reads a JSON object from a file; without the file it returns `missing`, if that is given.

    Raises:
      InputError: the file is missing, unreadable, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return dict(missing)
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno} is not JSON ({error.msg})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


_STATUS_TYPES = {
    "stage": str,
    "step": int,
    "steps": int,
    "nll": _NUMBER,
    "finished": list,
    "error": (str, type(None)),
}


def read_status(directory: Path) -> Row:
    """Reads the status.json of a run; without one the run is queued.

    Raises:
      InputError: it is not JSON, or has an unknown state or a field of the wrong type.
    """
    path = directory / "status.json"
    status = read_json(path, missing={"state": "queued"})
    if status.get("state") not in STATES:
        raise InputError(
            f"{path}: state = {status.get('state')!r} is not one of {', '.join(STATES)}"
        )
    for key, kind in _STATUS_TYPES.items():
        value = status.get(key)
        if key in status and (not isinstance(value, kind) or isinstance(value, bool)):
            raise InputError(f"{path}: {key} = {value!r} has type {type(value).__name__}")
    return status


def read_jsonl(
    path: Path, types: Mapping[str, Any] | None = None, *, allow_torn: bool = False
) -> list[Row]:
    """Reads a JSONL file of objects; a file that does not exist has no rows.

    Args:
      path: the file.
      types: required keys and their types.
      allow_torn: drops a last line that was cut off instead of raising.

    Raises:
      InputError: names the file, the row (counted from 1) and what is wrong with it.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    torn = lines.pop()  # empty unless the file does not end in a newline
    if torn and not allow_torn:
        raise InputError(
            f"{path}: row {len(lines) + 1} is torn (the file does not end in a newline): "
            f"{_short(torn)}"
        )
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            raise InputError(f"{path}: row {number} is not JSON: {_short(line)}") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {number} is a {type(row).__name__}, expected an object")
        _check_types(path, number, row, types or {})
        rows.append(row)
    return rows


def extent(path: Path) -> Row:
    """The number of rows and the CRC of a JSONL file, {"rows", "crc32"}.

    Stored in checkpoints, so that lost rows are noticed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    return {"rows": content.count(b"\n"), "crc32": zlib.crc32(content)}


def without_clock(rows: Iterable[Row]) -> list[Row]:
    """Rows of metrics without the keys that differ between two trainings of one configuration."""
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def _short(line: bytes) -> str:
    return repr(line[:60].decode("utf-8", errors="replace"))


def _check_types(path: Path, number: int, row: Row, types: Mapping[str, Any]) -> None:
    for key, kind in types.items():
        if key not in row:
            raise InputError(f"{path}: row {number} has no {key!r}")
        value = row[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(
                f"{path}: row {number}: {key} = {value!r} has type {type(value).__name__}"
            )
    if "stage" in types and row["stage"] not in STAGES:
        raise InputError(
            f"{path}: row {number}: stage = {row['stage']!r} is not one of {', '.join(STAGES)}"
        )


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replaces a JSON file atomically: readers see the old file or the new one."""
    _replace(path, (json.dumps(_finite(value), indent=2) + "\n").encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that gets its name only if the block ends without an error.

    So the file is never seen half-written.
    """
    # The name is random, because processes on machines or in containers that share a directory may
    # have the same process number.
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:12]}")
    try:
        path.parent.mkdir(exist_ok=True)
        with open(temporary, "wb") as file:
            with contextlib.suppress(
                OSError
            ):  # shows others that the writer is alive, where the file system supports it
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # on a full disk the error does not name the file
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)


def _finite(value: Any) -> Any:
    """The same value with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclasses.dataclass(frozen=True)
class RunWriter:
    """Writes the records of one run. Create it only while holding `lock` on the directory.

    Attributes:
      path: the run directory.
      extra: fields that every status.json of this writer contains.
      silent: writes nothing; of several processes that train together, only one writes records.
      identity: config.json and env.json, which `begin` writes; None if they exist already.
    """

    path: Path
    extra: Row = dataclasses.field(default_factory=dict)
    silent: bool = False
    identity: tuple[Row, Row] | None = None

    def begin(self) -> None:
        """Writes the identity; the directory then belongs to the run, so check everything first."""
        if self.identity is not None:
            self.config(*self.identity)

    def config(self, config: Row, env: Row) -> None:
        """Writes config.json and env.json, and removes half-written files of killed writers."""
        if not self.silent:
            for left in self.path.glob("*.tmp-*"):
                left.unlink(missing_ok=True)
        self._write("env.json", env)
        self._write("config.json", config)

    def extents(self) -> dict[str, Row] | None:
        """The `extent` of every file that `cut` cuts; None for a silent writer."""
        return None if self.silent else {name: extent(self.path / name) for name in CUT}

    def status(self, state: str, **fields: Any) -> None:
        """Writes status.json; `state` is one of STATES."""
        if state not in STATES:
            raise ValueError(f"state = {state!r} is not one of {STATES}")
        self._write(
            "status.json",
            {"state": state, "error": None, **self.extra, **fields, "updated": time.time()},
        )

    def metrics(self, row: Row) -> None:
        """Appends one row to metrics.jsonl."""
        self._append("metrics.jsonl", [row])

    def evals(self, rows: Iterable[Row]) -> None:
        """Appends rows to evals.jsonl in one write."""
        self._append("evals.jsonl", rows)

    def examples(self, rows: Iterable[Row]) -> None:
        """Writes the values of every example that these rows of a final evaluation carry.

        Each task has its own file, `heldout/<task>.jsonl`, which replaces that of an earlier final
        evaluation. The order of the examples is the same in all runs on one corpus.
        """
        for row in rows if not self.silent else ():
            if EXAMPLES in row:
                lines = "".join(json.dumps(_finite(one)) + "\n" for one in row[EXAMPLES])
                _replace(self.path / HELDOUT / f"{row['task']}.jsonl", lines.encode())

    def event(self, row: Row) -> None:
        """Appends one row to events.jsonl."""
        self._append("events.jsonl", [row])

    def copy(self, other: Path) -> None:
        """Takes the rows of another run, of the files that `cut` cuts."""
        for name in CUT if not self.silent else ():
            rows = read_jsonl(other / name, _METRIC_TYPES, allow_torn=True)
            content = "".join(json.dumps(row) + "\n" for row in rows)
            _replace(self.path / name, content.encode())

    def cut(self, stage: str, step: int) -> None:
        """Drops rows after `step` of `stage`, rows of later stages, and a torn last line.

        A resumed run repeats those steps, so without the cut their rows would be there twice.
        """

        def keep(row: Row) -> bool:
            order = STAGES.index(row["stage"]) - STAGES.index(stage)
            return order < 0 or (order == 0 and row["step"] <= step)

        if not self.silent:
            for name in CUT:
                filter_jsonl(self.path / name, keep)

    def _write(self, name: str, value: Row) -> None:
        if not self.silent:
            write_json(self.path / name, value)

    def _append(self, name: str, rows: Iterable[Row]) -> None:
        if not self.silent:
            append_jsonl(self.path / name, rows)


def append_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Appends rows with a single write and syncs them to disk."""
    content = "".join(json.dumps(_finite(row)) + "\n" for row in rows).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        start = os.fstat(descriptor).st_size
        written = os.write(descriptor, content)
        if written != len(content):  # a full disk may take a part of a row; remove it
            os.ftruncate(descriptor, start)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filter_jsonl(path: Path, keep: Callable[[Row], bool]) -> None:
    """Rewrites a JSONL file atomically with the rows that `keep` accepts; drops a torn line."""
    if not path.exists():
        return
    rows = [row for row in read_jsonl(path, _METRIC_TYPES, allow_torn=True) if keep(row)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if content != path.read_bytes():
        _replace(path, content)


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], patience: float = 1.0) -> Iterator[bool]:
    """Tries to lock a run directory, creating it if necessary; yields whether it was free.

    The lock belongs to the open file, so it ends with its process in any case.

    Args:
      path: the run directory.
      patience: seconds to try, because a reader that tests the lock holds it for a moment.

    Raises:
      InputError: the directory cannot be created or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        file = open(path / "lock", "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise InputError(
            f"run directory: {str(path)!r} cannot be written ({error.strerror})"
        ) from None
    with file:
        until = time.monotonic() + patience
        while not (free := _try_lock(file.fileno())) and time.monotonic() < until:
            time.sleep(0.02)
        yield free


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
