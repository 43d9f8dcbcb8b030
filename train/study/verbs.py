"""The verbs for studies on this machine: `study`, `plan`, `status` and `watch`.

Each verb is a dataclass whose fields are its options, with a method `run`.
"""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from arch_zoo.command_line import UsageError, parse_setting
from train.command_line import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_STOPPED, TableOrJson, one_line
from train.ranges import Count, CountOrZero, NotNegative, Positive, Range
from train.records import InputError
from train.study.config import StudyConfig
from train.study.directory import (
    MANIFEST,
    Programs,
    declared,
    known,
    load,
    statuses,
    strangers,
    unfinished,
    write_manifest,
)

if TYPE_CHECKING:
    from train.plan import plan
    from train.plan.devices import Device

Workers = Annotated[int, Range(0, 1024)]

_Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Declared:
    """A study, given by its declaration.

    Attributes:
      name: name of a module in `configs/studies`.
      config: a Python file with a function study(), instead of a name.
      corpus: a corpus to use instead of the study's own.
      runs: directory that contains all studies.
      set: settings for every cell as KEY=VALUE, such as pretrain.steps=100; values are JSON.
      preset: instead of a declaration, every one of --architectures at every one of --sizes in
        these settings: the name of a function of `configs/presets.py`. NAME is then the new study's
        own.
      architectures: only cells of these architectures, as in transformer,glu.
      sizes: only cells of these sizes, as in nano,micro.
      seeds: the number of seeds of each cell, counted from 0; 0 keeps those of the study.
    """

    name: _Positional[str] = ""
    config: Path | None = None
    corpus: Path | None = None
    runs: Path = Path("runs")
    set: tuple[str, ...] = ()
    preset: str = ""
    architectures: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    seeds: Annotated[int, Range(0, 1024)] = 0

    def load(self) -> StudyConfig:
        """The study with the user's settings applied to every cell.

        Raises:
          InputError: there is no such study, or a setting does not exist or is invalid.
          ConfigError: a cell has an unknown architecture, size or option of its model.
        """
        from train.study import declare

        study = self._of_preset() if self.preset else self._selected(self._loaded())
        cells = study.cells
        if self.seeds:
            plain = {cell.run_id: cell for cell in declare.seeds(cells, 1)}  # each cell once
            cells = declare.seeds(tuple(plain.values()), self.seeds)
        settings = parse_settings(self.set)
        cells = tuple(
            declare.with_settings(dataclasses.replace(cell, study=study.name), settings)
            for cell in cells
        )
        study = dataclasses.replace(study, cells=cells)
        for cell in cells:  # only to refuse a wrong model now, rather than after hours of training
            declare.model(cell, self.vocab_size(study))
        return study

    def _loaded(self) -> StudyConfig:
        """The study of this name in `configs/studies`, or of the file."""
        there = self.runs / self.name
        if self.config is None and self.name not in known() and (there / MANIFEST).is_file():
            raise InputError(
                f"study {self.name!r}: {there} was not declared in configs/studies: give the "
                "options of the command that began it again (--preset, --architectures, --sizes, "
                "--set)"
            )
        return load(self.name, self.config)

    def _of_preset(self) -> StudyConfig:
        """Every architecture at every size, the largest size first."""
        from configs import presets

        for option in ("architectures", "sizes"):
            if not getattr(self, option):
                raise InputError(f"preset = {self.preset!r}: needs --{option}")
        if self.config is not None:
            raise InputError("preset and config exclude each other")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name) or self.name in known():
            raise InputError(
                f"study {self.name!r}: a study of a preset needs a name of its own, of letters, "
                "digits, _, . and -"
            )
        return presets.study(self.name, self.preset, _split(self.architectures), _split(self.sizes))

    def _selected(self, study: StudyConfig) -> StudyConfig:
        """The cells of the architectures and sizes that the user has named, by default all."""
        from train.study import declare

        cells = study.cells
        for field, option in (("architecture", "architectures"), ("size", "sizes")):
            wanted = _split(getattr(self, option))
            there = {getattr(cell, field): None for cell in study.cells}
            for name in wanted:
                if name not in there:
                    raise InputError(
                        f"{option}: study {study.name!r} has no {name!r}, only {', '.join(there)}; "
                        "--preset makes a study of any"
                    )
            if wanted:
                cells = tuple(cell for cell in cells if declare.matches(cell, **{field: wanted}))
        if not cells:
            raise InputError(f"study {study.name!r} has no cell of these architectures and sizes")
        return dataclasses.replace(study, cells=cells)

    def corpus_of(self, study: StudyConfig) -> Path:
        """The prepared corpus that the study reads."""
        return self.corpus or Path(study.corpus)

    def vocab_size(self, study: StudyConfig) -> int:
        """The vocabulary size of the study's corpus, or of the one that `prepare` will make."""
        from train.study import declare

        default, _ = declare.PREPARED.get(study.prepare, (declare.T5_VOCABULARY, 0))
        return self._corpus_index(study).get("vocab_size", default)

    def num_tasks(self, study: StudyConfig) -> int:
        """The number of tasks of the study's corpus, or of the one that `prepare` will make."""
        from train.study import declare

        _, default = declare.PREPARED.get(study.prepare, (0, declare.T5_TASKS))
        return len(self._corpus_index(study).get("tasks", range(default)))

    def planned(self, study: StudyConfig, machines: "plan.Machines") -> "plan.Plan":
        """The plan of the study, by default at the device's own calibrated speed."""
        from train.plan import calibrate, plan

        _leave_accelerators_alone()
        speed = machines.calibration or calibrate.read(machines.device.kind)
        machines = dataclasses.replace(machines, calibration=speed)
        return plan.make(study, self.vocab_size(study), machines, self.num_tasks(study))

    def _corpus_index(self, study: StudyConfig) -> dict[str, Any]:
        from train import records

        return records.read_json(self.corpus_of(study) / "corpus.json", missing={})

    def ready(self, study: StudyConfig) -> int:
        """Writes the manifest, and prepares the corpus if the study says how.

        Returns:
          The exit code of `prepare`; 0 if there was nothing to prepare.

        Raises:
          InputError: the corpus is damaged, or the directory has runs of another configuration.
        """
        directory = self.runs / study.name
        write_manifest(study, directory)
        if others := strangers(study, directory):
            print(
                f"warning: {directory}: these runs are not part of the study, but a report will "
                f"include them: {', '.join(others)}",
                file=sys.stderr,
            )
        corpus = self.corpus_of(study)
        if study.prepare and self.corpus is None:
            # In a separate process, so that TensorFlow does not stay in memory while the workers
            # run.
            command = [
                sys.executable,
                "-m",
                "train",
                "prepare",
                "--source",
                study.prepare,
                "--out",
                str(corpus),
            ]
            return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        from train.data.probe_batches import open_for

        open_for(study.cells, corpus)  # refuses a damaged corpus before anything is started
        return 0


def _split(values: Sequence[str]) -> tuple[str, ...]:
    """Values that commas or spaces separate, each once."""
    return tuple(dict.fromkeys(part for value in values for part in value.split(",") if part))


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parses KEY=VALUE settings into values by key; a value that is not JSON is text.

    Raises:
      InputError: a setting has no equals sign, would change a run's name, or is given two values.
    """
    found = {}
    for setting in settings:
        try:
            key, value = parse_setting(setting)
        except UsageError as error:
            raise InputError(str(error)) from None
        if key in _NAMED_BY:
            raise InputError(f"set: {key!r} is part of a run's name and path; {_NAMED_BY[key]}")
        if key in found and json.dumps(found[key]) != json.dumps(value):
            raise InputError(f"set: {key!r} is given two values, {found[key]!r} and {value!r}")
        found[key] = value
    return found


# These settings are in the name of the run, so `--set` would train something other than it says.
_DECLARED = "use the option of that name, or declare it in the study"
_NAMED_BY = {key: _DECLARED for key in ("architecture", "size", "protocol", "seed", "study")}


def _leave_accelerators_alone() -> None:
    """Keeps JAX in this process off the accelerators, which the workers need for themselves."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def device_of(study: StudyConfig, name: str = "") -> "Device":
    """The device with that name; without a name, this CPU for CPU studies and otherwise an H100."""
    from train.plan import devices

    return devices.get(name or ("cpu" if study.platform == "cpu" else "h100"))


@dataclasses.dataclass(frozen=True)
class Launched(Declared):
    """A study that is to be run.

    Attributes:
      retries: number of times that a failed cell is tried again.
      vmap_seeds: whether to train the seeds of a cell together, in one program on one device:
        never, always (if they fit into its memory), or auto (where `plan` estimates that this takes
        less time).
    """

    retries: CountOrZero = 2
    vmap_seeds: Literal["never", "auto", "always"] = "never"

    def together(
        self,
        study: StudyConfig,
        cells: Sequence[str],
        device: "Device",
        workers: int,
        *,
        own_process: bool = False,
    ) -> Programs:
        """Those of `cells` that run together; `own_process` is that of `plan.Machines`.

        If `vmap_seeds` is never but running together would be faster, this prints a hint, though
        only if the device was calibrated.

        Args:
          study: the study.
          cells: names of the cells that are left to run.
          device: the device that they run on.
          workers: number of cells that run at the same time.
          own_process: see `plan.make`.
        """
        from train.plan import calibrate, plan

        left = tuple(cell for cell in study.cells if cell.run_id in set(cells))
        never, always = self.vmap_seeds == "never", self.vmap_seeds == "always"
        if len({cell.seed for cell in left}) < 2 or (never and calibrate.read(device.kind) is None):
            return ()
        study = dataclasses.replace(study, cells=left)
        machines = plan.Machines(device, workers=workers, always=always, own_process=own_process)
        made = self.planned(study, machines)
        count = f"{study.name}: {sum(map(len, made.together))} of {len(left)} cells"
        if not never:
            number = f"{len(made.together)} program{'s' * (len(made.together) != 1)}"
            print(f"{count} run together, in {number} ({made.basis})", file=sys.stderr)
            return made.together
        if made.together:
            print(
                f"{count} would take less time with --vmap-seeds auto ({made.basis})",
                file=sys.stderr,
            )
        return ()


@dataclasses.dataclass(frozen=True)
class StudyVerb(Launched):
    """Runs the unfinished cells of a study on this machine, after preparing its corpus.

    Each cell is pretrained and then finetuned.

    Attributes:
      workers: number of processes; 0 means one per core on CPU and one on an accelerator.
      device: this machine's device, by its name in `plan`, for --vmap-seeds; empty means cpu for
        CPU studies and h100 for others.
    """

    workers: Workers = 0
    device: str = ""

    def run(self) -> int:
        """Runs the study; returns the exit code."""
        from train.launch import local

        study = self.load()
        _check_accelerator(study)
        device = device_of(study, self.device)
        directory = self.runs / study.name
        workers = self.workers or local.default_workers(study)
        gpus = len(local.visible_gpus(study))
        if self.vmap_seeds != "never" and workers == 1 < gpus:
            raise InputError(
                f"vmap_seeds: each worker must have one GPU, but one worker would have all {gpus}; "
                f"give --workers {gpus}"
            )
        if 0 < gpus < workers:
            device = dataclasses.replace(
                device, memory=device.memory / math.ceil(workers / gpus)
            )  # they share its memory
        if code := self.ready(study):
            return code
        left = unfinished(study, directory)
        # A single worker on several GPUs uses all of them for one cell, and `vmap` only uses one.
        together = () if workers == 1 < gpus else self.together(study, left, device, workers)
        try:
            reports = local.run(
                study, directory, self.corpus_of(study), workers, self.retries, together
            )
        except local.Stopped as reason:
            print(reason, file=sys.stderr)
            return EXIT_STOPPED
        return _conclude(study, directory, reports)


def _check_accelerator(study: StudyConfig) -> None:
    """Refuses a study for accelerators where jax sees none, unless JAX_PLATFORMS says otherwise.

    Asks in another process, since a process that has seen an accelerator keeps its memory. Hosts of
    a TPU slice are not asked: jax would wait there for the other hosts.
    """
    tpu = any(Path("/dev").glob("accel*")) or "TPU_WORKER_ID" in os.environ
    if study.platform == "cpu" or tpu or os.environ.get("JAX_PLATFORMS"):
        return
    ask = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    found = subprocess.run(ask, capture_output=True, text=True, check=False)
    if found.stdout.strip() == "cpu":
        raise InputError(
            f"study {study.name!r} is for an accelerator, and jax sees only the CPU: install the "
            "extra cuda or tpu (docs/install.md); JAX_PLATFORMS=cpu runs it on the CPU all the same"
        )


def _conclude(study: StudyConfig, directory: Path, reports: dict[str, dict[str, Any]]) -> int:
    found = statuses(study, directory)
    for status in found:
        error = reports.get(status.run_id, {}).get("error") or status.error
        if status.state != "done" or (
            error and reports.get(status.run_id, {}).get("state") == "failed"
        ):
            why = one_line(error or "its worker ended")
            print(f"error: {directory / status.run_id}: {status.state}: {why}", file=sys.stderr)
    finished = sum(status.state == "done" for status in found)
    print(f"{study.name}: {finished} of {len(found)} cells are done; the runs are in {directory}")
    failed = finished < len(found) or any(
        report["state"] == "failed" for report in reports.values()
    )
    return EXIT_FAILED if failed else 0


@dataclasses.dataclass(frozen=True)
class PlanVerb(Declared):
    """Estimates the cost of a study without running it.

    Shows parameters, FLOPs, device memory, disk space, time and price of every cell, and which
    differences in slope the study can find. Exits with 2 if a cell cannot run on the device, and
    names a mesh that could run it.

    Attributes:
      device: the device that the cells run on; empty means this machine's CPU for CPU studies and
        h100 for others.
      devices: number of devices for each cell.
      workers: number of cells that run at the same time; 0 means one per core on CPU and one
        elsewhere.
      price: dollars for an hour of one device, instead of the list price.
      calibrate: measure this machine first, with a few steps of the smallest and the largest cell
        of each architecture.
      calibration: directory of a study that ran on the device, to read its speed from.
      slope: expected slope of the reference, in nats per decade of FLOPs, for the power; by default
        that of the original study.
      noise: expected standard deviation of a size around its line, in nats, for the power; by
        default that of small studies.
      format: table for a person, json for a program.
    """

    device: str = ""
    devices: Count = 1
    workers: Workers = 0
    price: NotNegative | None = None
    calibrate: bool = False
    calibration: Path | None = None
    slope: Positive | None = None
    noise: NotNegative | None = None
    format: TableOrJson = "table"

    def run(self) -> int:
        """Prints the plan; returns the exit code."""
        from train import power
        from train.launch import local
        from train.plan import calibrate, plan

        study = self.load()
        device = device_of(study, self.device)
        if self.price is not None:
            device = dataclasses.replace(device, dollars=self.price)
        workers = self.workers or (local.default_workers(study) if device.name == "cpu" else 1)
        speed = calibrate.from_records(self.calibration) if self.calibration else None
        if self.calibrate:
            speed = self._measure(study, workers)
        made = self.planned(study, plan.Machines(device, self.devices, workers, speed))
        given = {"size": self.noise, "slope": self.slope}
        changes = {name: value for name, value in given.items() if value is not None}
        expected = dataclasses.replace(power.USUAL, **changes)
        flops = [cell.flops_forward for cell in made.cells]
        made = dataclasses.replace(made, power=plan.power_of(study.cells, flops, expected))
        print(
            json.dumps(plan.to_dict(made), indent=1)
            if self.format == "json"
            else "\n".join(plan.table(made))
        )
        problems = [cell for cell in made.cells if cell.problem]
        for cell in problems:
            print(f"error: {cell.run_id}: {cell.problem}", file=sys.stderr)
        return EXIT_BAD_INPUT if problems else 0

    def _measure(self, study: StudyConfig, workers: int) -> Any:
        """Runs short cells on this machine, stores the measured speed, and returns it."""
        from train.launch import local
        from train.plan import calibrate, plan

        _leave_accelerators_alone()
        calibrate.read("")  # refuses a damaged file before time is spent on measuring
        vocab = self.vocab_size(study)
        flops = plan.step_flops(study, vocab)
        short, together = calibrate.short_runs(study, flops)
        directory = calibrate.fresh_directory()
        # Apart from the study's own runs, so that the short runs do not appear in its report.
        apart = dataclasses.replace(self, runs=directory)
        if code := apart.ready(short):
            raise InputError(f"calibrate: the corpus could not be prepared (exit code {code})")
        try:
            local.run(short, directory / short.name, self.corpus_of(study), workers, 0, together)
        except local.Stopped:
            raise InputError("calibrate: stopped; no measurement was stored") from None
        found = calibrate.from_records(directory / short.name)
        calibrate.write(found)
        return found


@dataclasses.dataclass(frozen=True)
class StatusVerb:
    """Shows the progress of a study's cells, also while the study runs.

    Attributes:
      directory: a study's directory, for example runs/cpu, or any directory of runs.
      format: table for a person, json for a program.
    """

    directory: _Positional[Path]
    format: TableOrJson = "table"

    def run(self) -> int:
        """Prints the status; returns the exit code."""
        found = statuses(declared(self.directory), self.directory)
        if self.format == "json":
            print(json.dumps([dataclasses.asdict(status) for status in found], indent=2))
            return 0
        from train.study import watch

        print("\n".join(watch.table(found)))
        return 0


@dataclasses.dataclass(frozen=True)
class WatchVerb:
    """Follows a study until it ends: as a table on a terminal, as lines of changes elsewhere.

    Attributes:
      directory: a study's directory, for example runs/cpu, or any directory of runs; they may run
        on other machines that share it.
      every: seconds between updates.
    """

    directory: _Positional[Path]
    every: Annotated[float, Range(0.01, 86_400)] = 5.0

    def run(self) -> int:
        """Shows the study until it ends; returns the exit code."""
        from train.study import watch

        return EXIT_FAILED if watch.follow(self.directory, self.every) else 0


VERBS: dict[str, Any] = {
    "study": StudyVerb,
    "plan": PlanVerb,
    "status": StatusVerb,
    "watch": WatchVerb,
}
