"""Tasks in seqio's form: a source, preprocessors, features. Only `prepare` imports it.

It imports TensorFlow. A task that is registered without a vocabulary yields text, which `prepare`
tokenizes in bulk. With one it is an ordinary seqio task, tokenized and ended by EOS, for users of
seqio's own pipeline.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import seqio
import tensorflow as tf

from train.records import InputError
from train.tasks.preprocessors import Preprocessor

tf.config.set_visible_devices([], "GPU")  # or TensorFlow would take all of an accelerator's memory

_READ_TOGETHER = 256
_ours: set[str] = set()  # names that `register` has put into seqio's registry


@dataclasses.dataclass(frozen=True)
class Definition:
    """A task before it is registered.

    Attributes:
      name: its name in the registry and in records.
      source: the source of raw examples; None if the task is already registered by a user's module.
      preprocessors: convert raw examples to string features "targets" and, except for pretraining
        text, "inputs"; other features are kept as the example's reference.
      metrics: names in `metrics.METRICS`; none for pretraining text.
      labels: the possible answers.
      splits: the source's split for "train" and, unless the task is only trained on, for
        "validation"; several are joined by "+", and each reference then names its own as "source".
      replaced: number of invalid characters in the source that were replaced by U+FFFD.
    """

    name: str
    source: seqio.DataSource | None
    preprocessors: tuple[Preprocessor, ...]
    metrics: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    splits: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {s: s for s in ("train", "validation")}
    )
    replaced: int = 0

    @property
    def features(self) -> tuple[str, ...]:
        """The features that are tokenized."""
        return ("inputs", "targets") if self.metrics else ("targets",)


def register(definition: Definition, vocabulary: seqio.Vocabulary | None = None) -> seqio.Task:
    """Adds a task to seqio's registry; replaces an earlier one of the same name.

    Args:
      definition: the task.
      vocabulary: tokenizes the text; None leaves it as text.
    """
    if vocabulary is None:
        feature = seqio.Feature(
            seqio.PassThroughVocabulary(0), add_eos=False, dtype=tf.string, rank=0
        )
        tokenizers = []
    else:
        feature = seqio.Feature(vocabulary, add_eos=True)
        tokenizers = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
    if definition.name in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(definition.name)
    _ours.add(definition.name)
    return seqio.TaskRegistry.add(
        definition.name,
        source=cast(Any, definition.source),  # seqio's own class does not match its protocol
        preprocessors=[*definition.preprocessors, *tokenizers],
        output_features=dict.fromkeys(definition.features, feature),
    )


def is_taken(name: str) -> bool:
    """Whether a user's module has registered a task or mixture with that name."""
    return name in {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()} - _ours


def mixture(name: str, tasks: Sequence[str], cap: int | None = None) -> seqio.Mixture:
    """Registers a mixture of registered tasks in proportion to their numbers of training examples.

    Args:
      name: the name of the mixture; replaces an earlier one.
      tasks: names in the registry.
      cap: a task counts for at most this many examples.
    """
    if name in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.remove(name)
    rate = functools.partial(seqio.mixing_rate_num_examples, maximum=cap)
    return seqio.MixtureRegistry.add(name, [(task, rate) for task in tasks])


def read(name: str, split: str, shard: int = 0, num_shards: int = 1) -> Iterator[dict[str, Any]]:
    """Examples of a registered task or mixture in a fixed order, strings as str.

    Args:
      name: a name in seqio's registry.
      split: the source's name of the split.
      shard: the number of the part of the split.
      num_shards: number of parts.

    Raises:
      InputError: there is no such task or split, or TFDS has not made its data.
    """
    if name not in {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}:
        raise InputError(f"source = {name!r} is not a registered seqio task or mixture")
    provider = seqio.get_mixture_or_task(name)
    source = getattr(provider, "source", None)
    if isinstance(source, seqio.TfdsDataSource) and not source.splits:
        data = source.tfds_dataset
        where = f" --data_dir {data.data_dir}" if data.data_dir else ""
        raise InputError(
            f"{name}: TFDS has no data for it there; `tfds build {data.name}{where}` makes them"
        )
    if split not in provider.splits:
        raise InputError(f"split = {split!r}: {name} has {', '.join(sorted(provider.splits))}")
    dataset = provider.get_dataset(
        sequence_length=None,
        split=split,
        shuffle=False,
        num_epochs=1,
        shard_info=seqio.ShardInfo(shard, num_shards),
    )
    try:
        for batch in dataset.ragged_batch(
            _READ_TOGETHER
        ):  # in batches, since each conversion to Python has a cost
            columns = {feature: _plain(value) for feature, value in batch.items()}
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))
    except tf.errors.OpError as error:  # an error in a reader arrives as the text of its traceback
        reason = re.search(r"(?:InputError|ValueError): (.*)", error.message)
        raise InputError(
            reason[1] if reason else f"{name}: {error.message.splitlines()[0]}"
        ) from None


def in_memory(examples: Mapping[str, Sequence[Mapping[str, Any]]]) -> seqio.FunctionDataSource:
    """A source for examples in memory, by split; lists of strings may differ in length."""

    # The signature is seqio's.
    def dataset(
        split: str,
        shuffle_files: bool = False,  # noqa: FBT001, FBT002
        seed: int | None = None,
    ):
        del shuffle_files, seed
        columns = {key: [example[key] for example in examples[split]] for key in examples[split][0]}
        ragged: Any = {
            k: tf.ragged.constant(v) if isinstance(v[0], list) else tf.constant(v)
            for k, v in columns.items()
        }
        whole = tf.data.Dataset.from_tensor_slices(ragged)
        return whole.map(
            lambda row: {
                k: v.to_tensor() if isinstance(v, tf.RaggedTensor) else v for k, v in row.items()
            }
        )

    return seqio.FunctionDataSource(
        dataset,
        splits=tuple(examples),
        num_input_examples={split: len(rows) for split, rows in examples.items()},
    )


def _plain(value: Any) -> Any:
    """Python values, with strings as str."""
    if isinstance(value, tf.RaggedTensor):
        return _text(value.to_list())
    return _text(value.numpy().tolist())


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value.decode("utf-8") if isinstance(value, bytes) else value
