import collections
import functools
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.tiny_corpus import write_corpus
from train.data import batches, counter_random, shards, span_corruption
from train.data.batch_shape import BatchShape, TextOptions
from train.data.corpus import Corpus, open_corpus
from train.data.objectives import OBJECTIVES
from train.data.windows import Windows
from train.records import InputError

_TASK = "python_subject"
_TRAIN, _HELDOUT = BatchShape(8, 64, 32), BatchShape(4, 64, 32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return open_corpus(write_corpus(tmp_path_factory.mktemp("corpus")))


def _equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


def _sources(corpus):
    yield from (
        batches.Pretrain(corpus, "train", BatchShape(24, 64, 32), seed=7, text=TextOptions(name))
        for name in OBJECTIVES
    )
    yield batches.Finetune(corpus, [_TASK], BatchShape(24, 16, 8), seed=7)
    yield batches.Finetune(corpus, [_TASK], BatchShape(24, 16, 8), seed=7, cap=50)


def test_batches_have_seqio_names_shapes_and_types(corpus):
    for source in _sources(corpus):
        batch = source.batch(3)
        inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
        assert inputs.dtype == targets.dtype == batch["decoder_input_tokens"].dtype == np.int32
        assert batch["decoder_loss_weights"].dtype == np.float32
        assert inputs.shape[0] == 24 and inputs.max() < corpus.vocab_size and inputs.min() >= 0
        np.testing.assert_array_equal(batch["decoder_input_tokens"][:, 0], 0)
        np.testing.assert_array_equal(batch["decoder_input_tokens"][:, 1:], targets[:, :-1])
        np.testing.assert_array_equal(batch["decoder_loss_weights"], targets > 0)


@pytest.mark.slow
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]))
@settings(max_examples=20, deadline=None)
def test_hosts_together_hold_the_global_batch_at_any_step(corpus, step, num_hosts):
    for whole, parts in zip(_sources(corpus), _sources(corpus), strict=True):
        batch = whole.batch(step)
        hosts = [parts.batch(step, host, num_hosts) for host in range(num_hosts)]
        _equal(batch, {name: np.concatenate([host[name] for host in hosts]) for name in batch})


def test_a_restart_at_any_step_gives_the_same_batches(corpus):
    for run, again in zip(_sources(corpus), _sources(corpus), strict=True):
        seen = [run.batch(step) for step in range(60)]
        for step in (59, 0, 31, 47, 46, 17):
            _equal(again.batch(step), seen[step])


def test_another_process_draws_the_same_batches(corpus):
    code = f"""
import hashlib
from train.data import batches
from train.data.batch_shape import BatchShape, TextOptions
from train.data.corpus import open_corpus
corpus = open_corpus({str(corpus.path)!r})
source = batches.Pretrain(corpus, "train", BatchShape(24, 64, 32), seed=7)
print(hashlib.sha256(source.batch(41)["encoder_input_tokens"].tobytes()).hexdigest())
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    here = batches.Pretrain(corpus, "train", BatchShape(24, 64, 32), seed=7).batch(41)
    inputs = here["encoder_input_tokens"]
    assert run.stdout.strip() == hashlib.sha256(inputs.tobytes()).hexdigest()


def test_batches_and_metrics_import_no_tensorflow_seqio_or_jax():
    code = """
import sys
import train.data.batches, train.data.corpus, train.data.prepare
import train.tasks.metrics, train.tasks.scoring
heavy = ("tensorflow", "seqio", "tensorflow_datasets", "jax")
print([name for name in heavy if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(run.stdout.replace("'", '"')) == []


def test_an_epoch_of_pretraining_holds_every_window_once(corpus):
    source = batches.Pretrain(corpus, "train", _TRAIN, seed=1, text=TextOptions("causal_lm"))
    stream = np.concatenate(corpus.tokens("train"))
    windows = stream[: source.num_windows * 31].reshape(-1, 31)
    steps = range(-(-source.num_windows // 8))
    seen = np.concatenate([source.batch(step)["decoder_target_tokens"][:, :31] for step in steps])[
        : len(windows)
    ]
    order = sorted(map(bytes, windows.astype(np.int32)))
    assert sorted(map(bytes, np.ascontiguousarray(seen))) == order
    assert not np.array_equal(seen, windows)


def _in_shards(path, sizes, number=2):
    """The tiny corpus with its train split in shards of these sizes, prepared in a format."""
    path = write_corpus(path)
    index = json.loads((path / "corpus.json").read_text())
    (whole,) = index["pretrain"]["train"]["shards"]
    parts = np.split(np.load(path / whole), np.cumsum(sizes))
    names = [f"pretrain/train-{i:05d}.npy" for i in range(len(parts))]
    index["files"] |= {
        name: shards.write_array(path / name, part) for name, part in zip(names, parts, strict=True)
    }
    index["pretrain"]["train"]["shards"] = names
    (path / "corpus.json").write_text(json.dumps(index | {"format": number}))
    return open_corpus(path)


_SHORT = (5, 0, 30, 31, 1, 200, 17, 62)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_windows_wherever_shards_end(length):
    """At every place in a window, including its first and last token, and several in one window."""
    stream = np.arange(100, 100 + 5 * length + 3, dtype=np.uint16)
    count = len(stream) // length
    expected = stream[: count * length].reshape(count, length)
    for cut in range(len(stream) + 1):
        for more in (0, 1, 2, length):
            shards_of = np.split(stream, [cut, min(cut + more, len(stream))])
            windows = Windows(shards_of, length, one_stream=True)
            assert windows.num_windows == count and windows.num_tokens == len(stream)
            assert windows.num_unread == len(stream) - count * length
            order = np.arange(count)[::-1]
            found = windows.read(order)
            assert found.dtype == np.int32
            np.testing.assert_array_equal(found, expected[order])
            alone = Windows(shards_of, length, one_stream=False)
            cut_alone = [s[: len(s) // length * length].reshape(-1, length) for s in shards_of]
            whole = np.concatenate(cut_alone)
            assert alone.num_windows == len(whole)
            assert alone.num_unread == len(stream) - whole.size
            np.testing.assert_array_equal(alone.read(np.arange(len(whole))), whole)


def test_windows_run_on_from_shard_to_shard(corpus, tmp_path):
    """Shards that are empty or shorter than a window give the same batches as one shard."""
    dealt = _in_shards(tmp_path / "dealt", _SHORT)
    for objective in OBJECTIVES:
        one, many = (
            batches.Pretrain(c, "train", _TRAIN, seed=1, text=TextOptions(objective))
            for c in (corpus, dealt)
        )
        assert one.num_windows == many.num_windows and one.num_unread == many.num_unread < 71
        for step in (0, 5, one.num_windows // 8):
            _equal(one.batch(step), many.batch(step))


def test_a_corpus_of_format_1_keeps_its_windows(corpus, tmp_path):
    """The windows of each shard are cut separately, as they were in that format."""
    old = _in_shards(tmp_path / "old", _SHORT, number=1)
    source = batches.Pretrain(old, "train", _TRAIN, seed=1, text=TextOptions("causal_lm"))
    cut = [shard[: len(shard) // 31 * 31].reshape(-1, 31) for shard in old.tokens("train")]
    windows = np.concatenate(cut).astype(np.int32)
    assert (
        source.num_windows == len(windows) and source.num_unread == source.num_tokens - windows.size
    )
    order = counter_random.permute(
        1, np.zeros(len(windows), int), np.arange(len(windows)), len(windows)
    )
    seen = np.concatenate(
        [source.batch(step)["decoder_target_tokens"][:, :31] for step in range(len(windows) // 8)]
    )
    np.testing.assert_array_equal(seen, windows[order][: len(seen)])
    one = batches.Pretrain(corpus, "train", _TRAIN, seed=1)
    same = batches.Pretrain(_in_shards(tmp_path / "one", (), number=1), "train", _TRAIN, seed=1)
    _equal(one.batch(3), same.batch(3))


def test_span_corruption_batches_restore_to_the_text(corpus):
    batch = batches.Pretrain(corpus, "validation", _HELDOUT, seed=0).batch(0)
    stream = np.concatenate(corpus.tokens("validation"))
    shape = span_corruption.geometry_for_inputs(64)
    windows = {
        bytes(w)
        for w in stream[: len(stream) // shape.raw_length * shape.raw_length].reshape(
            -1, shape.raw_length
        )
    }
    top = corpus.vocab_size - corpus.num_sentinels
    for inputs, targets in zip(
        batch["encoder_input_tokens"], batch["decoder_target_tokens"], strict=True
    ):
        targets = targets[: shape.target_length - 1]
        spans = dict(
            zip(
                targets[targets >= top],
                np.split(targets, np.flatnonzero(targets >= top))[1:],
                strict=True,
            )
        )
        pieces = [
            spans[token][1:] if token >= top else [token]
            for token in inputs[: shape.input_length - 1]
        ]
        assert bytes(np.concatenate(pieces).astype(stream.dtype)) in windows


def test_prefix_lm_targets_go_on_where_the_inputs_end(corpus):
    shape = BatchShape(64, 20, 10)
    batch = batches.Pretrain(corpus, "train", shape, seed=0, text=TextOptions("prefix_lm")).batch(0)
    stream = bytes(np.concatenate(corpus.tokens("train")))
    lengths = []
    for inputs, targets in zip(
        batch["encoder_input_tokens"], batch["decoder_target_tokens"], strict=True
    ):
        length = int(np.flatnonzero(inputs)[-1])
        lengths.append(length)
        assert inputs[length] == 1 and targets[-1] == 1
        assert bytes(np.concatenate([inputs[:length], targets[:-1]]).astype(np.uint16)) in stream
    assert min(lengths) <= 3 and max(lengths) >= 17


def test_lengths_that_do_not_fit_are_refused(corpus):
    with pytest.raises(InputError, match="target_length = 20 is below 29"):
        batches.Pretrain(corpus, "train", BatchShape(8, 128, 20), seed=0)
    with pytest.raises(InputError, match="sentinels"):
        batches.Pretrain(corpus, "train", BatchShape(8, 2048, 512), seed=0)
    with pytest.raises(InputError, match="objective = 'mlm'"):
        batches.Pretrain(corpus, "train", _TRAIN, seed=0, text=TextOptions("mlm"))
    with pytest.raises(InputError, match="split = 'test'"):
        batches.Pretrain(corpus, "test", _TRAIN, seed=0)
    with pytest.raises(InputError, match="batch_size = 8"):
        batches.Pretrain(corpus, "train", _TRAIN, seed=0).batch(0, 0, 3)


def test_finetuning_epochs_hold_each_example_once(corpus):
    source = batches.Finetune(corpus, [_TASK], BatchShape(10, 16, 8), seed=3)
    size = len(corpus.examples(_TASK, "train"))
    for epoch in range(3):
        _, example = source.locate(np.arange(epoch * size, (epoch + 1) * size))
        np.testing.assert_array_equal(np.sort(example), np.arange(size))


def test_the_mixture_is_proportional_up_to_the_cap_and_walks_on(corpus):
    source = batches.Finetune(corpus, [_TASK, _TASK], BatchShape(10, 16, 8), seed=3, cap=100)
    size = len(corpus.examples(_TASK, "train"))
    task, example = source.locate(np.arange(200 * (size // 100)))
    for t in (0, 1):
        assert (np.sum(task.reshape(-1, 200) == t, axis=1) == 100).all()
        np.testing.assert_array_equal(np.sort(example[task == t]), np.arange(size))


def test_finetuning_cuts_long_inputs_and_keeps_their_end(corpus):
    batch = batches.Finetune(corpus, [_TASK], BatchShape(32, 6, 2), seed=3).batch(0)
    np.testing.assert_array_equal(batch["encoder_input_tokens"][:, -1], 1)
    np.testing.assert_array_equal(batch["decoder_target_tokens"][:, -1], 1)


def test_evaluation_yields_every_example_once_in_order(corpus):
    examples = corpus.examples(_TASK, "validation")
    found = list(batches.evaluation(corpus, _TASK, BatchShape(16, 24, 8)))
    assert [len(part.references) for part in found] == [16, 16, 8]
    assert [reference for part in found for reference in part.references] == examples.references
    assert all(part.batch["encoder_input_tokens"].shape == (16, 24) for part in found)
    assert not found[-1].batch["encoder_input_tokens"][8:].any()
    texts = [corpus.decode(row) for part in found for row in part.batch["decoder_target_tokens"]]
    assert texts[:40] == [reference["target"] for reference in examples.references]
    first = batches.evaluation(corpus, _TASK, BatchShape(16, 24, 8), limit=20)
    assert [len(part.references) for part in first] == [16, 4]


def test_heldout_is_the_same_whatever_the_seed_of_the_cell(corpus):
    first, again = (batches.heldout(corpus, _HELDOUT, num_batches=3) for _ in range(2))
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        _equal(a, b)
    rows = np.concatenate([b["encoder_input_tokens"] for b in batches.heldout(corpus, _HELDOUT)])
    assert len(rows) == batches.Pretrain(corpus, "validation", _HELDOUT, 0).num_windows // 4 * 4


def test_a_held_out_split_of_less_than_a_batch_is_filled_with_empty_rows(corpus):
    count = batches.Pretrain(corpus, "validation", _HELDOUT, 0).num_windows
    (batch,) = batches.heldout(corpus, BatchShape(1000, 64, 32))
    assert count < 1000 == len(batch["encoder_input_tokens"])
    assert (batch["decoder_loss_weights"].sum(axis=1) > 0).sum() == count
    assert len(np.unique(batch["encoder_input_tokens"][:count], axis=0)) == count


def test_unigram_baselines_are_entropies(corpus):
    held_out = batches.heldout(corpus, _HELDOUT)
    train = batches.Pretrain(corpus, "train", BatchShape(32, 64, 32), seed=0)
    value = batches.unigram_nll(train, held_out)
    targets = np.concatenate([b["decoder_target_tokens"].ravel() for b in held_out])
    p = np.bincount(targets[targets > 0]) / np.sum(targets > 0)
    entropy = -np.sum(
        p[p > 0] * np.log(p[p > 0])
    )  # the least any fixed distribution can have on these targets
    assert entropy <= value < entropy + 0.15
    assert corpus.unigram_nll() > 0


@functools.cache
def _order(seed, epoch, size):
    """The permutation of one epoch."""
    return counter_random.permute(seed, np.full(size, epoch), np.arange(size), size)


def _with_task(path):
    """The tiny corpus with a second task to train on, of 40 examples; the first has 400."""
    path = write_corpus(path)
    index = json.loads((path / "corpus.json").read_text())
    (path / "tasks/small").mkdir()
    for file in (path / "tasks" / _TASK).glob("validation.*"):
        shutil.copy(file, path / "tasks/small" / file.name.replace("validation", "train"))
    index["tasks"]["small"] = index["tasks"][_TASK] | {"examples": {"train": 40}}
    (path / "corpus.json").write_text(json.dumps(index))
    return open_corpus(path)


@pytest.mark.parametrize(
    ("cap", "shares"), [(None, (400, 40)), (0, (400, 40)), (100, (100, 40)), (30, (30, 30))]
)
def test_rows_of_a_mixture_are_drawn_one_by_one_as_described(tmp_path, cap, shares):
    """An epoch permutes the shares of all tasks.

    Each task goes through its examples in an order of its own, again and again.
    """
    corpus, tasks, per_epoch = _with_task(tmp_path / "corpus"), [_TASK, "small"], sum(shares)
    source = batches.Finetune(corpus, tasks, BatchShape(10, 32, 8), seed=3, cap=cap)
    assert source.num_rows == per_epoch
    expected = []
    for epoch in range(3):
        for item in _order(3, epoch, per_epoch):
            task = int(item >= shares[0])
            lap, place = divmod(item - task * shares[0] + epoch * shares[task], (400, 40)[task])
            expected.append((task, _order(4 + task, lap, (400, 40)[task])[place]))
    found = source.locate(np.arange(3 * per_epoch))
    np.testing.assert_array_equal(np.stack(found, axis=1), expected)
    step = per_epoch // 10  # the batch that ends the first epoch or begins the second
    batch = source.batch(step)
    for row, (task, example) in enumerate(expected[10 * step : 10 * step + 10]):
        examples = corpus.examples(tasks[task], "train")
        for name, ids in (
            ("encoder_input", examples.inputs[example]),
            ("decoder_target", examples.targets[example]),
        ):
            tokens = batch[f"{name}_tokens"][row]
            np.testing.assert_array_equal(tokens[: len(ids)], ids)
            assert not tokens[len(ids) :].any()


def test_a_mixture_of_no_tasks_is_refused(corpus):
    with pytest.raises(InputError, match="tasks is empty"):
        batches.Finetune(corpus, [], BatchShape(10, 16, 8), seed=3)


def test_each_epoch_of_pretraining_has_an_order_of_its_own(corpus):
    count = batches.Pretrain(
        corpus, "train", _TRAIN, seed=1, text=TextOptions("causal_lm")
    ).num_windows
    epoch = BatchShape(count, 64, 32)
    source = batches.Pretrain(corpus, "train", epoch, seed=1, text=TextOptions("causal_lm"))
    windows = np.concatenate(corpus.tokens("train"))[: count * 31].reshape(-1, 31)
    for epoch in (0, 1):
        np.testing.assert_array_equal(
            source.batch(epoch)["decoder_target_tokens"][:, :31], windows[_order(1, epoch, count)]
        )


def test_rows_do_not_depend_on_the_batch_size(corpus):
    """Also where a batch has more rows than are made together."""
    large, small = (
        batches.Pretrain(corpus, "train", BatchShape(size, 64, 32), seed=1) for size in (1500, 4)
    )
    _equal({name: rows[:4] for name, rows in large.batch(1).items()}, small.batch(375))


def test_arrays_of_a_batch_are_read_only(corpus):
    """They are views of rows that are kept for later steps."""
    for source in _sources(corpus):
        for rows in source.batch(0).values():
            with pytest.raises(ValueError, match="read-only"):
                rows[0] = 0


@pytest.mark.parametrize("host", [-1, 2, 3])
def test_a_host_that_is_not_there_is_refused(corpus, host):
    source = batches.Pretrain(corpus, "train", _TRAIN, seed=1)
    with pytest.raises(InputError, match=f"batch_size = 8 cannot be dealt to host {host} of 2"):
        source.batch(0, host, 2)


def test_the_default_is_the_span_corruption_of_t5(corpus):
    text = TextOptions("span_corruption", noise_density=0.15, mean_span_length=3.0)
    plain = batches.Pretrain(corpus, "train", _TRAIN, seed=1)
    told = batches.Pretrain(corpus, "train", _TRAIN, seed=1, text=text)
    _equal(plain.batch(0), told.batch(0))


def test_a_text_of_one_window_is_enough(corpus):
    tokens = corpus.num_tokens("validation")
    fits, too_long = BatchShape(2, 8, tokens + 1), BatchShape(2, 8, tokens + 2)
    one = batches.Pretrain(corpus, "validation", fits, seed=0, text=TextOptions("causal_lm"))
    assert (one.num_windows, one.num_tokens, one.num_unread) == (1, tokens, 0)
    for row in one.batch(0)["decoder_target_tokens"]:
        np.testing.assert_array_equal(row[:-1], np.concatenate(corpus.tokens("validation")))
    with pytest.raises(InputError, match=f"validation has no {tokens + 1} tokens in a row"):
        batches.Pretrain(corpus, "validation", too_long, seed=0, text=TextOptions("causal_lm"))


def test_the_held_out_set_is_the_first_epoch_of_seed_0(corpus):
    count = batches.Pretrain(corpus, "validation", _HELDOUT, 0).num_windows
    whole = batches.Pretrain(corpus, "validation", BatchShape(count, 64, 32), 0).batch(0)
    (exact,) = batches.heldout(corpus, BatchShape(count, 64, 32))
    _equal(exact, whole)
    (filled,) = batches.heldout(corpus, BatchShape(count + 3, 64, 32))
    _equal({name: rows[:count] for name, rows in filled.items()}, whole)
    assert not any(rows[count:].any() for rows in filled.values())
    few = batches.heldout(corpus, _HELDOUT, num_batches=10**6)
    assert len(few) == count // 4
    _equal(
        {name: np.concatenate([b[name] for b in few]) for name in whole},
        {name: rows[: count // 4 * 4] for name, rows in whole.items()},
    )


def test_evaluation_takes_no_more_examples_than_there_are(corpus):
    for made in (batches.evaluation, batches.ranking):
        for limit, count in ((None, 40), (0, 40), (7, 7), (50, 40)):
            found = [
                r
                for part in made(corpus, _TASK, BatchShape(16, 24, 8), limit=limit)
                for r in part.references
            ]
            assert found == corpus.examples(_TASK, "validation").references[:count]


def test_rank_classification_needs_labels_that_fit_a_batch(corpus):
    first = batches.ranking(corpus, _TASK, BatchShape(4, 24, 8), limit=2)
    assert [len(part.references) for part in first] == [1, 1]
    with pytest.raises(InputError, match="has 4 labels: no rank classification in batches of 3"):
        next(batches.ranking(corpus, _TASK, BatchShape(3, 24, 8)))
    free = Corpus(
        corpus.path,
        {**corpus.index, "tasks": {_TASK: {**corpus.index["tasks"][_TASK], "labels": []}}},
    )
    with pytest.raises(InputError, match="has 0 labels: no rank classification"):
        next(batches.ranking(free, _TASK, BatchShape(8, 24, 8)))


def test_every_row_that_is_ranked_is_an_example_and_a_label(corpus):
    """Three examples with four labels in batches of fourteen rows.

    Each label's target ends in EOS, and two rows are empty.
    """
    examples, labels = corpus.examples(_TASK, "validation"), corpus.tasks[_TASK].labels
    part = list(batches.ranking(corpus, _TASK, BatchShape(14, 32, 8)))[1]
    inputs, targets = (
        part.batch[name] for name in ("encoder_input_tokens", "decoder_target_tokens")
    )
    for row in range(12):
        example, label = divmod(row, 4)
        for tokens, ids in (
            (inputs[row], examples.inputs[3 + example]),
            (targets[row], [*corpus.vocabulary.encode(labels)[label], 1]),
        ):
            np.testing.assert_array_equal(tokens[: len(ids)], ids)
            assert not tokens[len(ids) :].any()
    assert not inputs[12:].any() and not targets[12:].any()
    assert part.references == examples.references[3:6]


def test_bytes_are_those_of_weighted_targets_scaled_to_the_text(corpus):
    """By hand, for text that the vocabulary changed: 300 bytes of it are 200 bytes of pieces."""
    part = corpus.index["pretrain"]["validation"] | {
        "changed": True,
        "text_bytes": 300,
        "piece_bytes": 200,
    }
    scaled = Corpus(
        corpus.path, {**corpus.index, "pretrain": {**corpus.index["pretrain"], "validation": part}}
    )
    (batch,) = batches.heldout(corpus, _HELDOUT, num_batches=1)
    weights = batch["decoder_loss_weights"] * (
        np.arange(32) % 3 > 0
    )  # targets without weight do not count as text either
    half = batch | {"decoder_loss_weights": weights * 0.5}
    sizes = corpus.vocabulary.bytes_per_piece
    counted = [
        sum(sizes[t] for t, w in zip(*row, strict=True) if w)
        for row in zip(batch["decoder_target_tokens"], weights, strict=True)
    ]
    assert batches.target_bytes(corpus, half).tolist() == counted
    assert batches.target_bytes(scaled, half).tolist() == [1.5 * n for n in counted]


def _windows_of_an_epoch(corpus, seed, unique_tokens):
    shape = BatchShape(1, 0, 16, "decoder_only")
    text = TextOptions("causal_lm")
    source = batches.Pretrain(corpus, "train", shape, seed, text, unique_tokens)
    rows = [
        tuple(source.batch(step)["decoder_target_tokens"][0])
        for step in range(2 * source.num_windows)
    ]
    epochs = [set(rows[: source.num_windows]), set(rows[source.num_windows :])]
    return source, rows, epochs


def test_limited_text_is_the_same_in_every_epoch_and_for_every_seed(corpus):
    few, rows, (first, second) = _windows_of_an_epoch(corpus, 0, 40 * 16 + 5)
    assert (few.num_windows, few.epoch_tokens) == (40, 640) and first == second
    _, others, (other, _) = _windows_of_an_epoch(corpus, 1, 640)
    assert other == first and others != rows  # the same text in another order
    _, _, (more, _) = _windows_of_an_epoch(corpus, 0, 100 * 16)
    assert first < more


def test_a_limit_that_the_text_cannot_meet_is_refused(corpus):
    for limit in (15, 10**9):
        with pytest.raises(InputError, match=f"unique_tokens = {limit}: must be at least"):
            _windows_of_an_epoch(corpus, 0, limit)


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """A corpus of two parts, whose documents have 40 tokens of its own range and an EOS."""
    path = write_corpus(tmp_path_factory.mktemp("parts"))
    index = json.loads((path / "corpus.json").read_text())
    rng = np.random.default_rng(0)
    for split, counts in (("train", (60, 20)), ("validation", (9, 5))):
        kinds = rng.permutation(np.repeat([0, 1], counts)).astype(np.uint16)
        lowest = 100 * (1 + kinds.astype(int))
        rows = [np.append(rng.integers(low, low + 50, 40), 1) for low in lowest]
        name = f"pretrain/{split}-00000"
        tokens = shards.write_array(path / f"{name}.npy", np.concatenate(rows).astype(np.uint16))
        labels = shards.write_array(path / f"{name}.parts.npy", kinds)
        index["files"] |= {f"{name}.npy": tokens, f"{name}.parts.npy": labels}
        index["pretrain"][split] |= {"tokens": 41 * len(kinds), "parts": [["low", "high"]]}
    (path / "corpus.json").write_text(json.dumps(index))
    return open_corpus(path)


def _mixed(corpus, sources, seed=0):
    shape, text = BatchShape(4, 0, 16, "decoder_only"), TextOptions("causal_lm")
    return batches.Pretrain(corpus, "train", shape, seed, text, sources=sources)


def test_parts_are_mixed_in_exact_shares_and_read_whole(parted):
    source = _mixed(parted, {"high": 3.0, "low": 1.0})
    windows = {"low": 60 * 41 // 16, "high": 20 * 41 // 16}
    assert source.num_windows == sum(windows.values())
    rows = np.concatenate(
        [source.batch(step)["decoder_target_tokens"] for step in range(source.num_windows)]
    )  # four epochs
    is_high = (rows[:, :] >= 200).any(axis=1)
    epochs = is_high.reshape(4, -1).sum(axis=1)
    assert set(epochs) == {round(0.75 * source.num_windows)}
    # Every window of a part is read equally often, also across epochs.
    high = collections.Counter(tuple(row) for row in rows[is_high])
    assert len(high) == windows["high"] and max(high.values()) - min(high.values()) <= 1
    stream = parted.parts("train")["high"]
    assert set(high) == {tuple(row) for row in stream[: windows["high"] * 16].reshape(-1, 16)}


def test_another_seed_mixes_in_another_order_and_one_part_can_stand_alone(parted):
    one, other = (_mixed(parted, {"low": 1.0}, seed).batch(0) for seed in (0, 1))
    assert not np.array_equal(one["decoder_target_tokens"], other["decoder_target_tokens"])
    assert one["decoder_target_tokens"].max() < 200


def test_a_part_that_a_corpus_does_not_have_is_refused(parted, corpus):
    with pytest.raises(InputError, match="sources: 'middle' is no part of .*; it has high, low"):
        _mixed(parted, {"middle": 1.0, "low": 1.0})
    with pytest.raises(InputError, match="has no parts; prepare it again"):
        _mixed(corpus, {"low": 1.0})


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(6, 10_000))
def test_shares_are_whole_and_as_close_as_can_be(weights, rows):
    counts = batches._shares({str(i): w for i, w in enumerate(weights)}, rows)
    exact = rows * np.array(weights) / sum(weights)
    assert counts.sum() == rows and (np.abs(counts - exact) < 1 + 1e-6).all()
