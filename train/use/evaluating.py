"""Evaluates a finished or imported run again: on the held-out text of a corpus, and on tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from train import records
from train.data.corpus import Corpus
from train.records import EXAMPLES, InputError, Row
from train.run.evaluators import EVALUATORS
from train.run.parallel import SingleDevice
from train.study.config import StageConfig, from_dict, to_dict
from train.use.imported import Imported
from train.use.loaded import LoadedRun

STAGES: Mapping[str, str] = {"heldout": "pretrain", "tasks": "finetune"}
"""The stage that the rows of each evaluator belong to."""


def stage_of(run: LoadedRun, evaluator: str, settings: Mapping[str, Any]) -> StageConfig:
    """How a run is evaluated: as in its training, unless settings say otherwise.

    Of a model that others trained, `imported.usual` says what is assumed.

    Raises:
      InputError: a setting is unknown or out of range.
    """
    recorded = run.config.get(STAGES[evaluator]) or run.config.get("pretrain")
    if recorded is None:
        trained = run.trained
        assumed = StageConfig(
            objective=trained.objective,  # pyright: ignore[reportArgumentType]  checked there
            input_length=trained.input_length or 1,  # has no meaning where text has no inputs
            target_length=trained.target_length,
        )
        recorded = to_dict(assumed)
    return from_dict(StageConfig, {**recorded, **settings}, "evaluate")


def evaluate(run: LoadedRun, corpus: Corpus, evaluator: str, stage: StageConfig) -> list[Row]:
    """Rows as evals.jsonl has them.

    Args:
      run: a finished or imported run.
      corpus: with the run's own vocabulary.
      evaluator: `heldout` or `tasks`.
      stage: from `stage_of`.

    Raises:
      InputError: the corpus has more ids than the model, or lacks a task.
    """
    most = run.model.cfg.vocab_size
    if corpus.vocab_size > most:
        raise InputError(f"corpus: {corpus.path} has {corpus.vocab_size} ids, and the model {most}")
    for task in stage.tasks:
        if task not in corpus.tasks:
            known = ", ".join(corpus.tasks) or "none"
            raise InputError(f"tasks: {task!r} is not in {corpus.path}; known: {known}")
    restored = run.restored
    made = EVALUATORS[evaluator](corpus, stage, 0, restored.model, SingleDevice())
    about = {"step": restored.step, "stage": STAGES[evaluator]}
    return [
        {**about, **{key: value for key, value in row.items() if key != EXAMPLES}}
        for row in made(restored.params, final=True)
    ]


def keep(run: LoadedRun, corpus: Corpus, rows: Sequence[Row]) -> bool:
    """Adds rows to the records of an imported run; returns whether it is one.

    The records of a run that was trained here are the trainer's.

    Raises:
      InputError: it was evaluated on another corpus before.
    """
    if Imported.of(run.config) is None:
        return False
    data = run.config["data"]
    if data["fingerprint"] not in ("", corpus.fingerprint):
        raise InputError(
            f"corpus: {run.directory} was evaluated on {data['fingerprint'][:12]} before, and "
            f"{corpus.path} is {corpus.fingerprint[:12]}; import it once more for that"
        )
    known = {**data, "name": corpus.name, "fingerprint": corpus.fingerprint}
    records.write_json(run.directory / "config.json", {**run.config, "data": known})
    records.RunWriter(run.directory).evals(rows)
    return True


def described(stage: StageConfig, evaluator: str) -> str:
    """The settings that the values depend on, in words."""
    lengths = f"{stage.input_length} inputs and {stage.target_length} targets"
    if evaluator == "heldout":
        batches = f"{stage.eval_batches} batches of {stage.eval_batch_size} rows"
        return f"objective {stage.objective}, {lengths}, {batches}"
    examples = stage.eval_examples or "all"
    return f"{lengths}, {examples} examples of each task, scored by {stage.scoring}"
