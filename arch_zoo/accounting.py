"""Parameters and FLOPs of a configuration, from the model itself, without allocating anything.

FLOPs are read off the traced forward pass: 2 for each multiply-add of a matrix product. Normalisations, softmaxes,
activations and lookups are not counted, as is usual. The taps of depthwise convolutions are elementwise products; the
layer that owns them puts them in a scope called `depthwise`, where each product counts as a multiply-add. A token that
goes to one of several experts counts once, whatever places stay empty: `experts.dropless` is counted as a whole.
"""

import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core as jex_core

from arch_zoo.config import ModelConfig
from arch_zoo.layers.experts import DROPLESS
from arch_zoo.seq2seq import Seq2Seq


@dataclasses.dataclass(frozen=True)
class ParamCount:
    """Numbers of parameters.

    Attributes:
      total: all of them.
      embedding: the token tables and their factors.
      active: those that one token meets: of E experts, one.
      by_part: all of them, by stack and layer.
    """

    total: int
    embedding: int
    active: int
    by_part: dict[str, int]

    @property
    def non_embedding(self) -> int:
        """All but the token tables."""
        return self.total - self.embedding


@dataclasses.dataclass(frozen=True)
class FlopCount:
    """Floating point operations for one sequence, a multiply-add being two.

    Attributes:
      forward: one forward pass.
      by_part: the same by stack and layer; `products` are those of attention weights with keys and values.
    """

    forward: int
    by_part: dict[str, int]

    @property
    def train(self) -> int:
        """One training step: the backward pass costs twice the forward pass; recomputation is not counted."""
        return 3 * self.forward


@functools.lru_cache(maxsize=256)
def abstract_model(cfg: ModelConfig) -> Seq2Seq:
    """The model with shapes in place of arrays."""
    return jax.eval_shape(functools.partial(Seq2Seq, cfg), jax.random.key(0))


def count_params(cfg: ModelConfig) -> ParamCount:
    """Counts the parameters of `cfg`."""
    total = embedding = active = 0
    by_part: collections.Counter[str] = collections.Counter()
    for path, param in nnx.to_flat_state(nnx.state(abstract_model(cfg), nnx.Param)):
        size = math.prod(param.shape)
        experts = math.prod(n for n, axis in zip(param.shape, param.axes, strict=True) if axis == "expert")
        total += size
        active += size // experts
        embedding += size if path[0] == "embedding" else 0
        by_part[_param_part(path)] += size
    return ParamCount(total, embedding, active, dict(by_part))


def count_flops(cfg: ModelConfig, input_length: int = 512, target_length: int = 114) -> FlopCount:
    """Counts the FLOPs of `cfg` for one sequence of `input_length` input and `target_length` target tokens."""
    batch = {
        "encoder_input_tokens": jax.ShapeDtypeStruct((1, input_length), jnp.int32),
        "decoder_input_tokens": jax.ShapeDtypeStruct((1, target_length), jnp.int32),
        "decoder_target_tokens": jax.ShapeDtypeStruct((1, target_length), jnp.int32),
    }
    # Unrolled, so that every layer is seen under its own name; scanning changes no count.
    model = abstract_model(dataclasses.replace(cfg, scan_layers=False, remat="none"))
    jaxpr = jax.make_jaxpr(lambda model, batch: model.token_nll(batch)[:2])(model, batch)
    by_part: collections.Counter[str] = collections.Counter()
    _walk(jaxpr.jaxpr, "", 1, by_part)
    return FlopCount(sum(by_part.values()), dict(by_part))


def _param_part(path: tuple) -> str:
    """`encoder/self_attention` for a weight at `encoder.blocks.3.self_attention.layer.query`."""
    return f"{path[0]}/{path[3]}" if path[1] == "blocks" else "/".join(map(str, path[:2]))


def _walk(jaxpr, scope: str, times: int, by_part: collections.Counter[str]) -> None:
    """Adds the FLOPs of every equation, those inside loops as often as they run, to the part its scope names."""
    for eqn in jaxpr.eqns:
        inner = "/".join(filter(None, [scope, str(eqn.source_info.name_stack)]))
        flops = times * _flops(eqn, inner)
        if flops:  # einsum adds its subscripts to the scope
            by_part["/".join(name for name in inner.split("/") if "->" not in name)] += flops
        repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for sub in () if flops else jex_core.jaxprs_in_params(eqn.params):
            _walk(sub, inner, times * repeats, by_part)


def _flops(eqn, scope: str) -> int:
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2 * eqn.outvars[0].aval.size * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
    if eqn.primitive.name == "mul" and "depthwise" in scope.split("/"):
        return 2 * eqn.outvars[0].aval.size
    if eqn.primitive.name == "jit" and eqn.params["name"] == DROPLESS:
        tokens_BLD, *_, wi_EDF, wo_EFD = (operand.aval.shape for operand in eqn.invars)
        return 2 * math.prod(tokens_BLD[:-1]) * (math.prod(wi_EDF[1:]) + math.prod(wo_EFD[1:]))
    if eqn.primitive.name in ("conv_general_dilated", "ragged_dot_general", "while"):
        raise NotImplementedError(f"no FLOP count for {eqn.primitive.name} in {scope}")
    return 0
