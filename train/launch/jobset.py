"""The launcher for TPU slices on GKE: a JobSet for each unfinished cell.

JobSet (jobset.sigs.k8s.io) starts the hosts of one or several slices together, and restarts all of
them when one is lost. Kueue (kueue.sigs.k8s.io) holds a JobSet back until the quota has room for
all of it. A pod runs `train.launch.worker` on one cell, or on seeds of one cell that are trained
together. The processes of a cell find each other through the environment that GKE sets. The file
system with runs and corpus is a claim that every pod mounts; it must support locks (Filestore,
NFS).
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
_NAME = 40  # characters; with the suffixes that JobSet adds, it must fit a DNS label of 63
_GRACE_SECONDS = 120  # time to save between SIGTERM and SIGKILL


@dataclasses.dataclass(frozen=True)
class Slice:
    """The resources of a cell, and the places where its pods find their data.

    Attributes:
      image: the container image, with this project installed.
      tpu: one of ACCELERATORS.
      topology: chips of a slice, such as 4x4.
      slices: slices for one cell, connected by the data-centre network.
      chips_per_host: 0 for the usual four, or all chips of a smaller slice.
      queue: Kueue's LocalQueue; empty for none.
      claim: PersistentVolumeClaim with runs and corpus.
      mount: where the claim is mounted.
      retries: how often JobSet restarts a cell.
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
    """A Kubernetes List with a JobSet for each of `programs`, the names of cells that run together.

    The paths are those inside the pods.
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
        "completionMode": "Indexed",
        "parallelism": hosts,
        "completions": hosts,
        "backoffLimit": 0,
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
    """A Kubernetes List with a LocalQueue of Kueue and its quota of `chips`, to be applied once."""
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
                "namespaceSelector": {},
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
