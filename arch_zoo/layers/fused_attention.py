"""Attention by cuDNN's fused kernel, where its rules allow.

The same function, but no logits or weights in memory. The rules are those of
`jax.nn.dot_product_attention(implementation="cudnn")`. Everywhere else attention is plain jnp that
XLA compiles. The kernel takes T5's unscaled logits and its relative bias, and computes the bias's
gradient.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Literal

import jax
import jax.numpy as jnp

from arch_zoo.layers.context import Context, Mask

_MAX_HEAD_DIM = 128  # newer versions allow 256 on Hopper; 128 works everywhere
_CHOICE: contextvars.ContextVar[Literal["fastest", "xla", "outline"]]
_CHOICE = contextvars.ContextVar("what computes attention", default="fastest")


@contextlib.contextmanager
def _chosen(choice: Literal["xla", "outline"]) -> Iterator[None]:
    token = _CHOICE.set(choice)
    try:
        yield
    finally:
        _CHOICE.reset(token)


def disallowed() -> contextlib.AbstractContextManager[None]:
    """A context in which attention is traced for XLA on every platform.

    It is meant for `vmap`: JAX cannot batch cuDNN's call if the bias is batched and has one row for
    all, as ours does.
    """
    return _chosen("xla")


def outlined() -> contextlib.AbstractContextManager[None]:
    """A context for tracing shapes only; the backward pass keeps what it would on a GPU."""
    return _chosen("outline")


def implementation(
    q_BTHK: jax.Array, k_BSHK: jax.Array, ctx: Context, platform: str = ""
) -> Literal["cudnn", "xla"]:
    """What computes the attention of these queries and keys.

    cuDNN is used if all of this holds: the platform is a GPU; the numbers have 16 bits; the head
    dimension is a multiple of 8 up to 128; both lengths are even, which its gradient of a bias
    needs; nothing is decoded; and no attention weight is dropped, which its interface does not
    offer.

    Args:
      q_BTHK: queries.
      k_BSHK: keys.
      ctx: the stack's context.
      platform: gpu, tpu or cpu; by default that of this process.
    """
    head_dim, choice = q_BTHK.shape[-1], _CHOICE.get()
    fits = (
        choice != "xla"
        and (choice == "outline" or (platform or jax.default_backend()) == "gpu")
        and q_BTHK.dtype.itemsize == 2
        and head_dim % 8 == 0
        and head_dim <= _MAX_HEAD_DIM
        and q_BTHK.shape[1] % 2 == k_BSHK.shape[1] % 2 == 0
        and ctx.index is None
        and not (ctx.train and ctx.dropout_rate)
    )
    return "cudnn" if fits else "xla"


def attend(
    q_BTHK,
    k_BSHK,
    v_BSHK,
    mask: Mask,
    bias_1HTS,
    ctx: Context,
    *,
    kernel: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Softmax attention [B, T, H, K] in one kernel; the bias is rounded to the type of the queries.

    For rows of one segment cuDNN is told the number of keys and whether attention is causal. Packed
    rows, padding on the left and prefixes need a mask, which JAX adds to the bias: the sum and its
    gradient then are [B, H, T, S].

    Such rows also pass their number of keys, although it is all of them. With a bias alone,
    cuDNN's backward pass returns NaN where S is 64 more than a multiple of 128 and all logits of a
    query are below -88 (pytorch#196678, seen on an H200). The logits of a query that may look
    nowhere are like that, so here such a query looks everywhere.
    """
    bias_1HTS = None if bias_1HTS is None else bias_1HTS.astype(q_BTHK.dtype)
    if _CHOICE.get() == "outline":
        return _outline(q_BTHK, k_BSHK, v_BSHK)
    if not ctx.aligned or ctx.prefix_BL is not None:
        seen_B1TS = mask.seen_B1TS | ~mask.seen_B1TS.any(-1, keepdims=True)
        num_keys_B = jnp.full(len(k_BSHK), k_BSHK.shape[1], jnp.int32)
    else:
        seen_B1TS = None
        num_keys_B = jnp.maximum(
            jnp.sum(mask.key_segment_ids_BS != 0, -1, dtype=jnp.int32), 1
        )  # no softmax over nothing
    return jax.nn.dot_product_attention(
        q_BTHK,
        k_BSHK,
        v_BSHK,
        bias_1HTS,
        seen_B1TS,
        scale=1.0,
        is_causal=mask.causal,
        key_value_seq_lengths=num_keys_B,
        implementation=kernel,
    )


@jax.custom_vjp
def _outline(q_BTHK: jax.Array, k_BSHK: jax.Array, v_BSHK: jax.Array) -> jax.Array:
    """Has the shapes of the kernel's output and of what it keeps for its gradient.

    The numbers mean nothing.
    """
    return _outline_forward(q_BTHK, k_BSHK, v_BSHK)[0]


def _outline_forward(q_BTHK, k_BSHK, v_BSHK):
    log_z_BHT = jnp.einsum("BTHK,BSHK->BHT", q_BTHK, k_BSHK, preferred_element_type=jnp.float32)
    y_BTHK = jnp.einsum("BHT,BSHK->BTHK", log_z_BHT.astype(v_BSHK.dtype), v_BSHK)
    return y_BTHK, (q_BTHK, k_BSHK, v_BSHK, y_BTHK, log_z_BHT)


def _outline_backward(kept, grad_BTHK):
    raise NotImplementedError("an outline has shapes only")


_outline.defvjp(_outline_forward, _outline_backward)
