"""A bottleneck between the last stack and the head."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.context import Context
from arch_zoo.layers.norm import RMSNorm
from arch_zoo.layers.positions import SinusoidalPositions


class LastState(nnx.Module):
    """Computes every position from the state of the last one (Poli et al., 2024, arXiv 2403.17844).

    The position is added to that state, and two layers of width D follow, each with a norm before
    it and a GELU after it. So the last state must hold whatever the head is to say of a row.
    """

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws two matrices [D, D]."""
        first, second = jax.random.split(key)
        dim = cfg.embed_dim
        self.norms = nnx.List([RMSNorm(dim) for _ in range(3)])
        self.wi = parameters.fan_in(first, (dim, dim), ("embed", "mlp"))
        self.wo = parameters.fan_in(second, (dim, dim), ("mlp", "embed"))

    def __call__(self, x_BLD: jax.Array, ctx: Context) -> jax.Array:
        """What the head reads at each position [B, L, D]; rows end at their last real token."""
        real_BL = ctx.real_BL1[..., 0]
        last_B11 = real_BL.shape[1] - 1 - jnp.argmax(real_BL[:, ::-1], axis=1)[:, None, None]
        state_B1D = jnp.take_along_axis(x_BLD, last_B11, axis=1)
        x_BLD, _ = SinusoidalPositions()(jnp.broadcast_to(state_B1D, x_BLD.shape), ctx)
        for norm, kernel in zip(self.norms, (self.wi, self.wo), strict=False):
            x_BLD = jax.nn.gelu(parameters.project(norm(x_BLD), kernel))
        return self.norms[2](x_BLD)
