"""The norms against their formulas in float64, for tiny, constant and large rows."""

import jax.numpy as jnp
import numpy as np
import pytest

from arch_zoo.layers.norm import CentredRMSNorm, LayerNorm, RMSNorm
from tests import tolerances

EPSILON = 1e-6


def _rows(dtype):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 6, 16)) * np.array([1.0, 1e-3, 30.0, 1e-4])[:, None, None]
    rows[2] += 100.0
    rows[0, 0] = 0.0
    return jnp.asarray(rows, dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", [RMSNorm, CentredRMSNorm, LayerNorm])
def test_norms_equal_their_formulas(kind, dtype):
    norm, x = kind(16), _rows(dtype)
    scale, bias = np.linspace(0.5, 2.0, 16), np.linspace(-1.0, 1.0, 16)
    assert (np.asarray(norm.scale) == (0 if kind is CentredRMSNorm else 1)).all()
    norm.scale[...] = jnp.asarray(scale - (kind is CentredRMSNorm), jnp.float32)
    exact = np.asarray(x.astype(jnp.float32), np.float64)
    if kind is LayerNorm:
        norm.bias[...] = jnp.asarray(bias, jnp.float32)
        exact = exact - exact.mean(-1, keepdims=True)
    expected = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + EPSILON) * scale
    expected += bias if kind is LayerNorm else 0
    y = norm(x)
    assert y.dtype == dtype
    # In bfloat16 every entry is rounded once, at the end.
    rounding = 0.0 if dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(
        y.astype(jnp.float32), expected, rtol=rounding, atol=tolerances.REORDERED
    )
