"""Bits per byte of a text of any length, read in windows that overlap."""

import math
from typing import NamedTuple

import numpy as np

from train.data.layouts import LAYOUTS
from train.data.text.vocabulary import EOS_ID
from train.records import InputError
from train.use.loaded import LoadedRun, losses
from train.use.settings import TextWindows


class TextScore(NamedTuple):
    """How well a model predicts a text.

    Attributes:
      bits_per_byte: bits per UTF-8 byte, the end of the text included.
      stderr: its standard error over windows (a ratio of sums).
      nll: nats per token.
      tokens: the number of tokens, the end included.
      bytes: the number of bytes.
      windows: the number of windows.
    """

    bits_per_byte: float
    stderr: float
    nll: float
    tokens: int
    bytes: int
    windows: int


def score(run: LoadedRun, text: str, how: TextWindows) -> TextScore:
    """Bits per byte of a text.

    Vocabularies can be compared by it, since the bytes are the same. A decoder-only model sees the
    tokens before those that are scored in the same row. An encoder-decoder reads them as its input,
    which is fair only to a model that was trained to continue its input.

    Args:
      run: a finished or imported run.
      text: not empty.
      how: window and stride.

    Raises:
      InputError: the text is empty.
      ConfigError: the window is longer than the architecture can read.
    """
    if not text:
        raise InputError("text: is empty")
    tokenizer, family = run.tokenizer, run.model.cfg.family
    ids = [*tokenizer.encode([text])[0], EOS_ID]
    spans = _spans(len(ids), how)
    nats, counts = [], []
    for first in range(0, len(spans), how.batch_size):
        part = spans[first : first + how.batch_size]
        inputs, targets = (np.zeros((how.batch_size, how.window), np.int32) for _ in range(2))
        for row, (start, begin, end) in enumerate(part):
            inputs[row, : begin - start] = ids[start:begin]
            targets[row, : end - begin] = ids[begin:end]
        batch = LAYOUTS[family].batch(inputs, targets)
        nats_B, tokens_B = losses(run.model, dict(batch))
        nats += np.asarray(nats_B, np.float64)[: len(part)].tolist()
        counts += np.asarray(tokens_B, np.float64)[: len(part)].tolist()
    total = len(text.encode())
    bits_N = np.array(nats) / math.log(2)
    value, spread = bits_N.sum() / total, math.nan
    if (n := len(spans)) > 1:
        # Bytes are not counted by window, so tokens stand for them: every token is as long as the
        # mean one.
        bytes_N = np.array(counts) * total / len(ids)
        spread = math.sqrt(np.sum((bits_N - value * bytes_N) ** 2) * n / (n - 1)) / total
    return TextScore(float(value), spread, sum(nats) / len(ids), len(ids), total, n)


def _spans(length: int, how: TextWindows) -> list[tuple[int, int, int]]:
    """For each window where it starts, where its scored tokens begin, and where it ends."""
    spans = [(0, 0, min(how.window, length))]
    while (begin := spans[-1][2]) < length:
        end = min(begin + how.scored, length)
        spans.append((max(end - how.window, 0), begin, end))
    return spans
