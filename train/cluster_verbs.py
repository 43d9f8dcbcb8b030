"""The verbs that hand a study to other machines: slurm, jobset. Each is what can be typed, with a `run`."""

import dataclasses
import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from train import study as studies
from train.config import StudyConfig
from train.records import InputError
from train.study_verbs import Declared


@dataclasses.dataclass(frozen=True)
class Slurm(Declared):
    """Submits what is left of a study to Slurm as a job array, a task for each cell; repeat it whenever you like.

    Attributes:
      cells: only the cells whose names match one of these patterns, as in '*-base-*'.
      nodes: machines of one cell.
      tasks_per_node: processes of one cell on each machine.
      at_once: cells that may run at the same time; 0 for no limit.
      option: an option of sbatch; may be given several times, as in --option=--time=12:00:00 --option=--gres=gpu:8.
      retries: times that a failed cell is tried again.
      dry_run: print the batch script and submit nothing.
    """

    cells: tuple[str, ...] = ()
    nodes: int = 1
    tasks_per_node: int = 1
    at_once: int = 0
    option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    retries: int = 2
    dry_run: bool = False

    def run(self) -> int:
        """Submits the array; returns the exit code."""
        from train.launch import slurm

        study = self.load()
        directory, corpus = self.runs / study.name, self.corpus_of(study)
        resources = slurm.Resources(self.nodes, self.tasks_per_node, self.at_once, self.option, self.retries)
        if not self.dry_run and (code := self.ready(study)):
            return code
        waiting = set() if self.dry_run else slurm.queued(directory)
        left = [name for name in unfinished(study, directory, self.cells) if name not in waiting]
        if left:
            text = slurm.script(study, directory, corpus, left, resources)
            if self.dry_run:
                print(text, end="")
                return 0
            print(f"job {slurm.submit(text, directory, left)}: {len(left)} cells of {study.name}; watch {directory}")
        else:
            print(f"{study.name}: no cell is left to submit; {len(waiting)} are in the queue")
        return 0


@dataclasses.dataclass(frozen=True)
class JobSet(Declared):
    """Prints what is left of a study as JobSets for TPU slices on GKE, for `kubectl apply -f -`.

    Run it where the claim is mounted as it is in the pods, so that `--runs` and `--corpus` mean the same in both.

    Attributes:
      image: the container image, with this project installed.
      cells: only the cells whose names match one of these patterns, as in '*-base-*'.
      tpu: v3, v4, v5e, v5p or v6e.
      topology: chips of a slice.
      slices: slices of one cell.
      chips_per_host: 0 for the usual four, or all of a smaller slice.
      queue: Kueue's LocalQueue that the cells wait in; empty for none.
      quota: chips; print the queue itself, with this quota, instead of the cells.
      claim: PersistentVolumeClaim with runs and corpus.
      mount: where it is mounted.
      retries: times that a cell is started again.
      dry_run: write no manifest of the study.
    """

    image: str = "arch-scaling:latest"
    cells: tuple[str, ...] = ()
    tpu: str = "v5e"
    topology: str = "4x4"
    slices: int = 1
    chips_per_host: int = 0
    queue: str = ""
    quota: int = 0
    claim: str = "studies"
    mount: str = "/data"
    retries: int = 10
    dry_run: bool = False

    def run(self) -> int:
        """Prints the manifests; returns the exit code."""
        from train.launch import jobset

        names = [field.name for field in dataclasses.fields(jobset.Slice)]
        slice_ = jobset.Slice(**{name: getattr(self, name) for name in names})
        if self.quota:
            if not self.queue:
                raise InputError("quota: a queue needs a name; give --queue")
            print(json.dumps(jobset.queue(self.queue, slice_, self.quota), indent=2))
            return 0
        study = self.load()
        if not self.dry_run and (code := self.ready(study)):
            return code
        directory = self.runs / study.name
        left = unfinished(study, directory, self.cells)
        made = jobset.manifests(study, directory.absolute(), self.corpus_of(study).absolute(), left, slice_)
        print(json.dumps(made, indent=2))
        return 0


def unfinished(study: StudyConfig, directory: Path, patterns: Sequence[str]) -> list[str]:
    """The cells that are not done and match one of the patterns, if there are any.

    Raises:
      InputError: no cell matches.
    """
    names = [cell.run_id for cell in study.cells]
    chosen = [name for name in names if not patterns or any(fnmatch.fnmatchcase(name, p) for p in patterns)]
    if not chosen:
        raise InputError(f"cells: nothing matches {' '.join(patterns)}; the first cell is {names[0]}")
    done = {status.run_id for status in studies.statuses(study, directory) if status.state == "done"}
    return [name for name in chosen if name not in done]


VERBS: dict[str, Any] = {"slurm": Slurm, "jobset": JobSet}
