"""Counter-based randomness: every draw is a pure function of (seed, stream, index), without state.

`draws` is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
vectorised over the index. `permute` is a keyed bijection of [0, size), evaluated at single points,
so an epoch is shuffled without a table.
"""

import numpy as np

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)
_FEISTEL_ROUNDS = 8

# Different uses of the same (seed, index) take different streams.
SPANS, EPOCHS, PIVOTS = 0, 1, 2


def philox4x32(counter_4xN: np.ndarray, key_2: np.ndarray, rounds: int = 10) -> np.ndarray:
    """The Philox4x32 block function.

    Args:
      counter_4xN: four words below 2**32 for each of N blocks, uint64.
      key_2: two words below 2**32, uint64 (arrays of N broadcast as well).
      rounds: the published generator uses 10.

    Returns:
      uint64 [4, N] of words below 2**32.
    """
    c0, c1, c2, c3 = counter_4xN
    k0, k1 = key_2
    for _ in range(rounds):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return np.stack([c0, c1, c2, c3])


def draws(seed: int, stream: int, index_N: np.ndarray, count: int) -> np.ndarray:
    """Uniform 32-bit words.

    Args:
      seed: any integer below 2**64.
      stream: the purpose of the words (SPANS, EPOCHS, ...).
      index_N: non-negative integers, one for each row.
      count: words per row.

    Returns:
      uint64 [N, count] of words below 2**32; row n depends only on (seed, stream, index_N[n]).
    """
    index_N = np.asarray(index_N, np.uint64)
    blocks = -(-count // 4)
    index_NB = np.repeat(index_N, blocks)
    block_NB = np.tile(np.arange(blocks, dtype=np.uint64), len(index_N))
    counter = np.stack(
        [index_NB & _LOW, index_NB >> _SHIFT, block_NB, np.full_like(block_NB, stream)]
    )
    words = philox4x32(counter, _key(seed))
    return words.T.reshape(len(index_N), 4 * blocks)[:, :count]


def below(words: np.ndarray, limit: np.ndarray | int) -> np.ndarray:
    """Maps 32-bit words to integers in [0, limit) by multiply and shift.

    The bias is below limit / 2**32.
    """
    return (words * np.asarray(limit, np.uint64)) >> _SHIFT


def permute(seed: int, epoch_N: np.ndarray, position_N: np.ndarray, size: int) -> np.ndarray:
    """Evaluates one permutation of [0, size) per epoch at the given positions.

    It is a Feistel network over the smallest even number of bits that covers `size`. Values outside
    are mapped again until they are inside (cycle walking). This keeps it a bijection, and takes
    fewer than four rounds on average.

    Args:
      seed: chooses the family of permutations.
      epoch_N: chooses the permutation, for each position.
      position_N: positions in [0, size).
      size: number of items.

    Returns:
      int64 [N] of items in [0, size).
    """
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    epochs_U, which_N = np.unique(np.asarray(epoch_N, np.uint64), return_inverse=True)
    keys_RxN = draws(seed, EPOCHS, epochs_U, _FEISTEL_ROUNDS)[which_N].T
    value_N = np.asarray(position_N, np.uint64)
    outside_N = np.ones(len(value_N), bool)
    # Cycle walking: only values outside [0, size) are mapped again.
    while outside_N.any():
        value_N[outside_N] = _feistel(value_N[outside_N], keys_RxN[:, outside_N], half)
        outside_N = value_N >= size
    return value_N.astype(np.int64)


def _feistel(value_N: np.ndarray, keys_RxN: np.ndarray, half: int) -> np.ndarray:
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left_N, right_N = value_N >> bits, value_N & mask
    for key_N in keys_RxN:
        mixed_N = ((right_N ^ key_N) * _M0) & _LOW
        mixed_N = ((mixed_N ^ (mixed_N >> np.uint64(15))) * _M1) & _LOW
        left_N, right_N = right_N, left_N ^ ((mixed_N ^ (mixed_N >> np.uint64(13))) & mask)
    return (left_N << bits) | right_N


def _key(seed: int) -> np.ndarray:
    return np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint64)
