"""A worker: a process that runs one unfinished cell of a study after the other.

Every launcher starts workers. They need no scheduler: each goes through the cells in order and
locks the next unfinished one, so any number of workers, of any number of launchers, can share one
study. A program is one cell, or several that differ only in their seed and are trained together.
Events are printed as JSON lines on standard output; progress goes to standard error. A worker waits
for cells that another worker is running, because that worker may be killed.

Exit codes: 0 all cells are done; 1 a cell has failed; 75 stopped by SIGTERM, with the cell saved.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from train import records
from train.records import InputError
from train.study.config import RunConfig
from train.study.directory import ATTEMPTS, attempts, is_free, read_manifest
from train.study.trunks import trunk_of

if TYPE_CHECKING:
    from train.data.corpus import Corpus
    from train.run.start import Start

EXIT_FAILED, EXIT_STOPPED = 1, 75
_WAIT_SECONDS = 1.0  # between checks of cells that others are running
_GRACE_SECONDS = 120.0  # time to save after the launcher is gone


@dataclasses.dataclass(frozen=True)
class Worker:
    """A worker's cells and settings.

    Attributes:
      programs: the cells; those of a tuple are trained together.
      directory: the directory of their runs.
      corpus: the corpus to train on.
      launch: the name of the launch; failures of other launches do not count as retries.
      retries: number of times that a failed cell is tried again.
      stop: returns True when the worker must save and end.
    """

    programs: tuple[tuple[RunConfig, ...], ...]
    directory: Path
    corpus: "Corpus"
    launch: str
    retries: int
    stop: Callable[[], bool]

    def run(self) -> int:
        """Goes through the cells until none is left; returns the exit code."""
        left, failed = [config for program in self.programs for config in program], False
        while left and not self.stop():
            states: dict[str, str] = {}
            for config in left:
                if self.stop():
                    break
                states[config.run_id] = self._look_at(config)
            failed |= "failed" in states.values()
            if (
                "preempted" in states.values()
            ):  # by a signal to this process or to another process of the cell
                return EXIT_STOPPED
            left = [
                config
                for config in left
                if states.get(config.run_id, "again") in ("again", "locked")
            ]
            if left and "again" not in states.values():
                time.sleep(_WAIT_SECONDS)
        return EXIT_STOPPED if left else EXIT_FAILED if failed else 0

    def _look_at(self, config: RunConfig) -> str:
        """Runs a cell unless it is done or another process runs it.

        Returns:
          done, locked (another process runs it), failed, again (a retry may help) or preempted.
        """
        import jax

        directory = self.directory / config.run_id
        if self._is_done(config):
            return self._say(config, "done")
        if (
            jax.process_count() > 1
        ):  # all must decide the same, and process 0 may already hold the lock
            return self._attempt(config, directory)
        if not is_free(directory) or self._waits(config):
            return "locked"
        # A failure of several cells together does not count, since another cell may be the cause.
        failures = [row for row in self._failures(directory) if row.get("together", 1) == 1]
        if len(failures) > self.retries:
            _give_up(directory, failures[-1]["error"])
            return self._say(config, "failed", failures[-1]["error"])
        return self._attempt(config, directory)

    def _failures(self, directory: Path) -> list[records.Row]:
        """The failed attempts of this launch on a cell."""
        return [
            row
            for row in attempts(directory)
            if row["state"] == "failed" and row["launch"] == self.launch
        ]

    def _is_done(self, config: RunConfig) -> bool:
        """Whether the cell is recorded as done on this corpus; all processes get one answer."""
        from train.data.probe_batches import corpus_of
        from train.run import distributed

        directory = self.directory / config.run_id

        done = records.read_json(directory / "status.json", missing={}).get("state") == "done"
        data = records.read_json(directory / "config.json", missing={}).get("data", {})
        same = (
            data.get("fingerprint") == corpus_of(config, self.corpus).fingerprint
        )  # if it differs, `run_cell` refuses the directory with an error that says so
        return distributed.as_first(done and same)

    def _attempt(self, config: RunConfig, directory: Path) -> str:
        """Trains a cell, and those that run together with it; records and reports the results."""
        import jax

        from arch_zoo import ConfigError
        from train.run import loop

        members = self._members(config)
        for member in members:
            self._say(member, "running")
        started, error = time.time(), None
        try:
            states = self._train(members)
        except loop.Preempted as reason:
            states, error = ["preempted"] * len(members), str(reason)
        except (InputError, ConfigError, loop.Diverged) as reason:  # a retry would fail too
            states, error = self._after_failure(members, "failed"), str(reason).splitlines()[0]
        except Exception as reason:  # noqa: BLE001  recorded, so that the other cells still run
            states = self._after_failure(members, "again" if jax.process_count() == 1 else "failed")
            error = records.reason(reason)
        row = {
            "launch": self.launch,
            "host": platform.node(),
            "started": started,
            "seconds": time.time() - started,
        }
        row["together"] = sum(state != "locked" for state in states)
        for member, state in zip(members, states, strict=True):
            own = None if state == "done" else error
            self._record(
                member, {**row, "state": "failed" if state == "again" else state, "error": own}
            )
            self._say(
                member, state, own
            )  # also if "locked", so that the launcher knows that this worker is not running it
        return states[0]

    def _after_failure(self, members: list[RunConfig], alone: str) -> list[str]:
        """The state of each cell of a failed program.

        If there are several cells, all unfinished ones are tried again: only one of them may have
        caused the failure, or they did not fit into memory together.
        """
        if len(members) == 1:
            return [alone]
        return ["done" if self._is_done(member) else "again" for member in members]

    def _members(self, config: RunConfig) -> list[RunConfig]:
        """The cell, and those of its program that can run with it; a failed cell runs alone."""
        import jax

        program = next(program for program in self.programs if config in program)
        if (
            len(program) == 1 or jax.process_count() > 1
        ):  # several processes can only train one seed
            return [config]
        places = {cell.run_id: self.directory / cell.run_id for cell in program}
        if self._failures(places[config.run_id]):
            return [config]
        others = [
            cell for cell in program if cell != config and not self._failures(places[cell.run_id])
        ]
        free = [c for c in others if not self._is_done(c) and is_free(places[c.run_id])]
        return [config, *free]

    def _train(self, members: list[RunConfig]) -> list[str]:
        from train.run import cell, seeds

        if len(members) > 1:
            return seeds.run_seeds(members, self.corpus, self.directory, stop=self.stop)
        directory, start = self.directory / members[0].run_id, self._branch(members[0])
        return [cell.run_cell(members[0], self.corpus, directory, start_from=start, stop=self.stop)]

    def _trunk(self, config: RunConfig) -> RunConfig | None:
        """The cell whose first steps this one shares and need not take itself."""
        from train.run.start import has_checkpoint

        if has_checkpoint(self.directory / config.run_id, "pretrain"):
            return None
        return trunk_of(config, (cell for program in self.programs for cell in program))

    def _branch(self, config: RunConfig) -> "Start | None":
        """Where a cell leaves its trunk; None if it has none that kept the checkpoint.

        Several processes might not all see a new checkpoint, so they take every step themselves.
        """
        import jax

        from train.run.start import Start, checkpoints_of

        trunk, step = self._trunk(config), config.pretrain.decay_starts
        if trunk is None or jax.process_count() > 1:
            return None
        directory = self.directory / trunk.run_id
        kept = checkpoints_of(directory, "pretrain")
        if not (kept / str(step)).is_dir():
            return None
        return Start(resume_from=kept, resume_at=step, trunk=directory)

    def _waits(self, config: RunConfig) -> bool:
        """Whether a trunk that is being trained will have the checkpoint that a cell starts from.

        If nobody trains the trunk, the cell does not wait for it.
        """
        trunk = self._trunk(config)
        if trunk is None or self._branch(config) is not None:
            return False
        directory = self.directory / trunk.run_id
        return not self._is_done(trunk) and not is_free(directory)

    def _record(self, config: RunConfig, row: records.Row) -> None:
        """Appends an attempt to the cell's records; a locked cell was not attempted."""
        from train.run import distributed

        if row["state"] != "locked" and distributed.is_first():
            with contextlib.suppress(
                OSError
            ):  # that the directory is not writable is already reported
                records.append_jsonl(self.directory / config.run_id / ATTEMPTS, [row])

    def _say(self, config: RunConfig, state: str, error: str | None = None) -> str:
        """Reports the state of a cell to the launcher, and returns it."""
        print(json.dumps({"cell": config.run_id, "state": state, "error": error}), flush=True)
        return state


def _give_up(directory: Path, error: str | None) -> None:
    """Marks a cell as failed, since the worker that ran it was killed before it could do so."""
    with records.lock(directory) as free:
        status = records.read_status(directory)
        if free and status["state"] != "failed":
            # What else the status says, such as the last step, still holds.
            rest = {
                key: value
                for key, value in status.items()
                if key not in ("state", "error", "updated")
            }
            records.RunWriter(directory).status("failed", **rest, error=error)


def main(arguments: argparse.Namespace) -> int:
    """Runs cells until none is left; returns the exit code."""
    if arguments.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})  # before jax starts its threads
    if arguments.parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()

    from train.data.probe_batches import open_for
    from train.run import cell, distributed

    distributed.initialize()
    declared = {cell.run_id: cell for cell in read_manifest(arguments.directory).cells}
    names = arguments.cell or [[name] for name in declared]
    programs = tuple(
        tuple(declared[name] for name in program if name in declared) for program in names
    )
    cells = [member for program in programs for member in program]
    data = open_for(cells, arguments.corpus, verify=False)
    with cell.StopOnSignal() as stop:
        launch = (
            arguments.launch or uuid.uuid4().hex[:12]
        )  # under a scheduler each start is a separate launch
        return Worker(programs, arguments.directory, data, launch, arguments.retries, stop).run()


def _end_with_parent() -> None:
    """Saves and ends when the launcher, which holds the other end of standard input, is gone."""
    # `sys.stdin.read` will not do: the interpreter aborts if it exits while a thread is inside a
    # buffered read.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(EXIT_FAILED)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.launch.worker", description=__doc__)
    parser.add_argument("directory", type=Path, help="the study's directory, with its manifest")
    parser.add_argument("corpus", type=Path, help="the prepared corpus")
    parser.add_argument(
        "--cell",
        action="append",
        nargs="+",
        help="run only this cell, or these together; may be given several times",
    )
    parser.add_argument(
        "--launch", help="name of the launch; retries are counted per launch (default: a new name)"
    )
    parser.add_argument(
        "--retries", type=int, default=0, help="retries of a failed cell (default: 0)"
    )
    parser.add_argument("--core", type=int, help="the CPU core to run on (default: all)")
    parser.add_argument("--parent", action="store_true", help="end when standard input is closed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(_parse(sys.argv[1:])))
