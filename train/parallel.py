"""Where a state and a batch live, and how a step runs there: one interface, two strategies.

`pmap` (the default) keeps the whole state on every device and cuts the batch over all devices of all hosts. `mesh` cuts
the state as well, by the logical axis names of the parameters and the table below. A model never names a device axis.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.config import RunConfig
from train.records import InputError
from train.step import Devices, State, Step

HostBatch = Mapping[str, np.ndarray]
Axes = Mapping[str, tuple[str, ...]]

# Logical axes that the mesh strategy cuts, and over which axis of the mesh; every other axis stays whole.
MESH_AXES = {
    "vocab": "model",
    "heads": "model",
    "kv": "model",
    "joined_kv": "model",
    "mlp": "model",
    "expert": "expert",
}


class Strategy(Protocol):
    """What the loop asks of a strategy."""

    @property
    def devices(self) -> Devices:
        """How the step sums over devices."""
        ...

    def compile(self, step: Step) -> Step:
        """The compiled step; it takes over the memory of the state it is given."""
        ...

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function of (parameters, batch); every host gives the whole batch and gets the whole result."""
        ...

    def place_state(self, state: State) -> State:
        """Puts a host's state where it belongs."""
        ...

    def abstract(self, state: State) -> State:
        """Shapes, types and places of a state, as a target to restore into."""
        ...

    def place_batch(self, batch: HostBatch) -> Mapping[str, Any]:
        """Puts this host's part of a batch [B, ...] where the step wants it."""
        ...


class SingleDevice:
    """Everything on one device: `jax.jit`, which is what the other strategies come down to, without their cost."""

    devices = Devices()

    def compile(self, step: Step) -> Step:
        """See Strategy."""
        return jax.jit(step, donate_argnums=0)

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See Strategy."""
        return jax.jit(function)

    def place_state(self, state: State) -> State:
        """See Strategy."""
        return jax.device_put(state, jax.devices()[0])

    def abstract(self, state: State) -> State:
        """See Strategy."""
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)

    def place_batch(self, batch: HostBatch) -> Mapping[str, Any]:
        """See Strategy."""
        return batch


@dataclasses.dataclass(frozen=True)
class Sharded:
    """What both strategies for several devices have in common.

    Attributes:
      mesh: all devices.
      batch_axes: the axes of the mesh over which a batch is cut.
      axes: logical axis names of each parameter.
    """

    mesh: Mesh
    batch_axes: tuple[str, ...]
    axes: Axes

    def shardings(self, state: State) -> State:
        """Where each array of a state lives."""
        raise NotImplementedError

    def place_state(self, state: State) -> State:
        """See Strategy; without it, a step could not take over the state's memory."""
        return jax.tree.map(_global_array, state, self.shardings(state))

    def abstract(self, state: State) -> State:
        """See Strategy."""
        spec = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)  # noqa: E731
        return jax.tree.map(spec, state, self.shardings(state))

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See Strategy."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        cut = NamedSharding(self.mesh, PartitionSpec(self.batch_axes))
        parts = math.prod(self.mesh.shape[axis] for axis in self.batch_axes)
        compiled = jax.jit(function, out_shardings=whole)

        def evaluate(params: Any, batch: HostBatch) -> Any:
            place = cut if len(next(iter(batch.values()))) % parts == 0 else whole
            return compiled(params, {name: _global_array(x, place) for name, x in batch.items()})

        return evaluate


class DataParallel(Sharded):
    """Pure data parallelism with `jax.pmap` over all devices of all hosts."""

    @property
    def devices(self) -> Devices:
        """See Strategy."""
        count = self.mesh.size
        return Devices(count, lambda tree: jax.lax.psum(tree, "data"), lambda: jax.lax.axis_index("data"))

    def compile(self, step: Step) -> Step:
        """See Strategy."""
        return jax.pmap(step, "data", in_axes=(None, 0, None, None), out_axes=None, donate_argnums=0)  # pyright: ignore

    def place_batch(self, batch: HostBatch) -> Mapping[str, Any]:
        """See Strategy: [devices of this host, B / devices, ...]."""
        local = jax.local_device_count()
        return {name: x.reshape(local, -1, *x.shape[1:]) for name, x in batch.items()}

    def shardings(self, state: State) -> State:
        """Every device holds everything."""
        return jax.tree.map(lambda _: NamedSharding(self.mesh, PartitionSpec()), state)


class MeshParallel(Sharded):
    """Data, model and expert parallelism by `jax.jit` with a NamedSharding for every array."""

    @property
    def devices(self) -> Devices:
        """The compiler sees whole arrays and sums by itself."""
        return Devices()

    def compile(self, step: Step) -> Step:
        """See Strategy."""

        def run(state: State, batch: Any, learning_rate: Any, seed: Any) -> Any:
            places = self.shardings(state)
            new, metrics = step(state, batch, learning_rate, seed)
            return jax.lax.with_sharding_constraint(new, places), metrics

        return jax.jit(run, donate_argnums=0)

    def place_batch(self, batch: HostBatch) -> Mapping[str, Any]:
        """See Strategy."""
        place = NamedSharding(self.mesh, PartitionSpec(self.batch_axes))
        return {name: jax.make_array_from_process_local_data(place, x) for name, x in batch.items()}

    def shardings(self, state: State) -> State:
        """By logical axes; second moments as the parameter that they belong to."""
        specs: dict[str, tuple[str | None, ...]] = {
            name: self.spec(self.axes[name], p.shape) for name, p in state.params.items()
        }

        def place(path: tuple[Any, ...], x: Any) -> NamedSharding:
            spec = specs.get(str(getattr(path[-1], "key", "")), ()) if x.ndim else ()
            field = next((key.name for key in path if getattr(key, "name", "") in ("row", "column")), "")
            if field == "row":
                spec = spec[:-1]
            elif field == "column":
                spec = (*spec[:-2], *spec[-1:])
            return NamedSharding(self.mesh, PartitionSpec(*spec))

        return jax.tree_util.tree_map_with_path(place, state)

    def spec(self, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """The mesh axis of each dimension: each at most once, and only where it divides the dimension."""
        spec: list[str | None] = []
        for axis, size in zip(axes, shape, strict=True):
            mesh_axis = MESH_AXES.get(axis)
            fits = mesh_axis is not None and mesh_axis not in spec and size % self.mesh.shape[mesh_axis] == 0
            spec.append(mesh_axis if fits else None)
        return tuple(spec)


def make_strategy(config: RunConfig, axes: Axes) -> Strategy:
    """The strategy that a run asks for, on the devices that there are.

    Raises:
      InputError: the batch or the mesh does not fit the number of devices.
    """
    count = jax.device_count()
    if count == 1:
        return SingleDevice()
    if config.parallel == "pmap":
        strategy = DataParallel(Mesh(np.array(jax.devices()), ("data",)), ("data",), axes)
        parts = count
    else:
        data, model, expert = config.mesh
        data = count // (model * expert) if data == -1 else data
        if data * model * expert != count:
            raise InputError(f"mesh = {list(config.mesh)} (data, model, expert) does not make {count} devices")
        grid = np.array(jax.devices()).reshape(data, model, expert)
        strategy = MeshParallel(Mesh(grid, ("data", "model", "expert")), ("data", "expert"), axes)
        parts = data * expert
    for stage in (config.pretrain, config.finetune):
        if stage and (stage.batch_size // stage.accumulate) % parts:
            micro = f"batch_size = {stage.batch_size} in {stage.accumulate} micro-batches"
            raise InputError(f"{micro} does not divide into the {parts} parts that {count} devices ask for")
    return strategy


def agree(flag: bool) -> bool:
    """Whether any process says so: all processes must stop at the same step."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _global_array(x: Any, place: NamedSharding) -> jax.Array:
    """An array over all hosts from one that every host has whole."""
    if jax.process_count() == 1:
        return jax.device_put(x, place)
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])
