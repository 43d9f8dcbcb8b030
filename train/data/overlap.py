"""Which pretraining documents hold text of downstream validation examples: the usual check of contamination.

A passage is a run of WINDOW words of a validation example, in lower case and without punctuation (the 13-gram test of
Brown et al. 2020, appendix C); shorter examples are too common to tell anything.
"""

import functools
import hashlib
import re
from collections.abc import Iterable

import numpy as np

WINDOW = 13

_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Passages:
    """A set of passages, kept as sorted 64-bit hashes.

    Attributes:
      key: follows from the texts alone.
    """

    def __init__(self, texts: Iterable[str]):
        """Collects every run of WINDOW words of the texts."""
        runs = [_runs(text) for text in texts]
        self._hashes = np.unique(np.concatenate([np.zeros(0, np.uint64), *runs]))
        self.key = hashlib.sha256(self._hashes.tobytes()).hexdigest()

    def __len__(self) -> int:
        """Number of distinct passages."""
        return len(self._hashes)

    def __contains__(self, document: str) -> bool:
        """Whether a document holds one of the passages."""
        if not len(self._hashes):
            return False
        runs = _runs(document)
        places = np.searchsorted(self._hashes, runs)
        return bool((self._hashes[np.minimum(places, len(self._hashes) - 1)] == runs).any())


def _runs(text: str) -> np.ndarray:
    """One hash for each run of WINDOW words, uint64."""
    words = np.array([_hash(word) for word in _WORD.findall(text.lower())], np.uint64)
    count = len(words) - WINDOW + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    found = np.zeros(count, np.uint64)
    for i in range(WINDOW):
        found = (found ^ words[i : i + count]) * _FACTOR
        found ^= found >> np.uint64(29)
    return found


@functools.lru_cache(maxsize=1 << 18)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
