"""How large a batch is, in a file that configurations can import without numpy."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """The axes of a batch [B, S] and [B, T].

    Attributes:
      batch_size: B, rows of the global batch.
      input_length: S, tokens of a row that the encoder reads; longer inputs of a task are cut and
        end in EOS.
      target_length: T, tokens of a row that the decoder predicts; longer targets are cut as well.
    """

    batch_size: int
    input_length: int
    target_length: int

    @property
    def lengths(self) -> tuple[int, int]:
        """S and T."""
        return self.input_length, self.target_length
