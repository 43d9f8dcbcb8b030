"""Several processes as one trainer: how they find each other, which one writes, and when they stop.

A single process needs nothing. Several are found through the environment that their launcher sets,
in this order:

    COORDINATOR_ADDRESS, NUM_PROCESSES, PROCESS_ID
                            plain variables, also with JAX_ in front; an indexed Kubernetes job
                            needs no PROCESS_ID; NUM_PROCESSES=1 turns the search off
    SLURM_*                 a step of `srun` with more than one task
    OMPI_*                  `mpirun` with more than one rank
    TPU_*, MEGASCALE_*, a TPU VM
                            TPU pods and slices, on GCE and GKE
    JOB_COMPLETION_INDEX    an indexed Kubernetes job; needs the package `kubernetes`

All processes see one file system. Only process 0 writes records; all of them write checkpoints.
"""

import contextlib
import importlib.util
import itertools
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from train import records
from train.records import InputError

_steps_asked = itertools.count()  # the same in all processes, so that they stop at the same step
_told_to_stop = threading.Event()  # remembered, because the coordinator says it only once


def initialize() -> None:
    """Joins the other processes of this job, if there are any.

    Must run before anything asks jax for devices.

    Raises:
      InputError: the environment indicates several processes, but does not fully describe them.
    """
    arguments = detect(os.environ, on_tpu=_on_tpu())
    if arguments is None:
        return
    try:
        jax.distributed.initialize(**arguments)
    except ValueError as error:  # for example, the cluster's client is not installed
        raise InputError(
            f"several processes: {error} set COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID"
        ) from None
    if not is_first():
        logging.getLogger("train").setLevel(logging.ERROR)  # all processes have the same warnings


def detect(environment: Mapping[str, str], *, on_tpu: bool = False) -> dict[str, Any] | None:
    """The arguments of `jax.distributed.initialize` for an environment; None for a single process.

    Empty arguments mean that JAX knows the cluster and finds the arguments itself.

    Raises:
      InputError: a variable is missing or is not a number.
    """

    def number(name: str, default: str = "") -> int:
        text = environment.get(name) or environment.get(f"JAX_{name}") or default
        if not text.isdecimal():
            raise InputError(f"{name} = {text!r} must be a number, as COORDINATOR_ADDRESS is set")
        return int(text)

    address = environment.get("COORDINATOR_ADDRESS") or environment.get("JAX_COORDINATOR_ADDRESS")
    if "1" in (environment.get("NUM_PROCESSES"), environment.get("JAX_NUM_PROCESSES")):
        return None
    if address:
        return {
            "coordinator_address": address if ":" in address else f"{address}:55555",
            "num_processes": number("NUM_PROCESSES"),
            "process_id": number("PROCESS_ID", environment.get("JOB_COMPLETION_INDEX", "")),
            "cluster_detection_method": "deactivate",
        }
    hosts = (
        environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES") or ""
    )
    several = (
        "SLURM_STEP_NODELIST" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1,
        "OMPI_MCA_orte_hnp_uri" in environment
        and int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1,
        "," in hosts or int(environment.get("MEGASCALE_NUM_SLICES", "1")) > 1,
        on_tpu and not hosts,  # a TPU VM of GCE, where JAX reads the metadata
        "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment,
    )
    return {} if any(several) else None


def _on_tpu() -> bool:
    devices = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return (
        bool(devices)
        and importlib.util.find_spec("libtpu") is not None
        and not re.search("cpu", os.environ.get("JAX_PLATFORMS", ""))
    )


def is_first() -> bool:
    """Whether this is process 0, the one that prints and writes records."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:  # noqa: FBT001 (a value, no switch)
    """Whether the flag is true in any process; waits for all of them."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def as_first(flag: bool) -> bool:  # noqa: FBT001 (a value, no switch)
    """The flag of process 0; waits for all processes.

    Other processes may see an older state of shared files, so they follow process 0.
    """
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def should_stop(asked: Callable[[], bool]) -> bool:
    """Whether to save and stop now.

    All processes must ask after each step, so that all stop at the same one. A single process
    decides by `asked`. Several processes learn through JAX's coordinator that one of them received
    SIGTERM; until then this costs no communication.
    """
    if jax.process_count() == 1:
        return asked()
    if multihost_utils.reached_preemption_sync_point(next(_steps_asked)):
        _told_to_stop.set()
    return _told_to_stop.is_set()


@contextlib.contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Like `records.lock`, but process 0 takes the lock for all processes."""
    if jax.process_count() == 1:
        with records.lock(path) as free:
            yield free
        return
    with contextlib.ExitStack() as stack:
        free, error = True, None
        if is_first():
            try:
                free = stack.enter_context(records.lock(path))
            except InputError as reason:
                error = reason
        if any_process(error is not None):
            raise error or InputError(f"run directory: {str(path)!r}: process 0 cannot write it")
        yield as_first(free)
