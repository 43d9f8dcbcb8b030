"""The local launcher: a pool of worker processes on this machine, each pinned to a core where there are only cores."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from train import study as studies
from train.config import StudyConfig

_RESTARTS = 3  # of a worker that was killed, in one launch
_LINE_SECONDS = 20.0  # between plain lines of progress
_POLL_SECONDS = 1.0


class Stopped(Exception):
    """The launcher was told to stop; its workers have saved."""


class Pool:
    """Workers on one manifest, and what they have said of its cells.

    Attributes:
      reports: the last report of each cell that a worker has looked at.
    """

    def __init__(self, study: StudyConfig, directory: Path, corpus: Path, num_workers: int):
        """Starts the workers."""
        self.reports: dict[str, dict[str, Any]] = {}
        self._study, self._directory, self._corpus = study, directory, corpus
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._cores = _cores(study, num_workers)
        self._workers = {number: self._start(number) for number in range(num_workers)}
        self._restarts = {number: 0 for number in range(num_workers)}

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        core = self._cores[number]
        command = [sys.executable, "-m", "train.launch.worker", str(self._directory), str(self._corpus)]
        with open(self._directory / f"worker-{number}.log", "ab") as log:
            process = subprocess.Popen(
                command + ([] if core is None else [str(core)]),
                stdin=subprocess.PIPE,  # held open: its end tells the worker that the launcher is gone
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(self._study, pinned=core is not None),
                start_new_session=True,  # Ctrl-C is for the launcher, which lets its workers save
            )
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._queue.put(json.loads(line))

    def poll(self) -> bool:
        """Takes in what the workers have said; starts again one that was killed. Returns whether any is alive."""
        while not self._queue.empty():
            report = self._queue.get()
            self.reports[report["cell"]] = report
        for number, worker in self._workers.items():
            if worker.poll() not in (None, 0) and self._restarts[number] < _RESTARTS:
                self._restarts[number] += 1
                self._workers[number] = self._start(number)
        return any(worker.poll() is None for worker in self._workers.values())

    def stop(self) -> None:
        """Asks every worker to save and end, and waits."""
        self._restarts = dict.fromkeys(self._workers, _RESTARTS)
        for worker in self._workers.values():
            worker.terminate()
        for worker in self._workers.values():
            worker.wait()


def run(study: StudyConfig, directory: Path, corpus: Path, num_workers: int) -> dict[str, dict[str, Any]]:
    """Runs all unfinished cells of a study on this machine.

    Args:
      study: the study, whose manifest is in `directory`.
      directory: of its runs.
      corpus: the prepared corpus.
      num_workers: processes.

    Returns:
      The last report of each cell: {"cell", "state", "error"}.

    Raises:
      Stopped: by SIGTERM or Ctrl-C; every worker has saved its cell.
    """
    old = signal.signal(signal.SIGTERM, signal.default_int_handler)  # from here on, SIGTERM is Ctrl-C
    pool = Pool(study, directory, corpus, num_workers)
    view = _View(study, directory)
    try:
        while pool.poll():
            view.show()
            time.sleep(_POLL_SECONDS)
        pool.poll()
    except KeyboardInterrupt:
        pool.stop()
        raise Stopped(f"study {study.name!r} stopped; run it again to go on") from None
    finally:
        view.close()
        signal.signal(signal.SIGTERM, old)
    return pool.reports


def _cores(study: StudyConfig, num_workers: int) -> list[int | None]:
    """The core of each worker; None, no pinning, where an accelerator does the work or one worker has the machine."""
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if study.platform != "cpu" or num_workers == 1 or not available:
        return [None] * num_workers
    return [available[number % len(available)] for number in range(num_workers)]


def default_workers(study: StudyConfig) -> int:
    """One for each core on CPU, but no more than cells; one where an accelerator does the work."""
    if study.platform != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, len(study.cells))


def _environment(study: StudyConfig, pinned: bool) -> dict[str, str]:
    environment = dict(os.environ)
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(".cache/jax").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # huge pages: a step is 2-34 % faster
    }
    if study.platform:
        defaults["JAX_PLATFORMS"] = study.platform
    if pinned:
        defaults["OMP_NUM_THREADS"] = "1"
    return defaults | environment


class _View:
    """What a person sees of a running study: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, study: StudyConfig, directory: Path):
        self._study, self._directory = study, directory
        self._started, self._said = time.monotonic(), time.monotonic()
        self._first = sum(status.done for status in studies.statuses(study, directory))
        self._bar = None
        if sys.stderr.isatty():
            from rich import console, progress

            columns = (*progress.Progress.get_default_columns(), progress.TextColumn("{task.fields[note]}"))
            self._bar = progress.Progress(*columns, console=console.Console(stderr=True))
            total = sum(status.total for status in studies.statuses(study, directory))
            self._task = self._bar.add_task(study.name, total=total, note="")
            self._bar.start()

    def show(self) -> None:
        found = studies.statuses(self._study, self._directory)
        finished = sum(status.state == "done" for status in found)
        running = [f"{s.run_id} {s.stage} {s.done}/{s.total}" for s in found if s.state == "running"]
        note = f"{finished}/{len(found)} cells; {', '.join(running)}"
        if self._bar:
            self._bar.update(self._task, completed=sum(status.done for status in found), note=note)
        elif time.monotonic() - self._said > _LINE_SECONDS:
            self._said = time.monotonic()
            elapsed = time.monotonic() - self._started
            print(f"{self._study.name}: {elapsed:.0f} s, {note}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
