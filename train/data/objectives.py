"""Pretraining objectives: turn windows of text into inputs and targets, all rows vectorised.

An objective is built once from the lengths and says how many tokens of text a row takes. Called
with windows [B, L], the seed and the example numbers, it returns inputs [B, S] and targets [B, T].
The same inputs and targets serve both families of models (`train.data.layouts`), so that their
losses can be compared. The exception is `causal_lm`: a decoder-only model has no inputs (S = 0).
"""

from collections.abc import Callable

import numpy as np

from train.data import counter_random, span_corruption
from train.data.text.vocabulary import EOS_ID
from train.records import InputError


class SpanCorruption:
    """Inputs with sentinels for spans, targets with the spans (T5)."""

    def __init__(
        self,
        input_length: int,
        target_length: int,
        vocab_size: int,
        num_sentinels: int,
        density: float,
        mean_span: float,
    ):
        """Chooses the longest text that fits `input_length`; targets are padded."""
        self.geometry = span_corruption.geometry_for_inputs(input_length, density, mean_span)
        if self.geometry.target_length > target_length:
            raise InputError(
                f"target_length = {target_length} is below {self.geometry.target_length}, "
                f"which span corruption of input_length = {input_length} needs"
            )
        if self.geometry.num_spans > num_sentinels:
            raise InputError(
                f"input_length = {input_length} needs {self.geometry.num_spans} sentinels, there "
                f"are {num_sentinels}"
            )
        self.raw_length = self.geometry.raw_length
        self._lengths, self._vocab_size = (input_length, target_length), vocab_size

    def __call__(
        self, raw_BL: np.ndarray, seed: int, index_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws the noise of each row and applies it."""
        noise_BL = span_corruption.noise_mask(self.geometry, seed, index_B)
        inputs_BS, targets_BT = span_corruption.corrupt(raw_BL, noise_BL, self._vocab_size)
        return _pad(inputs_BS, self._lengths[0]), _pad(targets_BT, self._lengths[1])


class PrefixLM:
    """Inputs are a prefix of random length, targets are the T-1 tokens that follow and EOS."""

    def __init__(self, input_length: int, target_length: int, *_: float):
        """Sets the lengths. A row takes S-1+T-1 tokens; EOS ends inputs and targets."""
        if input_length < 2 or target_length < 2:
            raise InputError(
                f"prefix_lm needs lengths of 2 or more, got {input_length} and {target_length}"
            )
        self.raw_length = input_length + target_length - 2
        self._prefix, self._target = input_length - 1, target_length - 1

    def __call__(
        self, raw_BL: np.ndarray, seed: int, index_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws each row's prefix length uniformly from 1 to S-1.

        The window is long enough for full targets after any prefix.
        """
        words_B = counter_random.draws(seed, counter_random.PIVOTS, index_B, 1)[:, 0]
        length_B1 = 1 + counter_random.below(words_B, self._prefix).astype(np.int64)[:, None]
        at_S = np.arange(self._prefix + 1)
        inputs_BS = np.where(
            at_S < length_B1, raw_BL[:, : self._prefix + 1], np.where(at_S == length_B1, EOS_ID, 0)
        )
        targets_BT = np.take_along_axis(raw_BL, length_B1 + np.arange(self._target), axis=1)
        return inputs_BS.astype(np.int32), np.pad(
            targets_BT, ((0, 0), (0, 1)), constant_values=EOS_ID
        )


class CausalLM:
    """Targets are text alone. Without inputs (S = 0) they are all T tokens of a window.

    An encoder cannot be without an input: then the input is only EOS, and EOS ends the targets,
    after T-1 tokens of text.
    """

    def __init__(self, input_length: int, target_length: int, *_: float):
        """Sets the lengths."""
        if target_length < 2:
            raise InputError(f"causal_lm needs a length of 2 or more, got {target_length}")
        self.raw_length = target_length - 1 if input_length else target_length
        self._input_length = input_length

    def __call__(
        self, raw_BL: np.ndarray, seed: int, index_B: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Makes the rows; nothing is random."""
        if not self._input_length:
            return np.zeros((len(raw_BL), 0), np.int32), raw_BL.astype(np.int32)
        inputs_BS = _pad(np.full((len(raw_BL), 1), EOS_ID, np.int32), self._input_length)
        return inputs_BS, np.pad(raw_BL, ((0, 0), (0, 1)), constant_values=EOS_ID)


OBJECTIVES: dict[str, Callable[..., SpanCorruption | PrefixLM | CausalLM]] = {
    "span_corruption": SpanCorruption,
    "prefix_lm": PrefixLM,
    "causal_lm": CausalLM,
}


def _pad(rows_BX: np.ndarray, length: int) -> np.ndarray:
    return np.pad(rows_BX, ((0, 0), (0, length - rows_BX.shape[1])))
