"""Normalisations: T5's root-mean-square norm, and layer norm for sources that use it."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers import parameters


class RMSNorm(nnx.Module):
    """`x / rms(x) * scale` (Zhang and Sennrich, 2019, arXiv 1910.07467): no mean, no bias.

    Statistics in float32.
    """

    def __init__(self, dim: int, epsilon: float = 1e-6):
        """Normalises a last axis of size `dim`."""
        self.scale = parameters.constant(1.0, (dim,), ("embed",))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `x`, in the type of `x`."""
        x32 = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        return (x32 * jax.lax.rsqrt(mean_square + self.epsilon) * self.factor).astype(x.dtype)

    @property
    def factor(self) -> jax.Array:
        """What the normalised entries are multiplied by, [dim]."""
        return self.scale[...]


class CentredRMSNorm(RMSNorm):
    """`x / rms(x) * (1 + scale)`, where the scale starts at zero (Gemma, Qwen3-Next)."""

    def __init__(self, dim: int, epsilon: float = 1e-6):
        """Normalises a last axis of size `dim`."""
        super().__init__(dim, epsilon)
        self.scale = parameters.constant(0.0, (dim,), ("embed",))

    @property
    def factor(self) -> jax.Array:
        """What the normalised entries are multiplied by, [dim]."""
        return 1 + self.scale[...]


class LayerNorm(nnx.Module):
    """`(x - mean(x)) / std(x) * scale + bias` (Ba et al., 2016, arXiv 1607.06450).

    Statistics in float32.
    """

    def __init__(self, dim: int, epsilon: float = 1e-6):
        """Normalises a last axis of size `dim`."""
        self.scale = parameters.constant(1.0, (dim,), ("embed",))
        self.bias = parameters.constant(0.0, (dim,), ("embed",))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis of `x`, in the type of `x`."""
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.epsilon) * self.scale + self.bias).astype(
            x.dtype
        )
