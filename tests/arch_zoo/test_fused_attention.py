"""When cuDNN computes attention, and that its entry point computes T5's attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from arch_zoo.layers import attention, fused_attention
from arch_zoo.layers.context import Context
from tests import lowering, tolerances
from tests.arch_zoo import models


def _context(**fields):
    ids = jnp.ones((2, 8), jnp.int32)
    return dataclasses.replace(Context(ids, ids), **fields)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "cudnn"),
        ({"platform": "tpu"}, "xla"),
        ({"platform": "cpu"}, "xla"),
        ({"dtype": jnp.float16}, "cudnn"),
        ({"dtype": jnp.float32}, "xla"),
        ({"head_dim": 128}, "cudnn"),
        ({"head_dim": 136}, "xla"),
        ({"head_dim": 20}, "xla"),
        ({"queries": 7}, "xla"),
        ({"keys": 9}, "xla"),
        ({"ctx": {"train": True, "dropout_rate": 0.1}}, "xla"),
        ({"ctx": {"dropout_rate": 0.1}}, "cudnn"),
        ({"ctx": {"index": jnp.int32(0)}}, "xla"),
    ],
)
def test_cudnn_computes_what_its_rules_allow(change, expected):
    given = {"platform": "gpu", "dtype": jnp.bfloat16, "head_dim": 64, "queries": 8, "keys": 16, "ctx": {}} | change
    q = jax.ShapeDtypeStruct((2, given["queries"], 4, given["head_dim"]), given["dtype"])
    k = jax.ShapeDtypeStruct((2, given["keys"], 4, given["head_dim"]), given["dtype"])
    assert fused_attention.implementation(q, k, _context(**given["ctx"]), given["platform"]) == expected


@pytest.mark.parametrize("with_bias", [True, False])
def test_its_entry_point_computes_t5_attention_and_its_gradients(with_bias):
    """XLA's implementation behind the same entry point, with padding, a triangular mask and an unscaled product."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 8, 4, 16)), jnp.float32) for _ in range(3))
    bias = jnp.asarray(rng.normal(size=(1, 4, 8, 8)), jnp.float32) if with_bias else None
    real = np.arange(8) < np.array([8, 5])[:, None]
    mask = jnp.asarray(np.tril(real[:, None, :, None] & real[:, None, None, :]))

    def loss(function, args):
        y = function(*args)
        return jnp.sum(jnp.sin(y) * real[..., None, None]), y

    ours = lambda q, k, v, bias: attention.attend(q, k, v, mask, bias, _context())
    theirs = lambda q, k, v, bias: fused_attention.attend(q, k, v, mask, bias, kernel="xla")
    (_, y), gradients = jax.value_and_grad(lambda args: loss(ours, args), has_aux=True)((q, k, v, bias))
    (_, expected), wanted = jax.value_and_grad(lambda args: loss(theirs, args), has_aux=True)((q, k, v, bias))
    np.testing.assert_allclose(np.asarray(y)[real], np.asarray(expected)[real], atol=tolerances.REORDERED)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerances.REORDERED), gradients, wanted)


@pytest.mark.parametrize(
    ("variant", "calls"), [("transformer", 2 + 2 * 2), ("evolved", 1 + 4), ("funnel-query", 2 + 2 * 2)]
)
def test_both_passes_lower_for_cuda(variant, calls, monkeypatch):
    lowering.pretend_a_gpu(monkeypatch)
    cfg = models.config(variant, dtype="bfloat16")
    graph, params, rest = nnx.split(models.build(cfg), nnx.Param, ...)
    batch = models.pad(models.examples(np.random.default_rng(0), [models.INPUT_LENGTH], [models.TARGET_LENGTH]))

    def loss(params):
        return nnx.merge(graph, params, rest).token_nll(batch, key=jax.random.key(0), train=True).nll.sum()

    def loss_by_xla(params):
        with fused_attention.disallowed():
            return loss(params)

    assert lowering.calls_of_cudnn(jax.jit(jax.grad(loss)), params) == (calls, calls)
    assert lowering.calls_of_cudnn(jax.jit(jax.grad(loss_by_xla)), params) == (0, 0)
