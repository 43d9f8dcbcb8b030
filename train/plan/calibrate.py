"""The speed of cells on this machine, from the records of cells that were run on it.

Steps of small models are not limited by FLOPs, so a single utilisation cannot describe a CPU or an
idle accelerator. Instead, a calibration stores for each architecture the seconds of a step, and the
seconds of everything else, at the FLOPs of the measured cells. A straight line through these points
gives both at other FLOPs; for steps it is a line in logarithms. Several seeds in one program are
measured too. If one seed already keeps the device busy, their steps are no faster than one after
the other, but they start and compile only once.
"""

import dataclasses
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

from train import records
from train.records import InputError
from train.study.config import RunConfig, StudyConfig
from train.study.directory import attempts

PATH = Path(".cache/calibrations.json")
STEPS = 40  # in each stage of a cell that is run only to be measured
SEEDS = 4  # largest number of seeds that are measured in one program
# Values of `together` and `further` below, if they were not measured.
TOGETHER = 1.1  # a CPU core had .97-1.13 (benchmarks/seeds.py --steps-only --seeds 4)
FURTHER = 0.3  # the CPU study's smallest Transformer had .28

Points = list[tuple[float, float]]
Several = tuple[
    float, float, float, int
]  # FLOPs of a step of one seed; seconds of a step of all seeds; seconds of everything else; seeds


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The measured speed of a device: points by architecture, each with the FLOPs of a step first.

    FLOPs are those of a training step of one seed.

    Attributes:
      device: JAX's name of the device.
      steps: seconds of a step.
      setup: seconds of a cell that are not spent on steps.
      together: time of a step of n seeds in one program, divided by that of n steps of one seed.
      further: time besides steps that each further seed adds to a program, divided by the time
        besides steps of one seed in its own process.
    """

    device: str
    steps: dict[str, Points]
    setup: dict[str, Points]
    together: dict[str, Points]
    further: dict[str, Points]

    def step_seconds(self, architecture: str, flops: float) -> float:
        """Seconds of a step of `flops`; unmeasured architectures take the points of the others."""
        logs = [(math.log(x), math.log(y)) for x, y in self._points(self.steps, architecture)]
        return math.exp(_line(logs, math.log(flops)))

    def setup_seconds(self, architecture: str, flops: float) -> float:
        """Seconds of a cell that are not spent on steps."""
        return max(_line(self._points(self.setup, architecture), flops), 0.0)

    def together_ratio(self, architecture: str, flops: float) -> float:
        """Time of a step of n seeds in one program over that of n steps of one, each of `flops`."""
        return self._ratio(self.together, architecture, flops, TOGETHER)

    def further_share(self, architecture: str, flops: float) -> float:
        """Time besides steps that a further seed adds to a program, over that of a seed alone."""
        return max(self._ratio(self.further, architecture, flops, FURTHER), 0.0)

    def _ratio(
        self, table: dict[str, Points], architecture: str, flops: float, unmeasured: float
    ) -> float:
        logs = [(math.log(x), y) for x, y in self._points(table, architecture)]
        return _line(logs, math.log(flops)) if logs else unmeasured

    def _points(self, table: dict[str, Points], architecture: str) -> Points:
        return table.get(architecture) or [point for points in table.values() for point in points]


def _line(points: Points, x: float) -> float:
    """The value at x of the least-squares line through the points."""
    if len({a for a, _ in points}) < 2:
        return statistics.fmean(b for _, b in points)
    slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
    return intercept + slope * x


def short_runs(study: StudyConfig, flops: dict[str, float]) -> tuple[StudyConfig, list[list[str]]]:
    """The cells to measure: the cheapest and the most expensive one of each architecture.

    They have few steps, but complete evaluations.

    Args:
      study: the study to plan.
      flops: training FLOPs of a step of each cell, by run id.

    Returns:
      The study of these cells, and the names of those to train together: several seeds of a cell.
    """
    cells, together = [], []
    for name in dict.fromkeys(cell.architecture for cell in study.cells):
        kin = sorted(
            (c for c in study.cells if c.architecture == name), key=lambda c: flops[c.run_id]
        )
        dearest, cheapest = kin[-1], kin[0]
        for cell in (dearest,) if cheapest.differs_in_seed_alone(dearest) else (dearest, cheapest):
            cells.append(_short(cell))
            seeds = sorted(other.seed for other in study.cells if other.differs_in_seed_alone(cell))
            if len(seeds) > 1:  # new seed numbers, so that no directory is used twice
                several = [
                    dataclasses.replace(cells[-1], seed=seeds[-1] + 1 + n)
                    for n in range(len(seeds))[:SEEDS]
                ]
                together.append([one.run_id for one in several])
                cells += several
    return dataclasses.replace(
        study, name=f"calibration-{study.name}", cells=tuple(cells)
    ), together


def _short(cell: RunConfig) -> RunConfig:
    """The cell with a few steps in each stage."""
    few = {"steps": STEPS, "log_every": STEPS // 4, "checkpoint_every": STEPS, "eval_every": 0}
    stages = {
        name: dataclasses.replace(getattr(cell, name), **few)
        for name in records.STAGES
        if getattr(cell, name)
    }
    return dataclasses.replace(cell, **stages)


def from_records(directory: Path) -> Calibration:
    """Reads the speed of every finished cell in a study's directory.

    Raises:
      InputError: no cell there was finished without interruption, so no speed can be measured.
    """
    steps: dict[str, Points] = {}
    setup: dict[str, Points] = {}
    several: dict[str, list[Several]] = {}
    device = ""
    for path in records.find_runs(directory):
        run = records.read_run(path, allow_torn=True)
        tries = attempts(path)
        if len(tries) != 1 or tries[0]["state"] != "done":
            continue  # with an interruption, the time between the attempts would count
        account, name, device = (
            run.config["accounting"],
            run.config["architecture"],
            run.env["device"],
        )
        flops = account["flops_train"] * account["sequences_per_step"]
        measured, seeds = _seconds(run), tries[0]["together"]
        step = statistics.fmean(seconds for _, seconds in measured)
        around = max(
            tries[0]["seconds"] - sum(number * seconds for number, seconds in measured), 0.0
        )
        if seeds > 1:
            several.setdefault(name, []).append((flops, step, around, seeds))
            continue
        steps.setdefault(name, []).append((flops, step))
        setup.setdefault(name, []).append((flops, around))
    if not steps:
        raise InputError(
            f"{directory}: no cell was finished without interruption, so there is no speed to read"
        )
    return _with_several(Calibration(device, steps, setup, {}, {}), several)


def _with_several(alone: Calibration, several: dict[str, list[Several]]) -> Calibration:
    """Adds the measurements of programs with several seeds to a calibration from single seeds."""
    together: dict[str, Points] = {}
    further: dict[str, Points] = {}
    for name in several.keys() & alone.steps.keys():
        for flops, step, around, seeds in several[name]:
            ratio = step / seeds / alone.step_seconds(name, flops)
            together.setdefault(name, []).append((flops, ratio))
            if one := alone.setup_seconds(name, flops):
                further.setdefault(name, []).append(
                    (flops, max((around / one - 1) / (seeds - 1), 0.0))
                )
    return dataclasses.replace(alone, together=together, further=further)


def _seconds(run: records.Run) -> list[tuple[int, float]]:
    """Steps and seconds per step of each recorded stage."""
    found = []
    for stage in records.STAGES:
        rates = [
            row["steps_per_second"]
            for row in run.metrics
            if row["stage"] == stage and row["steps_per_second"]
        ]
        if rates:
            found.append((run.config[stage]["steps"], 1 / statistics.median(rates)))
    return found


def fresh_directory() -> Path:
    """The directory for cells that are run only to be measured, with older contents deleted."""
    directory = PATH.with_suffix("")
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def write(calibration: Calibration, path: Path = PATH) -> None:
    """Stores a calibration for later plans, next to those of other devices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(path, _kept(path) | {calibration.device: dataclasses.asdict(calibration)})


def read(device: str, path: Path = PATH) -> Calibration | None:
    """The stored calibration of a device, by JAX's name for it; None if there is none.

    Raises:
      InputError: the file is malformed.
    """
    values = _kept(path).get(device)
    return Calibration(**values) if values else None


def _kept(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = records.read_json(path, missing={})
    fields = {field.name for field in dataclasses.fields(Calibration)}
    if any(not isinstance(values, dict) or set(values) != fields for values in kept.values()):
        raise InputError(
            f"{path}: is not a calibration file; delete it, and `plan STUDY --calibrate` writes a "
            "new one"
        )
    return kept
