"""Attention against a loop over queries; its caches; queries whose keys are all masked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch_zoo.layers.attention import CrossAttention, SelfAttention, attend
from arch_zoo.layers.context import Context, Mask
from tests import tolerances
from tests.arch_zoo import models

B, T, S, H, K = 2, 3, 5, 4, 8


def arrays(memory_heads: int = H, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = ((B, T, H, K), (B, S, memory_heads, K), (B, S, memory_heads, K), (1, H, T, S))
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def query_by_query(q, k, v, mask, bias) -> np.ndarray:
    """Attention in float64; a head of keys may serve several heads of queries."""
    q, k, v, bias = (np.asarray(a.astype(jnp.float32), np.float64) for a in (q, k, v, bias))
    y = np.zeros(q.shape)
    for b, t, h in np.ndindex(B, T, H):
        of = h * k.shape[2] // H
        logits = np.array([q[b, t, h] @ k[b, s, of] + bias[0, h, t, s] for s in range(S)])
        seen = np.flatnonzero(mask[b, 0, t])
        weights = np.exp(logits[seen]) if len(seen) else np.ones(S)
        y[b, t, h] = weights @ v[b, seen if len(seen) else slice(None), of] / weights.sum()
    return y


@pytest.mark.parametrize("memory_heads", [1, 2, H])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_is_a_mean_of_the_values_that_are_seen(memory_heads, dtype):
    """Logits are not scaled by 1 / sqrt(K); a query that sees no key gets the mean of all."""
    q, k, v, bias = arrays(memory_heads, dtype)
    seen = np.random.default_rng(1).random((B, 1, T, S)) < 0.6
    seen[0, 0, 1] = False
    ids, mask = jnp.ones((B, T), jnp.int32), Mask(jnp.asarray(seen), jnp.ones((B, S), jnp.int32))
    y = attend(q, k, v, mask, bias, Context(ids, ids))
    expected = query_by_query(q, k, v, seen, bias)
    assert y.dtype == dtype
    rounding = tolerances.REORDERED if dtype == jnp.float32 else 2**-7 * np.abs(expected).max()
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=rounding)


def test_without_a_bias_logits_are_products_alone():
    q, k, v, bias = arrays()
    seen, ids = np.ones((B, 1, T, S), bool), jnp.ones((B, T), jnp.int32)
    mask = Mask(jnp.asarray(seen), jnp.ones((B, S), jnp.int32))
    y = attend(q, k, v, mask, None, Context(ids, ids))
    np.testing.assert_allclose(
        y, query_by_query(q, k, v, seen, 0 * bias), atol=tolerances.REORDERED
    )


@pytest.mark.slow
@pytest.mark.parametrize(("size", "heads"), [("nano", 2), ("nano-SH", 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_caches_hold_keys_and_values_in_the_type_of_the_memory(size, heads, dtype):
    """The cache has room for all decoder positions, and holds the whole memory from the start."""
    cfg = models.config("transformer", size, dtype=dtype)
    memory = jnp.ones((3, 7, cfg.embed_dim), dtype)
    ids = jnp.ones((3, 1), jnp.int32)
    ctx = Context(
        ids,
        ids,
        memory_BSD=memory,
        index=jnp.int32(2),
        max_length=9,
        causal=True,
        dtype=dtype,
        memory_segment_ids_BS=jnp.ones((3, 7), jnp.int32),
        cache_segment_ids_BT=jnp.ones((3, 9), jnp.int32),
    )
    own, across = (kind(cfg, jax.random.key(0)) for kind in (SelfAttention, CrossAttention))
    for layer, length in ((own, 9), (across, 7)):
        cache = layer.init_cache(ctx)
        for name in ("key", "value"):
            assert (cache[name].shape, cache[name].dtype) == ((3, length, heads, 16), dtype)
        x = jax.random.normal(jax.random.key(1), (3, 1, cfg.embed_dim), dtype)
        y, after, _ = layer(x, ctx, cache)
        assert (y.shape, y.dtype) == ((3, 1, cfg.embed_dim), dtype)
        changed = (after["key"] != cache["key"]).any(axis=(0, 2, 3))
        assert np.flatnonzero(changed).tolist() == ([2] if layer is own else [])
