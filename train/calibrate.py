"""How fast cells are on this machine, from the records of cells that have run on it.

Steps of small models are not bound by FLOPs, so that no single utilisation describes a CPU or an idle accelerator: what
is kept is, for each architecture, the seconds of a step and of everything around the steps, at the FLOPs of the cells
that were measured. Between two of them both are straight lines, of the logarithm for steps.
"""

import dataclasses
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

from train import records
from train import study as studies
from train.config import RunConfig, StudyConfig
from train.records import InputError

PATH = Path(".cache/calibration.json")
STEPS = 40  # of either stage of a cell that is run only to be measured

Points = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Measured speed.

    Attributes:
      device: what the cells ran on, as JAX calls it.
      steps: by architecture, (training FLOPs of a step, seconds of a step).
      setup: by architecture, (training FLOPs of a step, seconds of a cell besides its steps).
    """

    device: str
    steps: dict[str, Points]
    setup: dict[str, Points]

    def step_seconds(self, architecture: str, flops: float) -> float:
        """Seconds of a step of `flops`; an architecture that was not measured goes as the others do on average."""
        logs = [(math.log(x), math.log(y)) for x, y in self._points(self.steps, architecture)]
        return math.exp(_line(logs, math.log(flops)))

    def setup_seconds(self, architecture: str, flops: float) -> float:
        """Seconds of a cell besides its steps."""
        return max(_line(self._points(self.setup, architecture), flops), 0.0)

    def _points(self, table: dict[str, Points], architecture: str) -> Points:
        return table.get(architecture) or [point for points in table.values() for point in points]


def _line(points: Points, x: float) -> float:
    """The least-squares line through the points, at x."""
    if len({a for a, _ in points}) < 2:
        return statistics.fmean(b for _, b in points)
    slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
    return intercept + slope * x


def probes(study: StudyConfig, flops: dict[str, float]) -> StudyConfig:
    """The cells to measure: of each architecture the cheapest and the dearest, with few steps and whole evaluations.

    Args:
      study: the study that is to be priced.
      flops: training FLOPs of a step of each cell, by run id.
    """
    chosen = []
    for name in dict.fromkeys(cell.architecture for cell in study.cells):
        cells = sorted((c for c in study.cells if c.architecture == name), key=lambda c: flops[c.run_id])
        chosen += dict.fromkeys((cells[-1].run_id, cells[0].run_id))
    cells = tuple(_short(cell) for cell in study.cells if cell.run_id in chosen)
    return dataclasses.replace(study, name=f"calibration-{study.name}", cells=cells)


def _short(cell: RunConfig) -> RunConfig:
    few = {"steps": STEPS, "log_every": STEPS // 4, "checkpoint_every": STEPS, "eval_every": 0}
    stages = {name: dataclasses.replace(getattr(cell, name), **few) for name in records.STAGES if getattr(cell, name)}
    return dataclasses.replace(cell, **stages)


def from_records(directory: Path) -> Calibration:
    """Reads the speed of every finished cell under a study's directory, whatever it was run for.

    Raises:
      InputError: no cell there was finished in one go, so that nothing can be read off.
    """
    steps: dict[str, Points] = {}
    setup: dict[str, Points] = {}
    device = ""
    for path in records.find_runs(directory):
        run = records.read_run(path, allow_torn=True)
        attempts = studies.attempts(path)
        whole = [row["seconds"] for row in attempts if row["state"] == "done" and row["together"] == 1]
        if len(attempts) != 1 or not whole:
            continue
        account, name, device = run.config["accounting"], run.config["architecture"], run.env["device"]
        flops = account["flops_train"] * account["sequences_per_step"]
        measured = _seconds(run)
        steps.setdefault(name, []).append((flops, statistics.fmean(seconds for _, seconds in measured)))
        around = whole[0] - sum(number * seconds for number, seconds in measured)
        setup.setdefault(name, []).append((flops, max(around, 0.0)))
    if not steps:
        raise InputError(f"{directory}: no cell was finished in one go, so that there is nothing to calibrate on")
    return Calibration(device, steps, setup)


def _seconds(run: records.Run) -> list[tuple[int, float]]:
    """Steps and seconds of a step, of each stage that was recorded."""
    found = []
    for stage in records.STAGES:
        rates = [row["steps_per_second"] for row in run.metrics if row["stage"] == stage and row["steps_per_second"]]
        if rates:
            found.append((run.config[stage]["steps"], 1 / statistics.median(rates)))
    return found


def fresh_directory() -> Path:
    """Where cells that are run only to be measured go; what an earlier calibration left there is deleted."""
    directory = PATH.with_suffix("")
    shutil.rmtree(directory, ignore_errors=True)
    return directory


def write(calibration: Calibration, path: Path = PATH) -> None:
    """Keeps a calibration for later plans."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records.write_json(path, dataclasses.asdict(calibration))


def read(path: Path = PATH) -> Calibration | None:
    """The calibration of this machine, if there is one.

    Raises:
      InputError: the file is not one.
    """
    if not path.exists():
        return None
    values: dict[str, Any] = records.read_json(path)
    if set(values) != {field.name for field in dataclasses.fields(Calibration)}:
        raise InputError(f"{path}: is no calibration; `python -m train plan STUDY --calibrate` writes one")
    return Calibration(**values)
