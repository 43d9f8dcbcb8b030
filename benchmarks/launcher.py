"""What the local launcher gains over one cell after another, and what a cell costs besides its steps.

    python -m benchmarks.launcher                # about two minutes on two cores, alone on the machine
    python -m benchmarks.launcher --share 0.5    # longer cells, less noise

Cells of the CPU study with a share of their steps and next to no evaluation are run three times: to fill the
compilation cache, with one worker that has every core, and with a worker pinned to each core. Overhead is the time of a
cell that is no step: compilation from the cache, checkpoints, records, evaluation of one batch, the process's start.
Prints JSON on stdout.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

from configs import cells as presets
from configs.studies import cpu
from train import calibrate, declare, study
from train.config import RunConfig, StudyConfig
from train.launch import local

ARCHITECTURES = ("transformer", "glu", "lconv", "universal")
SIZES = ("milli", "micro")


def shortened(cell: RunConfig, share: float) -> RunConfig:
    """A cell with a share of its steps, and evaluations of one batch."""

    def short(stage):
        steps = max(round(stage.steps * share), 4)
        logged = {"log_every": max(steps // 4, 1), "checkpoint_every": max(steps // 2, 1)}
        return dataclasses.replace(stage, steps=steps, eval_batches=1, eval_examples=1, **logged)

    return dataclasses.replace(cell, pretrain=short(cell.pretrain), finetune=short(cell.finetune))


def measured(declared: StudyConfig, corpus: Path, workers: int) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of the whole study and, for each cell, its own and those besides its steps."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / declared.name
        study.write_manifest(declared, directory)
        started = time.monotonic()
        local.run(declared, directory, corpus, workers, retries=0)
        seconds = time.monotonic() - started
        setup = calibrate.from_records(directory).setup
        around = [around for points in setup.values() for _, around in points]
        rows = [row for cell in declared.cells for row in study.attempts(directory / cell.run_id)]
        whole = sum(row["seconds"] for row in rows if row["state"] == "done")
        return seconds, [(whole / len(around), one) for one in around]


def main() -> None:
    """Runs the three passes and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path(cpu.study().corpus))
    parser.add_argument("--share", type=float, default=0.2)
    arguments = parser.parse_args()
    whole = declare.grid(presets.cpu, size=SIZES, architecture=ARCHITECTURES)
    declared = dataclasses.replace(
        cpu.study(), name="launcher", cells=tuple(shortened(cell, arguments.share) for cell in whole)
    )
    workers = local.default_workers(declared)
    passes = {}
    for name, count in (("cold", workers), ("one after another", 1), ("pool", workers)):
        print(f"{name}: {len(whole)} cells, {count} workers", file=sys.stderr, flush=True)
        passes[name] = measured(declared, arguments.corpus, count)
    seconds, found = passes["pool"]
    started = seconds * workers - sum(duration for duration, _ in found)  # of the workers themselves, and waiting
    overhead = (started + sum(around for _, around in found)) / len(found)
    steps = sum(duration - around for duration, around in passes["pool"][1]) / arguments.share
    result = {
        "workers": workers,
        "cells": len(whole),
        "seconds": {name: round(seconds, 1) for name, (seconds, _) in passes.items()},
        "throughput_ratio": round(passes["one after another"][0] / passes["pool"][0], 2),
        "overhead_seconds_per_cell": round(overhead, 2),
        "overhead_share_of_whole_cells": round(overhead * len(whole) / (overhead * len(whole) + steps), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
