"""The verbs about studies on this machine: study, plan, status, watch. Each is what can be typed, with a `run`."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from train import study as studies
from train.config import StudyConfig
from train.records import InputError

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_STOPPED = 1, 2, 75

_Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Declared:
    """A study by its declaration.

    Attributes:
      name: a module of `configs/studies`.
      config: a Python file with a function study(), instead of a name.
      corpus: another corpus than the study's own.
      runs: directory of studies.
      set: settings of every cell as KEY=VALUE, such as pretrain.steps=100; values are JSON.
    """

    name: _Positional[str] = ""
    config: Path | None = None
    corpus: Path | None = None
    runs: Path = Path("runs")
    set: tuple[str, ...] = ()

    def load(self) -> StudyConfig:
        """The study with its settings put in; unknown architectures, sizes and options are refused."""
        from train import declare

        study = studies.load(self.name, self.config)
        settings = parse_settings(self.set)
        cells = tuple(
            declare.with_settings(dataclasses.replace(cell, study=study.name), settings) for cell in study.cells
        )
        study = dataclasses.replace(study, cells=cells)
        for cell in cells:
            declare.model(cell, self.vocab_size(study))
        return study

    def corpus_of(self, study: StudyConfig) -> Path:
        """The prepared corpus that the study reads."""
        return self.corpus or Path(study.corpus)

    def vocab_size(self, study: StudyConfig) -> int:
        """Of the study's corpus, or of what `prepare` will make it if it is not there yet."""
        from train import declare

        default = declare.PYTHON_VOCABULARY if study.prepare == "python" else declare.T5_VOCABULARY
        return self._corpus_index(study).get("vocab_size", default)

    def num_tasks(self, study: StudyConfig) -> int:
        """Of the study's corpus, or of what `prepare` will make it if it is not there yet."""
        from train import declare

        default = declare.PYTHON_TASKS if study.prepare == "python" else declare.T5_TASKS
        return len(self._corpus_index(study).get("tasks", range(default)))

    def _corpus_index(self, study: StudyConfig) -> dict[str, Any]:
        from train import records

        return records.read_json(self.corpus_of(study) / "corpus.json", missing={})

    def ready(self, study: StudyConfig) -> int:
        """Prepares the corpus where the study says how, and writes the manifest; returns the exit code."""
        directory = self.runs / study.name
        studies.write_manifest(study, directory)
        if others := studies.strangers(study, directory):
            print(
                f"warning: {directory}: not of this study: {', '.join(others)}; a report has them too", file=sys.stderr
            )
        corpus = self.corpus_of(study)
        if study.prepare and self.corpus is None:
            # In a process of its own: TensorFlow must not stay in memory beside the workers.
            command = [sys.executable, "-m", "train", "prepare", "--source", study.prepare, "--out", str(corpus)]
            return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        from train.data.corpus import open_corpus

        open_corpus(corpus)  # refuses what is damaged, by name, before anything is started
        return 0


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE settings by key; a value that is not JSON is text.

    Raises:
      InputError: a setting has no equals sign.
    """
    found = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"set: {setting!r} is not KEY=VALUE")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


@dataclasses.dataclass(frozen=True)
class Study(Declared):
    """Runs what is left of a study on this machine: prepares its corpus, pretrains and finetunes every cell.

    Attributes:
      workers: processes; 0 means one a core on CPU and one on an accelerator.
      retries: times that a failed cell is tried again.
      vmap_seeds: train the seeds of a cell together, in one program; `plan` says whether it pays.
    """

    workers: int = 0
    retries: int = 2
    vmap_seeds: bool = False

    def run(self) -> int:
        """Runs the study; returns the exit code."""
        from train.launch import local

        study = self.load()
        directory = self.runs / study.name
        if code := self.ready(study):
            return code
        workers = self.workers or local.default_workers(study)
        if not self.vmap_seeds and self._together_pays(study, workers):
            print(f"{study.name}: --vmap-seeds would be faster here, as `train plan` says", file=sys.stderr)
        try:
            reports = local.run(study, directory, self.corpus_of(study), workers, self.retries, self.vmap_seeds)
        except local.Stopped as reason:
            print(reason, file=sys.stderr)
            return EXIT_STOPPED
        return _conclude(study, directory, reports)

    def _together_pays(self, study: StudyConfig, workers: int) -> bool:
        """Whether the seeds of a cell had better be trained together; False where this machine was not calibrated."""
        from train import calibrate, devices, plan

        speed = calibrate.read() if study.platform == "cpu" else None
        if speed is None or len({cell.seed for cell in study.cells}) < 2:
            return False
        device = devices.get("cpu")
        made = plan.make(study, self.vocab_size(study), device, 1, workers, speed, self.num_tasks(study))
        return made.seconds_together is not None and made.seconds_together < made.seconds


def _conclude(study: StudyConfig, directory: Path, reports: dict[str, dict[str, Any]]) -> int:
    found = studies.statuses(study, directory)
    for status in found:
        error = reports.get(status.run_id, {}).get("error") or status.error
        if status.state != "done" or (error and reports.get(status.run_id, {}).get("state") == "failed"):
            print(f"error: {directory / status.run_id}: {status.state}: {error or 'its worker ended'}", file=sys.stderr)
    finished = sum(status.state == "done" for status in found)
    print(f"{study.name}: {finished} of {len(found)} cells are done; the runs are in {directory}")
    failed = finished < len(found) or any(report["state"] == "failed" for report in reports.values())
    return EXIT_FAILED if failed else 0


@dataclasses.dataclass(frozen=True)
class Plan(Declared):
    """Prices a study without running it: parameters, FLOPs, memory of a device, disk, time, cost of every cell.

    Exits with 2 where a cell cannot run on the device, and says which mesh could.

    Attributes:
      device: what the cells run on; empty means this machine's CPU for CPU studies and h100 for others.
      devices: of each cell.
      workers: cells that run at the same time; 0 means one a core on CPU and one elsewhere.
      price: dollars for an hour of one device, instead of the list price.
      calibrate: measure this machine first, with a few steps of each architecture's smallest and largest cell.
      calibration: a study's directory, run on the device, to read speeds from.
      format: table or json.
    """

    device: str = ""
    devices: int = 1
    workers: int = 0
    price: float | None = None
    calibrate: bool = False
    calibration: Path | None = None
    format: str = "table"

    def run(self) -> int:
        """Prints the plan; returns the exit code."""
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing is computed, and no accelerator is taken
        from train import calibrate, devices, plan
        from train.launch import local

        if self.format not in ("table", "json"):
            raise InputError(f"format = {self.format!r} is not one of table, json")
        study = self.load()
        device = devices.get(self.device or ("cpu" if study.platform == "cpu" else "h100"))
        if self.devices < 1:
            raise InputError(f"devices = {self.devices} must be positive")
        if self.price is not None:
            if not 0 <= self.price < float("inf"):
                raise InputError(f"price = {self.price} must be dollars for an hour")
            device = dataclasses.replace(device, dollars=self.price)
        workers = self.workers or (local.default_workers(study) if device.name == "cpu" else 1)
        speed = None
        if self.calibrate:
            speed = self._measure(study, workers)
        elif self.calibration:
            speed = calibrate.from_records(self.calibration)
        elif device.name == "cpu":
            speed = calibrate.read()
        made = plan.make(study, self.vocab_size(study), device, self.devices, workers, speed, self.num_tasks(study))
        print(json.dumps(plan.to_dict(made), indent=1) if self.format == "json" else "\n".join(plan.table(made)))
        problems = [cell for cell in made.cells if cell.problem]
        for cell in problems:
            print(f"error: {cell.run_id}: {cell.problem}", file=sys.stderr)
        return EXIT_BAD_INPUT if problems else 0

    def _measure(self, study: StudyConfig, workers: int) -> Any:
        """Runs short cells on this machine, keeps what they tell, and returns it."""
        from train import calibrate, plan
        from train.launch import local

        vocab = self.vocab_size(study)
        flops = plan.step_flops(study, vocab)
        probes = calibrate.probes(study, flops)
        directory = calibrate.fresh_directory()
        probing = dataclasses.replace(self, runs=directory)
        if code := probing.ready(probes):
            raise InputError(f"calibrate: the corpus could not be prepared (exit code {code})")
        try:
            local.run(probes, directory / probes.name, self.corpus_of(study), workers, 0)
        except local.Stopped:
            raise InputError("calibrate: stopped; nothing was kept") from None
        found = calibrate.from_records(directory / probes.name)
        calibrate.write(found)
        return found


@dataclasses.dataclass(frozen=True)
class Status:
    """Shows how far the cells of a study are, from its directory; works while it runs.

    Attributes:
      directory: of the study, for example runs/cpu.
      format: table or json.
    """

    directory: _Positional[Path]
    format: str = "table"

    def run(self) -> int:
        """Prints the status; returns the exit code."""
        if self.format not in ("table", "json"):
            raise InputError(f"format = {self.format!r} is not one of table, json")
        found = studies.statuses(studies.read_manifest(self.directory), self.directory)
        if self.format == "json":
            print(json.dumps([dataclasses.asdict(status) for status in found], indent=2))
            return 0
        from train import watch

        print("\n".join(watch.table(found)))
        return 0


@dataclasses.dataclass(frozen=True)
class Watch:
    """Follows a study until it ends: a table on a terminal, lines of what has changed elsewhere.

    Attributes:
      directory: of the study, for example runs/cpu; it may be shared with the machines that the study runs on.
      every: seconds between looks.
    """

    directory: _Positional[Path]
    every: float = 5.0

    def run(self) -> int:
        """Shows the study; returns the exit code."""
        from train import watch

        return EXIT_FAILED if watch.follow(self.directory, self.every) else 0


VERBS: dict[str, Any] = {"study": Study, "plan": Plan, "status": Status, "watch": Watch}
