"""How inputs and targets become rows: by hand, and both families with the same targets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.tiny_corpus import write_corpus
from train.data import batches, layouts
from train.data.batch_shape import BatchShape, TextOptions
from train.data.corpus import open_corpus
from train.data.layouts import LAYOUTS
from train.records import InputError

ONE_ROW, TWO_ROWS = LAYOUTS["decoder_only"], LAYOUTS["encoder_decoder"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def test_a_target_follows_its_input_in_one_row():
    inputs = np.array([[5, 6, 1, 0], [7, 1, 0, 0], [0, 0, 0, 0]], np.int32)
    targets = np.array([[3, 1, 0], [4, 8, 1], [0, 0, 0]], np.int32)
    batch = ONE_ROW.batch(inputs, targets)
    expected = {
        "decoder_target_tokens": [[5, 6, 1, 3, 1, 0, 0], [7, 1, 4, 8, 1, 0, 0], [0] * 7],
        "decoder_input_tokens": [[0, 5, 6, 1, 3, 1, 0], [0, 7, 1, 4, 8, 1, 0], [0] * 7],
        "decoder_loss_weights": [[0, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0, 0], [0] * 7],
        "decoder_causal_attention": [[1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0], [0] * 7],
        "decoder_target_positions": [[3, 4, 7], [2, 3, 4], [7, 7, 7]],
    }
    assert batch.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_array_equal(batch[name], rows, err_msg=name)
    prompt = ONE_ROW.prompts(inputs, targets)
    np.testing.assert_array_equal(
        prompt["decoder_input_tokens"], [[0, 0, 5, 6, 1], [0, 0, 0, 7, 1], [0] * 5]
    )
    np.testing.assert_array_equal(
        prompt["decoder_segment_ids"], [[0, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    )


@pytest.mark.parametrize("objective", ["span_corruption", "prefix_lm"])
def test_both_families_learn_the_same_targets(corpus, objective):
    two, one = (
        batches.Pretrain(
            corpus, "train", BatchShape(8, 24, 12, family), 1, TextOptions(objective)
        ).batch(3)
        for family in ("encoder_decoder", "decoder_only")
    )
    for row in range(8):
        real = two["decoder_loss_weights"][row] > 0
        source = two["encoder_input_tokens"][row]
        source = source[source > 0]
        places = one["decoder_loss_weights"][row] > 0
        np.testing.assert_array_equal(
            one["decoder_target_tokens"][row][places], two["decoder_target_tokens"][row][real]
        )
        np.testing.assert_array_equal(one["decoder_input_tokens"][row][1 : len(source) + 1], source)
        np.testing.assert_array_equal(
            np.flatnonzero(places), one["decoder_target_positions"][row][: real.sum()]
        )


def test_every_token_of_a_window_is_a_target_of_a_language_model(corpus):
    shape = BatchShape(4, 0, 16, "decoder_only")
    source = batches.Pretrain(corpus, "validation", shape, 0, TextOptions("causal_lm"))
    seen = [source.batch(step) for step in range(-(-source.num_windows // 4))]
    tokens = np.concatenate([batch["decoder_target_tokens"] for batch in seen])
    assert (tokens > 0).all() and all(batch["decoder_loss_weights"].all() for batch in seen)
    stream = corpus.tokens("validation")
    text = np.concatenate([np.asarray(part) for part in stream])[: source.num_windows * 16]
    found = {tuple(row) for row in tokens[: source.num_windows]}
    assert found == {tuple(row) for row in text.reshape(-1, 16)}


def test_documents_do_not_see_each_other():
    inputs = np.zeros((1, 0), np.int32)
    batch = ONE_ROW.batch(inputs, np.array([[5, 1, 6, 7, 1, 8]], np.int32))
    apart = layouts.by_document(batch)
    expected = {
        "decoder_input_tokens": [[0, 5, 0, 6, 7, 0]],
        "decoder_segment_ids": [[1, 1, 2, 2, 2, 3]],
        "decoder_positions": [[0, 1, 0, 1, 2, 0]],
        "decoder_target_tokens": [[5, 1, 6, 7, 1, 8]],
        "decoder_loss_weights": [[1] * 6],
    }
    for name, rows in expected.items():
        np.testing.assert_array_equal(apart[name], rows, err_msg=name)


def test_packed_rows_hold_inputs_and_targets_of_each_example():
    inputs = [[np.array([5, 6, 1]), np.array([7, 1])], [np.array([8, 9, 10, 11, 1])]]
    targets = [[np.array([3, 1]), np.array([4, 1])], [np.array([2, 1])]]
    batch = ONE_ROW.packed(inputs, targets, (4, 6), 1)
    expected = {
        "decoder_target_tokens": [[5, 6, 1, 3, 1, 7, 1, 4, 1, 0], [8, 9, 10, 1, 2, 1, 0, 0, 0, 0]],
        "decoder_input_tokens": [[0, 5, 6, 1, 3, 0, 7, 1, 4, 0], [0, 8, 9, 10, 1, 2, 0, 0, 0, 0]],
        "decoder_segment_ids": [[1, 1, 1, 1, 1, 2, 2, 2, 2, 0], [1] * 6 + [0] * 4],
        "decoder_positions": [[0, 1, 2, 3, 4, 0, 1, 2, 3, 0], [0, 1, 2, 3, 4, 5, 0, 0, 0, 0]],
        "decoder_causal_attention": [[1, 1, 1, 1, 0, 1, 1, 1, 0, 0], [1] * 5 + [0] * 5],
        "decoder_loss_weights": [[0, 0, 0, 1, 1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]],
    }
    assert batch.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_array_equal(batch[name], rows, err_msg=name)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=200))
@settings(max_examples=50, deadline=None)
def test_packed_rows_have_room(lengths):
    inputs, targets = np.array(lengths).T
    rows = ONE_ROW.plan((inputs, targets), (32, 10), 1)
    assert sorted(example for row in rows for example in row) == list(range(len(lengths)))
    need = np.minimum(inputs, 32) + np.minimum(targets, 10)
    assert all(need[row].sum() <= 42 for row in rows)
    members = [
        [[np.ones(size, np.int32) for size in side[row]] for row in rows]
        for side in (inputs, targets)
    ]
    packed = ONE_ROW.packed(members[0], members[1], (32, 10), 1)
    assert packed["decoder_loss_weights"].sum() == np.minimum(targets, 10).sum()


def test_a_language_models_text_needs_two_tokens(corpus):
    shape = BatchShape(4, 0, 1, "decoder_only")
    with pytest.raises(InputError, match="causal_lm needs a length of 2 or more, got 1"):
        batches.Pretrain(corpus, "train", shape, 0, TextOptions("causal_lm"))
