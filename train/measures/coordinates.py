"""The coordinate check: does a step change activations as much in wide and deep models?

A learning rate carries over from a small model to a large one only if training changes what each
module computes by as much in both (Yang et al., 2022, arXiv 2203.03466, appendix D.1). A few steps
on one batch show it. For each module the mean absolute output, and how much it has changed since
initialisation, are power laws in the width or the depth. The exponents of the changes, here called
slopes, must be about 0.

Along the depth only the outputs of whole stacks are compared. What is inside the last block reads
what all blocks before it have changed, and these are half of two blocks, but nearly all of many.
The residual stream itself gets smaller where what each layer adds is divided by the depth; the norm
at the end of a stack takes that out.

The logits may also shrink, at most like D^-1/2: at first they are sums of D random terms divided by
D, until the head has learned.
"""

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy import stats

import arch_zoo
from arch_zoo import sizes
from arch_zoo.families import MODELS
from arch_zoo.skeleton import Batch
from train.measures.settings import Coordinates
from train.run.optimizers import make_optimizer
from train.run.step import Model, Params, descend, make_model
from train.study import declare
from train.study.config import OptimizerConfig

LOGITS = "logits"
_SHRINKING = 0.5  # exponent with which random logits may become smaller
_LEAST = 1e-30  # stands for no change, which has no logarithm

Verdict = Literal["passes", "fails", "cannot be told"]


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What one module computes in models of several sizes.

    Attributes:
      name: of the module; of the blocks of a stack, the last one counts.
      sizes: what grows.
      absolute: the mean absolute output, initially and after each step [1 + steps, sizes, seeds].
      change: of its difference to the initial output, the same [steps, sizes, seeds].
      settings: of the check.
    """

    name: str
    sizes: tuple[int, ...]
    absolute: np.ndarray
    change: np.ndarray
    settings: Coordinates

    def slope(self, values_NM: np.ndarray) -> tuple[float, float, float]:
        """The exponent of values [sizes, seeds], and its interval from those of the seeds."""
        x = np.log(self.sizes)
        slopes_M = np.polyfit(x, np.log(np.maximum(values_NM, _LEAST)), 1)[0]
        reach = stats.t.ppf((1 + self.settings.level) / 2, len(slopes_M) - 1)
        half = reach * slopes_M.std(ddof=1) / math.sqrt(len(slopes_M))
        return float(slopes_M.mean()), float(slopes_M.mean() - half), float(slopes_M.mean() + half)

    @property
    def verdict(self) -> Verdict:
        """Whether the slope of the change is within the tolerance after every step."""
        most = self.settings.tolerance
        least = -most - (_SHRINKING if self.name == LOGITS else 0)
        intervals = [self.slope(values)[1:] for values in self.change]
        if any(high < least or low > most for low, high in intervals):
            return "fails"
        inside = all(least <= low and high <= most for low, high in intervals)
        return "passes" if inside else "cannot be told"


def check(settings: Coordinates) -> list[Outputs]:
    """Trains the models; one entry for each module that all of them have.

    Raises:
      ConfigError: there is no such model.
    """
    grown = [_size(settings, multiple) for multiple in sorted(set(settings.multiples))]
    found = [_of_one(settings, size) for size in grown]
    if settings.along == "width":
        values = [sizes.dimensions(size).embed_dim for size in grown]
    else:
        values = [sizes.dimensions(size).num_decoder_layers for size in grown]
    return [
        Outputs(
            name,
            tuple(values),
            np.stack([one[name][0] for one in found], axis=1),
            np.stack([one[name][1] for one in found], axis=1),
            settings,
        )
        for name in found[0]
        if all(name in one for one in found)
        and not (settings.along == "depth" and ".block" in name)
    ]


def table(found: list[Outputs]) -> list[str]:
    """A line for each module, and one for all of them together."""
    settings = found[0].settings
    grown = ", ".join(map(str, found[0].sizes))
    lines = [
        f"{settings.architecture}, {settings.parametrization}, {settings.optimizer} at rate "
        f"{settings.rate:g}, {settings.along} {grown}, {settings.seeds} seeds",
        f"slopes of the mean absolute output and of its change after step 1 to {settings.steps}, "
        f"with the {settings.level:.0%} interval after the last",
    ]
    width = max(len(one.name) for one in found)
    steps = "  ".join(f"{f'step {step}':>6}" for step in range(1, settings.steps + 1))
    lines.append(f"{'module':{width}}  {'output':>6}  {steps}")
    for one in found:
        slopes = [one.slope(values) for values in one.change]
        changes = "  ".join(f"{slope:6.2f}" for slope, _, _ in slopes)
        interval = f"[{slopes[-1][1]:.2f}, {slopes[-1][2]:.2f}]"
        said = "" if one.verdict == "passes" else f"  {one.verdict}"
        absolute = one.slope(one.absolute[-1])[0]
        lines.append(f"{one.name:{width}}  {absolute:6.2f}  {changes}  {interval}{said}")
    count = {said: sum(one.verdict == said for one in found) for said in get_args(Verdict)}
    lines.append(
        f"{count['passes']} modules pass, {count['fails']} fail, of {count['cannot be told']} it "
        f"cannot be told; a slope up to {settings.tolerance:g} passes"
    )
    return lines


def _size(settings: Coordinates, multiple: int) -> str:
    base = sizes.dimensions(settings.size)
    if settings.along == "width":
        return declare.scale(settings.size, "W", base.embed_dim * multiple)
    deeper = {
        "EL": base.num_encoder_layers * multiple,
        "DL": base.num_decoder_layers * multiple,
    }
    if settings.family == "decoder_only":
        del deeper["EL"]
    size = settings.size
    for operator, layers in deeper.items():
        size = declare.scale(size, operator, layers)
    return size


def _of_one(settings: Coordinates, size: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each module of one model the mean absolute outputs and changes, [steps, seeds] each."""
    carried = {} if settings.parametrization == "standard" else {"base_size": settings.size}
    cfg = arch_zoo.config(
        settings.architecture,
        size,
        **arch_zoo.get(settings.architecture).cpu_options,
        vocab_size=settings.vocab,
        max_input_length=settings.length,
        max_target_length=settings.length,
        family=settings.family,
        parametrization=settings.parametrization,
        **carried,
    )
    model, _ = make_model(cfg, 0)
    config = OptimizerConfig(name=settings.optimizer, min_factored_size=32)
    optimizer = make_optimizer(config, model.axes, model.growth)

    @jax.jit
    def step(params: Params, state: Any, batch: Batch) -> tuple[Params, Any]:
        def loss(params: Params) -> jax.Array:
            return model.merge(params).token_nll(batch).nll.mean()

        gradients: Any = jax.grad(loss)(params)
        directions: Any
        directions, state = optimizer.update(gradients, state, params)  # pyright: ignore[reportArgumentType]
        return descend(model.axes, params, directions, settings.rate), state

    compute = jax.jit(functools.partial(outputs, model))
    rows = []  # of each seed the outputs after 0, 1, 2, ... steps
    for seed in range(settings.seeds):
        params, batch = make_model(cfg, seed)[1], _batch(cfg, settings, seed)
        state, row = optimizer.init(params), [compute(params, batch)]  # pyright: ignore[reportArgumentType]
        for _ in range(settings.steps):
            params, state = step(params, state, batch)
            row.append(compute(params, batch))
        rows.append(row)
    mean = lambda x: float(jnp.abs(x).mean())
    return {
        name: (
            np.array([[mean(now[name]) for now in row] for row in rows]).T,
            np.array([[mean(now[name] - row[0][name]) for now in row[1:]] for row in rows]).T,
        )
        for name in rows[0][0]
    }


def _batch(cfg: arch_zoo.ModelConfig, settings: Coordinates, seed: int) -> Batch:
    """Random tokens: the targets of a decoder are its inputs, one position later."""
    key = jax.random.key(seed)
    lengths = [settings.length] * len(cfg.sides)
    batch = {
        name: jax.random.randint(jax.random.fold_in(key, number), of_it.shape, 2, settings.vocab)
        for number, (name, of_it) in enumerate(
            MODELS[cfg.family].batch_spec(settings.rows, *lengths).items()
        )
    }
    targets_BT = batch["decoder_target_tokens"]
    return batch | {"decoder_input_tokens": jnp.pad(targets_BT[:, :-1], ((0, 0), (1, 0)))}


def outputs(model: Model, params: Params, batch: Batch) -> dict[str, jax.Array]:
    """What every module computes, by its name; of modules that run twice, the last time counts."""
    merged, found = model.merge(params), {}
    with _recorded(merged, found):
        found[LOGITS] = merged(batch).logits
    return found


@contextlib.contextmanager
def _recorded(merged: Any, found: dict[str, jax.Array]) -> Iterator[None]:
    """Keeps the outputs of the modules in `merged` while it runs."""
    modules = {
        path: node
        for path, node in nnx.iter_graph(merged)
        if path and isinstance(node, nnx.Module) and callable(node)
    }
    last = {_name(path): modules[path] for path in sorted(modules, key=_block)}
    kinds = {name: type(node) for name, node in last.items()}
    for name, node in last.items():
        object.__setattr__(node, "__class__", _recording(kinds[name], name, found))
    try:
        yield
    finally:
        for name, node in last.items():
            object.__setattr__(node, "__class__", kinds[name])


def _recording(kind: type, name: str, found: dict[str, jax.Array]) -> type:
    """The same class of modules, which also keeps what it returns."""

    def call(self: Any, *args: Any, **named: Any) -> Any:
        result: Any = kind.__call__(self, *args, **named)
        output = result[0] if isinstance(result, tuple) else result
        if isinstance(output, jax.Array):
            found[name] = output
        return result

    return type(kind.__name__, (kind,), {"__call__": call})


def _name(path: tuple[Any, ...]) -> str:
    """`encoder.block.self_attention.norm`, without the number of the block."""
    return re.sub(r"blocks\.\d+", "block", ".".join(map(str, path)))


def _block(path: tuple[Any, ...]) -> int:
    """The number of the block that a module is in."""
    return next((part for part in path if isinstance(part, int)), 0)
