"""Bits per byte of a text of any length, read in windows that overlap."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.data.layouts import LAYOUTS
from train.data.text.vocabulary import EOS_ID
from train.records import InputError
from train.use.loaded import LoadedRun, losses
from train.use.settings import TextWindows

Span = tuple[int, int, int]


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
    with the end token after them, which is fair only to a model that was trained to continue its
    input.

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
    how = how.at_most(run.longest)
    ids = [*run.tokenizer.encode([text])[0], EOS_ID]
    first, *others = spans = _spans(len(ids), how)
    nats_N, tokens_N = _sums(run, ids, [first], (0, how.window))
    for at in range(0, len(others), how.batch_size):
        part = others[at : at + how.batch_size]
        part += [(0, 0, 0)] * (how.batch_size - len(part))  # of one shape, so compiled once
        more = _sums(run, ids, part, (how.window - how.stride, how.stride))
        nats_N, tokens_N = np.append(nats_N, more[0]), np.append(tokens_N, more[1])
    nats_N, tokens_N = nats_N[: len(spans)], tokens_N[: len(spans)]
    total = len(text.encode())
    bits_N = nats_N / math.log(2)
    value, spread = bits_N.sum() / total, math.nan
    if (n := len(spans)) > 1:
        # Bytes are not counted by window, so tokens stand for them: every token is as long as the
        # mean one.
        bytes_N = tokens_N * total / len(ids)
        spread = math.sqrt(np.sum((bits_N - value * bytes_N) ** 2) * n / (n - 1)) / total
    return TextScore(float(value), spread, float(nats_N.sum() / len(ids)), len(ids), total, n)


def _sums(
    run: LoadedRun, ids: Sequence[int], spans: Sequence[Span], shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Nats and target tokens of each window, which has so many tokens of context and targets."""
    family = run.model.cfg.family
    end = [EOS_ID] if family == "encoder_decoder" else []
    inputs = np.zeros((len(spans), shape[0] + len(end)), np.int32)
    targets = np.zeros((len(spans), shape[1]), np.int32)
    for row, (start, begin, stop) in enumerate(spans):
        context = [*ids[start:begin], *end]
        inputs[row, : len(context)] = context
        targets[row, : stop - begin] = ids[begin:stop]
    sums = losses(run.model, dict(LAYOUTS[family].batch(inputs, targets)))
    return np.asarray(sums[0], np.float64), np.asarray(sums[1], np.float64)


def _spans(length: int, how: TextWindows) -> list[Span]:
    """For each window where it starts, where its scored tokens begin, and where it ends."""
    spans = [(0, 0, min(how.window, length))]
    while (begin := spans[-1][2]) < length:
        context = how.window - how.stride
        spans.append((begin - context, begin, min(begin + how.stride, length)))
    return spans
