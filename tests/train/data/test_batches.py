import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.tiny_corpus import write_corpus
from train.data import batches, counter_random, shards, span_corruption
from train.data.corpus import open_corpus
from train.data.objectives import OBJECTIVES
from train.records import InputError

_TASK = "python_subject"


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
        batches.Pretrain(corpus, "train", 24, 64, 32, seed=7, objective=name) for name in OBJECTIVES
    )
    yield batches.Finetune(corpus, [_TASK], 24, 16, 8, seed=7)
    yield batches.Finetune(corpus, [_TASK], 24, 16, 8, seed=7, cap=50)


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
from train.data.corpus import open_corpus
source = batches.Pretrain(open_corpus({str(corpus.path)!r}), "train", 24, 64, 32, seed=7)
print(hashlib.sha256(source.batch(41)["encoder_input_tokens"].tobytes()).hexdigest())
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    here = batches.Pretrain(corpus, "train", 24, 64, 32, seed=7).batch(41)["encoder_input_tokens"]
    assert run.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()


def test_batches_and_metrics_import_no_tensorflow_seqio_or_jax():
    code = """
import sys
import train.data.batches, train.data.corpus, train.data.prepare, train.tasks.metrics, train.tasks.scoring
print([name for name in ("tensorflow", "seqio", "tensorflow_datasets", "jax") if name in sys.modules])
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(run.stdout.replace("'", '"')) == []


def test_an_epoch_of_pretraining_holds_every_window_once(corpus):
    source = batches.Pretrain(corpus, "train", 8, 64, 32, seed=1, objective="causal_lm")
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
    """The tiny corpus with its train split dealt to shards of the given sizes, as prepared in a format."""
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


def test_windows_run_on_from_shard_to_shard(corpus, tmp_path):
    """A corpus in shards, shorter than a window or empty, gives the batches of the same corpus in one."""
    dealt = _in_shards(tmp_path / "dealt", _SHORT)
    for objective in OBJECTIVES:
        one, many = (
            batches.Pretrain(c, "train", 8, 64, 32, seed=1, objective=objective)
            for c in (corpus, dealt)
        )
        assert one.num_windows == many.num_windows and one.num_unread == many.num_unread < 71
        for step in (0, 5, one.num_windows // 8):
            _equal(one.batch(step), many.batch(step))


def test_a_corpus_of_format_1_keeps_its_windows(corpus, tmp_path):
    """As they were cut: each shard alone."""
    old = _in_shards(tmp_path / "old", _SHORT, number=1)
    source = batches.Pretrain(old, "train", 8, 64, 32, seed=1, objective="causal_lm")
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
    one = batches.Pretrain(corpus, "train", 8, 64, 32, seed=1)
    same = batches.Pretrain(_in_shards(tmp_path / "one", (), number=1), "train", 8, 64, 32, seed=1)
    _equal(one.batch(3), same.batch(3))


def test_span_corruption_batches_restore_to_the_text(corpus):
    batch = batches.Pretrain(corpus, "validation", 4, 64, 32, seed=0).batch(0)
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
    batch = batches.Pretrain(corpus, "train", 64, 20, 10, seed=0, objective="prefix_lm").batch(0)
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
        batches.Pretrain(corpus, "train", 8, 128, 20, seed=0)
    with pytest.raises(InputError, match="sentinels"):
        batches.Pretrain(corpus, "train", 8, 2048, 512, seed=0)
    with pytest.raises(InputError, match="objective = 'mlm'"):
        batches.Pretrain(corpus, "train", 8, 64, 32, seed=0, objective="mlm")
    with pytest.raises(InputError, match="split = 'test'"):
        batches.Pretrain(corpus, "test", 8, 64, 32, seed=0)
    with pytest.raises(InputError, match="batch_size = 8"):
        batches.Pretrain(corpus, "train", 8, 64, 32, seed=0).batch(0, 0, 3)


def test_finetuning_epochs_hold_each_example_once(corpus):
    source = batches.Finetune(corpus, [_TASK], 10, 16, 8, seed=3)
    size = len(corpus.examples(_TASK, "train"))
    for epoch in range(3):
        _, example = source.locate(np.arange(epoch * size, (epoch + 1) * size))
        np.testing.assert_array_equal(np.sort(example), np.arange(size))


def test_the_mixture_is_proportional_up_to_the_cap_and_walks_on(corpus):
    source = batches.Finetune(corpus, [_TASK, _TASK], 10, 16, 8, seed=3, cap=100)
    size = len(corpus.examples(_TASK, "train"))
    task, example = source.locate(np.arange(200 * (size // 100)))
    for t in (0, 1):
        assert (np.sum(task.reshape(-1, 200) == t, axis=1) == 100).all()
        np.testing.assert_array_equal(np.sort(example[task == t]), np.arange(size))


def test_finetuning_cuts_long_inputs_and_keeps_their_end(corpus):
    batch = batches.Finetune(corpus, [_TASK], 32, 6, 2, seed=3).batch(0)
    np.testing.assert_array_equal(batch["encoder_input_tokens"][:, -1], 1)
    np.testing.assert_array_equal(batch["decoder_target_tokens"][:, -1], 1)


def test_evaluation_yields_every_example_once_in_order(corpus):
    examples = corpus.examples(_TASK, "validation")
    found = list(batches.evaluation(corpus, _TASK, 16, 24, 8))
    assert [len(part.references) for part in found] == [16, 16, 8]
    assert [reference for part in found for reference in part.references] == examples.references
    assert all(part.batch["encoder_input_tokens"].shape == (16, 24) for part in found)
    assert not found[-1].batch["encoder_input_tokens"][8:].any()
    texts = [corpus.decode(row) for part in found for row in part.batch["decoder_target_tokens"]]
    assert texts[:40] == [reference["target"] for reference in examples.references]
    assert (
        sum(len(part.references) for part in batches.evaluation(corpus, _TASK, 16, 24, 8, limit=20))
        == 20
    )


def test_heldout_is_the_same_whatever_the_seed_of_the_cell(corpus):
    first, again = (batches.heldout(corpus, 4, 64, 32, num_batches=3) for _ in range(2))
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        _equal(a, b)
    rows = np.concatenate([b["encoder_input_tokens"] for b in batches.heldout(corpus, 4, 64, 32)])
    assert len(rows) == batches.Pretrain(corpus, "validation", 4, 64, 32, 0).num_windows // 4 * 4


def test_a_held_out_split_of_less_than_a_batch_is_filled_with_empty_rows(corpus):
    count = batches.Pretrain(corpus, "validation", 4, 64, 32, 0).num_windows
    (batch,) = batches.heldout(corpus, 1000, 64, 32)
    assert count < 1000 == len(batch["encoder_input_tokens"])
    assert (batch["decoder_loss_weights"].sum(axis=1) > 0).sum() == count
    assert len(np.unique(batch["encoder_input_tokens"][:count], axis=0)) == count


def test_unigram_baselines_are_entropies(corpus):
    held_out = batches.heldout(corpus, 4, 64, 32)
    train = batches.Pretrain(corpus, "train", 32, 64, 32, seed=0)
    value = batches.unigram_nll(train, held_out)
    targets = np.concatenate([b["decoder_target_tokens"].ravel() for b in held_out])
    p = np.bincount(targets[targets > 0]) / np.sum(targets > 0)
    entropy = -np.sum(
        p[p > 0] * np.log(p[p > 0])
    )  # the least any fixed distribution can have on these targets
    assert entropy <= value < entropy + 0.15
    assert corpus.unigram_nll() > 0
