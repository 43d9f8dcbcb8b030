"""Kills a study with SIGKILL at random moments, restarts it, and compares with an undisturbed one.

    python -m benchmarks.kill_study                     # 20 kills, about ten minutes on two cores
    python -m benchmarks.kill_study --kills 5 --seed 7

Two launchers work on the study at all times. Kills hit in turn a launcher, a worker, or both
launchers with all their workers. At the end every cell must be done, its records must equal those
of an undisturbed study except for times, no row may appear twice, and the report's run table must
be the same.

Prints a line for each kill on stderr and the tally as JSON on stdout; exits with 1 if anything was
lost.
"""

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.train.launch.contents import content, run_table
from tests.train.tiny_corpus import write_corpus

ROOT = Path(__file__).parents[1]
TARGETS = ("launcher", "worker", "everything")


class Study:
    """A study that two launchers run."""

    def __init__(self, declaration: Path, corpus: Path, runs: Path):
        """Prepares the command; nothing is started yet."""
        self.command = [
            sys.executable,
            "-m",
            "train",
            "study",
            "--config",
            str(declaration),
            "--corpus",
            str(corpus),
        ]
        self.command += [
            "--runs",
            str(runs),
            "--workers",
            "1",
            "--retries",
            "50",
        ]  # a kill is not the cell's fault
        self.runs = runs
        self.launchers: list[subprocess.Popen[bytes]] = []

    def keep_two(self) -> None:
        """Starts launchers until two are alive."""
        self.launchers = [launcher for launcher in self.launchers if launcher.poll() is None]
        while len(self.launchers) < 2:
            quiet = subprocess.DEVNULL
            self.launchers.append(
                subprocess.Popen(self.command, cwd=ROOT, stdout=quiet, stderr=quiet)
            )

    def processes(self, target: str, chance: random.Random) -> list[int]:
        """The processes that a kill of `target` hits."""
        launcher = chance.choice(self.launchers).pid
        workers = [pid for each in self.launchers for pid in children(each.pid)]
        if target == "worker":
            return [chance.choice(workers)] if workers else [launcher]
        return (
            [launcher]
            if target == "launcher"
            else [*(each.pid for each in self.launchers), *workers]
        )

    def progress(self) -> int:
        """The number of rows recorded so far."""
        return sum(path.read_bytes().count(b"\n") for path in self.runs.glob("*/*/*.jsonl"))


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(child) for child in listed.stdout.split()]


def disturbed(study: Study, kills: int, seed: int) -> collections.Counter[str]:
    """Kills and restarts processes, then lets the study finish; returns the kills by kind."""
    chance, done = random.Random(seed), collections.Counter[str]()
    for number in range(kills):
        study.keep_two()
        goal, until = study.progress() + chance.randint(1, 12), time.monotonic() + 120
        while (
            study.progress() < goal
            and time.monotonic() < until
            and any(p.poll() is None for p in study.launchers)
        ):
            time.sleep(0.05)
        time.sleep(chance.random())
        target = TARGETS[number % len(TARGETS)]
        hit = study.processes(target, chance)
        for pid in hit:
            try:
                os.kill(pid, signal.SIGKILL)
                done[target] += 1
            except ProcessLookupError:
                done["gone already"] += 1
        for launcher in study.launchers:
            if launcher.pid in hit:
                launcher.wait()  # otherwise it would look alive for a moment
        print(f"kill {number + 1}: {target}, {study.progress()} rows", file=sys.stderr, flush=True)
    study.keep_two()
    for launcher in study.launchers:
        launcher.wait()
    return done


def main() -> int:
    """Runs the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--study", type=Path, default=ROOT / "tests" / "train" / "launch" / "twelve_cells.py"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        corpus = write_corpus(Path(place) / "corpus")
        alone = Study(arguments.study, corpus, Path(place) / "alone")
        subprocess.run(
            alone.command,
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        killed = Study(arguments.study, corpus, Path(place) / "killed")
        tally = disturbed(killed, arguments.kills, arguments.seed)
        studies = [next(runs.iterdir()) for runs in (alone.runs, killed.runs)]
        expected, found = map(content, studies)
        lost = sorted(name for name in expected if found.get(name) != expected[name])
        same = run_table(studies[0]) == run_table(studies[1])
    result = {
        "kills": arguments.kills,
        "signals": tally,
        "cells": len(expected),
        "lost": lost,
        "same_report": same,
    }
    print(json.dumps(result))
    return 1 if lost or not same else 0


if __name__ == "__main__":
    sys.exit(main())
