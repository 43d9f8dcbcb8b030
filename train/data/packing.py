"""Several short examples in one row, distinguished by segment ids (seqio's packed features).

A plan says which examples share a row. It depends only on their lengths: each example goes into the
oldest open row with enough room. So the plan is always the same.
"""

from collections.abc import Sequence

import numpy as np

from train.data.text.vocabulary import EOS_ID

_OPEN_ROWS = 64  # largest number of open rows


def plan(
    input_lengths_N: np.ndarray,
    target_lengths_N: np.ndarray,
    input_length: int,
    target_length: int,
    multiple: int = 1,
) -> list[list[int]]:
    """Packs examples into rows.

    Args:
      input_lengths_N: tokens of each example's inputs; longer ones count as `input_length`.
      target_lengths_N: the same for targets.
      input_length: S.
      target_length: T.
      multiple: inputs start at multiples of this, for encoders that pool.

    Returns:
      The examples of each row, as positions in the arrays; every example is in exactly one row.
    """
    rows: list[list[int]] = []
    waiting: list[tuple[int, int, list[int]]] = []  # room in inputs, room in targets, the row
    sizes = zip(
        np.minimum(input_lengths_N, input_length),
        np.minimum(target_lengths_N, target_length),
        strict=True,
    )
    for example, (inputs, targets) in enumerate(sizes):
        place = next(
            (i for i, (s, t, _) in enumerate(waiting) if s >= inputs and t >= targets), None
        )
        if place is None:
            waiting.append((input_length, target_length, []))
            rows.append(waiting[-1][2])
            place = len(waiting) - 1
        s, t, row = waiting[place]
        row.append(example)
        waiting[place] = (s - _round_up(int(inputs), multiple), t - int(targets), row)
        if len(waiting) > _OPEN_ROWS:
            del waiting[0]
    return rows


def pack(
    inputs: Sequence[Sequence[np.ndarray]],
    targets: Sequence[Sequence[np.ndarray]],
    input_length: int,
    target_length: int,
    multiple: int = 1,
) -> dict[str, np.ndarray]:
    """Builds a packed batch.

    Args:
      inputs: for each row the token ids of its examples; a cut example ends in EOS.
      targets: the same for targets, in the same order.
      input_length: S.
      target_length: T.
      multiple: as for `plan`.

    Returns:
      encoder_input_tokens, encoder_segment_ids, encoder_positions [B, S]; decoder_input_tokens,
      decoder_target_tokens, decoder_segment_ids, decoder_positions [B, T], int32;
      decoder_loss_weights [B, T], float32. Segments count from 1, positions from 0 within a
      segment; 0 is padding.
    """
    encoder_BS, encoder_segments_BS, encoder_positions_BS = _lay(inputs, input_length, multiple)
    decoder_BT, decoder_segments_BT, decoder_positions_BT = _lay(targets, target_length, 1)
    shifted_BT = np.zeros_like(decoder_BT)
    shifted_BT[:, 1:] = decoder_BT[:, :-1]
    return {
        "encoder_input_tokens": encoder_BS,
        "encoder_segment_ids": encoder_segments_BS,
        "encoder_positions": encoder_positions_BS,
        "decoder_input_tokens": np.where(decoder_positions_BT > 0, shifted_BT, 0),
        "decoder_target_tokens": decoder_BT,
        "decoder_segment_ids": decoder_segments_BT,
        "decoder_positions": decoder_positions_BT,
        "decoder_loss_weights": (decoder_segments_BT > 0).astype(np.float32),
    }


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _lay(
    rows: Sequence[Sequence[np.ndarray]], length: int, multiple: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, segment ids and positions of the rows, int32 [B, length]."""
    tokens, segments, positions = (np.zeros((len(rows), length), np.int32) for _ in range(3))
    for b, row in enumerate(rows):
        at = 0
        for segment, ids in enumerate(row, start=1):
            size = min(len(ids), length)
            here = slice(at, at + size)
            tokens[b, here], segments[b, here], positions[b, here] = (
                ids[:size],
                segment,
                np.arange(size),
            )
            if len(ids) > length:
                tokens[b, at + size - 1] = EOS_ID
            at += _round_up(size, multiple)
    return tokens, segments, positions
