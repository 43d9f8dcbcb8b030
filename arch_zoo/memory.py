"""Estimates the memory of a training step from the configuration, without allocating anything.

Activations are the values that the forward pass keeps for the backward pass. They are found in the
traced derivative, which accounts for rematerialisation and the compute type. Besides them XLA holds
temporary values inside each pass; the largest value is taken as their bound. On a GPU, XLA keeps
less: attention runs in cuDNN where its rules allow it, and cheap elementwise work and changes of
shape are repeated when their result is read. There the largest value is held together with its
gradient.
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from arch_zoo.accounting import abstract_model
from arch_zoo.config import ModelConfig
from arch_zoo.families import MODELS
from arch_zoo.layers import fused_attention
from arch_zoo.skeleton import BatchSpec

_FEW = 8  # sequences; a single one would skip some steps, such as groups of rows

# Work that XLA repeats where its result is read: changes of shape, comparisons, elementwise sums
# and products.
_CHEAP = frozenset(
    (
        "broadcast_in_dim",
        "concatenate",
        "copy",
        "pad",
        "reshape",
        "rev",
        "slice",
        "squeeze",
        "transpose",
        "and",
        "eq",
        "ge",
        "gt",
        "le",
        "lt",
        "ne",
        "not",
        "or",
        "select_n",
        "abs",
        "add",
        "add_any",
        "convert_element_type",
        "integer_pow",
        "iota",
        "max",
        "min",
        "mul",
        "neg",
        "sign",
        "square",
        "stop_gradient",
        "sub",
    )
)
_SAME_NUMBERS = frozenset(("convert_element_type", "copy", "reshape", "squeeze", "transpose"))


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step holds, without the optimizer's state.

    Attributes:
      parameters: weights in float32; gradients take as much again.
      activations: for each sequence, what is kept for the backward pass.
      largest: for each sequence, the largest temporary value of the forward pass, usually the
        logits, and on a GPU its gradient as well.
    """

    parameters: int
    activations: int
    largest: int

    def step(self, sequences: int) -> int:
        """Parameters, gradients and the activations of `sequences` sequences on one device."""
        return 2 * self.parameters + sequences * (self.activations + self.largest)


def estimate_memory(
    cfg: ModelConfig, *lengths: int, gpu: bool = False, **named_lengths: int
) -> MemoryEstimate:
    """Estimates the memory of a training step, in bytes.

    The lengths are those of the sequences, as for `count_flops`.
    """
    with fused_attention.outlined() if gpu else fused_attention.disallowed():
        spec = MODELS[cfg.family].batch_spec
        specs = [spec(rows, *lengths, **named_lengths) for rows in (_FEW, 2 * _FEW)]
        kept = [_kept(cfg, spec, gpu=gpu) for spec in specs]
        values = [_values(cfg, spec) for spec in specs]
    params = nnx.state(abstract_model(cfg), nnx.Param)
    # The difference of two batch sizes leaves out weights, biases and masks, which do not grow with
    # the batch.
    largest = max(two - one for one, two in zip(*values, strict=True)) * (2 if gpu else 1)
    return MemoryEstimate(_bytes(params), (kept[1] - kept[0]) // _FEW, largest // _FEW)


def _kept(cfg: ModelConfig, batch: BatchSpec, *, gpu: bool) -> int:
    """Bytes of the values that the derivative of the loss keeps."""
    graph, params, rest = nnx.split(abstract_model(cfg), nnx.Param, ...)

    def referred_to(params, rest, batch, key):
        return jax.tree.leaves(
            jax.vjp(lambda params: _loss(nnx.merge(graph, params, rest), batch, key), params)[1]
        )

    arguments = (params, rest, batch, jax.random.key(0))
    if not gpu:
        return _bytes(jax.eval_shape(referred_to, *arguments))
    jaxpr = jax.make_jaxpr(referred_to)(*arguments).jaxpr
    made: dict[Any, _Made] = {}
    return _bytes_kept(_inlined(jaxpr, jaxpr.invars, made), made)


@dataclasses.dataclass(frozen=True)
class _Made:
    """How a value is computed: primitive, inputs, equation, and which of its results it is."""

    primitive: str
    inputs: Sequence[Any] = ()
    equation: Any = None
    index: int = 0


def _inlined(jaxpr: Any, inputs: Sequence[Any], made: dict[Any, _Made]) -> list[Any]:
    """The results of a program with its function calls inlined.

    Records in `made` how each value is computed.
    """
    values = dict(zip(jaxpr.invars, inputs, strict=True))
    read = lambda atom: atom if isinstance(atom, core.Literal) else values.get(atom, atom)
    for equation in jaxpr.eqns:
        given, name = [read(atom) for atom in equation.invars], equation.primitive.name
        called = None if name in ("scan", "while", "cond") else _called(equation)
        if called is None:
            made |= {
                result: _Made(name, given, equation, index)
                for index, result in enumerate(equation.outvars)
            }
        else:
            values |= zip(equation.outvars, _inlined(called, given, made), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _called(equation: Any) -> Any:
    """The program that an equation calls, or None if it calls none."""
    for value in equation.params.values():
        program = getattr(value, "jaxpr", value)
        if hasattr(program, "eqns") and len(program.invars) == len(equation.invars):
            return program
    return None


def _bytes_kept(results: Iterable[Any], made: dict[Any, _Made]) -> int:
    """Bytes of those `results` that are neither inputs nor cheap to recompute from the others."""
    results = {atom for atom in results if not isinstance(atom, core.Literal) and atom in made}
    known: dict[Any, bool] = {}

    def again(atom: Any) -> bool:
        if atom not in known:
            known[atom] = made[atom].primitive in _CHEAP and all(map(at_hand, made[atom].inputs))
        return known[atom]

    def at_hand(atom: Any) -> bool:
        return isinstance(atom, core.Literal) or atom not in made or atom in results or again(atom)

    kept = [atom for atom in results if not again(atom)]
    looped: dict[int, tuple[Any, list[int]]] = {}
    total = 0
    for atom in kept:
        how = made[atom]
        if how.primitive == "scan":
            looped.setdefault(id(how.equation), (how.equation, []))[1].append(how.index)
        else:
            total += math.prod(atom.aval.shape) * _width(atom, made)
    return total + sum(_bytes_of_loop(equation, indices) for equation, indices in looped.values())


def _bytes_of_loop(equation: Any, indices: list[int]) -> int:
    """Bytes kept of the results of a scan.

    Its carry once, and what it stacks at every step as in its body.
    """
    body = equation.params["jaxpr"].jaxpr
    # Releases of JAX differ in where they say how many values are carried. So compare ranks: a
    # value that is stacked, or taken from a stack, has one axis more outside the body.
    carried = sum(
        out.aval.ndim == inner.aval.ndim
        for out, inner in zip(equation.outvars, body.outvars, strict=True)
    )
    sliced = sum(
        out.aval.ndim > inner.aval.ndim
        for out, inner in zip(equation.invars, body.invars, strict=True)
    )
    end = len(body.invars) - sliced
    made: dict[Any, _Made] = {}
    outputs = _inlined(body, body.invars, made)
    # The carry of a step is not kept unless it is stacked, so it counts as computed and not as an
    # input.
    made |= {atom: _Made("carry") for atom in body.invars[end - carried : end]}
    stacked = [outputs[index] for index in indices if index >= carried]
    once = sum(_bytes(equation.outvars[index].aval) for index in indices if index < carried)
    return once + equation.params["length"] * _bytes_kept(stacked, made)


def _width(atom: Any, made: dict[Any, _Made]) -> int:
    """Bytes of one number: XLA keeps a value in the narrowest type that it has on the way."""
    width = atom.aval.dtype.itemsize
    while atom in made and made[atom].primitive in _SAME_NUMBERS:
        (atom,) = made[atom].inputs
        width = min(width, atom.aval.dtype.itemsize)
    return width


def _values(cfg: ModelConfig, batch: BatchSpec) -> list[int]:
    """Bytes of every value that the forward pass computes."""
    jaxpr = jax.make_jaxpr(functools.partial(_loss, key=jax.random.key(0)))(
        abstract_model(cfg), batch
    )
    return [_bytes(variable.aval) for eqn in jaxpr.jaxpr.eqns for variable in eqn.outvars]


def _loss(model, batch, key):
    out = model.token_nll(batch, key=key, train=True)
    return jnp.sum(out.nll) + sum(out.aux.values())


def _bytes(tree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
