"""SentencePiece vocabularies in T5's layout: pad 0, EOS 1, unknown 2, pieces, sentinels."""

import functools
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from train.records import InputError

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
NUM_SENTINELS = 100
_TRAINER_THREADS = 8  # fixed, because scores of pieces depend on the number of threads

_SPACE = "\u2581"  # SentencePiece's character for a space
_LONGEST = 1 << 16  # bytes of a line; SentencePiece silently skips longer ones


class Vocabulary:
    """A SentencePiece model with sentinels on top.

    Attributes:
      vocab_size: number of ids, sentinels included; sentinel k is vocab_size - 1 - k.
      num_sentinels: number of sentinels.
    """

    def __init__(self, path: Path, num_sentinels: int = NUM_SENTINELS):
        """Reads a model file.

        Raises:
          InputError: the file does not exist, or is not a SentencePiece model with pad 0 and EOS 1.
        """
        self.path = Path(path)
        self.num_sentinels = num_sentinels
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=self.path.read_bytes())
        except OSError as error:
            raise InputError(f"vocabulary: {path} cannot be read ({error.strerror})") from None
        except RuntimeError:
            raise InputError(f"vocabulary: {path} is not a SentencePiece model") from None
        if (self._model.pad_id(), self._model.eos_id()) != (PAD_ID, EOS_ID):
            raise InputError(
                f"vocabulary: {path} has pad {self._model.pad_id()} and EOS "
                f"{self._model.eos_id()}, not 0 and 1"
            )
        self.vocab_size = self._model.vocab_size() + num_sentinels

    def encode(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Token ids of each text, without EOS."""
        return self._model.encode(list(texts), num_threads=num_threads)

    def decode_all(self, rows: Sequence[Sequence[int]], num_threads: int = 1) -> list[str]:
        """The texts of rows of pieces, the inverse of `encode`."""
        return (
            self._model.decode([list(row) for row in rows], num_threads=num_threads) if rows else []
        )

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of the ids before EOS; skips padding, and writes sentinel k as <extra_id_k>."""
        parts, run = [], []
        for token in map(int, ids):
            if token == EOS_ID:
                break
            if token < self._model.vocab_size():
                run += [token] if token != PAD_ID else []
            else:
                parts += [self._model.decode(run), f"<extra_id_{self.vocab_size - 1 - token}>"]
                run = []
        return "".join([*parts, self._model.decode(run)])

    @functools.cached_property
    def bytes_per_piece(self) -> np.ndarray:
        """Number of UTF-8 bytes per id, int32 [vocab_size]; 0 for control ids and sentinels."""
        model = self._model
        size = np.zeros(self.vocab_size, np.int32)
        for i in range(model.vocab_size()):
            if model.is_byte(i):
                size[i] = 1
            elif not model.is_control(i) and not model.is_unknown(i):
                size[i] = len(model.id_to_piece(i).replace(_SPACE, " ").encode())
        return size


def train(
    texts: Iterable[str], vocab_size: int, num_sentinels: int = NUM_SENTINELS, *, exact: bool = True
) -> bytes:
    """Trains a unigram model that keeps every character: no normalisation, byte fallback.

    Args:
      texts: sample to train on; cut into lines, and long lines into parts.
      vocab_size: number of ids, including sentinels.
      num_sentinels: number of ids at the top that are not in the model itself.
      exact: refuses a size for which the text is too small; otherwise takes fewer pieces.

    Returns:
      The content of the model file.

    Raises:
      InputError: `vocab_size` is too small or too large for the text.
    """
    if vocab_size <= num_sentinels:
        raise InputError(
            f"vocab_size = {vocab_size} leaves nothing beside the {num_sentinels} sentinels"
        )
    texts = list(texts)
    model = _train(texts, vocab_size, num_sentinels, exact=exact)
    if sentencepiece.SentencePieceProcessor(model_proto=model).piece_to_id(_SPACE) == UNK_ID:
        # Where spaces are rare, as in Chinese, the space that SentencePiece adds to a text would be
        # an unknown character, and decoding would show it.
        model = _train(texts, vocab_size, num_sentinels, _SPACE, exact=exact)
    return model


def _train(
    texts: Sequence[str], vocab_size: int, num_sentinels: int, required: str = "", *, exact: bool
) -> bytes:
    model = io.BytesIO()
    # Not set to "", because that would give a different file with the same pieces.
    extra: dict[str, Any] = {"required_chars": required} if required else {}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(
                part
                for text in texts
                for line in text.splitlines()
                if line
                for part in _parts(line)
            ),
            model_writer=model,
            vocab_size=vocab_size - num_sentinels,
            model_type="unigram",
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            user_defined_symbols=["\n"],
            **extra,
            max_sentence_length=_LONGEST,
            hard_vocab_limit=exact,
            num_threads=_TRAINER_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        if "sentences_.empty()" in str(error):
            raise InputError("there is no text to train a vocabulary on") from None
        most, least = (
            re.search(pattern, str(error))
            for pattern in (r"value <= (\d+)", r"required_chars\. \d+ vs (\d+)")
        )
        bound = "at most" if most else "at least"
        number = most or least
        reason = (
            f"{bound} {int(number[1]) + num_sentinels}" if number else str(error).splitlines()[-1]
        )
        raise InputError(f"vocab_size = {vocab_size} does not fit the text: {reason}") from None
    return model.getvalue()


def _parts(line: str) -> list[str]:
    """A line in parts that are short enough, cut between characters."""
    if len(line) <= _LONGEST // 4 or len(line.encode()) <= _LONGEST:
        return [line]
    size = _LONGEST // 4  # a character has at most four bytes
    return [line[start : start + size] for start in range(0, len(line), size)]
