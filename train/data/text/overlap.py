"""Finds pretraining documents that contain text of downstream validation examples.

This is the usual check for contamination. A passage is a run of WINDOW words of a validation
example, in lower case and without punctuation (the 13-gram test of Brown et al. 2020, appendix C).
Shorter examples are too common to prove anything. Scripts without spaces between words are compared
by characters: a passage is also a run of CHARACTERS tokens, at least half of which are characters
of such a script; the others may be words of another script. That is about the same amount of text,
since a Chinese word has 1.5 characters on average.
"""

import functools
import hashlib
import re
from collections.abc import Iterable

import numpy as np

WINDOW, CHARACTERS = 13, 20

_UNSPACED = (  # Thai, Lao, Tibetan, Burmese, Khmer; kana, Chinese characters
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff"
)
_WORD = re.compile(r"\w+")
_ANY_UNSPACED = re.compile(f"[{_UNSPACED}]")
_TOKEN = re.compile(rf"(?=\w)[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Passages:
    """A set of passages, stored as sorted 64-bit hashes.

    Attributes:
      key: a hash of the set.
    """

    def __init__(self, texts: Iterable[str]):
        """Collects every run of WINDOW words, or of CHARACTERS characters, of the texts."""
        runs = [_runs(text) for text in texts]
        self._hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *runs]))
        self.key = hashlib.sha256(self._hashes.tobytes()).hexdigest()

    def __len__(self) -> int:
        """Number of distinct passages."""
        return len(self._hashes)

    def __contains__(self, document: str) -> bool:
        """Whether a document contains one of the passages."""
        if not len(self._hashes):
            return False
        runs = _runs(document)
        places = np.searchsorted(self._hashes, runs)
        return bool((self._hashes[np.minimum(places, len(self._hashes) - 1)] == runs).any())


def _runs(text: str) -> np.ndarray:
    """One hash per run of WINDOW words, or of CHARACTERS characters without spaces, uint64."""
    text = text.lower()
    words = _of_length(_WORD.findall(text), WINDOW)
    if not _ANY_UNSPACED.search(text):
        return words
    tokens = _TOKEN.findall(text)
    unspaced = np.cumsum([0, *(bool(_ANY_UNSPACED.match(token)) for token in tokens)])
    counts = unspaced[CHARACTERS:] - unspaced[:-CHARACTERS]
    return np.concatenate([words, _of_length(tokens, CHARACTERS)[2 * counts >= CHARACTERS]])


def _of_length(tokens: list[str], length: int) -> np.ndarray:
    """One hash for each run of `length` tokens, uint64."""
    hashes = np.array([_hash(token) for token in tokens], np.uint64)
    count = len(hashes) - length + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    found = np.zeros(count, np.uint64)
    for i in range(length):
        found = (found ^ hashes[i : i + count]) * _FACTOR
        found ^= found >> np.uint64(29)
    return found


@functools.lru_cache(maxsize=1 << 18)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
