"""The feed-forward layer of T5.1.0. Other forms override `projections`, `hidden` or `out`."""

from typing import Any

import jax
import jax.numpy as jnp

from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.short_convolution import Projecting


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """`max(x, 0)`, with a gradient computed from its output.

    So `x` need not be kept for the backward pass. Without the barrier XLA keeps `x` all the same
    and recomputes the maximum wherever it is read, in both passes. With it, a GPU fuses the ReLU
    into the product before it.
    """
    return jax.lax.optimization_barrier(jnp.maximum(x, 0))


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = relu(x)
    return y, y


def _backward(y: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(y > 0, grad, 0),)


relu.defvjp(_forward, _backward)


class FeedForward(Projecting):
    """`relu(x wi) wo`, without biases."""

    site, channel_axis = "D", "mlp"

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws wi [D, F] and wo [F, D]."""
        wi_key, wo_key = jax.random.split(key)
        self.wi = parameters.fan_in(wi_key, (cfg.embed_dim, cfg.mlp_dim), ("embed", "mlp"))
        self.wo = parameters.fan_in(wo_key, (cfg.mlp_dim, cfg.embed_dim), ("mlp", "embed"))

    def projections(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """The hidden units [B, L, F] before their activation."""
        return (parameters.project(x_BLD, self.wi),)

    def hidden(self, *projected: jax.Array) -> jax.Array:
        """The hidden units [B, L, F]."""
        return relu(*projected)

    def out(self, hidden_BLF: jax.Array) -> jax.Array:
        """What the layer adds [B, L, D]."""
        return parameters.project(hidden_BLF, self.wo)

    def work(self, x_BLD: jax.Array, projected: tuple[jax.Array, ...], ctx: Context, cache: Any):
        """Treats each position alone, so the cache stays as it is."""
        hidden_BLF = ctx.dropout(self.hidden(*projected), over=1)
        return self.out(hidden_BLF), cache, Aux()
