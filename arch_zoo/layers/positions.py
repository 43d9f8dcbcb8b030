"""Absolute positions, for mixers that have no use for biases between pairs of positions."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.layers import parameters
from arch_zoo.layers.context import Context
from arch_zoo.registry import ConfigError


class LearnedPositions(nnx.Module):
    """A vector for each position, added to the input of a stack."""

    def __init__(self, length: int, dim: int, limit: str, key: jax.Array):
        """Draws a unit normal table [length, dim].

        `limit` is the configuration's key for `length`.
        """
        self.table = parameters.normal(key, (length, dim), ("position", "embed"), 1.0)
        self.limit = limit

    def __call__(self, x_BLD: jax.Array, ctx: Context) -> tuple[jax.Array, Context]:
        """Adds the position's vector.

        Raises:
          ConfigError: the sequences are longer than the table.
        """
        length, most = x_BLD.shape[1] if ctx.index is None else ctx.max_length, self.table.shape[0]
        if length > most:
            raise ConfigError(f"{self.limit}={most}: too short for sequences of {length} positions")
        if not ctx.aligned:
            return x_BLD + self.table[ctx.positions_BL].astype(x_BLD.dtype), ctx
        return x_BLD + self.table[:length].astype(
            x_BLD.dtype
        ), ctx  # a lookup's backward pass is a slow scatter


class SinusoidalPositions(nnx.Module):
    """A fixed vector for each position, added to the input of a stack.

    Sines of D/2 frequencies, then their cosines. The form is that of Tensor2Tensor and fairseq.
    Positions count from 1 as in fairseq, where 0 is padding.
    """

    def __call__(self, x_BLD: jax.Array, ctx: Context) -> tuple[jax.Array, Context]:
        """Adds the position's vector. If D is odd, the last channel gets zero."""
        dim = x_BLD.shape[-1]
        frequencies = jnp.exp(-math.log(1e4) / max(dim // 2 - 1, 1) * jnp.arange(dim // 2))
        angles_BLC = (ctx.positions_BL[..., None] + 1) * frequencies
        signal_BLD = jnp.concatenate([jnp.sin(angles_BLC), jnp.cos(angles_BLC)], axis=-1)
        return x_BLD + jnp.pad(signal_BLD, ((0, 0), (0, 0), (0, dim % 2))).astype(x_BLD.dtype), ctx
