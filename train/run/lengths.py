"""What the lengths of a stage leave out of a corpus: counted and told, or refused where no answer could be right."""

from collections.abc import Iterator

import numpy as np

from train.data import batches
from train.data.corpus import SPLITS, Corpus
from train.data.text.vocabulary import EOS_ID
from train.records import InputError
from train.study.config import StageConfig

_WORTH_TELLING = 0.01  # share of tokens or windows: every text has a last, incomplete window


def check_labels(corpus: Corpus, tasks: tuple[str, ...], stage: StageConfig) -> None:
    """Refuses lengths that cut a label of a task which is scored by decoding, or that make two labels one.

    Of a task of free text that is scored exactly some targets may be cut, which `lost` tells, but
    not all.

    Raises:
      InputError: names the setting, the task and the length that is needed.
    """
    for task in tasks:
        about = corpus.tasks[task]
        rows = [[*ids, EOS_ID] for ids in corpus.vocabulary.encode(about.labels)]
        longest = max(map(len, rows), default=0)
        cut = {
            tuple(row if len(row) <= stage.target_length else row[: stage.target_length - 1])
            for row in rows
        }
        if len(cut) < len(rows):
            raise InputError(
                f"finetune.target_length = {stage.target_length} makes different labels of {task} the same; "
                f"all of them have at most {longest} tokens"
            )
        if "validation" not in about.examples or (stage.scoring == "rank" and rows):
            continue
        if "squad" in about.metrics:  # gives credit for a part of the text
            continue
        if not rows:  # free text: refused only where no example is left that could be answered
            longest = int(
                np.diff(corpus.examples(task, "validation").targets.ends, prepend=0).min()
            )
        for key, most, needed in (
            ("target_length", stage.target_length, longest),
            (
                "decode_length",
                stage.decode_length or stage.target_length,
                longest - 1,
            ),  # EOS need not be decoded
        ):
            if needed > most:
                what, of = ("a label", "the longest") if rows else ("every target", "the shortest")
                raise InputError(
                    f"finetune.{key} = {most} cuts {what} of {task}, so that no answer with it can be right; "
                    f"{of} has {needed} tokens"
                )


def of_pretraining(corpus: Corpus, stage: StageConfig) -> Iterator[str]:
    """What pretraining does not see of a corpus as it is, a line for each split."""
    lengths = (stage.input_length, stage.target_length)
    for split in SPLITS:
        source = batches.Pretrain(
            corpus, split, stage.eval_batch_size, *lengths, batches.HELDOUT_SEED, **stage.noise
        )
        if source.num_unread > _WORTH_TELLING * source.num_tokens:
            share = f"{source.num_unread / source.num_tokens:.0%}"
            anew = "" if corpus.is_one_stream else "; prepared anew, windows run across files"
            yield f"{source.num_unread:,} of {source.num_tokens:,} tokens of {split} ({share}) are in no window{anew}"
        whole, spare = divmod(source.num_windows, stage.eval_batch_size)
        if (
            split == "validation"
            and 0 < whole < stage.eval_batches
            and spare > _WORTH_TELLING * source.num_windows
        ):
            why = f"they do not fill a batch of eval_batch_size = {stage.eval_batch_size}"
            yield f"{spare:,} of {source.num_windows:,} windows of validation are not evaluated: {why}"


def of_tasks(corpus: Corpus, stage: StageConfig) -> Iterator[str]:
    """What finetuning does not see of a corpus as it is, a line for each task."""
    for task in stage.tasks or tuple(corpus.tasks):
        told = []
        for split in corpus.tasks[task].examples:
            examples = corpus.examples(task, split)
            features = (("inputs", stage.input_length), ("targets", stage.target_length))
            for (feature, length), ragged in zip(
                features, (examples.inputs, examples.targets), strict=True
            ):
                sizes = np.diff(ragged.ends, prepend=0)
                if cut := int((sizes > length).sum()):
                    told.append(
                        f"{cut:,} of {len(sizes):,} {feature} of {split} are cut at {length} tokens"
                    )
        if told:
            yield f"{task}: {', '.join(told)}"
