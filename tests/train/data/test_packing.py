import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.tiny_corpus import write_corpus
from train.data import batches, counter_random
from train.data.batch_shape import BatchShape
from train.data.corpus import open_corpus
from train.data.layouts import LAYOUTS
from train.records import InputError

_TASK = "python_subject"
TWO_ROWS = LAYOUTS["encoder_decoder"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=200),
    st.sampled_from([1, 4]),
)
@settings(max_examples=60, deadline=None)
def test_every_example_is_in_one_row_that_has_room(lengths, multiple):
    inputs, targets = np.array(lengths).T
    rows = TWO_ROWS.plan((inputs, targets), (32, 10), multiple)
    assert sorted(example for row in rows for example in row) == list(range(len(lengths)))
    for row in rows:
        assert np.minimum(inputs[row], 32).sum() <= 32 and np.minimum(targets[row], 10).sum() <= 10
    members = [
        [[np.ones(size, np.int32) for size in side[row]] for row in rows]
        for side in (inputs, targets)
    ]
    packed = TWO_ROWS.packed(*members, (32, 10), multiple)
    starts = (packed["encoder_segment_ids"] > 0) & (packed["encoder_positions"] == 0)
    assert starts.sum() == len(lengths), "every example is whole, and none is cut off"
    assert (np.nonzero(starts)[1] % multiple == 0).all()


def test_rows_hold_their_examples_with_segments_and_positions():
    inputs = [[np.array([5, 6, 1]), np.array([7, 1])], [np.array([8, 9, 10, 11, 12, 13, 14, 1])]]
    targets = [[np.array([3, 1]), np.array([4, 1])], [np.array([2, 1])]]
    batch = TWO_ROWS.packed(inputs, targets, (6, 5), 1)
    expected = {
        "encoder_input_tokens": [[5, 6, 1, 7, 1, 0], [8, 9, 10, 11, 12, 1]],
        "encoder_segment_ids": [[1, 1, 1, 2, 2, 0], [1] * 6],
        "encoder_positions": [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]],
        "decoder_target_tokens": [[3, 1, 4, 1, 0], [2, 1, 0, 0, 0]],
        "decoder_input_tokens": [[0, 3, 0, 4, 0], [0, 2, 0, 0, 0]],
        "decoder_segment_ids": [[1, 1, 2, 2, 0], [1, 1, 0, 0, 0]],
        "decoder_positions": [[0, 1, 0, 1, 0], [0, 1, 0, 0, 0]],
        "decoder_loss_weights": [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]],
    }
    for name, rows in expected.items():
        np.testing.assert_array_equal(batch[name], rows, err_msg=name)


def _packed(corpus, tasks=(_TASK,), **options):
    return batches.Finetune(corpus, tasks, BatchShape(4, 80, 40), seed=3, pack=True, **options)


def test_packed_finetuning_is_a_pure_function_of_the_step(corpus):
    run, again = _packed(corpus), _packed(corpus)
    assert run.num_rows < 60 * 4  # so that more than one epoch is compared
    seen = [run.batch(step) for step in range(60)]
    for step in (59, 3, 17):
        for name, rows in again.batch(step).items():
            np.testing.assert_array_equal(rows, seen[step][name])
        halves = [again.batch(step, host, 2)["encoder_input_tokens"] for host in range(2)]
        np.testing.assert_array_equal(np.concatenate(halves), seen[step]["encoder_input_tokens"])


@pytest.mark.parametrize(("options", "multiple"), [({}, 1), ({"multiple": 4}, 4)])
def test_packed_rows_are_planned_in_an_order_drawn_once(corpus, options, multiple):
    """By hand: shuffle the examples, pack them, then shuffle the rows within task and epoch."""

    def order(seed, size):
        return counter_random.permute(seed, np.zeros(size, int), np.arange(size), size)

    examples = corpus.examples(_TASK, "train")
    inputs, targets = (
        [ragged[i] for i in order(3, 400)] for ragged in (examples.inputs, examples.targets)
    )
    sizes = tuple(np.array(list(map(len, feature))) for feature in (inputs, targets))
    plan = TWO_ROWS.plan(sizes, (80, 40), multiple)
    run = _packed(corpus, **options)
    assert run.num_rows == len(plan)
    rows = [plan[i] for i in order(4, len(plan))[order(3, len(plan))][4:8]]
    expected = TWO_ROWS.packed(
        [[inputs[i] for i in row] for row in rows],
        [[targets[i] for i in row] for row in rows],
        (80, 40),
        multiple,
    )
    batch = run.batch(1)
    assert batch.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(batch[name], expected[name], err_msg=name)


def test_a_packed_epoch_holds_every_example_once(corpus):
    run, examples = _packed(corpus), corpus.examples(_TASK, "train")
    rows = [run.batch(step) for step in range(-(-run.num_rows // 4))]
    tokens, segments = (
        np.concatenate([batch[f"encoder_{name}"] for batch in rows])[: run.num_rows]
        for name in ("input_tokens", "segment_ids")
    )
    found = [
        bytes(t[s == k])
        for t, s in zip(tokens, segments, strict=True)
        for k in range(1, s.max() + 1)
    ]
    assert sorted(found) == sorted(
        bytes(examples.inputs[i].astype(np.int32)) for i in range(len(examples))
    )
    assert len(found) > 1.5 * run.num_rows


def test_a_cap_takes_the_same_share_of_packed_rows(corpus):
    whole = _packed(corpus).num_rows
    capped = _packed(corpus, (_TASK, _TASK), cap=100)  # a quarter of each 400
    assert capped.num_rows == 2 * -(-whole // 4)
    task, row = capped.locate(np.arange(4 * capped.num_rows))
    for t in (0, 1):
        assert (np.sum(task.reshape(4, -1) == t, axis=1) == capped.num_rows // 2).all()
        np.testing.assert_array_equal(np.unique(row[task == t]), np.arange(whole))


def test_ranking_shows_each_example_with_each_label(corpus):
    labels = corpus.tasks[_TASK].labels
    predictions, references = [], []
    for part in batches.ranking(corpus, _TASK, BatchShape(10, 24, 8)):
        assert part.batch["encoder_input_tokens"].shape == (10, 24)
        shown = [
            corpus.decode(row)
            for row in part.batch["decoder_target_tokens"][: len(part.references) * len(labels)]
        ]
        assert shown == list(labels) * len(part.references)
        right = np.array(
            [
                float(text != part.references[i // len(labels)]["target"])
                for i, text in enumerate(shown)
            ]
        )
        predictions += batches.ranked(
            labels, np.pad(right, (0, 10 - len(right))), len(part.references)
        )
        references += part.references
    assert (
        predictions == [reference["target"] for reference in references] and len(references) == 40
    )
    with pytest.raises(InputError, match="rank classification"):
        next(batches.ranking(corpus, _TASK, BatchShape(2, 24, 8)))


def test_target_bytes_are_those_of_the_hidden_text(corpus):
    (batch,) = batches.heldout(corpus, BatchShape(4, 64, 32), num_batches=1)
    texts = [corpus.vocabulary.decode(row) for row in batch["decoder_target_tokens"]]
    plain = sum(
        len(piece.split(">", 1)[-1].encode())
        for text in texts
        for piece in text.split("<extra_id_")
        if piece
    )
    spaces = (
        batches.target_bytes(corpus, batch).sum() - plain
    )  # decode drops a space at the start of a span
    assert 0 <= spaces <= 4 * 8
