"""Span corruption in T5's geometry, vectorised over rows of equal length.

Source: Raffel et al. 2020, section 3.1.4. A fixed share of the tokens is noise, cut into a fixed
number of spans. Both the noise and the rest are cut at uniformly random places. In the inputs, one
sentinel replaces each span. The targets contain the sentinels, each followed by its span. Both end
in EOS, so inputs and targets have the same lengths in every row and need no padding:

    thank you for inviting me   ->   thank <99> inviting <98> </s>   |   <99> you for <98> me </s>

The first span is never noise. Sentinels count down from the last id of the vocabulary.
"""

import dataclasses

import numpy as np

from train.data import counter_random
from train.records import InputError

EOS_ID = 1


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Lengths that belong together.

    Attributes:
      raw_length: tokens of text in a row.
      num_noise: how many of them are noise.
      num_spans: number of noise spans, and of spans between them.
    """

    raw_length: int
    num_noise: int
    num_spans: int

    @property
    def input_length(self) -> int:
        """Tokens of the corrupted text, its sentinels and EOS."""
        return self.raw_length - self.num_noise + self.num_spans + 1

    @property
    def target_length(self) -> int:
        """Tokens of the noise, its sentinels and EOS."""
        return self.num_noise + self.num_spans + 1


def geometry(
    raw_length: int, noise_density: float = 0.15, mean_span_length: float = 3.0
) -> Geometry:
    """The numbers of noise tokens and spans for `raw_length` tokens; one token has no noise."""
    if raw_length < 2:
        return Geometry(raw_length, 0, 0)
    num_noise = min(max(round(raw_length * noise_density), 1), raw_length - 1)
    # Each span of noise needs a span of text before it, which limits their number at a high
    # density.
    num_spans = min(max(round(num_noise / mean_span_length), 1), num_noise, raw_length - num_noise)
    return Geometry(raw_length, num_noise, num_spans)


def geometry_for_inputs(
    input_length: int, noise_density: float = 0.15, mean_span_length: float = 3.0
) -> Geometry:
    """The longest text whose corrupted inputs fit `input_length`.

    512 gives 568 tokens of text and 114 targets, 128 gives 141 and 29.

    Raises:
      InputError: `input_length` is too short for two tokens of text.
    """
    found = geometry(2, noise_density, mean_span_length)
    if found.input_length > input_length:
        raise InputError(
            f"input_length = {input_length} is too short for span corruption: at least "
            f"{found.input_length}"
        )
    while True:
        longer = geometry(found.raw_length + 1, noise_density, mean_span_length)
        if longer.input_length > input_length:
            return found
        found = longer


def noise_mask(shape: Geometry, seed: int, index_B: np.ndarray) -> np.ndarray:
    """Draws which tokens are noise.

    Args:
      shape: the row's geometry.
      seed: seed of the draw.
      index_B: example index of each row; a row depends only on (seed, its index).

    Returns:
      bool [B, raw_length], True where the token is noise.
    """
    L, N = shape.raw_length, shape.num_spans
    if N == 0:
        return np.zeros((len(index_B), L), bool)
    words = counter_random.draws(seed, counter_random.SPANS, index_B, 2 * (N - 1))
    rest_BN = _random_partition(words[:, : N - 1], L - shape.num_noise, N)
    noise_BN = _random_partition(words[:, N - 1 :], shape.num_noise, N)
    ends_BE = np.cumsum(np.stack([rest_BN, noise_BN], axis=2).reshape(len(index_B), 2 * N), axis=1)
    flips_BL = np.zeros((len(index_B), L), np.int8)
    np.put_along_axis(flips_BL, ends_BE[:, :-1], 1, axis=1)
    return np.logical_xor.accumulate(flips_BL.view(bool), axis=1)


def _random_partition(words_BK: np.ndarray, total: int, parts: int) -> np.ndarray:
    """Lengths [B, parts] of a uniformly random cut of `total` items into non-empty parts.

    The cuts are a random subset of the total-1 gaps, drawn by Floyd's method, which needs one
    random word per cut for any length.
    """
    cuts_BK = np.zeros(words_BK.shape, np.int64)
    for k in range(parts - 1):
        last = total - parts + k
        drawn_B = counter_random.below(words_BK[:, k], last + 1).astype(np.int64)
        taken_B = (cuts_BK[:, :k] == drawn_B[:, None]).any(axis=1)
        cuts_BK[:, k] = np.where(taken_B, last, drawn_B)
    cuts_BK.sort(axis=1)
    return np.diff(cuts_BK + 1, axis=1, prepend=0, append=total)


def corrupt(
    raw_BL: np.ndarray, noise_BL: np.ndarray, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces spans by sentinels.

    Args:
      raw_BL: token ids, int32.
      noise_BL: which tokens are noise, from `noise_mask`: every row starts with text, ends with
        noise, and has the same numbers of tokens and spans of each kind.
      vocab_size: sentinels are vocab_size-1, vocab_size-2, ...

    Returns:
      inputs [B, S] and targets [B, T], int32, both ending in EOS.
    """
    before_BL = np.zeros_like(noise_BL)
    before_BL[:, 1:] = noise_BL[:, :-1]
    inputs_BS = _with_sentinels(raw_BL, ~noise_BL, noise_BL & ~before_BL, vocab_size)
    before_BL[:, 0] = noise_BL.any(axis=1)  # the first text has one in the targets
    return inputs_BS, _with_sentinels(raw_BL, noise_BL, ~noise_BL & before_BL, vocab_size)


def _with_sentinels(
    raw_BL: np.ndarray, kept_BL: np.ndarray, starts_BL: np.ndarray, vocab_size: int
) -> np.ndarray:
    """Rows of the kept tokens, with sentinels that count down where spans start, and EOS."""
    sentinels_BL = vocab_size - np.cumsum(starts_BL, axis=1, dtype=np.int32)
    rows = np.where(starts_BL, sentinels_BL, raw_BL)[kept_BL | starts_BL].reshape(len(raw_BL), -1)
    return np.pad(rows.astype(np.int32), ((0, 0), (0, 1)), constant_values=EOS_ID)
