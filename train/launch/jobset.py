"""The launcher for TPU slices on GKE: a JobSet for each unfinished cell.

JobSet (jobset.sigs.k8s.io) starts the hosts of one or several slices together, and restarts all of
them when one is lost. Kueue (kueue.sigs.k8s.io) holds a JobSet back until the quota has room for
all of its hosts. A pod runs `train.launch.worker` on one cell, or on seeds of one cell that are
trained together. The processes of a cell find each other through environment variables that GKE
sets. Runs and corpus are on a volume that every pod mounts through one PersistentVolumeClaim; its
file system must support locks, as Filestore and NFS do.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.records import InputError
from train.study.config import StudyConfig, digest
from train.study.directory import Programs

Manifest = dict[str, Any]

ACCELERATORS = {
    "v3": "tpu-v3-slice",
    "v4": "tpu-v4-podslice",
    "v5e": "tpu-v5-lite-podslice",
    "v5p": "tpu-v5p-slice",
    "v6e": "tpu-v6e-slice",
}
_NAME = 40  # characters of a name; with JobSet's suffixes it must fit into a DNS label of 63
_GRACE_SECONDS = 120  # time to save between SIGTERM and SIGKILL


@dataclasses.dataclass(frozen=True)
class Slice:
    """The resources of a cell, and the paths at which its pods find their data.

    Attributes:
      image: the container image, with this project installed.
      tpu: one of ACCELERATORS.
      topology: arrangement of the chips of a slice, such as 4x4.
      slices: number of slices for one cell; they communicate over the data-centre network.
      chips_per_host: number of chips of one host; 0 for the usual four, or all of a smaller slice.
      queue: Kueue's LocalQueue; empty for none.
      claim: the PersistentVolumeClaim with runs and corpus.
      mount: the path at which the claim is mounted.
      retries: number of times that JobSet restarts a cell.
    """

    image: str
    tpu: str = "v5e"
    topology: str = "4x4"
    slices: int = 1
    chips_per_host: int = 0
    queue: str = ""
    claim: str = "studies"
    mount: str = "/data"
    retries: int = 10

    def __post_init__(self):
        """Refuses slices that cannot exist."""
        if self.tpu not in ACCELERATORS:
            raise InputError(f"tpu = {self.tpu!r} is not one of {', '.join(ACCELERATORS)}")
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", self.topology):
            raise InputError(f"topology = {self.topology!r} is not of the form 4x4 or 2x2x4")
        if self.slices < 1 or self.chips % self.host_chips:
            hosts = f"chips_per_host = {self.chips_per_host}"
            raise InputError(
                f"slices = {self.slices}, {hosts}: no whole number of hosts makes {self.topology}"
            )

    @property
    def chips(self) -> int:
        """The number of chips of one slice."""
        return math.prod(map(int, self.topology.split("x")))

    @property
    def host_chips(self) -> int:
        """The number of chips of one host."""
        return self.chips_per_host or min(self.chips, 4)


def manifests(
    study: StudyConfig, directory: Path, corpus: Path, programs: Programs, slice_: Slice
) -> Manifest:
    """A Kubernetes List with a JobSet for each program.

    Args:
      study: the study.
      directory: the study's directory, as a path inside the pods.
      corpus: the prepared corpus, as a path inside the pods.
      programs: the names of the cells to run; those of a tuple run together.
      slice_: the resources of a cell.
    """
    items = [_jobset(study, directory, corpus, program, slice_) for program in programs]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _jobset(
    study: StudyConfig, directory: Path, corpus: Path, cells: Sequence[str], slice_: Slice
) -> Manifest:
    labels = {"app.kubernetes.io/part-of": _label(study.name)}
    if slice_.queue:
        labels["kueue.x-k8s.io/queue-name"] = slice_.queue
    topology = "alpha.jobset.sigs.k8s.io/exclusive-topology"  # gives each slice its own node pool
    hosts = slice_.chips // slice_.host_chips
    job = {
        "completionMode": "Indexed",  # numbers the hosts
        "parallelism": hosts,
        "completions": hosts,
        "backoffLimit": 0,  # a lost host fails the job, so that JobSet restarts all hosts together
        "template": {"spec": _pod(directory, corpus, cells, slice_)},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": _label("-".join((study.name, *cells))),
            "labels": labels,
            "annotations": {topology: "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": slice_.retries},
            "replicatedJobs": [
                {"name": "slice", "replicas": slice_.slices, "template": {"spec": job}}
            ],
        },
    }


def _pod(directory: Path, corpus: Path, cells: Sequence[str], slice_: Slice) -> Manifest:
    chips = {"google.com/tpu": slice_.host_chips}
    worker = ["python", "-m", "train.launch.worker", str(directory), str(corpus), "--cell", *cells]
    pod: Manifest = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "nodeSelector": {
            "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[slice_.tpu],
            "cloud.google.com/gke-tpu-topology": slice_.topology,
        },
        "containers": [
            {
                "name": "worker",
                "image": slice_.image,
                "command": worker,
                "env": [
                    {"name": "JAX_COMPILATION_CACHE_DIR", "value": f"{slice_.mount}/cache/jax"}
                ],
                "resources": {"requests": chips, "limits": chips},
                "volumeMounts": [{"name": "studies", "mountPath": slice_.mount}],
            }
        ],
        "volumes": [{"name": "studies", "persistentVolumeClaim": {"claimName": slice_.claim}}],
    }
    if slice_.slices > 1:  # slices communicate over the hosts' own network
        pod |= {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}
    return pod


def queue(name: str, slice_: Slice, chips: int) -> Manifest:
    """A Kubernetes List with a LocalQueue of Kueue and its quota of `chips`; apply it once."""
    flavor = f"tpu-{slice_.tpu}-{slice_.topology}"
    labels = {
        "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[slice_.tpu],
        "cloud.google.com/gke-tpu-topology": slice_.topology,
    }
    quota = {"name": flavor, "resources": [{"name": "google.com/tpu", "nominalQuota": chips}]}
    version = "kueue.x-k8s.io/v1beta2"
    items = [
        {"kind": "ResourceFlavor", "metadata": {"name": flavor}, "spec": {"nodeLabels": labels}},
        {
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {},  # any namespace may use the queue
                "resourceGroups": [{"coveredResources": ["google.com/tpu"], "flavors": [quota]}],
            },
        },
        {"kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": name}},
    ]
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [{"apiVersion": version, **item} for item in items],
    }


def _label(name: str) -> str:
    """A name as a DNS label; a hash replaces what is cut off."""
    label = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return label if len(label) <= _NAME else f"{label[: _NAME - 9].rstrip('-')}-{digest(name)[:8]}"
