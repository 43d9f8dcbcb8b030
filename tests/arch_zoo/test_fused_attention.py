"""When cuDNN computes attention, and that its interface computes T5's attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from arch_zoo.layers import attention, fused_attention
from arch_zoo.layers.context import Context, Mask
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
        ({"ctx": {"train": True}}, "cudnn"),
        ({"queries": 7, "keys": 9}, "xla"),
        ({"ctx": {"index": jnp.int32(0)}}, "xla"),
    ],
)
def test_cudnn_computes_what_its_rules_allow(change, expected):
    given = {
        "platform": "gpu",
        "dtype": jnp.bfloat16,
        "head_dim": 64,
        "queries": 8,
        "keys": 16,
        "ctx": {},
    } | change
    q = jax.ShapeDtypeStruct((2, given["queries"], 4, given["head_dim"]), given["dtype"])
    k = jax.ShapeDtypeStruct((2, given["keys"], 4, given["head_dim"]), given["dtype"])
    assert (
        fused_attention.implementation(q, k, _context(**given["ctx"]), given["platform"])
        == expected
    )


UNPACKED = [[1] * 8, [1] * 5 + [0] * 3, [0] * 8, [1] + [0] * 7]
PACKED = [[1] * 8, [1, 1, 1, 2, 2, 0, 0, 0], [1, 1, 2, 2, 2, 2, 3, 3], [1, 2, 3, 4, 5, 6, 7, 8]]


@pytest.mark.slow
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("segment_ids", [UNPACKED, PACKED], ids=["unpacked", "packed"])
@pytest.mark.parametrize("with_bias", [True, False])
def test_its_entry_point_computes_t5_attention_and_its_gradients(with_bias, segment_ids, causal):
    """Runs XLA's implementation behind the same interface, with padding and without scaling."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(4, 8, 4, 16)), jnp.float32) for _ in range(3))
    bias = jnp.asarray(rng.normal(size=(1, 4, 8, 8)), jnp.float32) if with_bias else None
    segments = jnp.asarray(segment_ids, jnp.int32)
    ctx = _context(segment_ids_BL=segments, causal=causal, packed=segment_ids is PACKED)
    real = segments != 0

    def loss(function, args):
        y = function(*args)
        return jnp.sum(jnp.sin(y) * real[..., None, None]), y

    mask = Mask(ctx.self_mask(), segments, causal=causal)
    ours = lambda q, k, v, bias: attention.attend(q, k, v, mask, bias, ctx)
    theirs = lambda q, k, v, bias: fused_attention.attend(q, k, v, mask, bias, ctx, kernel="xla")
    (_, y), gradients = jax.value_and_grad(lambda args: loss(ours, args), has_aux=True)(
        (q, k, v, bias)
    )
    (_, expected), wanted = jax.value_and_grad(lambda args: loss(theirs, args), has_aux=True)(
        (q, k, v, bias)
    )
    np.testing.assert_allclose(y[real], expected[real], atol=tolerances.REORDERED)
    assert np.isfinite(expected).all()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerances.REORDERED), gradients, wanted
    )


def test_a_packed_query_that_may_look_nowhere_looks_everywhere():
    """With no key to look at, cuDNN would compute NaN.

    Such a query is padding, and its output is masked by whatever reads it.
    """
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(1, 4, 2, 8)), jnp.float32) for _ in range(3))
    seen = jnp.asarray([[[[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]]]], bool)
    mask = Mask(seen, jnp.ones((1, 4), jnp.int32))
    y = fused_attention.attend(q, k, v, mask, None, _context(packed=True), kernel="xla")
    logits = np.einsum("BTHK,BSHK->BHTS", q, k)
    weights = np.exp(logits) * (seen | (np.arange(4) == 1)[:, None])
    expected = np.einsum("BHTS,BSHK->BTHK", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(y, expected, atol=tolerances.REORDERED)


def test_an_outline_has_the_shapes_of_what_the_kernel_keeps():
    """It has the output, and a float32 log-sum for each query, but no weights [T, S]."""
    q, k, v = (jax.ShapeDtypeStruct((2, length, 4, 16), jnp.bfloat16) for length in (6, 10, 10))
    mask = Mask(jnp.ones((2, 1, 6, 10), bool), jnp.ones((2, 10), jnp.int32), causal=True)

    def attend(q, k, v):
        with fused_attention.outlined():
            assert fused_attention.implementation(q, k, _context()) == "cudnn"
            return fused_attention.attend(q, k, v, mask, None, _context())

    def outlined(q, k, v):
        return jax.vjp(attend, q, k, v)

    y, backward = jax.eval_shape(outlined, q, k, v)
    for out in (y, jax.eval_shape(attend, q, k, v)):  # once with a gradient and once without
        assert (out.shape, out.dtype) == ((2, 6, 4, 16), jnp.bfloat16)
    kept = {(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(backward)}
    assert kept == {
        ((2, 6, 4, 16), "bfloat16"),
        ((2, 10, 4, 16), "bfloat16"),
        ((2, 4, 6), "float32"),
    }
    with pytest.raises(NotImplementedError, match="shapes only"):
        jax.eval_shape(lambda *a: outlined(*a)[1](jnp.zeros((2, 6, 4, 16), jnp.bfloat16)), q, k, v)


def test_a_chosen_kernel_applies_only_inside_its_block():
    q = jax.ShapeDtypeStruct((2, 8, 4, 64), jnp.bfloat16)
    ask = lambda: fused_attention.implementation(q, q, _context(), "gpu")
    with fused_attention.disallowed():
        with fused_attention.outlined():
            assert fused_attention.implementation(q, q, _context(), "cpu") == "cudnn"
        assert ask() == "xla"
    assert ask() == "cudnn" and fused_attention.implementation(q, q, _context()) == "xla"


@pytest.mark.parametrize(
    ("variant", "calls"),
    [
        ("transformer", 2 + 2 * 2),
        pytest.param("evolved", 1 + 4, marks=pytest.mark.slow),
        ("funnel-query", 2 + 2 * 2),
    ],
)
def test_both_passes_lower_for_cuda(variant, calls, monkeypatch):
    lowering.pretend_a_gpu(monkeypatch)
    cfg = models.config(variant, dtype="bfloat16")
    graph, params, rest = nnx.split(models.build(cfg), nnx.Param, ...)
    length = 2 * cfg.head_dim  # of the inputs; chosen so that no other axis has this size
    batch = models.pad(
        models.examples(np.random.default_rng(0), [length] * 3, [models.TARGET_LENGTH] * 3), length
    )

    def loss(params):
        return (
            nnx.merge(graph, params, rest)
            .token_nll(batch, key=jax.random.key(0), train=True)
            .nll.sum()
        )

    def loss_by_xla(params):
        with fused_attention.disallowed():
            return loss(params)

    fused, plain = (
        lowering.program(jax.jit(jax.grad(function)), params) for function in (loss, loss_by_xla)
    )
    assert lowering.calls_of_cudnn(fused) == (calls, calls)
    assert lowering.calls_of_cudnn(plain) == (0, 0)
    # The logits [B, H, S, S], which the fused kernel does not store.
    logits = f"tensor<3x{cfg.num_heads}x{length}x{length}x"
    assert logits not in fused
    assert logits in plain
