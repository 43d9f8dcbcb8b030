import collections
import re

import pytest

from tests.train.data.python_library import copy_library
from train.data.text import python_text
from train.tasks import python_suite


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return python_text.read(str(copy_library(tmp_path_factory.mktemp("library") / "lib")))


@pytest.fixture(scope="module")
def suite(text):
    return python_suite.make(text)


def _words(value):
    return " ".join(sorted(re.findall(r"\w+", value.lower())))


def _letters(sentence):
    return tuple("".join(sorted(word)) for word in sentence.split())


def _prose(example):
    return [
        _words(example[key])
        for key in ("docstring", "sentence", "sentence1", "sentence2", "context")
        if key in example
    ]


def test_no_validation_text_was_seen_in_training(suite, text):
    for splits in suite.values():
        seen = {words for example in splits["train"] for words in _prose(example)}
        assert not any(
            words in seen for example in splits["validation"] for words in _prose(example)
        )
    trained_on = {" ".join(document.split()) for document in text.train.documents()}
    for example in suite["python_follows"]["validation"]:
        assert not any(example["sentence1"] in document for document in trained_on)


def test_sizes_and_balance(suite):
    assert len(suite) == 5
    for name, splits in suite.items():
        assert len(splits["train"]) > 100 and len(splits["validation"]) > 15
        if name != "python_answer":
            counts = collections.Counter(example["label"] for example in splits["validation"])
            assert len(set(counts.values())) == 1 and len(counts) >= 2
            assert set(counts) == {example["label"] for example in splits["train"]}


def test_everything_is_deterministic(suite, text):
    assert python_suite.make(text) == suite


def test_labels_are_not_in_the_text(suite):
    for example in suite["python_package"]["train"]:
        assert example["label"] not in example["docstring"].lower()


def test_shuffled_sentences_keep_the_letters_of_their_words(suite, text):
    sentences = {
        s for entry in text.train.entries for s in python_suite._sentences(entry.docstring)
    }
    letters = {_letters(sentence) for sentence in sentences}
    for example in suite["python_shuffled"]["train"]:
        assert _letters(example["sentence"]) in letters
        assert (example["sentence"] in sentences) == (example["label"] == "True")


def test_follows_depends_on_order_alone(suite, text):
    pairs = set()
    for entry in text.train.entries:
        sentences = python_suite._sentences(entry.docstring)
        pairs |= set(zip(sentences, sentences[1:], strict=False))
    for example in suite["python_follows"]["train"]:
        a, b = example["sentence1"], example["sentence2"]
        assert ((a, b) if example["label"] == "True" else (b, a)) in pairs


def test_signatures_match_their_docstring_or_anothers(suite, text):
    described = collections.defaultdict(set)
    for entry in text.train.entries:
        described[entry.signature] |= set(python_suite._sentences(entry.docstring)[:1])
    for example in suite["python_signature"]["train"]:
        if example["label"] == "match":
            assert example["docstring"] in described[example["signature"]]


def test_answers_are_pieces_of_their_context(suite):
    for example in suite["python_answer"]["train"]:
        (answer,) = example["answers"]
        assert answer in example["context"]
