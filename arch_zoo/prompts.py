"""Prompts of unequal lengths as one batch, padded on the left. This module does not need JAX."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from arch_zoo.registry import ConfigError


def left_padded(rows: Sequence[Sequence[int]], length: int | None = None) -> dict[str, np.ndarray]:
    """A batch of prompts for a decoder-only model.

    Every prompt ends at the end of its row, so that one index says where all of them go on. The
    start token 0 comes before each, and padding before that, up to `length` positions (default:
    the longest prompt and its start). Each length compiles anew, so choose few of them.

    Returns:
      decoder_input_tokens and decoder_segment_ids, 1 at tokens and 0 at padding: int32 [B, length].

    Raises:
      ConfigError: a prompt and its start token are longer than `length`.
    """
    longest = 1 + max(map(len, rows))
    length = longest if length is None else length
    if longest > length:
        raise ConfigError(f"length={length}: a prompt with its start token has {longest} tokens")
    tokens_BP, segment_ids_BP = np.zeros((2, len(rows), length), np.int32)
    for tokens_P, segment_ids_P, row in zip(tokens_BP, segment_ids_BP, rows, strict=True):
        tokens_P[length - len(row) :] = row
        segment_ids_P[length - len(row) - 1 :] = 1
    return {"decoder_input_tokens": tokens_BP, "decoder_segment_ids": segment_ids_BP}


def check_left_padded(segment_ids_BP: npt.ArrayLike) -> None:
    """Refuses prompts that have padding after a token.

    Raises:
      ConfigError: names the row.
    """
    real_BP = np.asarray(segment_ids_BP) != 0
    wrong_B = (real_BP[:, :-1] & ~real_BP[:, 1:]).any(axis=1)
    if wrong_B.any():
        raise ConfigError(
            f"decoder_segment_ids: prompt {int(wrong_B.argmax())} has padding after a token; "
            "prompts are padded on the left (arch_zoo.prompts.left_padded makes them)"
        )
