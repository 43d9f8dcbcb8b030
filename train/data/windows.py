"""Windows of equal length over the token streams of a split."""

from collections.abc import Sequence

import numpy as np


class Windows:
    """The shards of a split, cut into windows.

    Attributes:
      num_windows: number of windows of the requested length.
      num_tokens: number of tokens in the split.
      num_unread: number of tokens that are in no window.
    """

    def __init__(self, shards: Sequence[np.ndarray], length: int, *, one_stream: bool):
        """Plans the windows.

        Args:
          shards: token streams, 1-D.
          length: tokens in a window.
          one_stream: windows continue from one shard to the next; otherwise each shard is cut
            separately.
        """
        self._shards, self._length = shards, length
        sizes = np.array([len(tokens) for tokens in shards], np.int64)
        self._shard_ends = np.cumsum(sizes)
        self._shard_starts = self._shard_ends - sizes
        self.num_tokens = int(sizes.sum())
        streams = np.array([self.num_tokens]) if one_stream else sizes
        self._stream_starts = np.cumsum(streams) - streams
        self._window_ends = np.cumsum(streams // length)  # of each stream, counted over all
        self.num_windows = int((streams // length).sum())
        self.num_unread = self.num_tokens - self.num_windows * length

    def read(self, window_B: np.ndarray) -> np.ndarray:
        """The tokens of the windows with these numbers, int32 [B, length]."""
        stream_B = np.searchsorted(self._window_ends, window_B, side="right")
        before_B = np.where(stream_B > 0, self._window_ends[stream_B - 1], 0)
        start_B = self._stream_starts[stream_B] + (window_B - before_B) * self._length
        at_BL = start_B[:, None] + np.arange(self._length)
        first_B, last_B = (
            np.searchsorted(self._shard_ends, at_BL[:, i], side="right") for i in (0, -1)
        )
        raw_BL = np.empty(at_BL.shape, np.int32)
        for shard in np.unique(first_B):
            here_B = (first_B == shard) & (last_B == shard)
            raw_BL[here_B] = self._shards[shard][at_BL[here_B] - self._shard_starts[shard]]
        for row in np.flatnonzero(first_B != last_B):  # few rows, at the ends of shards
            raw_BL[row] = self._across(range(first_B[row], last_B[row] + 1), *at_BL[row, [0, -1]])
        return raw_BL

    def _across(self, shards: range, first: int, last: int) -> np.ndarray:
        """The tokens from `first` to `last`, which are in several shards."""
        starts = self._shard_starts
        return np.concatenate(
            [self._shards[s][max(0, first - starts[s]) : last + 1 - starts[s]] for s in shards]
        )
