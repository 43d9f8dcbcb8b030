"""Root-mean-square normalisation (Zhang and Sennrich, 2019, arXiv 1910.07467), as in T5."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers import parameters


class RMSNorm(nnx.Module):
    """`x / rms(x) * scale`: no mean, no bias; statistics in float32."""

    def __init__(self, dim: int, epsilon: float = 1e-6):
        """Normalises a last axis of size `dim`."""
        self.scale = parameters.constant(1.0, (dim,), ("embed",))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `x`, in the type of `x`."""
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(mean_square + self.epsilon) * self.scale).astype(x.dtype)
