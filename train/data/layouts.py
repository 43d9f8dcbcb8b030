"""How inputs and targets become the features of a batch, one layout for each family of models.

`TwoRows` gives inputs to an encoder and targets to a decoder. `OneRow` puts targets after their
inputs; the loss is on the targets, the same as in two rows. All arrays have seqio's names.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from arch_zoo import prompts
from train.data import packing
from train.data.text.vocabulary import EOS_ID, PAD_ID

HostBatch = Mapping[str, np.ndarray]
Ragged = Sequence[Sequence[np.ndarray]]  # for each row, the token ids of each of its examples
Sizes = tuple[np.ndarray, np.ndarray]  # tokens of each example's input and target
Lengths = tuple[int, int]  # S and T


class Layout(Protocol):
    """A way to lay out examples. Inputs [B, S] and targets [B, T] are padded after their tokens."""

    def batch(self, inputs_BS: np.ndarray, targets_BT: np.ndarray) -> HostBatch:
        """One example in each row."""
        ...

    def prompts(self, inputs_BS: np.ndarray, targets_BT: np.ndarray) -> HostBatch:
        """What decoding reads."""
        ...

    def plan(self, sizes_N: Sizes, lengths: Lengths, multiple: int) -> list[list[int]]:
        """The examples that share each row; see `packing.plan`."""
        ...

    def packed(self, inputs: Ragged, targets: Ragged, lengths: Lengths, multiple: int) -> HostBatch:
        """Several examples in each row, with segment ids and positions."""
        ...


class TwoRows:
    """Inputs for an encoder, targets for a decoder.

    encoder_input_tokens [B, S]; decoder_input_tokens and decoder_target_tokens [B, T], int32;
    decoder_loss_weights [B, T], float32.
    """

    def batch(self, inputs_BS: np.ndarray, targets_BT: np.ndarray) -> HostBatch:
        """Decoder inputs are shifted targets, weights are 1 on targets."""
        return {
            "encoder_input_tokens": inputs_BS,
            "decoder_input_tokens": _shifted(targets_BT),
            "decoder_target_tokens": targets_BT,
            "decoder_loss_weights": (targets_BT != PAD_ID).astype(np.float32),
        }

    def prompts(self, inputs_BS: np.ndarray, targets_BT: np.ndarray) -> HostBatch:
        """The same batch: decoding reads only the encoder's feature."""
        return self.batch(inputs_BS, targets_BT)

    def plan(self, sizes_N: Sizes, lengths: Lengths, multiple: int) -> list[list[int]]:
        """Both rows of an example need room."""
        return packing.plan(sizes_N, lengths, (multiple, 1))

    def packed(self, inputs: Ragged, targets: Ragged, lengths: Lengths, multiple: int) -> HostBatch:
        """Adds encoder_segment_ids, encoder_positions and the same for the decoder."""
        encoder_BS, encoder_segments_BS, encoder_positions_BS = packing.lay(
            _cut(inputs, lengths[0]), lengths[0], multiple
        )
        tokens_BT, segments_BT, positions_BT = packing.lay(_cut(targets, lengths[1]), lengths[1])
        return {
            "encoder_input_tokens": encoder_BS,
            "encoder_segment_ids": encoder_segments_BS,
            "encoder_positions": encoder_positions_BS,
            "decoder_input_tokens": np.where(positions_BT > 0, _shifted(tokens_BT), PAD_ID),
            "decoder_target_tokens": tokens_BT,
            "decoder_segment_ids": segments_BT,
            "decoder_positions": positions_BT,
            "decoder_loss_weights": (segments_BT > 0).astype(np.float32),
        }


class OneRow:
    """Targets after their inputs, for a decoder-only model. L = S + T.

    decoder_input_tokens, decoder_target_tokens and decoder_causal_attention [B, L], int32, the last
    one 1 at every position that reads the start or an input; decoder_loss_weights [B, L], float32,
    1 on targets; decoder_target_positions [B, T], int32, where the targets are, and L where a row
    has fewer. Without inputs (S = 0) every position is a target, and the last is left out.
    """

    def batch(self, inputs_BS: np.ndarray, targets_BT: np.ndarray) -> HostBatch:
        """Every row is as far to the left as it can be."""
        (rows, S), T = inputs_BS.shape, targets_BT.shape[1]
        at_L, at_T = np.arange(S + T), np.arange(T)
        inputs_B1, targets_B1 = (
            (ids != PAD_ID).sum(axis=1, keepdims=True) for ids in (inputs_BS, targets_BT)
        )
        both = np.concatenate([inputs_BS, targets_BT, np.zeros((rows, 1), np.int32)], axis=1)
        # Where each token of a row stands in `both`, whose last column is padding.
        place_BL = np.where(at_L < inputs_B1, at_L, S + at_L - inputs_B1)
        place_BL = np.where(at_L < inputs_B1 + targets_B1, place_BL, S + T)
        tokens_BL = np.take_along_axis(both, place_BL, axis=1).astype(np.int32)
        real_BL = tokens_BL != PAD_ID
        batch = {
            "decoder_input_tokens": _shifted(tokens_BL),
            "decoder_target_tokens": tokens_BL,
            "decoder_causal_attention": ((at_L <= inputs_B1) & real_BL).astype(np.int32),
            "decoder_loss_weights": (real_BL & (at_L >= inputs_B1)).astype(np.float32),
        }
        if S:
            positions_BT = np.where(at_T < targets_B1, inputs_B1 + at_T, S + T)
            batch["decoder_target_positions"] = positions_BT.astype(np.int32)
        return batch

    def prompts(self, inputs_BS: np.ndarray, targets_BT: np.ndarray) -> HostBatch:
        """The start token and the inputs, padded on the left: [B, 1 + S]."""
        rows = [ids[ids != PAD_ID].tolist() for ids in inputs_BS]
        return prompts.left_padded(rows, 1 + inputs_BS.shape[1])

    def plan(self, sizes_N: Sizes, lengths: Lengths, multiple: int) -> list[list[int]]:
        """Inputs and targets share the room of one row."""
        cut = [np.minimum(sizes, most) for sizes, most in zip(sizes_N, lengths, strict=True)]
        return packing.plan((cut[0] + cut[1],), (sum(lengths),), (multiple,))

    def packed(self, inputs: Ragged, targets: Ragged, lengths: Lengths, multiple: int) -> HostBatch:
        """Adds decoder_segment_ids and decoder_positions, without decoder_target_positions."""
        inputs, targets = _cut(inputs, lengths[0]), _cut(targets, lengths[1])
        rows = [
            [np.concatenate(example) for example in zip(*row, strict=True)]
            for row in zip(inputs, targets, strict=True)
        ]
        tokens_BL, segments_BL, positions_BL = packing.lay(rows, sum(lengths), multiple)
        ends_BL = np.zeros_like(tokens_BL)  # at every position the number of inputs of its example
        for ends_L, segments_L, row in zip(ends_BL, segments_BL, inputs, strict=True):
            for segment, example in enumerate(row, start=1):
                ends_L[segments_L == segment] = len(example)
        real_BL = segments_BL > 0
        return {
            "decoder_input_tokens": np.where(positions_BL > 0, _shifted(tokens_BL), PAD_ID),
            "decoder_target_tokens": tokens_BL,
            "decoder_segment_ids": segments_BL,
            "decoder_positions": positions_BL,
            "decoder_causal_attention": (real_BL & (positions_BL <= ends_BL)).astype(np.int32),
            "decoder_loss_weights": (real_BL & (positions_BL >= ends_BL)).astype(np.float32),
        }


LAYOUTS: dict[str, Layout] = {"encoder_decoder": TwoRows(), "decoder_only": OneRow()}


def by_document(batch: HostBatch) -> HostBatch:
    """A batch of text without inputs, in which no position sees an earlier document.

    A document ends with EOS. Each one starts anew, with the start token and position 0.
    """
    tokens_BL = batch["decoder_target_tokens"]
    real_BL = tokens_BL != PAD_ID
    begins_BL = np.pad(tokens_BL[:, :-1] == EOS_ID, ((0, 0), (1, 0)), constant_values=True)
    at_L = np.arange(tokens_BL.shape[1])
    starts_BL = np.maximum.accumulate(np.where(begins_BL, at_L, 0), axis=1)
    return {
        **batch,
        "decoder_input_tokens": np.where(begins_BL, PAD_ID, batch["decoder_input_tokens"]),
        "decoder_segment_ids": (np.cumsum(begins_BL, axis=1) * real_BL).astype(np.int32),
        "decoder_positions": ((at_L - starts_BL) * real_BL).astype(np.int32),
    }


def _shifted(tokens_BL: np.ndarray) -> np.ndarray:
    """The tokens moved by one position, with the start token before them."""
    shifted_BL = np.zeros_like(tokens_BL)
    shifted_BL[:, 1:] = tokens_BL[:, :-1]
    return shifted_BL


def _cut(rows: Ragged, length: int) -> list[list[np.ndarray]]:
    """Examples of at most `length` tokens; one that is cut ends in EOS."""
    return [
        [ids if len(ids) <= length else np.append(ids[: length - 1], EOS_ID) for ids in row]
        for row in rows
    ]
