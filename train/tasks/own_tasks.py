"""A user's own text and tables as tasks. Imports TensorFlow, so only `prepare` uses it."""

import functools

import seqio
import tensorflow as tf

from train.data.text import text_files
from train.tasks import seqio_tasks
from train.tasks.task_table import TaskTable


def text(
    patterns: tuple[str, ...], key: str, share: float = text_files.VALIDATION_SHARE
) -> seqio_tasks.Definition:
    """Pretraining text from files.

    Each file goes to one shard, or if there are few files, every n-th document does.

    Args:
      patterns: globs.
      key: the column or field of tables that holds the text.
      share: share of held-out documents, see `text_files.Survey`.

    Raises:
      InputError: a pattern matches no file.
    """
    files = text_files.expand(patterns)
    return seqio_tasks.Definition(
        "text", _TextSource(files, key, text_files.piece_size(files), share), ()
    )


class _TextSource(seqio.FileDataSource):
    """Files whose documents are assigned to train and validation by hash."""

    def __init__(self, files: list[str], key: str, size: int, share: float):
        reader = functools.partial(_read, key=key, size=size, share=share)
        super().__init__(reader, dict.fromkeys(("train", "validation"), files))

    def get_dataset(self, split: str = "train", *args, **kwargs) -> tf.data.Dataset:
        """The documents of a split."""
        dataset = super().get_dataset(split, *args, **kwargs)
        mine = dataset.filter(lambda row: row["held_out"] == (split == "validation"))
        return mine.map(lambda row: {"targets": row["targets"]})


@tf.autograph.experimental.do_not_convert  # avoids a warning that it cannot convert generators
def _read(path: tf.Tensor, key: str, size: int, share: float) -> tf.data.Dataset:
    def rows(name: bytes):
        for document in text_files.documents(name.decode(), key, size):
            yield {"targets": document, "held_out": text_files.held_out(document, share)}

    spec = {"targets": tf.TensorSpec((), tf.string), "held_out": tf.TensorSpec((), tf.bool)}
    return tf.data.Dataset.from_generator(rows, args=(path,), output_signature=spec)


def table(given: str) -> seqio_tasks.Definition:
    """A downstream task from NAME=FILES:METRIC.

    Raises:
      InputError: see `table.TaskTable`.
    """
    task = TaskTable.parse(given)
    lost = text_files.Lost()
    splits, labels = task.read(lost)
    source = seqio_tasks.in_memory(splits)
    return seqio_tasks.Definition(
        task.name, source, (), task.metrics, labels, replaced=lost["replaced"]
    )
