"""The verbs `slurm` and `jobset`, which hand the cells of a study to other machines.

Each verb is a dataclass whose fields are its options, with a method `run`.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tyro

from train.ranges import Count, CountOrZero
from train.records import InputError
from train.study.config import StudyConfig
from train.study.directory import programs, unfinished
from train.study.verbs import Launched, device_of

if TYPE_CHECKING:
    from train.launch.slurm import Resources


@dataclasses.dataclass(frozen=True)
class SlurmVerb(Launched):
    """Submits the unfinished cells of a study to Slurm as a job array; can be repeated anytime.

    Attributes:
      cells: submit only the cells whose names match one of these patterns, as in '*-base-*'.
      nodes: number of machines for one cell.
      tasks_per_node: number of processes of one cell on each machine.
      at_once: number of cells that may run at the same time; 0 for no limit.
      option: an option of sbatch; may be given several times, as in --option=--time=12:00:00
        --option=--gres=gpu:8.
      device: the device of a task, by its name in `plan`, for --vmap-seeds; empty means cpu for CPU
        studies and h100 for others.
      dry_run: print the batch script and submit nothing.
    """

    cells: tuple[str, ...] = ()
    nodes: Count = 1
    tasks_per_node: Count = 1
    at_once: CountOrZero = 0
    option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    device: str = ""
    dry_run: bool = False

    def run(self) -> int:
        """Submits the array; returns the exit code."""
        from train.launch import slurm

        study = self.load()
        directory, corpus = self.runs / study.name, self.corpus_of(study)
        resources = slurm.Resources(
            self.nodes, self.tasks_per_node, self.at_once, self.option, self.retries
        )
        processes = self.nodes * self.tasks_per_node
        if self.vmap_seeds != "never" and processes > 1:
            raise InputError(f"vmap_seeds: needs one process, not {processes}")
        if not self.dry_run and (code := self.ready(study)):
            return code
        # Cells in the queue are left out, so that the command can be repeated at any time.
        waiting = set() if self.dry_run else slurm.queued(directory)
        left = [name for name in unfinished(study, directory, self.cells) if name not in waiting]
        device = device_of(study, self.device)
        # Without a limit on simultaneous tasks, nobody knows how many will run at once. The plan
        # then compares the sum of their times, as if they ran one after another.
        together = (
            self.together(study, left, device, self.at_once or 1, own_process=True)
            if processes == 1
            else ()
        )
        if left:
            apart = programs(left, together)
            if self.dry_run:
                print(slurm.script(study, directory, corpus, apart, resources), end="")
                return 0
            self._submit(study, apart, resources)
        else:
            print(f"{study.name}: no cell is left to submit; {len(waiting)} are in the queue")
        return 0

    def _submit(
        self, study: StudyConfig, programs: Sequence[tuple[str, ...]], resources: "Resources"
    ) -> None:
        """Submits one array, or several if the cluster's limit on array sizes requires it."""
        from train.launch import slurm

        directory, most = self.runs / study.name, slurm.largest_array()
        parts = [programs[start : start + most] for start in range(0, len(programs), most)]
        if len(parts) > 1:
            tasks = f"{len(programs)} tasks are submitted in {len(parts)} arrays"
            print(f"the cluster's MaxArraySize is {most}: {tasks}", file=sys.stderr)
        for part in parts:
            job = slurm.submit(
                slurm.script(study, directory, self.corpus_of(study), part, resources),
                directory,
                part,
            )
            print(f"job {job}: {sum(map(len, part))} cells of {study.name}; watch {directory}")


@dataclasses.dataclass(frozen=True)
class JobSetVerb(Launched):
    """Prints the unfinished cells of a study as JobSets for TPU slices on GKE.

    Pipe the output into `kubectl apply -f -`.

    Run it where the claim is mounted at the same path as in the pods, so that `--runs` and
    `--corpus` mean the same in both.

    Attributes:
      image: the container image, with this project installed.
      cells: print only the cells whose names match one of these patterns, as in '*-base-*'.
      tpu: v3, v4, v5e, v5p or v6e.
      topology: arrangement of the chips of a slice, such as 4x4.
      slices: number of slices for one cell.
      chips_per_host: number of chips of one host; 0 for the usual four, or all of a smaller slice.
      queue: Kueue's LocalQueue in which the cells wait; empty for none.
      quota: number of chips; prints the queue itself, with this quota, instead of the cells.
      claim: the PersistentVolumeClaim with runs and corpus.
      mount: the path at which the claim is mounted.
      retries: number of times that a cell is restarted.
      dry_run: do not write the study's manifest.
    """

    image: str = "arch-scaling:latest"
    cells: tuple[str, ...] = ()
    tpu: str = "v5e"
    topology: str = "4x4"
    slices: Count = 1
    chips_per_host: CountOrZero = 0
    queue: str = ""
    quota: CountOrZero = 0
    claim: str = "studies"
    mount: str = "/data"
    retries: CountOrZero = 10
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
        chips = slice_.chips * self.slices
        if self.vmap_seeds != "never" and chips > 1:
            raise InputError(
                f"vmap_seeds: needs a slice of one chip, not {self.slices} of {self.topology}"
            )
        study = self.load()
        if not self.dry_run and (code := self.ready(study)):
            return code
        directory = self.runs / study.name
        left = unfinished(study, directory, self.cells)
        device = device_of(study, f"tpu-{self.tpu}")
        together = self.together(study, left, device, 1, own_process=True) if chips == 1 else ()
        apart = programs(left, together)
        made = jobset.manifests(
            study, directory.absolute(), self.corpus_of(study).absolute(), apart, slice_
        )
        print(json.dumps(made, indent=2))
        return 0


VERBS: dict[str, Any] = {"slurm": SlurmVerb, "jobset": JobSetVerb}
