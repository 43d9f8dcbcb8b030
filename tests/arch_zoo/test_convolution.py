"""Convolutions against equivalent banded matrices or loops, with segments and gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch_zoo.layers import convolution
from arch_zoo.layers.context import Context
from tests import tolerances

B, L, C = 2, 7, 6


def context(segments, causal: bool) -> Context:
    return Context(jnp.asarray(segments), jnp.zeros((B, L), jnp.int32), causal=causal)


def as_matrix(x_BLC, weights_WBLH, segments, causal: bool) -> jax.Array:
    """The convolution as one matrix product.

    Position s reaches position l through tap w if s = l + offset(w) and both are in one segment.
    """
    width = weights_WBLH.shape[0]
    offsets = np.arange(width) - (width - 1 if causal else width // 2)
    reaches_WLS = np.arange(L)[None, None] == np.arange(L)[None, :, None] + offsets[:, None, None]
    same_BLS = segments[:, :, None] == segments[:, None, :]
    weights_WBLC = jnp.broadcast_to(
        weights_WBLH.repeat(C // weights_WBLH.shape[3], axis=3), (width, B, L, C)
    )
    return jnp.einsum("WLS,BLS,WBLC,BSC->BLC", reaches_WLS, same_BLS, weights_WBLC, x_BLC)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize(
    ("width", "groups", "causal"), [(3, 6, False), (5, 3, True), (11, 1, False), (9, 6, True)]
)
def test_values_and_gradients_are_those_of_a_banded_matrix(
    width, groups, causal, per_position, backend, monkeypatch
):
    """Covers widths beyond the length, and segments of any length, including padding.

    Also covers the code that a GPU would compile.
    """
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rng = np.random.default_rng(width)
    segments = np.sort(rng.integers(0, 3, (B, L)), axis=1)
    shape = (width, B, L, groups) if per_position else (width, 1, 1, groups)
    x_BLC, weights, direction = (
        rng.normal(size=s).astype(np.float32) for s in ((B, L, C), shape, (B, L, C))
    )

    def ours(x_BLC, weights):
        return convolution.depthwise(x_BLC, weights, context(segments, causal))[0]

    def theirs(x_BLC, weights):
        return as_matrix(x_BLC, weights, segments, causal)

    @functools.partial(jax.jit, static_argnums=0)
    def values_and_gradients(function, x_BLC, weights):
        y_BLC, pull = jax.vjp(function, x_BLC, weights)
        return y_BLC, *pull(direction)

    (unrolled,) = re.findall(r"unroll=(\d+)", str(jax.make_jaxpr(ours)(x_BLC, weights)))
    assert int(unrolled) == (1 if backend == "cpu" else width)
    got, want = (values_and_gradients(function, x_BLC, weights) for function in (ours, theirs))
    for mine, expected in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, expected, atol=tolerances.REORDERED)


def test_decoding_from_a_buffer_equals_the_whole_sequence():
    rng = np.random.default_rng(0)
    x_BLC, weights_WBLH = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((B, L, C), (5, B, L, 3))
    )
    ones = np.ones((B, L), np.int32)
    whole, _ = convolution.depthwise(x_BLC, weights_WBLH, context(ones, causal=True))
    ones_B1 = jnp.ones((B, 1), jnp.int32)
    step_ctx = Context(ones_B1, 0 * ones_B1, index=jnp.int32(0), causal=True)
    cache = convolution.init_cache(step_ctx, 5, C)
    assert cache.shape == (B, 4, C)
    for position in range(L):
        now = slice(position, position + 1)
        y_B1C, cache = convolution.depthwise(
            x_BLC[:, now], weights_WBLH[:, :, now], step_ctx, cache
        )
        np.testing.assert_allclose(y_B1C, whole[:, now], atol=tolerances.REORDERED)


@pytest.mark.parametrize("causal", [False, True])
def test_dense_taps_see_the_neighbours_of_their_segment(causal):
    segments = np.array([[1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 0, 0, 0]])
    rng = np.random.default_rng(0)
    x_BLC, kernel_WDF = (rng.normal(size=s).astype(np.float32) for s in ((B, L, C), (3, C, 2)))
    expected = np.zeros((B, L, 2), np.float32)
    for b, here, tap in np.ndindex(B, L, 3):
        there = here + tap - (2 if causal else 1)
        if 0 <= there < L and segments[b, there] == segments[b, here]:
            expected[b, here] += x_BLC[b, there] @ kernel_WDF[tap]
    y_BLF = convolution.dense(
        jnp.asarray(x_BLC), jnp.asarray(kernel_WDF), context(segments, causal)
    )
    np.testing.assert_allclose(y_BLF, expected, atol=tolerances.REORDERED)


def test_taps_are_summed_in_float32():
    """A running sum of 31 taps in bfloat16 would lose digits that a matrix product keeps.

    This holds for the gradient as well.
    """
    ones = np.ones((B, L), np.int32)
    x_BLC = jnp.full((B, L, C), 1 / 3, jnp.bfloat16)
    weights = jnp.full((31, 1, 1, C), 1 / 31)
    y_BLC, pull = jax.vjp(
        lambda x: convolution.depthwise(x, weights, context(ones, causal=True))[0], x_BLC
    )
    (grad_BLC,) = pull(x_BLC)
    assert y_BLC.dtype == grad_BLC.dtype == jnp.bfloat16
    exact = np.float32(x_BLC[0, 0, 0]) * (np.arange(L) + 1) / 31
    np.testing.assert_array_equal(y_BLC[0, :, 0], exact.astype(jnp.bfloat16))
    np.testing.assert_array_equal(grad_BLC[0, ::-1, 0], exact.astype(jnp.bfloat16))


def test_weights_in_bfloat16_are_summed_in_float32_too():
    """DConv's predicted kernels are in bfloat16 if the layers compute in bfloat16.

    Decoding sums in the same way as training.
    """
    ones, rng = np.ones((B, L), np.int32), np.random.default_rng(0)
    x_BLC, weights = (
        jnp.asarray(rng.normal(size=s), jnp.bfloat16) for s in ((B, L, C), (5, B, L, 3))
    )
    y_BLC, _ = convolution.depthwise(x_BLC, weights, context(ones, causal=True))
    x, w = (np.asarray(a.astype(jnp.float32), np.float64) for a in (x_BLC, weights))
    exact = sum(
        np.pad(x, ((0, 0), (4, 0), (0, 0)))[:, tap : tap + L] * w[tap].repeat(2, axis=-1)
        for tap in range(5)
    )
    assert y_BLC.dtype == jnp.bfloat16
    np.testing.assert_allclose(y_BLC.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)
    ids = jnp.ones((B, 1), jnp.int32)
    step_ctx = Context(ids, 0 * ids, index=jnp.int32(0), causal=True, dtype="bfloat16")
    cache = convolution.init_cache(step_ctx, 5, C)
    for position in range(L):
        now = slice(position, position + 1)
        y_B1C, cache = convolution.depthwise(x_BLC[:, now], weights[:, :, now], step_ctx, cache)
        assert y_B1C.dtype == cache.dtype == jnp.bfloat16
        np.testing.assert_allclose(y_B1C.astype(jnp.float32), exact[:, now], rtol=2**-8, atol=1e-6)


def test_dense_taps_are_summed_in_float32():
    """Each product is rounded to bfloat16, and their sum is rounded once at the end."""
    ones = np.ones((B, L), np.int32)
    x_BLC, kernel = (
        jnp.full((B, L, 1), 1 / 3, jnp.bfloat16),
        jnp.full((31, 1, 2), 1 / 31, jnp.bfloat16),
    )
    y_BLF = convolution.dense(x_BLC, kernel, context(ones, causal=True))
    product = np.float32(x_BLC[0, 0, 0] * kernel[0, 0, 0])
    assert y_BLF.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        y_BLF[0, :, 0], (product * (np.arange(L) + 1)).astype(jnp.bfloat16)
    )


@pytest.mark.parametrize("per_position", [False, True])
def test_gradients_of_the_weights_are_sums_in_float32(per_position):
    """Products of bfloat16 inputs and gradients are exact in float32, and sums are not rounded."""
    rng = np.random.default_rng(0)
    x_BLC, grad_BLC = (jnp.asarray(rng.normal(size=(B, L, C)), jnp.bfloat16) for _ in range(2))
    weights = jnp.ones((3, B, L, 2) if per_position else (3, 1, 1, 2))
    ones = np.ones((B, L), np.int32)
    _, pull = jax.vjp(
        lambda w: convolution.depthwise(x_BLC, w, context(ones, causal=True))[0], weights
    )
    x, grad = (np.asarray(a.astype(jnp.float32), np.float64) for a in (x_BLC, grad_BLC))
    seen_WBLC = np.stack(
        [np.pad(x, ((0, 0), (2, 0), (0, 0)))[:, tap : tap + L] for tap in range(3)]
    )
    expected = (seen_WBLC * grad).reshape(3, B, L, 2, 3).sum(-1)
    expected = expected if per_position else expected.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(pull(grad_BLC)[0], expected, atol=1e-5)
