"""What a batch holds, in a file that configurations can import without numpy."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """The axes of a batch, [B, S] and [B, T] in two rows or [B, S + T] in one.

    Attributes:
      batch_size: B, rows of the global batch.
      input_length: S, the most tokens of an input; longer inputs of a task are cut and end in EOS.
        0 if there are no inputs.
      target_length: T, the most tokens of a target; longer targets are cut as well.
      family: of the models that read the batch: an encoder-decoder has inputs and targets in two
        rows, a decoder-only model has them one after the other in one row.
    """

    batch_size: int
    input_length: int
    target_length: int
    family: str = "encoder_decoder"

    @property
    def lengths(self) -> tuple[int, int]:
        """S and T."""
        return self.input_length, self.target_length

    @property
    def row_lengths(self) -> dict[str, int]:
        """The length of the row that each side of a model reads."""
        if self.family == "encoder_decoder":
            return {"encoder": self.input_length, "decoder": self.target_length}
        return {"decoder": self.input_length + self.target_length}

    @property
    def limits(self) -> dict[str, int]:
        """The same by the keys of a model's configuration."""
        keys = {"encoder": "max_input_length", "decoder": "max_target_length"}
        return {keys[side]: length for side, length in self.row_lengths.items()}

    @property
    def counted_lengths(self) -> dict[str, int]:
        """The lengths that `arch_zoo.count_flops` takes for such a batch, in its order."""
        if self.family == "encoder_decoder":
            return {"input_length": self.input_length, "target_length": self.target_length}
        targets = {"targets": self.target_length} if self.input_length else {}
        return {"length": self.row_lengths["decoder"], **targets}

    @property
    def tokens(self) -> int:
        """Tokens of a batch, inputs and targets."""
        return self.batch_size * sum(self.row_lengths.values())


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """How windows of pretraining text become examples.

    Attributes:
      objective: one of `train.data.objectives.OBJECTIVES`.
      noise_density: share of tokens that span corruption removes.
      mean_span_length: mean tokens in a removed span.
      by_document: no position sees an earlier document; for rows without inputs.
    """

    objective: str = "span_corruption"
    noise_density: float = 0.15
    mean_span_length: float = 3.0
    by_document: bool = False


USUAL_TEXT = TextOptions()
