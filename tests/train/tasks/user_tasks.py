"""An example of a user's own module: a seqio mixture of two tasks, for `prepare --modules`.

It needs TensorFlow.
"""

import seqio
import tensorflow as tf

_NAMES = ("user_first", "user_second")


def _dataset(split: str, shuffle_files: bool = False, seed: int | None = None) -> tf.data.Dataset:
    count = {"train": 200, "validation": 20}[split]
    return tf.data.Dataset.range(count).map(
        lambda i: {"targets": tf.strings.join([split, " text ", tf.as_string(i)])}
    )


for _name in _NAMES:
    seqio.TaskRegistry.add(
        _name,
        source=seqio.FunctionDataSource(_dataset, splits=("train", "validation")),
        preprocessors=[],
        output_features={
            "targets": seqio.Feature(seqio.PassThroughVocabulary(0), False, dtype=tf.string, rank=0)
        },
    )
seqio.MixtureRegistry.add("user_mixture", _NAMES, default_rate=1.0)
