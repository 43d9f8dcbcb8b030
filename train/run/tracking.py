"""The output of a run while it trains: rows of metrics.jsonl, progress, and optional trackers."""

import dataclasses
import functools
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.records import Row, RunWriter
from train.study.config import StageConfig

# Dense peak FLOP/s of one device with bf16 inputs, from the makers' data sheets. Other devices are
# measured.
PEAK_FLOPS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "TPU v3": 61.5e12,  # of one core, which JAX counts as a device here
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


@functools.cache
def peak_flops() -> float:
    """The peak FLOP/s of all devices: from a table, or measured with a matrix product."""
    device = jax.devices()[0]
    if device.device_kind in PEAK_FLOPS:
        return PEAK_FLOPS[device.device_kind] * jax.device_count()
    # Large enough to keep the device busy, in the dtype of the layers.
    size, dtype = (1024, jnp.float32) if device.platform == "cpu" else (8192, jnp.bfloat16)
    a = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    virtual = (
        jax.device_count() if device.platform != "cpu" else 1
    )  # virtual CPU devices share the same cores
    return 2 * size**3 / min(seconds) * virtual


class Progress:
    """Shows a stage's progress: a bar on a terminal, else a line per logged step, or nothing."""

    def __init__(self, title: str, total: int, done: int, *, quiet: bool = False):
        """Starts the bar at `done` of `total` steps."""
        self._title, self._total, self._quiet = title, total, quiet
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from rich import console, progress

            columns = (
                *progress.Progress.get_default_columns(),
                progress.TextColumn("{task.fields[note]}"),
            )
            self._bar = progress.Progress(*columns, console=console.Console(stderr=True))
            self._task = self._bar.add_task(title, total=total, completed=done, note="")
            self._bar.start()

    def advance(self, done: int, row: Row | None) -> None:
        """Shows that `done` steps are done; `row` is the last step's record, if any."""
        note = f"nll {row['nll']:.3f}" if row else None
        if self._bar:
            self._bar.update(self._task, completed=done)
            if note:
                self._bar.update(self._task, note=note)
        elif row and not self._quiet:
            rate = row["steps_per_second"]
            left = f", {(self._total - done) / rate:.0f} s left" if rate else ""
            print(
                f"{self._title}: step {done}/{self._total}, {note}{left}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Restores the terminal."""
        if self._bar:
            self._bar.stop()


@dataclasses.dataclass(frozen=True)
class StepSize:
    """What one training step processes: tokens of inputs and targets, and FLOPs."""

    tokens: int
    flops: float


class Tracker:
    """Turns the metrics of steps into records; one per stage. Only process 0 writes records.

    Attributes:
      progress: shows the progress to the user.
    """

    def __init__(
        self,
        writer: RunWriter,
        stage_name: str,
        stage: StageConfig,
        size: StepSize,
        progress: Progress,
        others: tuple[Any, ...] = (),
    ):
        """Prepares the records of a stage.

        Args:
          writer: the writer of the run's directory.
          stage_name: pretrain or finetune.
          stage: its configuration.
          size: what a training step processes.
          progress: shows the progress to the user.
          others: further trackers (see `train.run.trackers`), each with `metrics(row)`,
            `evals(rows)` and `close()`.
        """
        self.progress = progress
        self._writer, self._name, self._stage, self._others = writer, stage_name, stage, others
        self._size = size
        self.restart_clock()

    def restart_clock(self) -> None:
        """Ignores the time until now, which was not spent on training steps.

        Called after the first step (compilation), evaluations and restores.
        """
        self._since: tuple[int, float] | None = None

    def step(self, done: int, metrics: Mapping[str, float], learning_rate: float) -> None:
        """Receives the metrics after `done` steps; records a row if one is due."""
        now = time.perf_counter()
        row = None
        # With patience, each evaluation may be the last step.
        ends = self._stage.evaluates(done) if self._stage.patience else done == self._stage.steps
        if ends or done % self._stage.log_every == 0:
            row = self._row(done, metrics, learning_rate, now)
            self._writer.metrics(row)
            self._writer.status(
                "running", stage=self._name, step=done, steps=self._stage.steps, nll=row["nll"]
            )
            for other in self._others:
                other.metrics(row)
            self._since = (done, now)
        elif self._since is None:
            self._since = (done, now)
        self.progress.advance(done, row)

    def _row(
        self, done: int, metrics: Mapping[str, float], learning_rate: float, now: float
    ) -> Row:
        rate = mfu = None
        if self._since is not None and done > self._since[0]:
            rate = (done - self._since[0]) / (now - self._since[1])
            mfu = rate * self._size.flops / peak_flops()
        return {
            "step": done,
            "stage": self._name,
            **{name: metrics[name] for name in ("loss", "nll", *metrics)},  # these two first
            "learning_rate": learning_rate,
            "tokens": done * self._size.tokens,
            "tokens_per_second": rate and rate * self._size.tokens,
            "steps_per_second": rate,
            "mfu": mfu,
            "memory_bytes": _memory(),
        }

    def evals(self, done: int, rows: list[Row]) -> None:
        """Records evaluations after `done` steps."""
        rows = [{"step": done, "stage": self._name, **row} for row in rows]
        self._writer.evals(rows)
        for other in self._others:
            other.evals(rows)

    def event(self, done: int, event: str, detail: str) -> None:
        """Records an intervention, such as a resume or a roll-back."""
        self._writer.event(
            {
                "step": done,
                "stage": self._name,
                "event": event,
                "detail": detail,
                "time": time.time(),
            }
        )

    def close(self) -> None:
        """Closes every tracker."""
        self.progress.close()
        for other in self._others:
            other.close()


def _memory() -> int | None:
    """Peak bytes in use on the first device, if it reports them."""
    stats = jax.local_devices()[0].memory_stats()
    return stats.get("peak_bytes_in_use") if stats else None


def fetch(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of a step as floats; waits for it, and gathers nothing from other hosts."""
    return {
        name: float(np.asarray(value.addressable_shards[0].data)) for name, value in metrics.items()
    }
