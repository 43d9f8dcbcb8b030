"""cuDNN's fused attention, where its rules allow: the same function of the same inputs, no logits or weights in memory.

JAX adds the mask to the bias on the way: that sum and its gradient, [B, H, T, S] in 16 bits, are. The rules are those
of `jax.nn.dot_product_attention(implementation="cudnn")`. Everywhere else attention is plain jnp, which XLA compiles.
T5's logits are not scaled, and its relative bias goes in as it is, gradient included.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax

from arch_zoo.layers.context import Context

_MAX_HEAD_DIM = 128  # 256 on Hopper in newer versions; 128 everywhere
_ALLOWED = contextvars.ContextVar("cuDNN's attention is allowed", default=True)


@contextlib.contextmanager
def disallowed() -> Iterator[None]:
    """What is traced inside computes attention by XLA everywhere.

    For `vmap`: JAX cannot batch cuDNN's call where the mask is batched and has one head for all, as ours has.
    """
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def implementation(q_BTHK: jax.Array, k_BSHK: jax.Array, ctx: Context, platform: str = "") -> Literal["cudnn", "xla"]:
    """What computes attention of these queries and keys.

    cuDNN where the platform is a GPU, the numbers have 16 bits, the head dimension is a multiple of 8 up to 128, both
    lengths are even (its gradient of a bias asks for it), nothing is decoded, and no attention weight is dropped, which
    its interface does not offer.

    Args:
      q_BTHK: queries.
      k_BSHK: keys.
      ctx: their surroundings.
      platform: gpu, tpu or cpu; by default that of this process.
    """
    head_dim = q_BTHK.shape[-1]
    fits = (
        _ALLOWED.get()
        and (platform or jax.default_backend()) == "gpu"
        and q_BTHK.dtype.itemsize == 2
        and head_dim % 8 == 0
        and head_dim <= _MAX_HEAD_DIM
        and q_BTHK.shape[1] % 2 == k_BSHK.shape[1] % 2 == 0
        and ctx.index is None
        and not (ctx.train and ctx.dropout_rate)
    )
    return "cudnn" if fits else "xla"


def attend(q_BTHK, k_BSHK, v_BSHK, mask_B1TS, bias_1HTS, kernel: Literal["cudnn", "xla"] = "cudnn") -> jax.Array:
    """Softmax attention [B, T, H, K] in one kernel; the bias is rounded to the type of the queries."""
    bias_1HTS = None if bias_1HTS is None else bias_1HTS.astype(q_BTHK.dtype)
    return jax.nn.dot_product_attention(q_BTHK, k_BSHK, v_BSHK, bias_1HTS, mask_B1TS, scale=1.0, implementation=kernel)
