"""The particulars of each stage. The loop uses these instead of comparing names of stages."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import arch_zoo
from train.data import batches, probe_batches
from train.data.corpus import Corpus
from train.records import InputError
from train.run import lengths
from train.run.evaluators import tasks
from train.study.config import RunConfig, StageConfig


@dataclasses.dataclass(frozen=True)
class StageKind:
    """A kind of stage.

    Attributes:
      name: the name of the stage, as in records and in RunConfig.
      after: the stage of the same run whose parameters it starts from; empty for none.
      evaluators: names in `train.run.evaluators.EVALUATORS`.
      best: names of the values by which its best checkpoints are chosen.
      lost: the parts of a corpus that it cuts or does not see, a line for each split or task.
      source: its training batches, a pure function of the step.
    """

    name: str
    after: str
    evaluators: tuple[str, ...]
    best: Callable[[Corpus, StageConfig], tuple[str, ...]]
    lost: Callable[[Corpus, RunConfig], Iterator[str]]
    source: Callable[[Corpus, RunConfig, arch_zoo.ModelConfig], Any]


def _pretraining_source(
    corpus: Corpus, config: RunConfig, model: arch_zoo.ModelConfig
) -> batches.Pretrain:
    stage, shape = config.pretrain, config.shape("pretrain")
    return batches.Pretrain(
        corpus, "train", shape, config.seed, stage.text, stage.unique_tokens, stage.sources
    )


def _probe_source(
    corpus: Corpus, config: RunConfig, model: arch_zoo.ModelConfig
) -> probe_batches.ProbeExamples:
    stage, shape = config.pretrain, config.shape("pretrain")
    return probe_batches.ProbeExamples(stage.made_probe(), shape, config.seed, stage.steps)


def _finetuning_source(
    corpus: Corpus, config: RunConfig, model: arch_zoo.ModelConfig
) -> batches.Finetune:
    stage = config.finetune
    assert stage is not None
    multiple = model.architecture.segment_multiple(model, model.sides[0])
    if stage.pack and multiple is None:
        raise InputError(
            f"finetune.pack: {config.architecture} cannot tell examples of one row apart"
        )
    return batches.Finetune(
        corpus,
        stage.tasks or tuple(corpus.tasks),
        config.shape("finetune"),
        config.seed,
        stage.cap,
        pack=stage.pack,
        multiple=multiple or 1,
    )


KINDS = {
    kind.name: kind
    for kind in (
        StageKind(
            name="pretrain",
            after="",
            evaluators=("heldout",),
            best=lambda corpus, stage: ("nll",),
            lost=lengths.of_pretraining,
            source=_pretraining_source,
        ),
        StageKind(
            name="finetune",
            after="pretrain",
            evaluators=("tasks",),
            best=tasks.scored,
            lost=lengths.of_tasks,
            source=_finetuning_source,
        ),
    )
}
"""Every kind of stage, in the order in which a run has them."""

PROBING = dataclasses.replace(
    KINDS["pretrain"], evaluators=("probe",), lost=lambda *_: iter(()), source=_probe_source
)
"""Pretraining on a probe."""


def kind(name: str, config: RunConfig) -> StageKind:
    """The kind of a run's stage."""
    return PROBING if name == PROBING.name and config.pretrain.probe else KINDS[name]
