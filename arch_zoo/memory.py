"""What a training step of a configuration holds in memory, estimated without allocating anything.

Activations are what the forward pass keeps for the backward pass, read off the traced derivative: exact for what is
kept, rematerialisation and the compute type included. What XLA holds for a moment inside either pass comes on top and
is bounded by its largest value; fusion makes both smaller in practice.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.accounting import abstract_model
from arch_zoo.config import ModelConfig

_FEW = 8  # sequences: more than one, as those of one sequence are spared some steps (groups of one row, say)


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step holds, without the optimizer's state.

    Attributes:
      parameters: weights in float32; gradients take as much again.
      activations: kept for the backward pass, for each sequence.
      largest: the largest single value of the forward pass for each sequence: the logits, as a rule.
    """

    parameters: int
    activations: int
    largest: int

    def step(self, sequences: int) -> int:
        """Parameters, gradients and the activations of `sequences` sequences on one device."""
        return 2 * self.parameters + sequences * (self.activations + self.largest)


def estimate_memory(cfg: ModelConfig, input_length: int = 512, target_length: int = 114) -> MemoryEstimate:
    """Estimates the memory of a training step on sequences of these lengths."""
    kept = [_kept(cfg, sequences, input_length, target_length) for sequences in (_FEW, 2 * _FEW)]
    values = [_values(cfg, sequences, input_length, target_length) for sequences in (_FEW, 2 * _FEW)]
    params = nnx.state(abstract_model(cfg), nnx.Param)
    # The difference of two batch sizes leaves out what does not grow with the batch: weights, biases, masks.
    largest = max(two - one for one, two in zip(*values, strict=True))
    return MemoryEstimate(_bytes(params), (kept[1] - kept[0]) // _FEW, largest // _FEW)


def _kept(cfg: ModelConfig, sequences: int, input_length: int, target_length: int) -> int:
    """Bytes of everything that the derivative of the loss refers to."""
    graph, params, rest = nnx.split(abstract_model(cfg), nnx.Param, ...)

    def derivative(params, rest, batch, key):
        return jax.vjp(lambda params: _loss(nnx.merge(graph, params, rest), batch, key), params)[1]

    arguments = (params, rest, _batch(sequences, input_length, target_length), jax.random.key(0))
    return _bytes(jax.eval_shape(derivative, *arguments))


def _values(cfg: ModelConfig, sequences: int, input_length: int, target_length: int) -> list[int]:
    """Bytes of every value that the forward pass computes."""
    batch = _batch(sequences, input_length, target_length)
    jaxpr = jax.make_jaxpr(functools.partial(_loss, key=jax.random.key(0)))(abstract_model(cfg), batch)
    return [_bytes(variable.aval) for eqn in jaxpr.jaxpr.eqns for variable in eqn.outvars]


def _loss(model, batch, key):
    out = model.token_nll(batch, key=key, train=True)
    return jnp.sum(out.nll) + sum(out.aux.values())


def _batch(sequences: int, input_length: int, target_length: int) -> dict[str, jax.ShapeDtypeStruct]:
    lengths = {
        "encoder_input_tokens": input_length,
        "decoder_input_tokens": target_length,
        "decoder_target_tokens": target_length,
    }
    return {name: jax.ShapeDtypeStruct((sequences, length), jnp.int32) for name, length in lengths.items()}


def _bytes(tree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
