"""Optimizers and learning-rate schedules.

An optimizer here is an optax transformation that turns gradients into a *direction*. The step
multiplies it by the learning rate, which is an input computed on the host. So pretraining and
finetuning can share one compiled step.

Adafactor (Shazeer & Stern, 2018, arXiv 1804.04235) is implemented here because optax factors the
second moment over the two largest axes of an array. For expert weights [E, D, F] that is wrong as
soon as E is large. Here the logical names of a parameter decide: the last two axes of a matrix,
never the expert axis.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from arch_zoo.parametrization import STANDARD, Growth
from arch_zoo.roles import Role, role
from train.run.step import Axes, Params, balances, without
from train.study.config import OptimizerConfig

EXPERT_AXIS = "expert"
_ORTHOGONAL = ("matrix", "expert")  # roles of the parameters that Muon's own steps are for
_ADAMS_RMS = 0.2  # of AdamW's updates, which Muon's then have (Liu et al., arXiv 2502.16982)


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The learning rate of step `step`, counted from 0, of `total_steps`."""
    rate = _before_decay(config, step, total_steps)
    left = (total_steps - step) / config.decay_steps if config.decay_steps else 1.0
    if left >= 1:
        return rate
    return rate * (left if config.decay_shape == "linear" else 1 - math.sqrt(1 - left))


def _before_decay(config: OptimizerConfig, step: int, total_steps: int) -> float:
    warmup = config.warmup_steps
    if config.schedule == "inverse_sqrt":
        # T5's schedule: constant during warm-up, so that both parts meet.
        return config.learning_rate / math.sqrt(max(step, warmup, 1))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(total_steps - warmup, 1)
    factor = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done}[
        config.schedule
    ]
    return config.learning_rate * factor


def make_optimizer(
    config: OptimizerConfig, axes: Axes, growth: Growth = STANDARD
) -> optax.GradientTransformation:
    """Builds the transformation from gradients to descent directions per unit of learning rate.

    Biases that even out the loads of experts have directions of their own, which the rate does not
    change (`train.run.step.descend`). No setting but `balance_rate` affects them, and they affect
    no other parameter.

    Args:
      config: the optimizer's settings.
      axes: logical axis names of each parameter, one name per dimension.
      growth: of the model over the base of its parametrisation.
    """
    balanced = balances(axes)
    axes = without(axes, balanced)
    roles = {name: role(of_it) for name, of_it in axes.items()}
    parts = [OPTIMIZERS[config.name](config, axes)]
    if growth.epsilon != 1:
        # Adam divides by |gradient| + epsilon: larger gradients stand for a smaller epsilon. Other
        # optimizers do not depend on the size of all gradients.
        parts.insert(0, optax.scale(1 / growth.epsilon))
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if growth.ratios:
        carried = {
            name: getattr(growth.ratio(name), _steps_of(config, role(of_it)))
            for name, of_it in axes.items()
        }
        parts.append(optax.stateless(lambda updates, _: _times(updates, carried)))
    if config.weight_decay:
        decayed = {name: of_it in config.decayed for name, of_it in roles.items()}
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decayed))
    if config.rates:
        factors = {name: config.rates.get(of_it, 1.0) for name, of_it in roles.items()}
        parts.append(optax.stateless(lambda updates, _: _times(updates, factors)))
    rest = optax.chain(*parts)
    return _beside(rest, balanced, config.balance_rate) if balanced else rest


def _beside(
    rest: optax.GradientTransformation, balanced: Sequence[str], rate: float
) -> optax.GradientTransformation:
    """Moves the biases `balanced` by `rate` against their gradient's sign, the others by `rest`.

    The gradient of such a bias is positive where its expert has more than the mean load.
    """

    def init(params: Params) -> Any:
        return rest.init(without(params, balanced))

    def update(grads: Params, state: Any, params: Params | None = None) -> tuple[Any, Any]:
        others = None if params is None else without(params, balanced)
        directions: Any
        directions, state = rest.update(without(grads, balanced), state, others)
        return directions | {name: rate * jnp.sign(grads[name]) for name in balanced}, state

    # Optax's types do not know that parameters are a flat dictionary here.
    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _steps_of(config: OptimizerConfig, of_it: Role) -> str:
    """What the size of an optimizer's steps is tied to; names a property of `Ratio`."""
    if config.name == "muon" and of_it in _ORTHOGONAL:
        return "of_orthogonal"
    if config.name == "adafactor" and config.scale_by_parameter:
        return "of_relative"
    return "of_entries"


def _times(updates: Any, factors: Mapping[str, float]) -> Any:
    return {name: factors[name] * update for name, update in updates.items()}


def muon(config: OptimizerConfig, axes: Axes) -> optax.GradientTransformation:
    """Muon for matrices and experts, over their last two axes; Adam for the other parameters."""
    matrices = {
        name: contrib.MuonDimensionNumbers(len(of_it) - 2, len(of_it) - 1)
        for name, of_it in axes.items()
        if role(of_it) in _ORTHOGONAL
    }
    numbers: Any = lambda _: {name: matrices.get(name) for name in axes}
    # Its rate of -1 gives directions of descent, as other rows of the table do. Its own Adam has
    # Nesterov's momentum, and so takes steps half as large again at first.
    orthogonal = contrib.muon(
        -1.0,
        beta=config.beta1,
        muon_weight_dimension_numbers=numbers,
        consistent_rms=_ADAMS_RMS,
    )
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2)
    labels = {name: "muon" if name in matrices else "adam" for name in axes}
    return optax.partition({"muon": orthogonal, "adam": adam}, labels)


class AdafactorState(NamedTuple):
    """Second moments in f32.

    Attributes:
      count: steps done.
      row: [..., R] of factored parameters.
      column: [..., C] of factored parameters.
      full: those of the other parameters.
    """

    count: jax.Array
    row: dict[str, jax.Array]
    column: dict[str, jax.Array]
    full: dict[str, jax.Array]


def is_factored(shape: tuple[int, ...], axes: tuple[str | None, ...], min_size: int) -> bool:
    """Whether a second moment is stored as a row and a column over the last two axes."""
    return len(shape) >= 2 and EXPERT_AXIS not in axes[-2:] and min(shape[-2:]) >= min_size


def scale_by_adafactor(config: OptimizerConfig, axes: Axes) -> optax.GradientTransformation:
    """Adafactor without momentum.

    Second moments are factored, updates clipped, and steps relative to the parameter's RMS.
    """
    tiny_gradient, tiny_parameter = 1e-30, 1e-3  # epsilon_1 and epsilon_2 of the paper

    def factored(name: str, p: jax.Array) -> bool:
        return is_factored(p.shape, axes[name], config.min_factored_size)

    def init(params: Params) -> AdafactorState:
        row, column, full = {}, {}, {}
        for name, p in params.items():
            if factored(name, p):
                row[name] = jnp.zeros(p.shape[:-1], jnp.float32)
                column[name] = jnp.zeros((*p.shape[:-2], p.shape[-1]), jnp.float32)
            else:
                full[name] = jnp.zeros(p.shape, jnp.float32)
        return AdafactorState(jnp.zeros([], jnp.int32), row, column, full)

    def finish(u: jax.Array, p: jax.Array) -> jax.Array:
        if config.clip_threshold:
            u /= jnp.maximum(1.0, _rms(u) / config.clip_threshold)
        return u * jnp.maximum(tiny_parameter, _rms(p)) if config.scale_by_parameter else u

    def one_factored(g, p, r, c, decay):  # noqa: ANN001, ANN202
        square = jnp.square(g) + tiny_gradient
        r = decay * r + (1 - decay) * square.mean(-1)
        c = decay * c + (1 - decay) * square.mean(-2)
        u = (
            g
            * jax.lax.rsqrt(r / r.mean(-1, keepdims=True))[..., None]
            * jax.lax.rsqrt(c)[..., None, :]
        )
        return finish(u, p), r, c

    def one_full(g, p, v, decay):  # noqa: ANN001, ANN202
        v = decay * v + (1 - decay) * (jnp.square(g) + tiny_gradient)
        return finish(g * jax.lax.rsqrt(v), p), v

    def update(
        grads: Params, state: AdafactorState, params: Params | None = None
    ) -> tuple[Any, AdafactorState]:
        assert params is not None
        decay = 1.0 - (state.count + 1.0) ** -config.decay_exponent
        updates, row, column, full = {}, {}, {}, {}
        for names in _alike(
            {name: (p.shape, factored(name, p), axes[name]) for name, p in params.items()}
        ):
            if names[0] in state.full:
                together = _together(one_full, names, (grads, params, state.full), decay)
                _unpack(names, together, (updates, full))
            else:
                together = _together(
                    one_factored, names, (grads, params, state.row, state.column), decay
                )
                _unpack(names, together, (updates, row, column))
        return updates, AdafactorState(state.count + 1, row, column, full)

    # Optax's types do not know that parameters are a flat dictionary here.
    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


# Parameters with up to this many elements are stacked; copying larger ones would cost more than it
# saves. An accelerator copies as fast as it computes here, and each kernel has a cost, so there the
# limit is the size of a feed-forward matrix of the size `large`.
_SMALL_ON_CPU, _SMALL = 1 << 16, 1 << 22
_STACK = 1 << 26  # largest number of elements of a stack, so that its copies need little memory


def _alike(
    kinds: Mapping[str, tuple[tuple[int, ...], bool, tuple[str | None, ...]]],
) -> list[list[str]]:
    """Groups of parameter names: small parameters of one kind (shape, factored, axes) are together.

    A model has hundreds of parameters with few shapes. Processing those of one shape together makes
    a step of the smallest models 1.5 times as fast, and its compilation as well. Every parameter
    keeps its own statistics.
    """
    small = _SMALL_ON_CPU if jax.default_backend() == "cpu" else _SMALL
    groups: dict[Any, list[str]] = {}
    for name, kind in kinds.items():
        groups.setdefault(kind if math.prod(kind[0]) <= small else name, []).append(name)
    parts = []
    for names in groups.values():
        most = max(_STACK // max(math.prod(kinds[names[0]][0]), 1), 1)
        parts += [names[start : start + most] for start in range(0, len(names), most)]
    return parts


def _together(
    function: Any, names: list[str], trees: tuple[Params, ...], decay: jax.Array
) -> tuple[jax.Array, ...]:
    """Applies `function` to parameters of one shape, stacked on a new first axis."""
    stacked = [jnp.stack([tree[name] for name in names]) for tree in trees]
    return jax.vmap(function, in_axes=(*[0] * len(trees), None))(*stacked, decay)


def _unpack(
    names: list[str], stacked: tuple[jax.Array, ...], trees: tuple[dict[str, jax.Array], ...]
) -> None:
    for tree, values in zip(trees, stacked, strict=True):
        for i, name in enumerate(names):
            tree[name] = values[i]


def _rms(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


OPTIMIZERS: dict[str, Callable[[OptimizerConfig, Axes], optax.GradientTransformation]] = {
    "adafactor": scale_by_adafactor,
    "adamw": lambda config, _: optax.scale_by_adam(b1=config.beta1, b2=config.beta2),
    "lion": lambda config, _: optax.scale_by_lion(b1=config.beta1, b2=config.beta2),
    "muon": muon,
}
"""Makes each optimizer's descent directions per unit of learning rate."""
