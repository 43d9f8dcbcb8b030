"""The training step, a pure function `(state, batch, learning_rate, seed) -> (state, metrics)`.

The same function runs on one device, under `pmap` and on a mesh. Only the way to sum over devices
differs, and it is passed in as `Devices`.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import arch_zoo
from arch_zoo.parametrization import STANDARD, Growth, growth
from arch_zoo.roles import role
from arch_zoo.skeleton import Batch
from train.run import losses
from train.study.config import StageConfig

Params = Mapping[str, jax.Array]
Axes = Mapping[str, tuple[str, ...]]  # logical axis names of each parameter
Metrics = dict[str, jax.Array]
Step = Callable[
    ["State", Batch, jax.typing.ArrayLike, jax.typing.ArrayLike], tuple["State", Metrics]
]


class State(NamedTuple):
    """What training changes: steps done (int32), parameters by name, the optimizer's state."""

    step: jax.Array
    params: Params
    optimizer: Any


@dataclasses.dataclass(frozen=True)
class Model:
    """An `arch_zoo` model as a pure function of a flat dictionary of parameters.

    Attributes:
      family: of the module.
      graphdef: the structure of the module.
      treedef: the structure of its parameters, in the order of `axes`.
      axes: logical axis names of each parameter, by its name (`encoder.blocks.0.attention.query`).
      constants: arrays that are not trained (tables, random features).
      growth: what an optimizer must know of it beside the base of its parametrisation.
    """

    family: str
    graphdef: Any
    treedef: Any
    axes: dict[str, tuple[str, ...]]
    constants: Any
    growth: Growth = STANDARD

    def merge(self, params: Mapping[str, jax.Array]) -> Any:
        """The module with these parameters."""
        leaves = [params[name] for name in self.axes]
        return nnx.merge(self.graphdef, jax.tree.unflatten(self.treedef, leaves), self.constants)


def make_model(config: arch_zoo.ModelConfig, seed: int) -> tuple[Model, Params]:
    """Builds a model and its initial parameters from a seed, in the host's memory."""
    # Not compiled as a whole: compiling the initialisation of a hundred parameters takes longer
    # than running it shape by shape.
    with _host_memory():
        graphdef, variables, constants = nnx.split(
            arch_zoo.build(config, jax.random.key(seed)), nnx.Param, ...
        )
    paths, _ = jax.tree_util.tree_flatten_with_path(
        variables, is_leaf=lambda x: isinstance(x, nnx.Variable)
    )
    axes = {
        ".".join(str(key.key) for key in path): tuple(variable.axes) for path, variable in paths
    }
    leaves, treedef = jax.tree.flatten(variables)
    model = Model(config.family, graphdef, treedef, axes, constants, growth(config))
    return model, dict(zip(axes, leaves, strict=True))


def balances(axes: Axes) -> tuple[str, ...]:
    """The names of the parameters that even out the loads of experts (`arch_zoo.roles`)."""
    return tuple(name for name, of_it in axes.items() if role(of_it) == "balance")


def without(tree: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A tree of parameters or gradients without those of these names."""
    return {name: x for name, x in tree.items() if name not in names}


def descend(axes: Axes, params: Params, directions: Params, learning_rate: Any) -> Params:
    """The parameters after a step. Those of balance go their own way, whatever the rate."""
    free = balances(axes)
    return {
        name: p - (directions[name] if name in free else learning_rate * directions[name])
        for name, p in params.items()
    }


def init_state(params: Params, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step, in the host's memory."""
    with _host_memory():
        return State(jnp.zeros([], jnp.int32), params, jax.jit(optimizer.init)(params))


def _host_memory() -> contextlib.AbstractContextManager[Any]:
    """Creates arrays in host memory, since a state for many devices may not fit on one of them."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names only the accelerator
        return contextlib.nullcontext()


def norm(tree: Params) -> jax.Array:
    """The Euclidean norm of all arrays together.

    First each array is summed over its last axis, then the results are added over arrays of one
    shape. A separate sum for each of several hundred arrays would be several hundred kernels, which
    is what costs time on an accelerator.
    """
    rows: dict[tuple[int, ...], list[jax.Array]] = {}
    for x in tree.values():
        rows.setdefault(x.shape[:-1], []).append(jnp.sum(jnp.square(x), axis=-1))
    return jnp.sqrt(sum(jnp.sum(functools.reduce(jnp.add, alike)) for alike in rows.values()))


@dataclasses.dataclass(frozen=True)
class Devices:
    """How a step works with the devices that hold the other parts of its batch.

    Attributes:
      count: the number of parts that the batch is cut into.
      sum: sums a tree of arrays over the parts.
      sum_gradients: the same for gradients by name; parts may hold different experts.
      index: the number of this part.
      spread_rows: cuts the rows of micro-batches [accumulate, B, ...] like those of a batch;
        otherwise they would be on few devices.
      map: turns a function of (parameters, batch, key) for one part into a function for the whole.
      expert_axis: the mapped axis over which experts are spread; None if every device holds all.
    """

    count: int = 1
    sum: Callable[[Any], Any] = lambda tree: tree
    sum_gradients: Callable[[Params], Params] = lambda grads: grads
    index: Callable[[], Any] = lambda: 0
    spread_rows: Callable[[Any], Any] = lambda micro: micro
    map: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function
    expert_axis: str | None = None


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    stage: StageConfig,
    devices: Devices = Devices(),
) -> Step:
    """Makes the step of one stage.

    The loss is the sum of token losses over the whole batch divided by the sum of its weights, plus
    auxiliary losses. It does not depend on how the batch is cut into devices and micro-batches. The
    metrics are scalars: loss, nll (of smoothed labels if the stage smooths them) and z_loss (nats
    per target token), auxiliary losses, the model's own diagnostics, target_tokens, gradient_norm
    and parameter_norm.
    """
    parts = devices.count * stage.accumulate

    def objective(
        params: Params, batch: Batch, key: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        module = model.merge(params)
        out = losses.token_losses(module, batch, key, stage.label_smoothing, devices.expert_axis)
        total, sums = losses.token_sums(out, batch, stage.z_loss)
        means = {name: value / weight for name, value in sums.items() if name != "weight"}
        aux = {name: value / parts for name, value in out.aux.items()}
        loss = total / weight + sum(aux.values())
        diagnostics = {name: value / parts for name, value in out.metrics.items()}
        return loss, {"loss": loss, **means, **aux, **diagnostics}

    def gradients(
        params: Params, batch: Batch, key: jax.Array, weight: jax.Array
    ) -> tuple[Params, Metrics]:
        def one(batch: Batch, key: jax.Array) -> tuple[Params, Metrics]:
            return jax.grad(objective, has_aux=True)(params, batch, key, weight)

        if stage.accumulate == 1:
            return one(batch, key)
        micro = devices.spread_rows(
            {name: x.reshape(stage.accumulate, -1, *x.shape[1:]) for name, x in batch.items()}
        )
        keys = jax.random.split(key, stage.accumulate)
        first = one({name: x[0] for name, x in micro.items()}, keys[0])
        rest = {name: x[1:] for name, x in micro.items()}
        add = lambda total, part: (jax.tree.map(jnp.add, total, one(*part)), None)
        return jax.lax.scan(add, first, (rest, keys[1:]))[0]

    def part(params: Params, batch: Batch, key: jax.Array) -> tuple[Params, Metrics]:
        key = jax.random.fold_in(key, devices.index())
        weight = devices.sum(jnp.sum(batch["decoder_loss_weights"].astype(jnp.float32)))
        grads, metrics = gradients(params, batch, key, jnp.maximum(weight, 1.0))
        return devices.sum_gradients(grads), {**devices.sum(metrics), "target_tokens": weight}

    def step(state: State, batch: Batch, learning_rate: Any, seed: Any) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        grads, metrics = devices.map(part)(state.params, batch, key)
        directions: Any
        directions, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = descend(model.axes, state.params, directions, learning_rate)
        slopes = without(grads, balances(model.axes))
        metrics |= {"gradient_norm": norm(slopes), "parameter_norm": norm(params)}
        return State(state.step + 1, params, optimizer_state), metrics

    return step
