"""Several short examples in one row, distinguished by segment ids (seqio's packed features).

A plan says which examples share a row. It depends only on their lengths: each example goes into the
oldest open row with enough room. So the plan is always the same. What a row looks like is the
affair of the layouts (`train.data.layouts`).
"""

from collections.abc import Sequence

import numpy as np

_OPEN_ROWS = 64  # largest number of open rows


def plan(
    sizes_N: Sequence[np.ndarray], lengths: Sequence[int], multiples: Sequence[int]
) -> list[list[int]]:
    """Packs examples into rows that have several features, such as inputs and targets.

    Args:
      sizes_N: for each feature, the tokens of each example; more than its length count as that.
      lengths: the room of each feature.
      multiples: in each feature examples start at multiples of this, for encoders that pool.

    Returns:
      The examples of each row, as positions in the arrays; every example is in exactly one row.
    """
    rows: list[list[int]] = []
    waiting: list[tuple[list[int], list[int]]] = []  # the room of each feature, the row
    needs = np.stack(
        [np.minimum(sizes, most) for sizes, most in zip(sizes_N, lengths, strict=True)], axis=1
    ).tolist()
    for example, need in enumerate(needs):
        place = next(
            (
                i
                for i, (room, _) in enumerate(waiting)
                if all(r >= n for r, n in zip(room, need, strict=True))
            ),
            None,
        )
        if place is None:
            waiting.append((list(lengths), []))
            rows.append(waiting[-1][1])
            place = len(waiting) - 1
        room, row = waiting[place]
        row.append(example)
        for feature, multiple in enumerate(multiples):
            room[feature] -= _round_up(need[feature], multiple)
        if len(waiting) > _OPEN_ROWS:
            del waiting[0]
    return rows


def lay(
    rows: Sequence[Sequence[np.ndarray]], length: int, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lays the examples of each row one after the other; they must have room.

    Returns:
      Tokens, segment ids and positions of the rows, int32 [B, length]. Segments count from 1,
      positions from 0 within a segment; 0 is padding.
    """
    tokens, segments, positions = (np.zeros((len(rows), length), np.int32) for _ in range(3))
    for b, row in enumerate(rows):
        at = 0
        for segment, ids in enumerate(row, start=1):
            here = slice(at, at + len(ids))
            tokens[b, here], segments[b, here] = ids, segment
            positions[b, here] = np.arange(len(ids))
            at += _round_up(len(ids), multiple)
    return tokens, segments, positions


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
