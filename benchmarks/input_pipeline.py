"""Speed of the trainer's input and of `prepare`, compared with seqio's packing and tasks.

    python -m benchmarks.input_pipeline        # after `make study`, which makes the corpus

Both sides work on the same text, in one process and one run. seqio gets examples that are already
tokenized and corrupted, so that only its packing and conversion are timed; the trainer reads
shards, corrupts the text, and makes batches. Prints JSON.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import seqio
import tensorflow as tf

from benchmarks import arguments
from train.data import batches, builders
from train.data.batch_shape import BatchShape
from train.data.corpus import Corpus, open_corpus
from train.data.prepare_config import PrepareConfig
from train.tasks import catalog, seqio_tasks

_LENGTHS = {"inputs": 128, "targets": 32}
_SHORT = {"inputs": 48, "targets": 16}  # for seqio to pack, two or three to a row


def rows_per_second(made: Iterable[int], seconds: float) -> float:
    """Rows per second over about `seconds`, after a warm-up; `made` yields numbers of rows."""
    rows, iterator = 0, iter(made)
    next(iterator)
    start = time.perf_counter()
    for count in iterator:
        rows += count
        if time.perf_counter() - start > seconds:
            break
    return rows / (time.perf_counter() - start)


def ours(corpus: Corpus, batch_size: int) -> Iterable[int]:
    """Yields the number of rows of each of the trainer's batches."""
    shape = BatchShape(batch_size, _LENGTHS["inputs"], _LENGTHS["targets"])
    source = batches.Pretrain(corpus, "train", shape, seed=0)
    step = 0
    while True:
        yield len(source.batch(step)["encoder_input_tokens"])
        step += 1


def seqios(corpus: Corpus, batch_size: int) -> Iterable[int]:
    """Yields the number of rows of each batch of seqio's packed encoder-decoder converter."""
    shape = BatchShape(4096, _SHORT["inputs"], _SHORT["targets"])
    short = batches.Pretrain(corpus, "train", shape, seed=0).batch(0)
    tokens = {"inputs": short["encoder_input_tokens"], "targets": short["decoder_target_tokens"]}
    dataset = tf.data.Dataset.from_tensor_slices(tokens).repeat()  # pyright: ignore[reportArgumentType]
    dataset = dataset.map(
        lambda row: {name: tf.boolean_mask(ids, ids > 0) for name, ids in row.items()}
    )
    converted = seqio.EncDecFeatureConverter(pack=True)(dataset, task_feature_lengths=_LENGTHS)
    for batch in converted.batch(batch_size).prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
        yield len(batch["encoder_input_tokens"])


def prepare_seconds(corpus: Corpus) -> tuple[float, float]:
    """Seconds to tokenize the embedded text as `prepare` does, and through a seqio task."""
    text = catalog.pretraining(PrepareConfig())
    threads = os.cpu_count() or 1
    seqio_tasks.register(text)
    start = time.perf_counter()
    stream = builders.Stream(corpus.vocabulary, 0, None)
    stream.read((row["targets"] for row in seqio_tasks.read(text.name, "train")), threads)
    own = time.perf_counter() - start
    pieces = seqio.SentencePieceVocabulary(
        str(corpus.path / "vocabulary.model"), extra_ids=corpus.num_sentinels
    )
    task = seqio_tasks.register(text, pieces)
    start = time.perf_counter()
    dataset = task.get_dataset(sequence_length=None, split="train", shuffle=False, num_epochs=1)
    tokens = sum(len(row["targets"]) for row in dataset.as_numpy_iterator())
    assert tokens == len(stream.tokens), (tokens, len(stream.tokens))
    return own, time.perf_counter() - start


def main() -> None:
    """Prints the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_corpus(parser)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="seconds per measurement")
    given = parser.parse_args()
    corpus = open_corpus(given.corpus)
    pair = [
        rows_per_second(side(corpus, given.batch_size), given.seconds) for side in (ours, seqios)
    ]
    own, seqios_own = prepare_seconds(corpus)
    result = {
        "lengths": _LENGTHS,
        "batch_size": given.batch_size,
        "rows_per_second": {"ours": pair[0], "seqio_packed": pair[1], "ratio": pair[0] / pair[1]},
        "seconds_for_the_text_once": {"prepare": own, "tokenized_seqio_task": seqios_own},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
