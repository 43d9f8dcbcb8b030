"""A corpus of uniform random tokens, from which nothing can be learned but the tokens themselves.

What a model knows of such text it has memorised, so the loss tells how many bits (Morris et al.,
2025, arXiv 2505.24832).
"""

import io
from pathlib import Path

import numpy as np
import sentencepiece

from train.data import part_files, shards
from train.data.corpus import FORMAT, INDEX, SPLITS
from train.data.prepare_config import NEVER_DRAWN
from train.data.text.vocabulary import EOS_ID, PAD_ID, UNK_ID
from train.records import write_json

_HELD_OUT = 2**14
_FIRST = 0x4E00  # the first of 20,976 characters that stand for symbols in the vocabulary


def write(root: Path, key: str, symbols: int, num_tokens: int) -> None:
    """Writes the corpus; the same arguments give the same bytes.

    Args:
      root: its directory.
      key: of the configuration that asked for it.
      symbols: number of different tokens.
      num_tokens: tokens of the train split.
    """
    model = shards.write_bytes(root / "vocabulary.model", _vocabulary(symbols))
    files, pretrain = {"vocabulary.model": model}, {}
    for seed, split in enumerate(SPLITS):
        count = num_tokens if split == "train" else _HELD_OUT
        drawn = np.random.default_rng(seed).integers(NEVER_DRAWN, NEVER_DRAWN + symbols, count)
        name = f"pretrain/{split}-00000.npy"
        files[name] = shards.write_array(root / name, drawn.astype(np.uint16))
        pretrain[split] = {"shards": [name], "tokens": count, "text_bytes": 3 * count}
    sums = {file: found["sha256"] for file, found in files.items()}
    index = {
        "format": FORMAT,
        "name": "random",
        "fingerprint": part_files.key(FORMAT, sums),
        "key": key,
        "vocab_size": NEVER_DRAWN + symbols,
        "num_sentinels": 0,
        "symbols": symbols,
        "pretrain": pretrain,
        "tasks": {},
        "files": files,
    }
    write_json(root / INDEX, index)


def _vocabulary(symbols: int) -> bytes:
    """A model with one character of three UTF-8 bytes for each symbol."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=map(chr, range(_FIRST, _FIRST + symbols)),
        model_writer=model,
        vocab_size=NEVER_DRAWN + symbols,
        model_type="char",
        pad_id=PAD_ID,
        eos_id=EOS_ID,
        unk_id=UNK_ID,
        bos_id=-1,
        add_dummy_prefix=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return model.getvalue()
