"""Where a state and a batch are stored, and how a step runs there: one interface, two strategies.

`pmap` (the default) cuts the batch over all devices of all hosts and keeps the whole state on every
device. Experts are the exception: each device holds some of them, and tokens travel to them by
`all_to_all`. `mesh` also cuts the state, by the logical axis names of the parameters and the table
below. A model never names a device axis.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.data.batches import HostBatch
from train.records import InputError
from train.run.step import Axes, Devices, Params, State, Step
from train.study.config import RunConfig

# The logical axes that the mesh strategy cuts, each with the mesh axis it is cut over. Other axes
# stay whole.
MESH_AXES = {
    "vocab": "model",
    "heads": "model",
    "kv": "model",
    "joined_kv": "model",
    "mlp": "model",
    "expert": "expert",
}


class Strategy(Protocol):
    """The interface between the loop and a strategy."""

    @property
    def devices(self) -> Devices:
        """How the step sums over devices."""
        ...

    def compile(self, step: Step) -> Step:
        """Compiles the step; a call reuses the memory of the state it is given."""
        ...

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compiles a function of (parameters, batch).

        Every host passes the whole batch and gets the whole result.
        """
        ...

    def place_state(self, state: State) -> State:
        """Moves a state from host memory to the devices."""
        ...

    def abstract(self, state: State) -> State:
        """The shapes, types and shardings of a state, as a target to restore into."""
        ...

    @property
    def feed(self) -> tuple[int, int]:
        """The part of each batch that this process provides, and the number of parts."""
        ...

    def place_batch(self, batch: HostBatch) -> Mapping[str, Any]:
        """Moves this process's part of a batch [B, ...] to the devices."""
        ...


class SingleDevice:
    """Everything on one device: plain `jax.jit`.

    The other strategies would do the same, but cost more.
    """

    devices = Devices()
    feed = (0, 1)

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
    """What both strategies for several devices share.

    Attributes:
      mesh: all devices.
      batch_axes: the axes of the mesh over which a batch is cut.
      axes: logical axis names of each parameter.
    """

    mesh: Mesh
    batch_axes: tuple[str, ...]
    axes: Axes

    def spec(self, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """The mesh axis over which each dimension of a parameter is cut; None if it is whole."""
        raise NotImplementedError

    def shardings(self, state: State) -> State:
        """The sharding of each array of a state; second moments follow their parameter."""
        specs = {name: self.spec(self.axes[name], p.shape) for name, p in state.params.items()}

        def place(path: tuple[Any, ...], x: Any) -> NamedSharding:
            spec = specs.get(str(getattr(path[-1], "key", "")), ()) if x.ndim else ()
            field = next(
                (key.name for key in path if getattr(key, "name", "") in ("row", "column")), ""
            )
            if field == "row":
                spec = spec[:-1]
            elif field == "column":
                spec = (*spec[:-2], *spec[-1:])
            return NamedSharding(self.mesh, PartitionSpec(*spec))

        return jax.tree_util.tree_map_with_path(place, state)

    @property
    def parts(self) -> int:
        """The number of parts that a batch is cut into."""
        return math.prod(self.mesh.shape[axis] for axis in self.batch_axes)

    @property
    def feed(self) -> tuple[int, int]:
        """See Strategy.

        A process provides the rows of its own devices. If they share rows with devices of other
        processes, all of these provide the same rows.
        """
        place = NamedSharding(self.mesh, PartitionSpec(self.batch_axes))
        mine = place.addressable_devices_indices_map((self.parts,)).values()
        numbers = sorted({index[0].start or 0 for index in mine if index})
        first, count = numbers[0], len(numbers)
        if numbers != list(range(first, first + count)) or first % count:
            raise InputError(
                f"mesh: process {jax.process_index()} would hold parts {numbers} of a batch: not "
                "in a row"
            )
        return first // count, self.parts // count

    def compile(self, step: Step) -> Step:
        """See Strategy; the sharding of the new state is fixed to that of the old one."""

        def run(state: State, batch: Any, learning_rate: Any, seed: Any) -> Any:
            places = self.shardings(state)
            new, metrics = step(state, batch, learning_rate, seed)
            return jax.lax.with_sharding_constraint(new, places), metrics

        return jax.jit(run, donate_argnums=0)

    def place_batch(self, batch: HostBatch) -> Mapping[str, Any]:
        """See Strategy."""
        place = NamedSharding(self.mesh, PartitionSpec(self.batch_axes))
        return {name: jax.make_array_from_process_local_data(place, x) for name, x in batch.items()}

    def place_state(self, state: State) -> State:
        """See Strategy; unless the state is placed, a step cannot reuse its memory."""
        return jax.tree.map(_global_array, state, self.shardings(state))

    def abstract(self, state: State) -> State:
        """See Strategy."""
        spec = lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        return jax.tree.map(spec, state, self.shardings(state))

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See Strategy."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        cut = NamedSharding(self.mesh, PartitionSpec(self.batch_axes))
        compiled = jax.jit(function, out_shardings=whole)

        def evaluate(params: Any, batch: HostBatch) -> Any:
            place = cut if len(next(iter(batch.values()))) % self.parts == 0 else whole
            return compiled(params, {name: _global_array(x, place) for name, x in batch.items()})

        return evaluate


class DataParallel(Sharded):
    """Pure data parallelism with `jax.pmap` over all devices of one process."""

    @property
    def devices(self) -> Devices:
        """See Strategy."""
        add = lambda tree: jax.lax.psum(tree, "data")
        return Devices(self.mesh.size, add, add, lambda: jax.lax.axis_index("data"))

    def spec(self, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """Nothing is cut: every device holds everything."""
        return ()

    def compile(self, step: Step) -> Step:
        """See Strategy."""
        return jax.pmap(
            step, "data", in_axes=(None, 0, None, None), out_axes=None, donate_argnums=0
        )  # pyright: ignore

    def place_batch(self, batch: HostBatch) -> Mapping[str, Any]:
        """See Strategy: [devices, B / devices, ...]."""
        return {name: x.reshape(self.mesh.size, -1, *x.shape[1:]) for name, x in batch.items()}


class SpreadParallel(Sharded):
    """Data parallelism over several processes, or with experts spread over devices.

    `jax.pmap` is itself `jit` over `shard_map`. It is written out here, because with several
    processes pmap copies the whole state at each step, and because it cannot cut an array along an
    axis that the array already has. Gradients are computed part by part. The optimizer then sees
    whole arrays, and the compiler adds the necessary sums.

    The mesh is (data, expert): a group of devices along `expert` holds every expert once.
    """

    @property
    def devices(self) -> Devices:
        """See Strategy."""
        return Devices(
            count=self.mesh.size,
            sum=lambda tree: jax.lax.psum(tree, self.batch_axes),
            sum_gradients=self._sum_gradients,
            index=lambda: jax.lax.axis_index(self.batch_axes),
            map=self._map,
            expert_axis="expert" if self.mesh.shape["expert"] > 1 else None,
        )

    def spec(self, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """Only experts are cut."""
        return tuple("expert" if axis == "expert" else None for axis in axes)

    def _sum_gradients(self, grads: Params) -> Params:
        """Sums gradients over the devices.

        A device already has the gradients of its experts from its whole group, because the group's
        tokens came to it by `all_to_all`; those are summed over the other groups only.
        """
        axes = {name: "data" if "expert" in self.axes[name] else self.batch_axes for name in grads}
        return {name: jax.lax.psum(grad, axes[name]) for name, grad in grads.items()}

    def _map(self, part: Callable[..., Any]) -> Callable[..., Any]:
        def run(params: Params, batch: Any, key: jax.Array) -> Any:
            places = {
                name: PartitionSpec(*self.spec(self.axes[name], p.shape))
                for name, p in params.items()
            }
            inputs = (places, PartitionSpec(self.batch_axes), PartitionSpec())
            # With check_vma, shard_map would sum the gradients of uncut parameters itself, and they
            # would then be summed twice.
            mapped = jax.shard_map(
                part,
                mesh=self.mesh,
                in_specs=inputs,
                out_specs=(places, PartitionSpec()),
                check_vma=False,
            )
            return mapped(params, batch, key)

        return run


class MeshParallel(Sharded):
    """Data, model and expert parallelism by `jax.jit` with a NamedSharding for every array."""

    @property
    def devices(self) -> Devices:
        """See Strategy. The compiler sees whole arrays and adds the sums itself."""
        rows = NamedSharding(self.mesh, PartitionSpec(None, self.batch_axes))
        return Devices(spread_rows=lambda micro: jax.lax.with_sharding_constraint(micro, rows))

    def spec(self, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str | None, ...]:
        """The mesh axis of each dimension, by the table above; None if it is not sharded.

        Each mesh axis is used once at most, and only if its size divides the dimension.
        """
        spec: list[str | None] = []
        for axis, size in zip(axes, shape, strict=True):
            mesh_axis = MESH_AXES.get(axis)
            fits = (
                mesh_axis is not None
                and mesh_axis not in spec
                and size % self.mesh.shape[mesh_axis] == 0
            )
            spec.append(mesh_axis if fits else None)
        return tuple(spec)


def make_strategy(
    config: RunConfig, axes: Axes, params: Params, devices: Sequence[Any] = ()
) -> Strategy:
    """The strategy of a run, for the available devices.

    Args:
      config: the run.
      axes: logical axis names of each parameter.
      params: the parameters; only their shapes are used.
      devices: the devices to use, by default all.

    Raises:
      InputError: the batch or the mesh does not fit the number of devices.
    """
    grid = np.array(devices or jax.devices())
    count = grid.size
    if count == 1:
        return SingleDevice()
    if config.parallel == "mesh":
        data, model, expert = config.mesh
        data = count // (model * expert) if data == -1 else data
        if data * model * expert != count:
            raise InputError(
                f"mesh = {list(config.mesh)} (data, model, expert) does not make {count} devices"
            )
        mesh = Mesh(grid.reshape(data, model, expert), ("data", "model", "expert"))
        strategy = MeshParallel(mesh, ("data", "expert"), axes)
    else:
        experts = [
            params[name].shape[names.index("expert")]
            for name, names in axes.items()
            if "expert" in names
        ]
        spread = math.gcd(count, *experts) if experts else 1
        if spread == 1 and jax.process_count() == 1:
            strategy = DataParallel(Mesh(grid, ("data",)), ("data",), axes)
        else:
            mesh = Mesh(grid.reshape(-1, spread), ("data", "expert"))
            strategy = SpreadParallel(mesh, ("data", "expert"), axes)
    for stage in (config.pretrain, config.finetune):
        if stage and (stage.batch_size // stage.accumulate) % strategy.parts:
            micro = f"batch_size = {stage.batch_size} in {stage.accumulate} micro-batches"
            raise InputError(
                f"{micro} does not divide into the {strategy.parts} parts that {count} devices ask "
                "for"
            )
    return strategy


def _global_array(x: Any, place: NamedSharding) -> jax.Array:
    """An array over all hosts, from one that every host holds whole."""
    if jax.process_count() == 1:
        return jax.device_put(x, place)
    whole = np.asarray(x)
    return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])
