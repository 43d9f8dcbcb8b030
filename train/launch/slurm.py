"""The Slurm launcher: one job array, with a task for each unfinished cell.

Slurm alone decides what runs where and when. A task runs `train.launch.worker` on its cell under
`srun`, with as many processes as the cell needs. They find each other through the environment
variables of the job step. A task pretrains and finetunes its cell, so no job depends on another.
Seeds of a cell that are trained together share one task.

What happens to a task:

  time limit        the step gets SIGTERM 2 minutes before; the cell is saved, and the task requeues
                    itself and continues later
  preempted, node lost, `scontrol requeue`
                    Slurm requeues the task, and it continues from the last checkpoint
  scancel           the cell is saved; `python -m train slurm` submits the unfinished cells again
  failed            the task is tried again a limited number of times
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from train import ranges, records
from train.launch import local
from train.launch.worker import EXIT_STOPPED
from train.ranges import Count, CountOrZero
from train.records import InputError
from train.study.config import StudyConfig
from train.study.directory import Programs

_GRACE_SECONDS = 120  # time to save before the time limit
_SUBMITTED = "submitted.jsonl"

_SCRIPT = """#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --array={array}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={tasks_per_node}
#SBATCH --output={folder}/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@{grace}
{options}
{exports}
cells=(
{cells}
)
# srun does not read this variable of sbatch's itself.
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
# Not quoted: a task may have several cells, which are trained together.
srun --kill-on-bad-exit=0 {worker} --cell ${{cells[$SLURM_ARRAY_TASK_ID]}}
code=$?
# {stopped}: stopped and saved, for example by the time limit. Others: failed or killed; tried again
# a limited number of times.
task="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
failures={folder}/$task.failures
if [ $code -ne 0 ] && [ $code -ne {stopped} ]; then echo $code >> "$failures"; fi
if [ $code -eq {stopped} ] ||
   {{ [ $code -ne 0 ] && [ "$(wc -l < "$failures")" -le {retries} ]; }}; then
  scontrol requeue "$task"
fi
exit $code
"""


@dataclasses.dataclass(frozen=True)
class Resources:
    """The resources of a cell.

    Attributes:
      nodes: number of machines for one cell.
      tasks_per_node: number of processes of one cell on each machine; usually one, which has all
        devices of the machine.
      at_once: number of cells that may run at the same time; 0 for no limit.
      options: further options of sbatch, such as --time=12:00:00, --partition=gpu, --gres=gpu:8.
      retries: number of times that a failed task is requeued.
    """

    nodes: Count = 1
    tasks_per_node: Count = 1
    at_once: CountOrZero = 0
    options: tuple[str, ...] = ()
    retries: CountOrZero = 2

    def __post_init__(self):
        """Refuses options that sbatch would misunderstand."""
        ranges.check(self)
        for option in self.options:
            if not re.fullmatch(r"--?[A-Za-z][^\n]*", option):
                raise InputError(
                    f"option {option!r} is not an option of sbatch, such as --time=12:00:00"
                )


def script(
    study: StudyConfig, directory: Path, corpus: Path, programs: Programs, resources: Resources
) -> str:
    """The batch script of an array with a task for each program.

    Args:
      study: the study.
      directory: the study's directory.
      corpus: the prepared corpus.
      programs: the names of the cells to run; those of a tuple run together in one task.
      resources: the resources of each task.
    """
    limit = f"%{resources.at_once}" if resources.at_once else ""
    worker = [
        sys.executable,
        "-m",
        "train.launch.worker",
        str(directory.absolute()),
        str(corpus.absolute()),
    ]
    # sbatch passes this process's environment on, so only what differs from it must be exported.
    environment = local.environment(study, pinned=False)
    changed = {key: value for key, value in environment.items() if os.environ.get(key) != value}
    return _SCRIPT.format(
        name=study.name,
        array=f"0-{len(programs) - 1}{limit}",
        nodes=resources.nodes,
        tasks_per_node=resources.tasks_per_node,
        folder=shlex.quote(str(directory.absolute() / "slurm")),
        grace=_GRACE_SECONDS,
        options="".join(f"#SBATCH {option}\n" for option in resources.options),
        exports="".join(
            f"export {key}={shlex.quote(value)}\n" for key, value in sorted(changed.items())
        ),
        cells="\n".join(f"  {shlex.quote(' '.join(program))}" for program in programs),
        worker=shlex.join(worker),
        stopped=EXIT_STOPPED,
        retries=resources.retries,
    )


def submit(text: str, directory: Path, programs: Programs) -> str:
    """Submits a script made by `script`, stores it next to the runs, and returns the job number.

    Raises:
      InputError: sbatch is missing or refuses the script; the message contains its output.
    """
    folder = directory / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    # A unique name, by which `queued` recognises this job later.
    path = folder.absolute() / f"{time.time_ns()}.sbatch"
    path.write_text(text, encoding="utf-8")
    job = _ask("sbatch", "--parsable", str(path)).partition(";")[0].strip()
    tasks = [" ".join(program) for program in programs]
    records.append_jsonl(folder / _SUBMITTED, [{"job": job, "cells": tasks, "script": path.name}])
    return job


def queued(directory: Path) -> set[str]:
    """The cells of earlier submissions that are still waiting or running.

    Raises:
      InputError: squeue is missing.
    """
    types = {"job": str, "cells": list, "script": str}
    rows = records.read_jsonl(directory / "slurm" / _SUBMITTED, types, allow_torn=True)
    if not rows:
        return set()
    # If this directory is a copy, its job numbers may belong to other jobs, so the path of the
    # script must match too.
    jobs = {
        (row["job"], str(directory.absolute() / "slurm" / row["script"])): row["cells"]
        for row in rows
    }
    found = set()
    for line in _ask("squeue", "--noheader", "--array", "--me", "--format=%F|%K|%o").splitlines():
        job, task, script = line.strip().split("|", 2)
        programs = jobs.get((job, script), [])
        # squeue prints N/A if the job is not an array, and a number beyond it for others' arrays.
        if task.isdecimal() and int(task) < len(programs):
            found |= set(programs[int(task)].split())
    return found


def largest_array() -> int:
    """The largest size of an array on this cluster, or Slurm's default of 1,001 if it is not shown.

    Raises:
      InputError: scontrol is missing.
    """
    said = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    return max(int(said[1]), 1) if said else 1001


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise InputError(
            f"{command[0]} is not installed here; run this on a machine of the cluster"
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InputError(f"{command[0]}: {json.dumps(said)}")
    return done.stdout
