"""C4, GLUE, SuperGLUE and SQuAD from their official TFDS builders, in T5's text-to-text form.

Imports TensorFlow, so only `prepare` uses it. The study's downstream suite is the seventeen tasks
of `glue`, `super_glue` and `squad`, mixed and scored as in T5:

- GLUE's WNLI is left out. Definite pronoun resolution (`dpr`) is trained on along with WSC instead,
  and not scored.
- MNLI is scored on the matched and the mismatched validation set; its headline score is their mean,
  as in GLUE.
"""

import seqio

from train.tasks import preprocessors
from train.tasks.preprocessors import (
    Preprocessor,
    multirc,
    prompt,
    record,
    squad,
    stsb,
    text_only,
    wsc,
)
from train.tasks.seqio_tasks import Definition

C4 = "c4/en:3.1.0"
GLUE_VERSION, SUPER_GLUE_VERSION, SQUAD = "2.0.0", "1.0.2", "squad/v1.1:3.0.0"
DPR = "definite_pronoun_resolution:1.1.0"

_ENTAILMENT = ("entailment", "not_entailment")
_FALSE_TRUE = ("False", "True")

# By TFDS configuration: the features (in T5's order, alphabetical except for WiC), labels, metrics.
_Row = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
_GLUE: dict[str, _Row] = {
    "cola": (("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "sst2": (("sentence",), ("negative", "positive"), ("accuracy",)),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent"), ("f1", "accuracy")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy")),
    "mnli": (("hypothesis", "premise"), ("entailment", "neutral", "contradiction"), ("mnli",)),
    "qnli": (("question", "sentence"), _ENTAILMENT, ("accuracy",)),
    "rte": (("sentence1", "sentence2"), _ENTAILMENT, ("accuracy",)),
}
_SUPER_GLUE: dict[str, _Row] = {
    "boolq": (("passage", "question"), _FALSE_TRUE, ("accuracy",)),
    "cb": (
        ("hypothesis", "premise"),
        ("entailment", "contradiction", "neutral"),
        ("macro_f1", "accuracy"),
    ),
    "copa": (("choice1", "choice2", "premise", "question"), ("choice1", "choice2"), ("accuracy",)),
    "rte": (("hypothesis", "premise"), _ENTAILMENT, ("accuracy",)),
    "wic": (("sentence1", "sentence2", "word"), _FALSE_TRUE, ("accuracy",)),
}


def c4(data_dir: str | None) -> Definition:
    """The study's pretraining text."""
    return Definition("c4", seqio.TfdsDataSource(C4, tfds_data_dir=data_dir), (text_only,))


def glue(data_dir: str | None) -> list[Definition]:
    """Eight tasks of GLUE.

    Args:
      data_dir: where TFDS stores its data; None for its default.
    """
    tasks = [
        _task(
            "glue",
            GLUE_VERSION,
            name,
            prompt(name, features, labels=labels),
            metrics,
            labels,
            data_dir,
        )
        for name, (features, labels, metrics) in _GLUE.items()
    ]
    return [
        *tasks,
        _task("glue", GLUE_VERSION, "stsb", stsb, ("pearson", "spearman"), (), data_dir),
    ]


def super_glue(data_dir: str | None) -> list[Definition]:
    """Eight tasks of SuperGLUE, and definite pronoun resolution, which is only trained on.

    Args:
      data_dir: where TFDS stores its data; None for its default.
    """
    tasks = [
        _task(
            "super_glue",
            SUPER_GLUE_VERSION,
            name,
            prompt(name, features, labels=labels),
            metrics,
            labels,
            data_dir,
        )
        for name, (features, labels, metrics) in _SUPER_GLUE.items()
    ]
    special: list[tuple[str, Preprocessor, tuple[str, ...], tuple[str, ...]]] = [
        ("multirc", multirc, ("multirc",), _FALSE_TRUE),
        ("record", record, ("squad",), ()),
        ("wsc.fixed", wsc, ("wsc",), ()),  # answered by a noun, not by a label
    ]
    tasks += [_task("super_glue", SUPER_GLUE_VERSION, *row, data_dir) for row in special]
    return tasks + dpr(data_dir)


def dpr(data_dir: str | None) -> list[Definition]:
    """Definite pronoun resolution (Rahman & Ng, 2012).

    Args:
      data_dir: where TFDS stores its data; None for its default.
    """
    source = seqio.TfdsDataSource(DPR, tfds_data_dir=data_dir)
    return [
        Definition("dpr", source, (preprocessors.dpr,), ("accuracy",), splits={"train": "train"})
    ]


def squad_v1(data_dir: str | None) -> list[Definition]:
    """SQuAD 1.1.

    Args:
      data_dir: where TFDS stores its data; None for its default.
    """
    return [
        Definition(
            "squad", seqio.TfdsDataSource(SQUAD, tfds_data_dir=data_dir), (squad,), ("squad",)
        )
    ]


def _task(
    suite: str,
    version: str,
    config: str,
    preprocessor: Preprocessor,
    metrics: tuple[str, ...],
    labels: tuple[str, ...],
    data_dir: str | None,
) -> Definition:
    validation = "validation_matched+validation_mismatched" if config == "mnli" else "validation"
    return Definition(
        name=f"{suite}_{config.removesuffix('.fixed')}",
        source=seqio.TfdsDataSource(f"{suite}/{config}:{version}", tfds_data_dir=data_dir),
        preprocessors=(preprocessor,),
        metrics=metrics,
        labels=labels,
        splits={"train": "train", "validation": validation},
    )
