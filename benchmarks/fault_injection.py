"""Kills training with SIGKILL at random moments and compares the result with an undisturbed run.

    python -m benchmarks.fault_injection  # 54 kills, about ten minutes
    python -m benchmarks.fault_injection --cells transformer:pmap --kills 4 --seed 7

Each cell (an architecture with a strategy, on two virtual devices) is pretrained and finetuned once
without interruption and once with `--kills` kills, after each of which the same command is started
again. A kill comes after a random number of further records or checkpoints and a random fraction of
a second, so that steps, evaluations, saves and writes are all hit. The tally counts what was in
progress, as far as the files show. At the end, records must be equal except for times, and
parameters and optimizer states must be equal bit for bit.

Prints a line for each cell on stderr and the tally as JSON on stdout; exits with 1 if anything was
lost.
"""

import argparse
import collections
import dataclasses
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Set before anything imports jax.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

from benchmarks import arguments
from train import records
from train.study.config import OptimizerConfig, RunConfig, StageConfig

CELLS = tuple(
    f"{name}:{strategy}"
    for name in ("transformer", "switch", "performer")
    for strategy in ("pmap", "mesh")
)
OPTIONS: dict[str, dict[str, Any]] = {"switch": {"every": 1, "num_experts": 4}}
STAGE = StageConfig(
    steps=40,
    batch_size=8,
    input_length=24,
    target_length=12,
    dropout_rate=0.1,
    optimizer=OptimizerConfig(learning_rate=0.1, warmup_steps=4, min_factored_size=16),
    eval_batches=2,
    eval_batch_size=8,
    eval_examples=8,
    eval_every=10,
    log_every=1,
    checkpoint_every=5,
)


def config_of(cell: str) -> RunConfig:
    """The run of `architecture:strategy`; on the mesh, each device holds half of every matrix."""
    name, _, strategy = cell.partition(":")
    model = {"num_encoder_layers": 1, "num_decoder_layers": 1, **OPTIONS.get(name, {})}
    config = RunConfig(name, "nano", model=model, pretrain=STAGE, finetune=STAGE)
    return (
        dataclasses.replace(config, parallel="mesh", mesh=(1, 2, 1))
        if strategy == "mesh"
        else config
    )


def train(cell: str, corpus: Path, directory: Path) -> None:
    """The process that is killed: a complete start, beginning with the corpus."""
    from train.data.corpus import open_corpus
    from train.run import cell as cells

    cells.run_cell(config_of(cell), open_corpus(corpus), directory, quiet=True)


def start(context: Any, *arguments: Any) -> Any:
    """A new process that has imported the trainer but has not started anything else."""
    process = context.Process(target=train, args=arguments)
    process.start()
    return process


def progress(directory: Path) -> int:
    """The number of rows recorded and checkpoints begun."""
    rows = sum(path.read_bytes().count(b"\n") for path in directory.glob("*.jsonl"))
    return rows + sum(1 for _ in directory.glob("checkpoints/*/*"))


def under_way(directory: Path) -> str:
    """What a killed process was doing, as far as its files show."""
    if any(path.read_bytes()[-1:] not in (b"", b"\n") for path in directory.glob("*.jsonl")):
        return "a record"
    if any(directory.glob("*.tmp-*")):
        return "a status"
    if any(directory.glob("checkpoints/*/*.orbax-checkpoint-tmp*")):
        return "a save"
    return "a step or an evaluation"


def kill(
    context: Any, chance: random.Random, cell: str, corpus: Path, directory: Path, further: int
) -> str | None:
    """Starts a cell and kills it; returns what was in progress, or None if it had finished."""
    process = start(context, cell, corpus, directory)
    goal = progress(directory) + chance.randint(1, further)
    while progress(directory) < goal and process.is_alive():
        time.sleep(0.002)
    time.sleep(chance.random() * 0.1)
    alive = process.is_alive()
    process.kill()
    process.join()
    return under_way(directory) if alive else None


def content(directory: Path) -> dict[str, Any]:
    """Records without times, and checksums of the last checkpoint of each stage."""
    run = records.read_run(directory)
    sums = {
        stage: json.loads(
            (directory / "checkpoints" / stage / str(STAGE.steps) / "meta" / "metadata").read_text()
        )
        for stage in records.STAGES
    }
    arrays = {stage: (meta["step"], meta["checksums"]) for stage, meta in sums.items()}
    return {
        "config": run.config,
        "metrics": records.without_clock(run.metrics),
        "evals": run.evals,
        "state": run.status["state"],
        "arrays": arrays,
    }


def main() -> int:
    """Parses the arguments and runs the cells."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_corpus(parser)
    parser.add_argument(
        "--cells", default=",".join(CELLS), help="architecture:strategy, separated by commas"
    )
    parser.add_argument("--kills", type=int, default=9, help="kills per cell")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = (
            cache  # not a shared cache: JAX writes entries in place, so a kill would damage them
        )
        return run(args)


def run(args: argparse.Namespace) -> int:
    """Runs every cell once undisturbed and once with kills; returns the exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["train.run.cell", "train.data.corpus"]
    )  # imported once, before any backend is started
    chance = random.Random(args.seed)
    tally: collections.Counter[str] = collections.Counter()
    lost = []
    for cell in args.cells.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            alone, killed = Path(scratch, "alone"), Path(scratch, "killed")
            start(context, cell, args.corpus, alone).join()
            further = max(1, progress(alone) // args.kills)
            for _ in range(args.kills):
                if moment := kill(context, chance, cell, args.corpus, killed, further):
                    tally[moment] += 1
            start(context, cell, args.corpus, killed).join()
            same = content(killed) == content(alone)
        lost += [] if same else [cell]
        print(
            f"{cell:20} {'equal' if same else 'DIFFERENT'}; kills so far: {dict(tally)}",
            file=sys.stderr,
            flush=True,
        )
    kills = sum(tally.values())
    print(
        json.dumps(
            {"kills": kills, "during": dict(tally), "seed": args.seed, "different": lost}, indent=2
        )
    )
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
