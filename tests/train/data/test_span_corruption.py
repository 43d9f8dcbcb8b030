import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data import span_corruption
from train.data.span_corruption import EOS_ID
from train.records import InputError

_FIRST, _WORDS, _SENTINELS = 2, 20_000, 1000
_VOCAB = _FIRST + _WORDS + _SENTINELS


def _rows(shape, rows, seed):
    raw = np.random.default_rng(seed).integers(
        _FIRST, _FIRST + _WORDS, (rows, shape.raw_length), np.int32
    )
    noise = span_corruption.noise_mask(shape, seed, np.arange(rows))
    return raw, noise, *span_corruption.corrupt(raw, noise, _VOCAB)


def _restore(inputs, targets):
    """The original text: every sentinel is replaced by what follows it in the targets."""
    spans, sentinel = {}, None
    for token in targets[:-1]:
        if token >= _VOCAB - _SENTINELS:
            sentinel = token
            spans[sentinel] = []
        else:
            spans[sentinel].append(token)
    text = []
    for token in inputs[:-1]:
        text += spans.pop(token) if token >= _VOCAB - _SENTINELS else [token]
    assert not spans
    return text


@pytest.mark.parametrize(
    ("input_length", "raw_length", "target_length"),
    [(512, 568, 114), (128, 141, 29), (1024, 1137, 229), (256, 284, 58)],
)
def test_geometry_is_that_of_t5(input_length, raw_length, target_length):
    shape = span_corruption.geometry_for_inputs(input_length)
    assert (shape.raw_length, shape.input_length, shape.target_length) == (
        raw_length,
        input_length,
        target_length,
    )


@given(
    st.integers(1, 4096),
    st.integers(0, 2**31),
    st.sampled_from([(0.15, 3.0), (0.5, 3.0), (0.15, 8.0), (0.5, 32.0)]),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_lossless_and_have_the_geometry(raw_length, seed, noise):
    shape = span_corruption.geometry(raw_length, *noise)
    raw, mask, inputs, targets = _rows(shape, 3, seed)
    assert inputs.shape == (3, shape.input_length) and targets.shape == (3, shape.target_length)
    assert inputs.dtype == targets.dtype == np.int32
    np.testing.assert_array_equal(mask.sum(axis=1), shape.num_noise)
    starts = np.diff(mask.astype(int), axis=1, prepend=0) == 1
    np.testing.assert_array_equal(starts.sum(axis=1), shape.num_spans)
    sentinels = _VOCAB - 1 - np.arange(shape.num_spans)
    for row in range(3):
        for tokens in (inputs[row], targets[row]):
            assert tokens[-1] == EOS_ID
            np.testing.assert_array_equal(tokens[tokens >= _VOCAB - _SENTINELS], sentinels)
        assert _restore(inputs[row], targets[row]) == list(raw[row])


@given(st.integers(2, 4096))
def test_noise_density_is_kept_to_half_a_token(raw_length):
    shape = span_corruption.geometry(raw_length)
    assert abs(shape.num_noise - 0.15 * raw_length) <= max(0.5, 1 - 0.15 * raw_length)
    assert abs(shape.num_spans - shape.num_noise / 3) <= max(0.5, 1 - shape.num_noise / 3)


@given(st.integers(3, 4096))
def test_the_text_fills_the_inputs(input_length):
    shape = span_corruption.geometry_for_inputs(input_length)
    assert shape.input_length <= input_length
    assert span_corruption.geometry(shape.raw_length + 1).input_length > input_length


def test_cuts_are_uniform():
    """Positions are noise as often as in theory, and spans are as long as those of a random cut."""
    shape = span_corruption.geometry(40)  # 6 noise tokens, 2 spans
    mask = span_corruption.noise_mask(shape, 0, np.arange(200_000))
    flips = np.diff(mask.astype(np.int8), axis=1, prepend=0)
    first_start = np.argmax(flips == 1, axis=1)
    first_length = np.argmax(flips == -1, axis=1) - first_start
    counts = np.bincount(first_length, minlength=6)[
        1:6
    ]  # the first of two spans: lengths 1 to 5 are equally likely
    assert np.abs(counts / 200_000 - 1 / 5).max() < 0.005
    starts = np.bincount(first_start, minlength=34)[
        1:34
    ]  # starts after 1 to 33 tokens of text, all equally likely
    assert np.abs(starts / 200_000 - 1 / 33).max() < 0.002


def test_a_row_depends_on_seed_and_index_only():
    shape = span_corruption.geometry(141)
    whole = span_corruption.noise_mask(shape, 3, np.arange(64))
    np.testing.assert_array_equal(
        span_corruption.noise_mask(shape, 3, np.arange(40, 48)), whole[40:48]
    )
    assert not np.array_equal(span_corruption.noise_mask(shape, 4, np.arange(64)), whole)
    assert len(np.unique(whole, axis=0)) == 64


def test_too_short_inputs_are_refused():
    with pytest.raises(InputError, match="input_length = 2"):
        span_corruption.geometry_for_inputs(2)
