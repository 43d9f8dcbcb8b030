"""Decays that depend on the input, as in Mamba-2 (Dao and Gu, 2024, arXiv 2405.21060)."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers import parameters

# Initial steps are between these, and none is below the last.
_SHORTEST, _LONGEST, _LEAST = 0.001, 0.1, 1e-4


class Steps(nnx.Module):
    """The step of each head at each position, and the decay over it.

    A step is `softplus(x W + bias)`, and the log decay over it `-exp(log_rate) * step`.
    """

    def __init__(self, dim: int, log_rates_H: jax.Array, key: jax.Array):
        """Draws the projection and the bias; steps are at first between 0.001 and 0.1."""
        kernel_key, bias_key = jax.random.split(key)
        heads = len(log_rates_H)
        self.kernel = parameters.fan_in(kernel_key, (dim, heads), ("embed", "heads"))
        drawn_H = jax.random.uniform(bias_key, (heads,))
        steps_H = jnp.exp(jnp.log(_SHORTEST) + drawn_H * jnp.log(_LONGEST / _SHORTEST))
        steps_H = jnp.maximum(steps_H, _LEAST)
        # The inverse of softplus.
        self.bias = parameters.given(steps_H + jnp.log(-jnp.expm1(-steps_H)), ("heads",))
        self.log_rate = parameters.given(log_rates_H, ("heads",))

    def __call__(self, x_BLD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The steps and the log decays [B, L, H] in float32."""
        projected_BLH = parameters.project(x_BLD, self.kernel, jnp.float32)
        steps_BLH = jax.nn.softplus(projected_BLH + self.bias)
        return steps_BLH, -jnp.exp(self.log_rate[...]) * steps_BLH
