"""A stage to train, and the state that it starts from: a checkpoint or a new initialisation."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import arch_zoo
from train import records
from train.data.corpus import Corpus
from train.records import InputError, Row
from train.run import distributed, stages
from train.run.checkpoint import Checkpoints
from train.run.parallel import Strategy
from train.run.stages import StageKind
from train.run.step import State
from train.study.config import RunConfig, StageConfig, differences, identity


@dataclasses.dataclass(frozen=True)
class Start:
    """Checkpoints from which a stage starts if its own directory has none.

    Attributes:
      resume_from: checkpoints of the same stage of another run, from which to continue.
      resume_at: the step of the checkpoint to continue from; 0 for the newest.
      trunk: the directory of that run, if this one shares its first steps and takes over its
        records of them.
      init_from: checkpoints with the initial parameters. By default those of the stage before it,
        if there is one.
    """

    resume_from: Path | None = None
    resume_at: int = 0
    trunk: Path | None = None
    init_from: Path | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """A stage to train, with everything it needs.

    Attributes:
      config: the run.
      stage_name: pretrain or finetune.
      model: the resolved model, without dropout.
      meta: the identity that a checkpoint must have (hash, corpus fingerprint); stored in each of
        them.
      corpus: the prepared corpus.
      directory: the run directory.
      start_from: checkpoints of other runs or stages to start from.
      stop: called between steps; whether to save and stop.
      quiet: shows no progress.
    """

    config: RunConfig
    stage_name: str
    model: arch_zoo.ModelConfig
    meta: Row
    corpus: Corpus
    directory: Path
    start_from: Start = Start()
    stop: Callable[[], bool] = lambda: False
    quiet: bool = False

    @property
    def stage(self) -> StageConfig:
        """The stage's configuration."""
        return getattr(self.config, self.stage_name)

    @property
    def kind(self) -> StageKind:
        """What is particular to the stage."""
        return stages.kind(self.stage_name, self.config)

    @property
    def init_from(self) -> Path | None:
        """The checkpoints with the initial parameters, None for a new initialisation."""
        before = self.kind.after
        return self.start_from.init_from or (
            checkpoints_of(self.directory, before) if before else None
        )

    @property
    def course(self) -> Row:
        """The settings that determine each step, but not how many; stored in checkpoints."""
        return self.course_of(self.stage_name)

    def course_of(self, stage_name: str) -> Row:
        """The course of another stage of the run."""
        stage = identity(getattr(self.config, stage_name))
        course = {
            "model": self.model.identity(),
            stage_name: {k: v for k, v in stage.items() if k != "steps"},
        }
        return json.loads(json.dumps(course))  # in the form in which it will be read back


def start(
    job: Job, checkpoints: Checkpoints, strategy: Strategy, fresh: State
) -> tuple[State, Row]:
    """The state to continue from, and the `meta` of its checkpoint.

    The first of these that exists is used: a checkpoint in the run's own directory, one in
    `resume_from`, the parameters in `init_from`, a new initialisation.
    """
    meta = {
        **job.meta,
        "course": job.course,
        "decay_starts": job.stage.decay_starts,
        "stage": job.stage_name,
        "step": 0,
        "skipped": 0,
    }
    target = strategy.abstract(fresh)
    where = checkpoints_of(job.directory, job.stage_name)
    restored = checkpoints.restore(items_of(target), lambda old: _check_own(where, old, meta))
    if restored is None and job.start_from.resume_from:
        items, old = _read(
            job.start_from.resume_from,
            items_of(target),
            "resume_from",
            lambda old: _check_same_course(old, job),
            job.start_from.resume_at,
        )
        # They describe the other run.
        restored = items, {**old, "records": None}
    if restored:
        items, old = restored
        own = {"course": job.course, "decay_starts": job.stage.decay_starts}
        return State(items["optimizer"]["step"], items["params"], items["optimizer"]["state"]), {
            **old,
            **job.meta,
            **own,
        }
    state = strategy.place_state(fresh)
    if job.init_from:
        own = bool(job.kind.after) and job.init_from == checkpoints_of(
            job.directory, job.kind.after
        )
        accept = (lambda old: _check_pretrained(job, old)) if own else (lambda old: None)
        items, old = _read(job.init_from, {"params": target.params}, "init_from", accept)
        state = state._replace(params=items["params"])
        if own:
            meta["records"] = old.get("records")
    return state, meta


def checkpoints_of(directory: Path, stage_name: str) -> Path:
    """Where a stage of a run keeps its checkpoints."""
    return directory / "checkpoints" / stage_name


def has_checkpoint(directory: Path, stage_name: str) -> bool:
    """Whether a stage of a run has saved one."""
    where = checkpoints_of(directory, stage_name)
    return where.is_dir() and any(path.name.isdecimal() for path in where.iterdir())


def _check_own(where: Path, old: Mapping[str, Any], new: Row) -> None:
    """Refuses a checkpoint in the run's own directory that has another configuration or stage."""
    if old.get("stage") != new["stage"]:
        raise InputError(
            f"{where}: its checkpoints are of stage {old.get('stage')}, not {new['stage']}"
        )
    if old.get("hash") != new["hash"]:
        changes = differences(old["course"], new["course"]) if "course" in old else []
        said = "; ".join(changes) or f"hash: {old.get('hash')} -> {new['hash']}"
        raise InputError(
            f"{where}: its checkpoints are of another configuration: {said}; use another directory"
        )


def _check_pretrained(job: Job, old: Mapping[str, Any]) -> None:
    """Refuses to go on from a stage of the run's own that is not finished, or is another one."""
    before = job.kind.after
    wanted = {**job.meta, "stage": before, "course": job.course_of(before)}
    _check_own(checkpoints_of(job.directory, before), old, wanted)
    stage = getattr(job.config, before)
    if not stage.is_over(old["step"], old.get("without_gain", 0)):
        reached = f"{before}ing has reached step {old['step']} of {stage.steps}"
        raise InputError(f"{job.init_from}: {reached}; finish it, or give --init-from")


def _check_same_course(old: Mapping[str, Any], job: Job) -> None:
    """Refuses another run's checkpoint if training would continue differently from that run."""
    where = f"resume_from: {str(job.start_from.resume_from)!r}"
    for key in ("fingerprint", "seed"):
        if old.get(key) != job.meta.get(key):
            mine, theirs = job.meta.get(key), old.get(key)
            raise InputError(
                f"{where} has {key} = {theirs}, this run {mine}; --init-from starts anew"
            )
    mine, theirs = job.course if "course" in old else {}, old.get("course", {})
    if old["step"] <= min(job.stage.decay_starts, old.get("decay_starts", -1)):
        mine, theirs = (_before_decay(course, job.stage_name) for course in (mine, theirs))
    if changes := differences(theirs, mine):
        raise InputError(
            f"{where} has other settings: {'; '.join(changes)}; --init-from starts anew"
        )
    if job.stage.is_over(old["step"], old.get("without_gain", 0)):
        raise InputError(
            f"resume_from: step {old['step']} leaves nothing of {job.stage.steps} steps to do"
        )


def _before_decay(course: Row, stage_name: str) -> Row:
    """A course without what matters only once the learning rate falls."""
    stage = course.get(stage_name, {})
    optimizer = {k: v for k, v in stage.get("optimizer", {}).items() if not k.startswith("decay_s")}
    return {**course, stage_name: {**stage, "optimizer": optimizer}}


def _read(
    directory: Path,
    targets: dict[str, Any],
    key: str,
    accept: Callable[[Mapping[str, Any]], None],
    at: int = 0,
) -> tuple[dict[str, Any], Row]:
    if not os.path.isdir(directory):  # Path.is_dir raises if the name is too long
        raise InputError(f"{key}: {str(directory)!r} is not a directory of checkpoints")
    with Checkpoints(directory, read_only=True) as checkpoints:
        restored = checkpoints.restore(targets, accept, at)
    if restored is None and at:
        raise InputError(f"{key}: {str(directory)!r} holds no checkpoint of step {at}")
    if restored is None:
        inner = directory / "checkpoints" / "pretrain"
        meant = f"; those of this run are in {str(inner)!r}" if inner.is_dir() else ""
        raise InputError(f"{key}: {str(directory)!r} holds no checkpoint{meant}")
    return restored


def check_checkpoints_are_there(job: Job) -> None:
    """Refuses to start over if there are records of steps without their checkpoints.

    The records would be erased. A run that was killed before its first checkpoint may start over:
    its directory of checkpoints exists, and so few steps are recorded that none had to be saved.
    """
    if job.start_from.trunk:
        return
    where, stage = checkpoints_of(job.directory, job.stage_name), job.stage
    has_any = has_checkpoint(job.directory, job.stage_name)
    metrics, types = job.directory / "metrics.jsonl", {"step": int, "stage": str}
    rows = [] if has_any else records.read_jsonl(metrics, types, allow_torn=True)
    reached = max((row["step"] for row in rows if row["stage"] == job.stage_name), default=0)
    every = min(stage.checkpoint_every, stage.eval_every or stage.checkpoint_every)
    if distributed.any_process(reached > (2 * every if where.is_dir() else 0)):
        lost = f"has records of {reached} steps of {job.stage_name} and no checkpoint of them"
        raise InputError(
            f"{job.directory}: {lost}; bring its checkpoints back, or use another directory"
        )


def open_checkpoints(job: Job) -> Checkpoints:
    """Those of the job's stage."""
    best = job.kind.best(job.corpus, job.stage)
    where = checkpoints_of(job.directory, job.stage_name)
    return Checkpoints(where, job.stage.keep_every, best, job.stage.keep_at)


def items_of(state: State) -> dict[str, Any]:
    """A state as items of a checkpoint, separate because finetuning reads only parameters."""
    return {"params": state.params, "optimizer": {"step": state.step, "state": state.optimizer}}
