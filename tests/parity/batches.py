"""Small batches of random tokens for the goldens: padded rows, and packed rows. numpy only."""

import numpy as np


def padded(input_lengths, target_lengths, vocab_size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A row for each pair of lengths, padded to the longest."""
    rng = np.random.default_rng(seed)
    inputs = np.zeros((len(input_lengths), max(input_lengths)), np.int32)
    targets = np.zeros((len(target_lengths), max(target_lengths)), np.int32)
    for row, (source, target) in enumerate(zip(input_lengths, target_lengths, strict=True)):
        inputs[row, :source] = rng.integers(2, vocab_size, source)
        targets[row, :target] = rng.integers(2, vocab_size, target)
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.where(targets > 0, shifted, 0).astype(np.int32),
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
    }


def packed(rows, vocab_size: int, seed: int = 0, spare: int = 0) -> dict[str, np.ndarray]:
    """Rows of several examples each.

    Args:
      rows: for each row, the (input length, target length) of its examples.
      vocab_size: number of tokens.
      seed: of the tokens.
      spare: padding after the longest row.
    """
    rng = np.random.default_rng(seed)
    sides = {}
    for index, side in enumerate(("encoder", "decoder")):
        length = max(sum(example[index] for example in row) for row in rows) + spare
        tokens, segments, positions = (np.zeros((len(rows), length), np.int32) for _ in range(3))
        for row, examples in enumerate(rows):
            start = 0
            for number, example in enumerate(examples):
                part = slice(start, start + example[index])
                tokens[row, part] = rng.integers(2, vocab_size, example[index])
                segments[row, part] = number + 1
                positions[row, part] = np.arange(example[index])
                start += example[index]
        sides[side] = tokens, segments, positions
    targets, segments, positions = sides["decoder"]
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    return {
        "encoder_input_tokens": sides["encoder"][0],
        "encoder_segment_ids": sides["encoder"][1],
        "encoder_positions": sides["encoder"][2],
        "decoder_input_tokens": np.where(positions > 0, shifted, 0).astype(np.int32),
        "decoder_target_tokens": targets,
        "decoder_segment_ids": segments,
        "decoder_positions": positions,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
    }


def decoder_only(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows of the decoder alone, as a batch of a language model."""
    return {name: array for name, array in batch.items() if name.startswith("decoder")}


def with_prefix(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same rows, where the first half of each example is its inputs and has no loss.

    As in seqio, the prefix is one position longer than the inputs.
    """
    segment_ids = segments(batch, "decoder")
    prefix, weights = np.zeros_like(segment_ids), np.zeros_like(segment_ids)
    for row, ids in enumerate(segment_ids):
        for segment in np.unique(ids[ids > 0]):
            places = np.flatnonzero(ids == segment)
            inputs = len(places) // 2
            prefix[row, places[: inputs + 1]] = 1
            weights[row, places[inputs:]] = 1
    return batch | {"decoder_causal_attention": prefix, "decoder_loss_weights": weights}


def segments(batch: dict[str, np.ndarray], side: str) -> np.ndarray:
    """The segment ids of one side [B, L]; 0 at padding, 1 elsewhere if rows are not packed."""
    tokens = "encoder_input_tokens" if side == "encoder" else "decoder_target_tokens"
    return batch.get(f"{side}_segment_ids", (batch[tokens] > 0).astype(np.int32))
