import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.data.text import vocabulary
from train.data.text.vocabulary import Vocabulary
from train.records import InputError

_NOUNS = [
    "cat",
    "dog",
    "bird",
    "fish",
    "horse",
    "mouse",
    "tiger",
    "wolf",
    "eagle",
    "snake",
    "whale",
    "shark",
    "camel",
]
_TEXT = [
    f"def add_{a}(a, b):\n    return a + {b}  # the sum of {a} and {b}"
    for a in _NOUNS
    for b in _NOUNS
]


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.model"
    path.write_bytes(vocabulary.train(_TEXT, 400, 100))
    return Vocabulary(path, 100)


def test_size_counts_the_sentinels_which_stand_at_the_top(words):
    assert words.vocab_size == 400
    assert words.decode([399, 398, 300, 1, 5]) == "<extra_id_0><extra_id_1><extra_id_99>"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@settings(max_examples=200, deadline=None)
def test_any_text_survives(words, text):
    (ids,) = words.encode([text])
    assert all(2 < i < 300 for i in ids)
    assert words.decode([*ids, 1, 7]) == text


def test_bytes_are_counted(words):
    texts = [*_TEXT, "naïve 🙂\n  x"]
    for text, ids in zip(texts, words.encode(texts), strict=True):
        assert words.bytes_per_piece[ids].sum() - 1 == len(
            text.encode()
        )  # a space is added before every text


def test_training_is_deterministic():
    assert vocabulary.train(_TEXT, 400, 100) == vocabulary.train(_TEXT, 400, 100)


def test_numpy_ids_decode_like_lists(words):
    (ids,) = words.encode(_TEXT[:1])
    assert words.decode(np.array([*ids, 1, 0, 0], np.int32)) == words.decode([0, *ids]) == _TEXT[0]


def test_wrong_files_and_sizes_are_refused(tmp_path):
    (tmp_path / "not.model").write_bytes(b"text")
    with pytest.raises(InputError, match="not a SentencePiece model"):
        Vocabulary(tmp_path / "not.model")
    with pytest.raises(InputError, match="cannot be read"):
        Vocabulary(tmp_path / "missing.model")
    with pytest.raises(InputError, match=r"vocab_size = 90000 does not fit the text: at most \d+"):
        vocabulary.train(_TEXT, 90_000, 100)
    with pytest.raises(InputError, match="vocab_size = 90 leaves nothing beside the 100 sentinels"):
        vocabulary.train(_TEXT, 90, 100)
    with pytest.raises(InputError, match="there is no text"):
        vocabulary.train([], 400, 100)
    with pytest.raises(InputError, match=r"vocab_size = 150 does not fit the text: at least \d+"):
        vocabulary.train(_TEXT, 150, 100)


def test_a_small_text_can_have_fewer_pieces(tmp_path):
    (tmp_path / "small.model").write_bytes(vocabulary.train(_TEXT, 90_000, 100, exact=False))
    assert 360 < Vocabulary(tmp_path / "small.model").vocab_size < 90_000


def test_text_without_spaces_survives(tmp_path):
    """SentencePiece puts a space before every text, and would otherwise not know spaces."""
    texts = ["机器学习模型的规模" * 400, "下游任务的表现" * 400]
    (tmp_path / "v.model").write_bytes(vocabulary.train(texts, 400, 100, exact=False))
    model = Vocabulary(tmp_path / "v.model")
    assert model.decode_all(model.encode([*texts, "是", "a b", ""])) == [*texts, "是", "a b", ""]


def test_a_long_line_of_four_byte_characters_trains_a_vocabulary(tmp_path):
    """SentencePiece skips lines of more than 65,536 bytes."""
    line = "".join(chr(0x1F600 + i % 60) + chr(0x20000 + i * i % 50) for i in range(9_000))
    assert len(line.encode()) > 1 << 16
    (tmp_path / "v.model").write_bytes(vocabulary.train([line], 500, 100, exact=False))
    model = Vocabulary(tmp_path / "v.model")
    (ids,) = model.encode([line])
    assert len(ids) <= len(line) + 9 and model.decode(ids) == line
