"""Rotary positions (Su et al., 2021, arXiv 2104.09864): queries and keys turned by their position.

The product of a query and a key then depends on the distance of their positions. Entry i of a head
is turned together with entry i + K/2, as in Llama's released weights; the paper takes neighbours.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers.context import Context


class Rotary(nnx.Module):
    """Puts the angles of the positions into the context. It has no parameters."""

    def __init__(self, head_dim: int, theta: float):
        """`theta` is the base of the wavelengths, 2 pi theta^(2i/K) positions for entry i."""
        self.head_dim, self.theta = head_dim, theta

    def __call__(self, x_BLD: jax.Array, ctx: Context) -> tuple[jax.Array, Context]:
        """Leaves `x` alone."""
        entries = jnp.arange(0, self.head_dim, 2, dtype=jnp.float32)
        angles_BLK = ctx.positions_BL[..., None] * self.theta ** (-entries / self.head_dim)
        return x_BLD, dataclasses.replace(ctx, rotary=(jnp.cos(angles_BLK), jnp.sin(angles_BLK)))


def rotate(x_BLHK: jax.Array, rotary: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the two halves of each head against each other, in float32."""
    cos, sin = (a_BLK[:, :, None] for a_BLK in rotary)
    first, second = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_BLHK.dtype)
