"""The tied logits in bfloat16, and the loss made from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from arch_zoo import ConfigError
from arch_zoo.layers import parameters
from arch_zoo.layers.head import Head, cross_entropy
from tests import tolerances
from tests.arch_zoo import models


def _float64(x) -> np.ndarray:
    return np.asarray(x.astype(jnp.float32), np.float64)


@pytest.mark.parametrize("architecture", ["transformer", "albert"])
def test_tied_logits_are_the_float32_sums_of_products_in_bfloat16(architecture):
    """Rounding them to bfloat16 would cost two digits of every loss."""
    cfg = models.config(architecture, dtype="bfloat16")
    embedding = cfg.architecture.embedding(cfg, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, 5, cfg.embed_dim), jnp.bfloat16)
    logits = Head(cfg).logits(x, embedding)
    assert logits.dtype == jnp.float32
    inner = x * cfg.embed_dim**-0.5
    if architecture == "albert":  # in bfloat16 through the smaller matrix first
        inner = inner @ embedding.expansion[...].astype(jnp.bfloat16).T
    expected = _float64(inner) @ _float64(embedding.table[...].astype(jnp.bfloat16)).T
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(expected - _float64(expected.astype(jnp.bfloat16))).max() > 1e-3, (
        "rounded ones would be told apart"
    )


def test_tied_logits_without_their_scale_are_plain_products():
    scaled, plain = (models.config("glu", scale_tied_logits=on) for on in (True, False))
    embedding = plain.architecture.embedding(plain, jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, 5, plain.embed_dim))
    logits = Head(plain).logits(x, embedding)
    expected = _float64(x) @ _float64(embedding.table[...]).T
    np.testing.assert_allclose(logits, expected, atol=tolerances.REORDERED * 10)
    factor = plain.embed_dim**0.5
    np.testing.assert_allclose(factor * Head(scaled).logits(x, embedding), logits, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("architecture", "options", "reason"),
    [
        ("mos", {}, "its logits are not tied"),
        ("llama", {}, "its logits are not tied"),
        ("glu", {"tied": False}, "its logits are not tied"),
        ("transformer", {"parametrization": "mup", "base_size": "nano"}, "scales logits"),
    ],
)
def test_there_must_be_tied_logits_to_leave_unscaled(architecture, options, reason):
    with pytest.raises(ConfigError, match=f"scale_tied_logits=False: .*{reason}"):
        models.config(architecture, scale_tied_logits=False, **options)


def test_the_loss_and_its_gradient_are_those_of_a_softmax():
    rng = np.random.default_rng(0)
    logits, targets = 5 * rng.normal(size=(2, 3, 11)), rng.integers(0, 11, (2, 3))
    on_nll, on_log_z = rng.normal(size=(2, 2, 3))
    (nll, log_z), pull_back = jax.vjp(
        lambda x: cross_entropy(x, jnp.asarray(targets)), jnp.float32(logits)
    )
    one_hot = np.eye(11)[targets]
    np.testing.assert_allclose(
        nll, -np.sum(one_hot * log_softmax(logits, -1), -1), atol=tolerances.REORDERED
    )
    np.testing.assert_allclose(log_z, logsumexp(logits, -1), atol=tolerances.REORDERED)
    softmax = np.exp(log_softmax(logits, -1))
    expected = softmax * (on_nll + on_log_z)[..., None] - one_hot * on_nll[..., None]
    (gradient,) = pull_back((jnp.float32(on_nll), jnp.float32(on_log_z)))
    np.testing.assert_allclose(gradient, expected, atol=tolerances.REORDERED)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_projections_are_in_the_type_of_their_input(dtype):
    """Kernels and biases are stored in float32 and rounded to that type.

    The sums are not rounded if the caller wants them in float32.
    """
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 64)), dtype)
    kernel = parameters.normal(jax.random.key(0), (64, 5), ("embed", "mlp"), 1.0)
    dense = parameters.Dense(kernel, bias=True)
    dense.bias[...] = jnp.linspace(-1.0, 1.0, 5)
    exact = _float64(x) @ _float64(kernel[...].astype(dtype))
    narrow, wide = parameters.project(x, kernel), parameters.project(x, kernel, jnp.float32)
    assert (narrow.dtype, wide.dtype) == (dtype, jnp.float32)
    assert narrow.shape == wide.shape == (2, 3, 5)
    np.testing.assert_allclose(wide, exact, atol=tolerances.REORDERED)
    rounding = tolerances.REORDERED if dtype == jnp.float32 else 2**-8 * np.abs(exact).max()
    np.testing.assert_allclose(_float64(narrow), exact, atol=rounding)
    y, plain = dense(x), parameters.Dense(kernel)(x)
    assert y.dtype == plain.dtype == dtype
    np.testing.assert_array_equal(plain, narrow)
    np.testing.assert_array_equal(y, narrow + dense.bias[...].astype(dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_wide_products_gradient_is_in_the_type_of_its_operands(dtype):
    """The gradient of the sums is rounded before the two products of the backward pass."""
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=shape), dtype) for shape in ((4, 16), (16, 3)))
    grad = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)
    y, pull = jax.vjp(lambda a, b: parameters.product("IJ,JK->IK", a, b), a, b)
    np.testing.assert_allclose(y, _float64(a) @ _float64(b), atol=tolerances.REORDERED)
    rounded = _float64(grad.astype(dtype))
    for ours, exact in zip(
        pull(grad), (rounded @ _float64(b).T, _float64(a).T @ rounded), strict=True
    ):
        rounding = tolerances.REORDERED if dtype == jnp.float32 else 2**-8 * np.abs(exact).max()
        assert ours.dtype == dtype
        np.testing.assert_allclose(_float64(ours), exact, atol=rounding)


def test_rows_are_summed_exactly_enough():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 3, 4)), jnp.float32)
    np.testing.assert_allclose(
        parameters.sum_rows(x), _float64(x).sum(0), atol=tolerances.REORDERED
    )
    assert parameters.sum_rows(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
