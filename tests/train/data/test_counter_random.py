import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import counter_random

# Known answers of philox4x32-10 from Random123's kat_vectors: counter, key, output.
_KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def _words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint64)


@pytest.mark.parametrize(("counter", "key", "expected"), _KNOWN)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    found = counter_random.philox4x32(_words(counter)[:, None], _words(key))
    np.testing.assert_array_equal(found[:, 0], _words(expected))


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_permute_is_a_bijection(size, seed, epoch):
    found = counter_random.permute(seed, np.full(size, epoch), np.arange(size), size)
    np.testing.assert_array_equal(np.sort(found), np.arange(size))


def test_permute_differs_by_epoch_and_by_seed_and_mixes():
    size = 10_000
    at = np.arange(size)
    orders = [
        counter_random.permute(seed, np.full(size, epoch), at, size)
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    for i, order in enumerate(orders):
        for other in [at, *orders[:i]]:
            assert abs(np.corrcoef(order, other)[0, 1]) < 0.05
            assert np.mean(order == other) < 0.01


def test_permute_evaluates_single_points_of_large_sizes():
    size = 3 * 2**40 + 1
    positions = np.arange(size - 1000, size)
    found = counter_random.permute(0, np.zeros(1000), positions, size)
    assert len(np.unique(found)) == 1000 and found.min() >= 0 and found.max() < size
    np.testing.assert_array_equal(
        counter_random.permute(0, np.zeros(1), positions[7:8], size), found[7:8]
    )


def test_draws_depend_on_their_own_row_only_and_look_uniform():
    index = np.arange(50_000)
    words = counter_random.draws(5, counter_random.SPANS, index, 6)
    np.testing.assert_array_equal(
        counter_random.draws(5, counter_random.SPANS, index[::-7], 6), words[::-7]
    )
    np.testing.assert_array_equal(
        counter_random.draws(5, counter_random.SPANS, index, 3), words[:, :3]
    )
    values = words / 2**32
    assert np.abs(values.mean(axis=0) - 0.5).max() < 0.006  # 4.6 standard errors
    assert np.abs(np.corrcoef(values.T) - np.eye(6)).max() < 0.02
    assert not np.array_equal(words, counter_random.draws(5, counter_random.EPOCHS, index, 6))
    counts = np.bincount(counter_random.below(words[:, 0], 7).astype(int), minlength=7)
    assert len(counts) == 7 and np.abs(counts - 50_000 / 7).max() < 400
