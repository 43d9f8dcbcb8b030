"""Optional copies of a run's metrics in TensorBoard and Weights & Biases.

The JSONL records remain authoritative. A tracker has `metrics(row)`, `evals(rows)` and `close()`. A
package is imported only if its tracker is asked for; the extra `trackers` installs both.
"""

import importlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from train.records import STAGES, InputError, Row


class Tracking(Protocol):
    """The interface of a tracker, which receives rows that have just been recorded."""

    def metrics(self, row: Row) -> None:
        """Receives a row of metrics.jsonl."""
        ...

    def evals(self, rows: Iterable[Row]) -> None:
        """Receives rows of evals.jsonl."""
        ...

    def close(self) -> None:
        """Writes what is still buffered."""
        ...


class TensorBoard:
    """Writes event files to `<run>/tensorboard`, one curve for each number."""

    def __init__(self, directory: Path, run_id: str, study: str, config: Row):
        """Opens a new event file; a resumed run continues its curves there."""
        self._writer = _package("tensorboardX", "tensorboard").SummaryWriter(
            str(directory / "tensorboard")
        )

    def metrics(self, row: Row) -> None:
        """See Tracking."""
        for name, value in _scalars([row]):
            self._writer.add_scalar(name, value, row["step"])

    def evals(self, rows: Iterable[Row]) -> None:
        """See Tracking."""
        for row in rows:
            for name, value in _scalars([row]):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """See Tracking."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, in a project with the name of the study.

    A resumed run continues under its own id, which is kept in `<run>/wandb_id`. Its name would not
    do as an id: other clones have runs of that name too. The environment decides where and whether
    it uploads (WANDB_MODE, WANDB_BASE_URL). Each stage counts its own steps, so the step is logged
    as a metric and used as the x axis of its stage.
    """

    def __init__(self, directory: Path, run_id: str, study: str, config: Row):
        """Starts or continues the run."""
        wandb = _package("wandb", "wandb")
        self._run = wandb.init(
            project=study,
            id=own_id(directory, run_id),
            name=run_id,
            config=config,
            dir=str(directory),
            resume="allow",
            reinit="create_new",  # seeds that train together are runs of their own
        )
        for stage in STAGES:
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def metrics(self, row: Row) -> None:
        """See Tracking."""
        self._run.log({f"{row['stage']}/step": row["step"], **dict(_scalars([row]))})

    def evals(self, rows: Iterable[Row]) -> None:
        """See Tracking."""
        rows = list(rows)
        if rows:
            self._run.log({f"{rows[0]['stage']}/step": rows[0]["step"], **dict(_scalars(rows))})

    def close(self) -> None:
        """See Tracking."""
        self._run.finish()


TRACKERS: dict[str, Callable[[Path, str, str, Row], Tracking]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


def open_trackers(
    names: tuple[str, ...], directory: Path, run_id: str, study: str, config: Row
) -> list[Tracking]:
    """Opens the trackers with these names for one stage of one run.

    Raises:
      InputError: there is no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"trackers: {name!r} is not one of {', '.join(TRACKERS)}")
    return [TRACKERS[name](directory, run_id, study, config) for name in names]


def own_id(directory: Path, run_id: str) -> str:
    """The id of a run that no other has: made once, and kept in the run's directory."""
    path = directory / "wandb_id"
    if not path.exists():
        path.write_text(f"{run_id}-{secrets.token_hex(4)}")
    return path.read_text().strip()


def _package(module: str, tracker: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"trackers: {tracker!r} needs {module}: pip install {module}") from None


def _scalars(rows: Iterable[Row]) -> Iterator[tuple[str, float]]:
    """Name and value of every number in rows.

    Names are `stage/name`, and `stage/task/split/metric` for evaluations.
    """
    for row in rows:
        if "metric" in row:
            if row["value"] is not None:
                yield f"{row['stage']}/{row['task']}/{row['split']}/{row['metric']}", row["value"]
            continue
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                yield f"{row['stage']}/{name}", value
