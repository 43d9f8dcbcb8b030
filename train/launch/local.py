"""The local launcher: a pool of workers on this machine.

If there are several workers, each is pinned to a core, or to a GPU on a machine that has some; a
single worker uses everything. Any number of launchers may work on one study, on one machine or on
several that share its directory.
"""

import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from train import records
from train.launch.worker import EXIT_FAILED, EXIT_STOPPED
from train.study import watch
from train.study.config import StudyConfig
from train.study.directory import ATTEMPTS, Programs, programs, statuses

_RESTARTS = 3  # per launch, of a worker that dies before it starts any cell
_LINE_SECONDS = 20.0  # between lines of progress if there is no terminal
_POLL_SECONDS = 1.0


class Stopped(Exception):
    """The launcher was stopped by a signal, and its workers have saved their cells."""


class Pool:
    """The workers of one launch, and their reports on the cells of the study.

    Attributes:
      reports: the last report on each cell that a worker has looked at, by the cell's name.
    """

    def __init__(
        self, study: StudyConfig, directory: Path, corpus: Path, num_workers: int, *options: str
    ):
        """Starts the workers; `options` are passed on to `train.launch.worker`."""
        self.reports: dict[str, dict[str, Any]] = {}
        self._study, self._directory, self._corpus, self._options = (
            study,
            directory,
            corpus,
            options,
        )
        self._launch = uuid.uuid4().hex[:12]
        self._queue: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._cores = _cores(study, num_workers)
        self._gpus = _gpus(study, num_workers)
        self._at: dict[
            int, dict[str, float]
        ] = {}  # by worker, the cells that it is running and the time at which each was started
        self._workers = {number: self._start(number) for number in range(num_workers)}
        self._restarts = {number: 0 for number in range(num_workers)}

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        core = self._cores[number]
        command = [
            sys.executable,
            "-m",
            "train.launch.worker",
            str(self._directory),
            str(self._corpus),
            "--parent",
        ]
        command += ["--launch", self._launch, *self._options]
        with open(self._log(number), "ab") as log:
            process = subprocess.Popen(
                command + ([] if core is None else ["--core", str(core)]),
                stdin=subprocess.PIPE,  # closes when the launcher is gone
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self._study, pinned=core is not None) | self._gpus[number],
                start_new_session=True,  # Ctrl-C goes to the launcher, which lets its workers save
            )
        threading.Thread(target=self._listen, args=(number, process), daemon=True).start()
        return process

    def _listen(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Queues the reports of a worker until it ends; runs in a thread per worker."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                report = _report(line)
                if report is not None:
                    self._queue.put((number, report))
                else:
                    with open(self._log(number), "ab") as log:
                        log.write(line)

    def _log(self, number: int) -> Path:
        """The file for everything that a worker prints apart from its reports."""
        return self._directory / f"worker-{number}.log"

    def poll(self) -> bool:
        """Reads the workers' reports, and restarts killed workers. Returns whether any is alive."""
        self._hear()
        for number, worker in self._workers.items():
            if (code := worker.poll()) not in (
                None,
                0,
                EXIT_FAILED,
                EXIT_STOPPED,
            ) and self._may_restart(number, code):
                _let_go(worker)
                self._workers[number] = self._start(number)
        return any(worker.poll() is None for worker in self._workers.values())

    def _hear(self) -> None:
        while not self._queue.empty():
            number, report = self._queue.get()
            self.reports[report["cell"]] = report
            cells = self._at.setdefault(number, {})
            if report["state"] == "running":
                cells[report["cell"]] = time.time()
            else:
                cells.pop(report["cell"], None)

    def _may_restart(self, number: int, code: int) -> bool:
        """Records the cells that a killed worker was running, and says if it may be restarted.

        If it was running a cell, it may: the number of attempts at a cell is limited elsewhere. If
        not, it may only a limited number of times, since it may be unable to start at all.
        """
        cells = self._at.pop(number, {})
        if not cells:
            self._restarts[number] += 1
            return self._restarts[number] <= _RESTARTS
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        for cell, since in cells.items():
            row = {
                "launch": self._launch,
                "host": platform.node(),
                "started": since,
                "seconds": time.time() - since,
            }
            row |= {
                "state": "failed",
                "error": f"its worker was killed ({why})",
                "together": len(cells),
            }
            records.append_jsonl(self._directory / cell / ATTEMPTS, [row])
        return True

    def stop(self) -> None:
        """Tells every worker to save and exit, and waits until all have."""
        for worker in self._workers.values():
            worker.terminate()
        for worker in self._workers.values():
            worker.wait()

    def close(self) -> None:
        """Closes the pipes of workers that have ended."""
        for worker in self._workers.values():
            _let_go(worker)


def _let_go(worker: subprocess.Popen[bytes]) -> None:
    """Closes the pipe through which a worker sees that its launcher is alive."""
    if worker.stdin is not None:
        worker.stdin.close()


def _report(line: bytes) -> dict[str, Any] | None:
    """The report in a line of a worker's output; None if the line is not a complete report.

    Libraries print lines of their own, and a killed worker may leave half a line.
    """
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return (
        report if isinstance(report, dict) and {"cell", "state", "error"} <= report.keys() else None
    )


def run(
    study: StudyConfig,
    directory: Path,
    corpus: Path,
    num_workers: int,
    retries: int = 2,
    together: Programs = (),
) -> dict[str, dict[str, Any]]:
    """Runs all unfinished cells of a study on this machine.

    Args:
      study: the study, whose manifest is in `directory`.
      directory: the directory of its runs.
      corpus: the prepared corpus.
      num_workers: number of processes.
      retries: number of times that a cell is tried again after it failed or its worker was killed.
      together: groups of cells, by name, that are trained in one program; those of a group differ
        only in their seed.

    Returns:
      The last report of each cell: {"cell", "state", "error"}.

    Raises:
      Stopped: a signal stopped the launch (SIGTERM, SIGHUP or Ctrl-C); every worker has saved its
        cell.
    """
    # From here on these signals act like Ctrl-C. SIGHUP is sent when a terminal is closed.
    old = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    options = ["--retries", str(retries)]
    for program in programs([cell.run_id for cell in study.cells], together) if together else []:
        options += ["--cell", *program]
    pool = Pool(study, directory, corpus, num_workers, *options)
    view = _View(study, directory)
    try:
        while pool.poll():
            view.show()
            time.sleep(_POLL_SECONDS)
        pool.poll()  # for reports that arrived after the last worker's end was seen
    except KeyboardInterrupt:
        pool.stop()
        raise Stopped(f"study {study.name!r} stopped; run it again to continue") from None
    except BaseException:
        pool.stop()
        raise
    finally:
        view.close()
        pool.close()
        for number, handler in old.items():
            signal.signal(number, handler)
    return pool.reports


def _cores(study: StudyConfig, num_workers: int) -> list[int | None]:
    """The core of each worker, or None for no pinning: with an accelerator, or a single worker."""
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if study.platform != "cpu" or num_workers == 1 or not available:
        return [None] * num_workers
    return [available[number % len(available)] for number in range(num_workers)]


def _gpus(study: StudyConfig, num_workers: int) -> list[dict[str, str]]:
    """The environment variables that give each worker its GPU and its share of the GPU's memory.

    There are none if a single worker has all GPUs.
    """
    visible = visible_gpus(study)
    if num_workers == 1 or not visible:
        return [{}] * num_workers
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / -(-num_workers // len(visible)):.2f}"}
    return [
        share | {"CUDA_VISIBLE_DEVICES": visible[number % len(visible)]}
        for number in range(num_workers)
    ]


def visible_gpus(study: StudyConfig) -> list[str]:
    """The GPUs that a study may use, by their numbers or names in CUDA_VISIBLE_DEVICES."""
    if study.platform == "cpu" or not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False
    ).stdout
    every = ",".join(str(number) for number in range(len(listed.splitlines())))
    return [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",") if gpu]


def default_workers(study: StudyConfig) -> int:
    """One worker per core on CPU, but at most one per cell; one worker on an accelerator."""
    if study.platform != "cpu":
        return 1
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(cores, len(study.cells))


def environment(study: StudyConfig, *, pinned: bool) -> dict[str, str]:
    """The environment of a worker; variables that are already set take precedence.

    Args:
      study: the study, which may require a platform.
      pinned: whether the worker has a core of its own, for which one thread is enough.
    """
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(Path(".cache/jax").absolute()),
        # Below JAX's defaults, so that small cells' programs, which compile fast, are cached too.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # huge pages make a step 2-34 % faster
    }
    if study.platform:
        defaults["JAX_PLATFORMS"] = study.platform
    if pinned:
        defaults["OMP_NUM_THREADS"] = "1"
    return defaults | os.environ


class _View:
    """The display of a running study: a progress bar on a terminal, occasional lines elsewhere."""

    def __init__(self, study: StudyConfig, directory: Path):
        self._study, self._directory = study, directory
        self._started = self._said = time.monotonic()
        found = statuses(study, directory)
        self._done_before = watch.work_done(found)  # does not count for the speed
        self._states = {status.run_id: status.state for status in found}
        self._bar = None
        if sys.stderr.isatty():
            from rich import console, progress

            columns = (
                *progress.Progress.get_default_columns(),
                progress.TextColumn("{task.fields[note]}"),
            )
            self._bar = progress.Progress(*columns, console=console.Console(stderr=True))
            total = sum(status.work for status in found)
            self._task = self._bar.add_task(study.name, total=total, note="")
            self._bar.start()

    def show(self) -> None:
        found = statuses(self._study, self._directory)
        done = watch.work_done(found)
        elapsed = time.monotonic() - self._started
        note = watch.totals(found, (done - self._done_before) / elapsed)
        for line in watch.news(found, self._states):
            self._say(line)
        self._states = {status.run_id: status.state for status in found}
        running = watch.now(found)
        if self._bar:
            self._bar.update(self._task, completed=done, note=f"{note}; {running}")
        elif time.monotonic() - self._said > _LINE_SECONDS:
            self._said = time.monotonic()
            self._say(f"{elapsed:.0f} s, {note}" + (f"; {running}" if running else ""))

    def _say(self, line: str) -> None:
        from rich.text import Text

        said = f"{self._study.name}: {line}"
        if self._bar:
            self._bar.console.print(Text(said))  # above the bar
        else:
            print(said, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
