"""Measures what the local launcher gains over running cells one by one, and a cell's overhead.

    python -m benchmarks.launcher  # about four minutes on two cores, alone on the machine
    python -m benchmarks.launcher --share 0.5    # longer cells, less noise

Cells of the CPU study, with a share of their steps and almost no evaluation, are run three times:
to fill the compilation cache, with one worker that has every core, and with a worker pinned to each
core. A fourth run, pinned as well, has complete evaluations. The overhead of a cell is the time
that is neither a step nor an evaluation of more than one batch: compilation from the cache,
checkpoints, records, and its part of the time in which workers start or have nothing left to do.
The share is that of a study with as many such cells as the CPU study, with all their steps and
evaluations. Prints JSON on stdout.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

from configs import presets
from configs.studies import cpu
from train.launch import local
from train.plan import calibrate
from train.study import declare
from train.study.config import RunConfig, StudyConfig
from train.study.directory import attempts, write_manifest

ARCHITECTURES = ("transformer", "glu", "lconv", "universal")
SIZES = ("milli", "micro")


def shortened(cell: RunConfig, share: float, evaluation: dict[str, int]) -> RunConfig:
    """A cell with a share of its steps and other settings of evaluation."""

    def short(stage):
        steps = max(round(stage.steps * share), 4)
        logged = {"log_every": max(steps // 4, 1), "checkpoint_every": max(steps // 2, 1)}
        return dataclasses.replace(stage, steps=steps, **evaluation, **logged)

    return dataclasses.replace(cell, pretrain=short(cell.pretrain), finetune=short(cell.finetune))


def measured(
    declared: StudyConfig, corpus: Path, workers: int
) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of the whole study; for each cell its seconds, and those not spent on steps."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / declared.name
        write_manifest(declared, directory)
        started = time.monotonic()
        local.run(declared, directory, corpus, workers, retries=0)
        seconds = time.monotonic() - started
        setup = calibrate.from_records(directory).setup
        around = [around for points in setup.values() for _, around in points]
        rows = [row for cell in declared.cells for row in attempts(directory / cell.run_id)]
        whole = sum(row["seconds"] for row in rows if row["state"] == "done")
        return seconds, [(whole / len(around), one) for one in around]


def main() -> None:
    """Runs all passes and prints their times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=Path(cpu.study().corpus))
    parser.add_argument("--share", type=float, default=0.2)
    arguments = parser.parse_args()
    whole = declare.grid(presets.cpu, size=SIZES, architecture=ARCHITECTURES)

    def declared(**evaluation: int) -> StudyConfig:
        cells = tuple(shortened(cell, arguments.share, evaluation) for cell in whole)
        return dataclasses.replace(cpu.study(), name="launcher", cells=cells)

    workers, one_batch = local.default_workers(declared()), {"eval_batches": 1, "eval_examples": 1}
    passes = {}
    for name, count, evaluation in (
        ("cold", workers, one_batch),
        ("one after another", 1, one_batch),
        ("pool", workers, one_batch),
        ("pool, whole evaluations", workers, {}),
    ):
        print(f"{name}: {len(whole)} cells, {count} workers", file=sys.stderr, flush=True)
        passes[name] = measured(declared(**evaluation), arguments.corpus, count)
    seconds, found = passes["pool"]
    started = seconds * workers - sum(
        duration for duration, _ in found
    )  # the time in which workers start or wait
    around = sum(around for _, around in found)
    steps = sum(duration - around for duration, around in found) / arguments.share
    evaluations = max(
        sum(around for _, around in passes["pool, whole evaluations"][1]) - around, 0.0
    )
    times = len(cpu.study().cells) / len(whole)
    overhead = started + times * around
    result = {
        "workers": workers,
        "cells": len(whole),
        "seconds": {name: round(seconds, 1) for name, (seconds, _) in passes.items()},
        "throughput_ratio": round(passes["one after another"][0] / passes["pool"][0], 2),
        "seconds_of_the_workers_start_and_end": round(started, 2),
        "overhead_seconds_per_cell": round(overhead / times / len(whole), 2),
        "overhead_share_of_the_cpu_study": round(
            overhead / (overhead + times * (evaluations + steps)), 3
        ),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
