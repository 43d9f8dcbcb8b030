"""What a stage's lengths cut off a corpus: reported, or refused if no answer could be right."""

from collections.abc import Iterator

import numpy as np

from train.data import batches
from train.data.corpus import SPLITS, Corpus
from train.data.text.vocabulary import EOS_ID
from train.records import InputError
from train.study.config import RunConfig, StageConfig

_WORTH_TELLING = 0.01  # least share to report; a text's last, incomplete window is always lost


def check_labels(corpus: Corpus, tasks: tuple[str, ...], stage: StageConfig) -> None:
    """Refuses lengths that cut a label of a decoded task, or that make two labels equal.

    In a task with free text that is scored by exact match, some targets may be cut (`lost` reports
    them), but not all.

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
                f"finetune.target_length = {stage.target_length} makes different labels of {task} "
                "the same; "
                f"all of them have at most {longest} tokens"
            )
        if "validation" not in about.examples or (stage.scoring == "rank" and rows):
            continue
        if "squad" in about.metrics:  # gives credit for parts of the text
            continue
        if not rows:  # free text: refused only if no example could be answered
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
                    f"finetune.{key} = {most} cuts {what} of {task}, so that no answer with it can "
                    "be right; "
                    f"{of} has {needed} tokens"
                )


def of_pretraining(corpus: Corpus, config: RunConfig) -> Iterator[str]:
    """What pretraining does not see of a corpus as it is, a line for each split."""
    stage = config.pretrain
    shape = stage.evaluated(config.shape("pretrain"))
    for split in SPLITS:
        source = batches.Pretrain(corpus, split, shape, batches.HELDOUT_SEED, stage.text)
        if source.num_unread > _WORTH_TELLING * source.num_tokens:
            share = f"{source.num_unread / source.num_tokens:.0%}"
            anew = "" if corpus.is_one_stream else "; prepared anew, windows run across files"
            unread = f"{source.num_unread:,} of {source.num_tokens:,} tokens of {split} ({share})"
            yield f"{unread} are in no window{anew}"
        whole, spare = divmod(source.num_windows, stage.eval_batch_size)
        if (
            split == "validation"
            and 0 < whole < stage.eval_batches
            and spare > _WORTH_TELLING * source.num_windows
        ):
            why = f"they do not fill a batch of eval_batch_size = {stage.eval_batch_size}"
            windows = f"{spare:,} of {source.num_windows:,} windows of validation"
            yield f"{windows} are not evaluated: {why}"


def of_tasks(corpus: Corpus, config: RunConfig) -> Iterator[str]:
    """What finetuning does not see of a corpus as it is, a line for each task."""
    stage = config.finetune
    assert stage is not None
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
