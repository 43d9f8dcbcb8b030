"""The vocabularies of models that others trained, and ours in the form that others read.

A tokenizer is a folder of files as Hugging Face's tools have them: spiece.model (SentencePiece in
T5's layout) or tokenizer.json. The latter needs the package `tokenizers`.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from train.data.text.vocabulary import EOS_ID, NUM_SENTINELS, PAD_ID, UNK_ID, Vocabulary
from train.records import InputError, read_json

FILES = (
    "spiece.model",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclasses.dataclass(frozen=True)
class Order:
    """Where the ids of another project stand in ours, whose start token is 0 and whose end is 1.

    Two pairs of ids change places; the others stay.

    Attributes:
      start: their id of the token that rows start with.
      end: their id of the token that ends a text.
      size: the number of ids.
    """

    start: int
    end: int
    size: int

    @functools.cached_property
    def theirs(self) -> np.ndarray:
        """Their id for each of ours."""
        ids = np.arange(self.size)
        for ours, wanted in ((PAD_ID, self.start), (EOS_ID, self.end)):
            place = int(np.flatnonzero(ids == wanted)[0])
            ids[[ours, place]] = ids[[place, ours]]
        return ids

    @functools.cached_property
    def ours(self) -> np.ndarray:
        """Our id for each of theirs."""
        return np.argsort(self.theirs)


class TokenizerFile:
    """A tokenizer.json with our order of ids.

    Attributes:
      vocab_size: the number of ids.
      num_sentinels: 0, since `<extra_id_k>` in a text is a token of the tokenizer's own.
    """

    num_sentinels = 0

    def __init__(self, path: Path, order: Order):
        """Reads the file.

        Raises:
          InputError: it cannot be read, has more ids than the model, or the package is missing.
        """
        try:
            import tokenizers
        except ModuleNotFoundError:
            raise InputError(
                f"{path}: reading it needs the package tokenizers: pip install tokenizers"
            ) from None
        try:
            self._own = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing more specific
            raise InputError(f"{path}: cannot be read ({error})") from None
        if self._own.get_vocab_size() > order.size:
            raise InputError(
                f"{path}: has {self._own.get_vocab_size()} tokens, and the model {order.size}"
            )
        self._order, self.vocab_size = order, order.size

    def encode(self, texts: Sequence[str], num_threads: int = 1) -> list[list[int]]:
        """Token ids of each text, without start and end."""
        found = self._own.encode_batch(list(texts), add_special_tokens=False)
        return [self._order.ours[one.ids].tolist() for one in found]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of the ids before the end."""
        row = np.asarray(ids, np.int64)
        ends = np.flatnonzero(row == EOS_ID)
        row = row[: ends[0]] if len(ends) else row
        return self._own.decode(self._order.theirs[row[row != PAD_ID]].tolist())


Tokenizer = Vocabulary | TokenizerFile


def open_folder(folder: Path, order: Order) -> Tokenizer | None:
    """The tokenizer of a folder; None if there is none.

    Raises:
      InputError: a file is damaged or does not fit the model.
    """
    if (folder / "spiece.model").exists():
        sentinels = _num_sentinels(folder)
        vocabulary = Vocabulary(folder / "spiece.model", sentinels)
        if vocabulary.vocab_size > order.size:
            raise InputError(
                f"{folder / 'spiece.model'}: has {vocabulary.vocab_size} ids with {sentinels} "
                f"sentinels, and the model {order.size}"
            )
        return vocabulary
    if (folder / "tokenizer.json").exists():
        return TokenizerFile(folder / "tokenizer.json", order)
    return None


def _num_sentinels(folder: Path) -> int:
    """The number of sentinels that tokenizer_config.json names; that of T5 without it."""
    config = read_json(folder / "tokenizer_config.json", missing={})
    named = config.get("additional_special_tokens")
    if isinstance(named, list):
        return sum(str(token).startswith("<extra_id_") for token in named)
    found = config.get("extra_ids", NUM_SENTINELS)
    return found if type(found) is int and found >= 0 else NUM_SENTINELS


def copy(source: Path, target: Path) -> list[str]:
    """Copies the files of a tokenizer; returns their names."""
    names = [name for name in FILES if (source / name).exists()]
    for name in names:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    return names


def write(vocabulary: Vocabulary, folder: Path, *, starts: bool, ends: bool) -> None:
    """Writes a vocabulary of ours as spiece.model and as tokenizer.json; see `as_json`."""
    shutil.copyfile(vocabulary.path, folder / "spiece.model")
    for name, content in as_json(vocabulary, starts=starts, ends=ends).items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def as_json(vocabulary: Vocabulary, *, starts: bool, ends: bool) -> dict[str, dict[str, Any]]:
    """A vocabulary as tokenizer.json and tokenizer_config.json.

    Args:
      vocabulary: one that `prepare` trained: without normalisation, with every character kept.
      starts: rows begin with the start token, as those of a language model.
      ends: inputs end with the end token.
    """
    model = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.path.read_bytes())
    pieces = [[model.id_to_piece(i), model.get_score(i)] for i in range(model.vocab_size())]
    last = vocabulary.num_sentinels - 1
    sentinels = [f"<extra_id_{last - k}>" for k in range(vocabulary.num_sentinels)]
    special = [pieces[PAD_ID][0], pieces[EOS_ID][0], pieces[UNK_ID][0]]
    ids = {special[0]: PAD_ID, special[1]: EOS_ID, special[2]: UNK_ID}
    ids |= {name: len(pieces) + k for k, name in enumerate(sentinels)}
    single = [_TEXT]
    single = [_special(special[0]), *single] if starts else single
    single = [*single, _special(special[1])] if ends else single
    used = [special[0]] * starts + [special[1]] * ends
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for name, number in ids.items()
        ],
        # SentencePiece puts a space before every text, also before one that has a space there.
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": _SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {
                name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in used
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": UNK_ID,
            "vocab": [*pieces, *([name, 0.0] for name in sentinels)],
            "byte_fallback": any(model.is_byte(i) for i in range(model.vocab_size())),
        },
    }
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": special[1] if starts else special[0],
            "eos_token": special[1],
            "unk_token": special[2],
            **({"bos_token": special[0]} if starts else {}),
            "additional_special_tokens": sentinels[::-1],
            "clean_up_tokenization_spaces": False,
        },
    }


_SPACE = "\u2581"
_TEXT = {"Sequence": {"id": "A", "type_id": 0}}


def _special(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}
