"""Where a state and a batch live, and how a step runs there: one interface, two strategies.

`pmap` (the default) keeps the whole state on every device and cuts the batch over all devices of all hosts. `mesh` cuts
the state as well, by the logical axis names of the parameters and one table. A model never names a device axis.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.config import RunConfig
from train.records import InputError
from train.step import Devices, State, Step

HostBatch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class DataParallel:
    """Pure data parallelism with `jax.pmap`; on a single device plain `jax.jit`, which is the same without its cost."""

    @property
    def devices(self) -> Devices:
        """How the step sums over devices."""
        if jax.device_count() == 1:
            return Devices()
        return Devices(jax.device_count(), lambda tree: jax.lax.psum(tree, "data"), lambda: jax.lax.axis_index("data"))

    def compile(self, step: Step) -> Step:
        """The compiled step; it takes over the memory of the state it is given."""
        if jax.device_count() == 1:
            return jax.jit(step, donate_argnums=0)
        return jax.pmap(step, "data", in_axes=(None, 0, None, None), out_axes=None, donate_argnums=0)  # pyright: ignore

    def place_state(self, state: State) -> State:
        """Copies a host's state to every device; without this the step could not take over its memory."""
        return jax.device_put(state, self._everywhere())

    def abstract(self, state: State) -> State:
        """Shapes, types and places of a state, as a target to restore into."""
        place = self._everywhere()
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)

    def place_batch(self, batch: HostBatch) -> dict[str, Any]:
        """Cuts this host's part of a batch [B, ...] over its devices [devices, B / devices, ...]."""
        if jax.device_count() == 1:
            return dict(batch)
        local = jax.local_device_count()
        for x in batch.values():
            if len(x) % local:
                raise InputError(f"batch_size: {len(x)} sequences on this host do not divide by its {local} devices")
        return {name: x.reshape(local, -1, *x.shape[1:]) for name, x in batch.items()}

    def _everywhere(self) -> NamedSharding:
        return NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec())


def make_strategy(config: RunConfig) -> DataParallel:
    """The strategy that a run asks for."""
    return DataParallel()


def compile_evaluation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function of (parameters, batch) that is computed on this host."""
    return jax.jit(function)
