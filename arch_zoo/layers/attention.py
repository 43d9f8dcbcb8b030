"""Multi-head softmax attention in T5's form.

Logits are not scaled, and projections have no biases, unless a layer asks for it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers import fused_attention, parameters
from arch_zoo.layers.context import Aux, Context, Mask
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.rotary import rotate
from arch_zoo.layers.short_convolution import Projecting

_MASKED = -1e10


class Projections(Layer):
    """The four projections of attention, stored as matrices [D, J] for Adafactor, as in T5.

    T5 puts the scale 1/sqrt(K) into the initial query weights instead of the logits. With
    `scaled_logits` the queries are multiplied by it, and their initial weights are larger by as
    much. Where the parametrisation asks for 1/K, the rest is always a factor on the queries.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        key: jax.Array,
        num_heads: int | None = None,
        kv_heads: int | None = None,
        *,
        scaled_logits: bool = False,
        biases: bool = False,
    ):
        """Draws the projections for `num_heads` heads of queries (default: the configuration's).

        Groups of consecutive heads share each of the `kv_heads` heads of keys and values (default:
        as many, or one with shared heads). With `biases` each projection adds one.
        """
        num_heads = num_heads or cfg.num_heads
        memory_heads = kv_heads or (1 if cfg.shared_heads else num_heads)
        base_dim = cfg.head_dim / cfg.head_ratio
        outside = base_dim**-0.5 if scaled_logits else 1.0
        self.scale = outside / cfg.head_ratio
        embed_dim, joined = cfg.embed_dim, num_heads * cfg.head_dim
        self.num_heads, self.head_dim = num_heads, cfg.head_dim
        keys = jax.random.split(key, 4)
        into, memory = (embed_dim, joined), (embed_dim, memory_heads * cfg.head_dim)
        self.query = parameters.normal(
            keys[0], into, ("embed", "joined_kv"), (embed_dim * base_dim) ** -0.5 / outside
        )
        self.key = parameters.normal(keys[1], memory, ("embed", "joined_kv"), embed_dim**-0.5)
        value = parameters.normal(keys[2], memory, ("embed", "joined_kv"), embed_dim**-0.5)
        self.value = None if cfg.tied_keys_values else value
        self.out = parameters.normal(
            keys[3], (joined, embed_dim), ("joined_kv", "embed"), joined**-0.5
        )
        self.query_bias, self.key_bias, self.value_bias, self.out_bias = (
            parameters.constant(0.0, kernel.shape[-1:], kernel.axes[-1:])
            if biases and kernel is not None
            else None
            for kernel in (self.query, self.key, self.value, self.out)
        )

    def queries(self, x_BLD: jax.Array) -> jax.Array:
        """Queries [B, L, H, K]."""
        q_BLHK = self._heads(x_BLD, self.query, self.query_bias)
        return q_BLHK if self.scale == 1 else q_BLHK * self.scale

    def keys_values(self, x_BLD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Keys and values [B, L, H, K]; where queries share heads H is smaller (see `attend`)."""
        keys = self._heads(x_BLD, self.key, self.key_bias)
        if self.value is None:
            return keys, keys
        return keys, self._heads(x_BLD, self.value, self.value_bias)

    def output(self, y_BLHK: jax.Array) -> jax.Array:
        """Joins the heads and projects back to [B, L, D]."""
        y_BLJ = y_BLHK.reshape(*y_BLHK.shape[:2], -1)
        return parameters.affine(y_BLJ, self.out, self.out_bias)

    def _heads(self, x_BLD: jax.Array, kernel: nnx.Param, bias: nnx.Param | None) -> jax.Array:
        joined_BLJ = parameters.affine(x_BLD, kernel, bias)
        return joined_BLJ.reshape(*x_BLD.shape[:2], -1, self.head_dim)


def attend(q_BTHK, k_BSHK, v_BSHK, mask: Mask, bias_1HTS, ctx: Context) -> jax.Array:
    """Softmax attention [B, T, H, K]; logits and softmax in float32.

    Keys and values with fewer heads are repeated, one for a group of consecutive heads of queries.
    A query that may look nowhere (padding) gets a mean of values, and later layers mask its output.
    """
    products = "causal_products" if mask.causal else "products"
    num_heads = q_BTHK.shape[2]
    k_BSHK, v_BSHK = (jnp.repeat(a, num_heads // a.shape[2], axis=2) for a in (k_BSHK, v_BSHK))
    if fused_attention.implementation(q_BTHK, k_BSHK, ctx) == "cudnn":
        return fused_attention.attend(q_BTHK, k_BSHK, v_BSHK, mask, bias_1HTS, ctx)
    with jax.named_scope(products):
        logits_BHTS = parameters.product("BTHK,BSHK->BHTS", q_BTHK, k_BSHK)
    if bias_1HTS is not None:
        logits_BHTS = add_bias(logits_BHTS, bias_1HTS)
    logits_BHTS += jnp.where(mask.seen_B1TS, 0.0, _MASKED)
    # Divide after the product with the values: that divides K numbers for each query instead of S.
    weights_BHTS = jnp.exp(logits_BHTS - jax.lax.stop_gradient(logits_BHTS.max(-1, keepdims=True)))
    totals_BTH1 = weights_BHTS.sum(-1, keepdims=True).swapaxes(1, 2)
    weights_BHTS = ctx.dropout(weights_BHTS.astype(v_BSHK.dtype), over=2)
    with jax.named_scope(products):
        y_BTHK = jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS, v_BSHK)
    return (y_BTHK / totals_BTH1).astype(v_BSHK.dtype)


@jax.custom_vjp
def add_bias(logits_BHTS: jax.Array, bias_1HTS: jax.Array) -> jax.Array:
    """Adds one bias to every row of the batch.

    Its gradient sums over rows with a product, which is faster on a CPU.
    """
    return logits_BHTS + bias_1HTS


def _forward(logits_BHTS: jax.Array, bias_1HTS: jax.Array) -> tuple[jax.Array, None]:
    return add_bias(logits_BHTS, bias_1HTS), None


def _backward(_: None, grad_BHTS: jax.Array) -> tuple[jax.Array, jax.Array]:
    return grad_BHTS, parameters.sum_rows(grad_BHTS)[None]


add_bias.defvjp(_forward, _backward)


class OwnProjections(Projections, Projecting):
    """Projections to queries, keys and values of one sequence."""

    site, channel_axis = "B", "joined_kv"

    def projections(self, x_BLD: jax.Array) -> tuple[jax.Array, ...]:
        """Queries, keys and values."""
        return self.queries(x_BLD), *self.keys_values(x_BLD)


class SelfAttention(OwnProjections):
    """Attention of a sequence to itself, with the stack's bias for its number of heads."""

    def work(self, x_BLD: jax.Array, projected: tuple[jax.Array, ...], ctx: Context, cache: Any):
        """Attends within whole sequences or, with an index, from one position to those up to it."""
        q_BLHK, k_BLHK, v_BLHK = projected
        if ctx.rotary is not None:
            q_BLHK, k_BLHK = rotate(q_BLHK, ctx.rotary), rotate(k_BLHK, ctx.rotary)
        if cache is not None:
            cache = {
                "key": self.store(cache["key"], k_BLHK, ctx),
                "value": self.store(cache["value"], v_BLHK, ctx),
            }
            if ctx.index is not None:
                k_BLHK, v_BLHK = cache["key"], cache["value"]
        return self.output(self.attention(q_BLHK, k_BLHK, v_BLHK, ctx)), cache, Aux()

    def store(self, cached_BTHK: jax.Array, new_BLHK: jax.Array, ctx: Context) -> jax.Array:
        """The cache of keys or values, with those of a prompt or of the decoded position."""
        start = 0 if ctx.index is None else ctx.index
        return jax.lax.dynamic_update_slice_in_dim(cached_BTHK, new_BLHK, start, axis=1)

    def attention(self, q_BLHK, k_BSHK, v_BSHK, ctx: Context) -> jax.Array:
        """What the queries read [B, L, H, K]; of whole sequences, or of what is in the cache."""
        causal = ctx.causal and ctx.prefix_BL is None
        mask = Mask(ctx.self_mask(), ctx.segment_ids_BL, causal=causal)
        return attend(q_BLHK, k_BSHK, v_BSHK, mask, ctx.biases.get(self.num_heads), ctx)

    def empty_cache(self, ctx: Context) -> dict[str, jax.Array]:
        """Zeros [B, L, H, K] for the keys and values of all positions."""
        shape = (ctx.batch_size, ctx.max_length, self.key.shape[1] // self.head_dim, self.head_dim)
        return {"key": jnp.zeros(shape, ctx.dtype), "value": jnp.zeros(shape, ctx.dtype)}


class CrossAttention(Projections):
    """Attention of the decoder to the encoder's output; no positions, no bias."""

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Attends to the memory; a cache provides its keys and values, which never change."""
        k_BSHK, v_BSHK = (
            (cache["key"], cache["value"])
            if cache is not None
            else self.keys_values(ctx.memory_BSD)
        )
        q_BLHK = self.queries(x_BLD)
        mask = Mask(ctx.cross_mask(), ctx.memory_segment_ids_BS)
        y_BLHK = attend(q_BLHK, k_BSHK, v_BSHK, mask, None, ctx)
        return self.output(y_BLHK), cache, Aux()

    def init_cache(self, ctx: Context) -> dict[str, jax.Array]:
        """The memory's keys and values, computed once."""
        keys, values = self.keys_values(ctx.memory_BSD)
        return {"key": keys, "value": values}
