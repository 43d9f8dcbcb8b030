"""Positions: T5's buckets of distances, and sinusoids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch_zoo.layers.context import Context
from arch_zoo.layers.positions import SinusoidalPositions
from arch_zoo.layers.relative_bias import RelativeBias, buckets
from tests import tolerances

# The first distance of each bucket: the first half have one distance each; then 8 * 16^(i/8) in an
# encoder and 16 * 8^(i/16) in a decoder, rounded up.
BOTH_WAYS = [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
BACKWARDS = [*range(16), 16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113]


def bucket(distance: int, causal: bool) -> int:
    """The bucket of `key position - query position`, out of 32."""
    if causal:
        return int(np.searchsorted(BACKWARDS, max(-distance, 0), side="right")) - 1
    after = 16 if distance > 0 else 0
    return after + int(np.searchsorted(BOTH_WAYS, abs(distance), side="right")) - 1


@pytest.mark.parametrize("causal", [False, True])
def test_buckets_are_t5s_up_to_any_distance(causal):
    distances = np.arange(-1000, 1001)
    expected = [bucket(int(distance), causal) for distance in distances]
    np.testing.assert_array_equal(buckets(distances, causal=causal), expected)


def test_buckets_of_other_numbers():
    """Eight buckets, four for each direction.

    Distances 0 and 1, then 2 to 5, and everything from 2 * sqrt(10) on.
    """
    distances = np.arange(-30, 31)
    far = np.searchsorted([0, 1, 2, 7], np.abs(distances), side="right") - 1
    np.testing.assert_array_equal(
        buckets(distances, 8, 20, causal=False), far + 4 * (distances > 0)
    )


def context(length: int, **fields) -> Context:
    ids = jnp.ones((1, length), jnp.int32)
    return Context(ids, jnp.arange(length)[None], **fields)


@pytest.mark.parametrize("causal", [False, True])
def test_a_bias_is_that_of_its_pairs_distance(causal):
    """For every pair in a whole sequence, and for a decoded position and those before it."""
    bias, length = RelativeBias(3, jax.random.key(0), causal=causal), 150
    table = np.asarray(bias.table[...])
    assert table.shape == (32, 3)
    expected = np.array(
        [[table[bucket(s - t, causal)] for s in range(length)] for t in range(length)]
    )
    before = {5: jnp.zeros((1, 5, length, length))}
    x, ctx = bias(jnp.ones((1, length, 4)), context(length, causal=causal, biases=before))
    assert (x == 1).all() and list(ctx.biases) == [5, 3]
    np.testing.assert_array_equal(ctx.biases[3], expected.transpose(2, 0, 1)[None])
    for index in (0, 1, 77, length - 1):
        now = context(1, causal=causal, index=jnp.int32(index), max_length=length)
        _, ctx = bias(jnp.ones((1, 1, 4)), now)
        np.testing.assert_array_equal(ctx.biases[3], expected[index].T[None, :, None])


def test_the_farthest_distance_is_that_of_the_bias():
    bias = RelativeBias(2, jax.random.key(0), num_buckets=8, max_distance=20, causal=False)
    table = np.asarray(bias.table[...])
    _, ctx = bias(jnp.ones((1, 30, 4)), context(30))
    which = buckets(np.arange(30)[None] - np.arange(30)[:, None], 8, 20, causal=False)
    np.testing.assert_array_equal(ctx.biases[2][0], table[which].transpose(2, 0, 1))


@pytest.mark.parametrize("dim", [2, 3, 4, 9, 32])
def test_sinusoids_are_sines_of_all_frequencies_and_then_their_cosines(dim):
    """Frequencies fall from 1 to 1e-4; positions count from 1; an odd channel is not changed."""
    positions = jnp.asarray([[0, 1, 2, 3], [0, 1, 0, 1]])
    x = jnp.full((2, 4, dim), 0.25)
    y, _ = SinusoidalPositions()(x, Context(jnp.ones((2, 4), jnp.int32), positions))
    half = dim // 2
    for b, t, i in np.ndindex(2, 4, half):
        angle = (float(positions[b, t]) + 1) * 1e4 ** (-i / max(half - 1, 1))
        assert y[b, t, i] == pytest.approx(0.25 + np.sin(angle), abs=tolerances.REORDERED)
        assert y[b, t, half + i] == pytest.approx(0.25 + np.cos(angle), abs=tolerances.REORDERED)
    assert (y[..., 2 * half :] == 0.25).all()
    low, _ = SinusoidalPositions()(
        x.astype(jnp.bfloat16), Context(jnp.ones((2, 4), jnp.int32), positions)
    )
    assert low.dtype == jnp.bfloat16
