"""What a step measures of its arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.step import norm


def test_the_norm_is_that_of_all_arrays_together():
    shapes = [(8,), (8, 16), (8, 16), (8, 4), (3, 8, 16), (16,), (1, 1)]
    keys = jax.random.split(jax.random.key(0), len(shapes))
    tree = {str(n): jax.random.normal(key, shape) for n, (key, shape) in enumerate(zip(keys, shapes, strict=True))}
    np.testing.assert_allclose(norm(tree), optax.tree.norm(tree), rtol=1e-6)
    assert norm({"w": jnp.array([3.0, 4.0])}) == 5.0
    assert not np.isfinite(norm(tree | {"w": jnp.array([np.nan])}))
