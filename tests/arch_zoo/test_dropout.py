"""Dropout in numbers: the share that is dropped, the scale of the rest, where it is applied."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from arch_zoo.layers import parameters
from arch_zoo.layers.attention import attend
from arch_zoo.layers.context import Aux, Context, Mask
from arch_zoo.layers.feed_forward import FeedForward
from arch_zoo.layers.stack import Block, Residual, Stack
from tests.arch_zoo import models

RATE = 0.1  # far from a half, so that a mix-up of p and 1 - p is noticed
KEPT = np.float32(1 / 0.9)
SIGMAS = 5


def _context(rows: int, length: int, **fields) -> Context:
    ids = jnp.ones((rows, length), jnp.int32)
    return Context(ids, ids, key=jax.random.key(0), train=True, dropout_rate=RATE, **fields)


def _assert_dropped(values, kept: float = float(KEPT)):
    """Asserts that every value is zero or `kept`, and that the share of zeros is the rate."""
    values = np.asarray(values)
    assert np.isclose(values, kept, rtol=1e-6).sum() + (values == 0).sum() == values.size
    assert abs((values == 0).mean() - RATE) < SIGMAS * np.sqrt(RATE * (1 - RATE) / values.size)


def test_one_in_ten_of_ones_is_dropped_and_the_others_are_divided_by_nine_tenths():
    ones = jnp.ones((20, 30, 40))
    ctx = _context(20, 30)
    _assert_dropped(ctx.dropout(ones))
    shared = np.asarray(ctx.dropout(ones, over=1))
    assert (shared == shared[:, :1]).all(), "one draw serves the whole axis"
    _assert_dropped(shared[:, 0])
    np.testing.assert_array_equal(dataclasses.replace(ctx, train=False).dropout(ones), ones)
    assert ctx.dropout(ones.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_attention_weights_are_dropped_and_not_normalised_again():
    """With zero logits all S weights are 1 / S; a unit vector as value reads off one of them."""
    B, T, S, H = 8, 5, 32, 4
    ctx = _context(B, T)
    values = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, H, S))
    mask = Mask(jnp.ones((B, 1, T, S), bool), jnp.ones((B, S), jnp.int32))
    weights = attend(jnp.zeros((B, T, H, S)), jnp.zeros((B, S, H, S)), values, mask, None, ctx)
    assert (weights == weights[:, :1]).all(), "one draw serves all queries, as in Mesh TensorFlow"
    _assert_dropped(weights[:, 0], float(KEPT) / S)


def test_hidden_units_are_dropped():
    """The output is made from the hidden units that are kept.

    It is the sum of their rows of `wo`, divided by nine tenths.
    """
    cfg = models.config("transformer")
    layer = FeedForward(cfg, jax.random.key(1))
    layer.wi[...] = jnp.eye(
        cfg.embed_dim, cfg.mlp_dim
    )  # the hidden units are the input, followed by zeros
    layer.wo[...] = jnp.eye(cfg.mlp_dim, cfg.embed_dim)
    y, _, _ = layer(jnp.ones((64, 3, cfg.embed_dim)), _context(64, 3))
    assert (y == y[:, :1]).all()
    _assert_dropped(y[:, 0])


class Digit(nnx.Module):
    """A layer whose output is `number` everywhere."""

    def __init__(self, number: float):
        self.number = parameters.constant(number, (1,), ("embed",))

    def __call__(self, x_BLD, ctx, cache=None):
        return jnp.broadcast_to(self.number, x_BLD.shape), cache, Aux()


@pytest.mark.parametrize("scan", [False, True])
def test_every_layer_of_every_depth_drops_by_a_mask_of_its_own(scan):
    """The residual branches are 1, 2, 4 and so on.

    The binary digits of their sum are then the masks, of two layers at three depths.
    """
    cfg = models.config("transformer", scan_layers=scan)
    digits = [[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]
    blocks = [Block(cfg, {"first": Digit(one), "second": Digit(two)}) for one, two in digits]
    stack, ctx = Stack(cfg, blocks, (0, 1, 2), None), _context(64, 2)
    total, *_ = jax.jit(lambda stack: stack.walk(jnp.zeros((64, 2, 32)), ctx))(stack)
    assert (total == total[:, :1]).all(), "one draw serves a whole sequence"
    numbers = np.rint(np.asarray(total[:, 0], np.float64) * 0.9).astype(int)
    np.testing.assert_allclose(total[:, 0], numbers / 0.9, rtol=1e-6)
    masks = [(numbers >> place) & 1 for place in range(6)]
    for mask in masks:
        _assert_dropped(mask, 1)
    # Two independent masks both drop an entry in one case of a hundred.
    count = masks[0].size
    for i, one in enumerate(masks):
        for other in masks[:i]:
            both = ((one == 0) & (other == 0)).mean()
            assert abs(both - RATE**2) < SIGMAS * RATE / np.sqrt(count)


class Random(nnx.Module):
    """A layer that applies dropout to ones, at the site with a given number."""

    def __init__(self, site: int):
        self.site = site

    def __call__(self, x_BLD, ctx, cache=None):
        return ctx.fold(self.site).dropout(jnp.ones(x_BLD.shape), over=1), cache, Aux()


@pytest.mark.parametrize("site", [0, 1])
def test_a_layers_own_sites_are_apart_from_that_of_its_residual_branch(site):
    """Two independent draws leave .81 of the ones."""
    layer = Residual(models.config("transformer"), Random(site))
    y, _, _ = layer(jnp.zeros((64, 2, 32)), _context(64, 2))
    assert (y == y[:, :1]).all(), "one draw serves a whole sequence"
    assert abs((y[:, 0] > 0).mean() - 0.9**2) < SIGMAS * np.sqrt(0.81 * 0.19 / (64 * 32))


def test_the_input_and_the_output_of_a_stack_are_dropped_each_by_a_mask_of_its_own():
    cfg = models.config("transformer")
    stack, ctx = Stack(cfg, [Block(cfg, {})], (0,), None), _context(64, 2)
    x_BLD = jnp.ones((64, 2, 32))
    walked, *_ = stack.walk(x_BLD, ctx)
    np.testing.assert_array_equal(
        walked, x_BLD
    )  # with an empty block, only the two masks of the stack are left
    both = np.asarray(stack(x_BLD, ctx)[0])
    assert (both == both[:, :1]).all(), "one draw serves a whole sequence, at either end"
    out = both[:, 0]
    alone = dataclasses.replace(ctx, dropout_rate=0.0)
    np.testing.assert_allclose(stack(x_BLD, alone)[0], 1.0, rtol=1e-5)
    # If a row keeps k of 32 entries, its norm makes them sqrt(32 / k); the output's mask then
    # divides by nine tenths.
    assert abs((out == 0).mean() - (1 - 0.9**2)) < SIGMAS * np.sqrt(0.81 * 0.19 / out.size)
    levels = [np.unique(row[row > 0]) for row in out]
    assert all(np.ptp(level) < 1e-5 for level in levels)
    kept = np.array([32 / (level[0] * 0.9) ** 2 for level in levels])
    np.testing.assert_allclose(kept, np.rint(kept), rtol=1e-4)
    assert abs(kept.mean() / 32 - 0.9) < SIGMAS * np.sqrt(RATE * (1 - RATE) / out.size)
