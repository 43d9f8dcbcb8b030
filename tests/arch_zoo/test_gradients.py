"""Derivatives that are written by hand, against those that JAX computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch_zoo.layers import parameters
from arch_zoo.layers.feed_forward import relu
from arch_zoo.layers.head import cross_entropy
from tests import tolerances

EDGES = [0.0, -0.0, 1e-45, -1e-45, 3.0, -3.0, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_relu_equals_jax_bit_for_bit(dtype):
    x = jnp.asarray(EDGES, dtype)
    (ours, pull_back), (theirs, its_pull_back) = jax.vjp(relu, x), jax.vjp(jax.nn.relu, x)
    grad = jnp.arange(1, len(x) + 1, dtype=dtype)
    for one, other in ((ours, theirs), (pull_back(grad)[0], its_pull_back(grad)[0])):
        assert one.dtype == other.dtype == dtype
        np.testing.assert_array_equal(one.astype(jnp.float32), other.astype(jnp.float32))


def test_only_the_output_of_a_relu_is_kept():
    """Neither the product before it nor a mask is kept: only one array of the hidden size."""
    x, wi, wo = jnp.ones((5, 2)), jnp.ones((2, 7)), jnp.ones((7, 2))

    def kept(activation):
        leaves = jax.tree.leaves(jax.vjp(lambda x, wi, wo: activation(x @ wi) @ wo, x, wi, wo)[1])
        return len({id(leaf) for leaf in leaves if leaf.shape == (5, 7)})

    assert kept(relu) == 1 < kept(jax.nn.relu)


def test_the_compiler_does_not_keep_the_input_of_a_relu():
    """XLA would find that `relu(x) > 0` is the same as `x > 0`, and keep x as well."""
    step = jax.jit(jax.grad(lambda x, w: jnp.sum(relu(x @ w) ** 2)))
    lowered = step.lower(jnp.ones((5, 2)), jnp.ones((2, 7))).as_text()
    assert lowered.count("stablehlo.optimization_barrier") == 1


def test_cross_entropy_has_the_gradients_of_its_formula():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(30 * rng.normal(size=(2, 5, 11)), jnp.float32)
    targets = jnp.asarray(rng.integers(11, size=(2, 5)))
    weights = jnp.asarray(rng.normal(size=(2, 2, 5)), jnp.float32)

    def formula(logits, targets):
        log_probs = jax.nn.log_softmax(logits)
        one_hot = jax.nn.one_hot(targets, logits.shape[-1])
        return -jnp.sum(one_hot * log_probs, -1), jax.nn.logsumexp(logits, -1)

    def weighted(function):
        return lambda logits: sum(
            jnp.vdot(w, out) for w, out in zip(weights, function(logits, targets), strict=True)
        )

    ours, grads = jax.value_and_grad(weighted(cross_entropy))(logits)
    theirs, its_grads = jax.value_and_grad(weighted(formula))(logits)
    np.testing.assert_allclose(ours, theirs, rtol=tolerances.REORDERED)
    np.testing.assert_allclose(grads, its_grads, rtol=tolerances.REORDERED_GRADIENT, atol=1e-6)


def test_gradient_of_cross_entropy_is_rounded_in_one_go():
    """No float32 array [B, T, V] is made between the softmax and the products after it.

    Nothing is scattered either.
    """
    logits, targets = jnp.ones((2, 5, 11)), jnp.ones((2, 5), jnp.int32)
    lowered = (
        jax.jit(jax.grad(lambda x: cross_entropy(x, targets)[0].sum())).lower(logits).as_text()
    )
    assert "scatter" not in lowered


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other platforms choose for themselves")
@pytest.mark.parametrize("tied", [True, False])
def test_no_product_of_the_logits_gradients_reads_a_matrix_by_columns(tied):
    """On a CPU the gradient of a table of many tokens would take twice as long."""
    x, table = jnp.ones((64, 8)), jnp.ones((512, 8) if tied else (8, 512))

    def loss(x, table):
        return parameters.project(x, table.T if tied else table, jnp.float32).var()

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(x, table).compile().as_text()
    assert compiled.count(" dot(") == 3
    assert "lhs_contracting_dims={0}" not in compiled
