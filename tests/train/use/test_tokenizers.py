"""Vocabularies of ours as tokenizer.json, and the ids of others in our order."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from train.data.text.vocabulary import Vocabulary
from train.records import InputError
from train.use import tokenizers
from train.use.tokenizers import Order


@given(
    st.integers(3, 30).flatmap(
        lambda size: st.tuples(st.just(size), st.integers(0, size - 1), st.integers(0, size - 1))
    )
)
def test_an_order_puts_start_and_end_first_and_can_be_undone(drawn):
    size, start, end = drawn
    if start == end:
        return
    order = Order(start, end, size)
    assert order.theirs[:2].tolist() == [start, end]
    assert order.theirs[order.ours].tolist() == list(range(size))
    assert order.ours[order.theirs].tolist() == list(range(size))
    moved = np.flatnonzero(order.theirs != np.arange(size))
    assert set(moved) <= {0, 1, start, end}


@pytest.fixture(scope="module")
def both(tiny_vocabulary, tmp_path_factory):
    """A vocabulary, and the same read from its tokenizer.json."""
    vocabulary = Vocabulary(tiny_vocabulary)
    folder = tmp_path_factory.mktemp("json")
    tokenizers.write(vocabulary, folder, starts=False, ends=True)
    order = Order(0, 1, vocabulary.vocab_size)
    return vocabulary, tokenizers.TokenizerFile(folder / "tokenizer.json", order)


@settings(deadline=None)
@given(st.text(st.sampled_from("the cats\n .é漢<>_0"), max_size=40))
def test_tokenizer_json_splits_and_joins_texts_as_the_vocabulary_does(both, text):
    own, other = both
    ids = own.encode([text])[0]
    again = other.encode([text])[0]
    # Two splits may be equally likely.
    assert own.decode(again) == own.decode(ids) and len(again) == len(ids)
    assert other.decode(ids) == own.decode(ids)


def test_sentinels_have_their_ids(both):
    own, other = both
    top = own.vocab_size - 1
    ids = other.encode(["<extra_id_0> a <extra_id_1>"])[0]
    assert ids[0] == top and ids[-1] == top - 1


def test_a_language_model_starts_its_rows_and_an_encoder_ends_its_texts(tiny_vocabulary):
    vocabulary = Vocabulary(tiny_vocabulary)
    plain = vocabulary.encode(["a cat"])[0]
    for starts, ends in ((True, False), (False, True), (True, True), (False, False)):
        wanted = [0] * starts + plain + [1] * ends
        files = tokenizers.as_json(vocabulary, starts=starts, ends=ends)
        made = Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
        assert made.encode("a cat").ids == wanted


def test_ids_of_others_are_put_in_our_order(both, tiny_vocabulary, tmp_path):
    own, _ = both
    tokenizers.write(own, tmp_path, starts=True, ends=False)
    order = Order(7, 9, own.vocab_size)
    other = tokenizers.TokenizerFile(tmp_path / "tokenizer.json", order)
    (tmp_path / "spiece.model").unlink()
    theirs, ours = own.encode(["a cat"])[0], other.encode(["a cat"])[0]
    assert order.theirs[ours].tolist() == theirs
    assert other.decode([*ours, 1, *ours]) == "a cat"
    assert isinstance(tokenizers.open_folder(tmp_path, order), tokenizers.TokenizerFile)
    assert tokenizers.open_folder(tmp_path / "nothing", order) is None
    with pytest.raises(InputError, match="tokens, and the model 20"):
        tokenizers.TokenizerFile(tmp_path / "tokenizer.json", Order(0, 1, 20))
