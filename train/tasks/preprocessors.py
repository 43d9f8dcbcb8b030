"""Preprocessors from raw examples to text-to-text form, in the form of T5's prompts. TensorFlow: `prepare` only."""

from collections.abc import Sequence

import seqio
import tensorflow as tf


def prompt(prefix: str, features: Sequence[str], target: str = "label"):
    """A preprocessor: "<prefix> <feature>: <its text> <feature>: <its text>" -> the text of `target`.

    Args:
      prefix: names the task; may be empty.
      features: in the order they are shown, under their own names.
      target: the feature to answer; the first of a list.
    """

    @seqio.map_over_dataset
    def to_text(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        parts = [prefix] if prefix else []
        for feature in features:
            parts += [f"{feature}:", example[feature]]
        answer = example[target]
        kept = {"answers": answer} if answer.shape.rank else {}
        return {"inputs": tf.strings.join(parts, " "), "targets": answer[0] if answer.shape.rank else answer, **kept}

    return to_text
