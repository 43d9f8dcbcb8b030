import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.train.tiny_corpus import write_corpus
from train.data import batches, corpus
from train.data.batch_shape import BatchShape
from train.records import InputError


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def path(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "corpus"))


def _flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-9] ^= 4
    file.write_bytes(content)


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
    "damage", [_flip_a_bit, _truncate, lambda file: file.unlink()], ids=["flip", "cut", "missing"]
)
@pytest.mark.parametrize(
    "name",
    [
        "pretrain/train-00000.npy",
        "vocabulary.model",
        "tasks/python_subject/validation.references.jsonl",
    ],
)
def test_a_damaged_file_is_refused_by_name(path, name, damage):
    damage(path / name)
    with pytest.raises(InputError, match=name) as caught:
        corpus.open_corpus(path)
    assert "\n" not in str(caught.value)


def test_sizes_are_checked_even_without_hashing(path):
    corpus.open_corpus(path, verify=False)
    _truncate(path / "pretrain/train-00000.npy")
    with pytest.raises(InputError, match="train-00000"):
        corpus.open_corpus(path, verify=False)


def test_a_shard_of_another_vocabulary_is_refused_by_name(path):
    shard = "pretrain/train-00000.npy"
    np.save(path / shard, np.load(path / shard) + np.uint16(1))
    with pytest.raises(InputError, match=shard):
        corpus.open_corpus(path)


def _without(path, key):
    index = json.loads((path / "corpus.json").read_text())
    del index[key]
    (path / "corpus.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "corpus.json").unlink(), "has not finished"),
        (lambda p: (p / "corpus.json").write_text("{"), "not JSON"),
        (lambda p: _without(p, "format"), "format = None, this version reads 1 and 2"),
        (lambda p: _without(p, "tasks"), "has no tasks"),
    ],
)
def test_a_damaged_index_is_refused(path, damage, message):
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        corpus.open_corpus(path)
    assert "corpus.json" in str(caught.value)


def test_a_missing_corpus_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="train prepare"):
        corpus.open_corpus(tmp_path / "nothing")


def test_unknown_tasks_and_splits_are_named(path):
    opened = corpus.open_corpus(path)
    for call, wrong in [
        (lambda: opened.examples("glue_cola", "train"), "glue_cola"),
        (lambda: opened.examples("python_subject", "test"), "test"),
        (lambda: batches.Finetune(opened, [], BatchShape(2, 8, 8), 0), "tasks is empty"),
    ]:
        with pytest.raises(InputError, match=wrong):
            call()


def test_the_fingerprint_and_counts_come_from_the_files(path):
    opened = corpus.open_corpus(path)
    stream = np.concatenate(opened.tokens("train"))
    assert opened.num_tokens("train") == len(stream)
    assert opened.unigram_counts("train").sum() == len(stream)
    assert 0.5 < opened.bytes_per_token("train") < 8
    text = opened.decode(stream[: np.flatnonzero(stream == 1)[0] + 1])
    assert text.startswith("the ") and text.endswith(" .")
