"""The training loop: one stage of one run, from its start to its last checkpoint."""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import arch_zoo
from train import records
from train.data import batches
from train.data.corpus import Corpus
from train.records import InputError, Row, RunWriter
from train.run import distributed, trackers
from train.run.checkpoint import Checkpoints
from train.run.evaluators import EVALUATORS, Evaluator, kept_by
from train.run.optimizers import learning_rate, make_optimizer
from train.run.parallel import Strategy, make_strategy
from train.run.stages import KINDS, StageKind
from train.run.step import Model, State, init_state, make_model, make_train_step
from train.run.tracking import Progress, Tracker, fetch
from train.study.config import RunConfig, StageConfig, differences, identity, to_dict


class Preempted(Exception):
    """The run was stopped from outside, after it saved its last step."""


class Diverged(Exception):
    """The loss is not finite, and rolling back did not help."""


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
      resume_from: checkpoints of the same stage of another run, from which to continue.
      init_from: checkpoints with the initial parameters.
      stop: called between steps; whether to save and stop.
      quiet: shows no progress.
    """

    config: RunConfig
    stage_name: str
    model: arch_zoo.ModelConfig
    meta: Row
    corpus: Corpus
    directory: Path
    resume_from: Path | None = None
    init_from: Path | None = None
    stop: Callable[[], bool] = lambda: False
    quiet: bool = False

    @property
    def stage(self) -> StageConfig:
        """The stage's configuration."""
        return getattr(self.config, self.stage_name)

    @property
    def kind(self) -> StageKind:
        """What is particular to the stage."""
        return KINDS[self.stage_name]

    @property
    def course(self) -> Row:
        """The settings that determine each step, but not how many; stored in checkpoints."""
        return self.course_of(self.stage_name)

    def course_of(self, stage_name: str) -> Row:
        """The course of another stage of the run."""
        stage = identity(getattr(self.config, stage_name))
        course = {
            "model": self.model.to_dict(),
            stage_name: {k: v for k, v in stage.items() if k != "steps"},
        }
        return json.loads(json.dumps(course))  # in the form in which it will be read back


def train(job: Job, writer: RunWriter) -> None:
    """Trains, evaluates and records one stage; continues where an earlier call ended.

    Raises:
      InputError: the configuration does not fit the corpus, the devices or the checkpoints.
      Preempted: `job.stop` asked for it; the last step is saved.
      Diverged: the loss was not finite, or exploded, more often than may be rolled back.
    """
    config, stage, seed = job.config, job.stage, job.config.seed
    model, params = make_model(
        dataclasses.replace(job.model, dropout_rate=stage.dropout_rate), seed
    )
    optimizer = make_optimizer(stage.optimizer, model.axes)
    strategy = make_strategy(config, model.axes, params)
    train_step = strategy.compile(make_train_step(model, optimizer, stage, strategy.devices))
    evaluation = make_evaluation(job, model, strategy)
    source = make_source(job)
    host, num_hosts = strategy.feed

    check_checkpoints_are_there(job)
    with open_checkpoints(job) as checkpoints:
        state, meta = start(job, checkpoints, strategy, init_state(params, optimizer))
        step = meta["step"]
        tracker = begin(job, writer, meta)
        pending: tuple[int, Any, float] | None = None
        rollbacks = 0

        def flush() -> int | None:
            """Fetches and records the pending metrics; returns their step if the loss diverged."""
            nonlocal pending, meta
            if pending is None:
                return None
            done, metrics, rate = pending
            pending = None
            values = fetch(metrics)
            if has_diverged(values, meta, job.model.vocab_size):
                return done
            meta = {"first_loss": values["loss"], **meta}
            tracker.step(done, values, rate)
            return None

        try:
            while step < stage.steps:
                batch = strategy.place_batch(source.batch(step + meta["skipped"], host, num_hosts))
                rate = learning_rate(stage.optimizer, step, stage.steps)
                state, metrics = train_step(state, batch, np.float32(rate), np.uint32(seed))
                diverged = flush()  # the previous step, while this one is being computed
                step, pending = step + 1, (step + 1, metrics, rate)

                last, stopping = step == stage.steps, distributed.should_stop(job.stop)
                evaluating = last or (stage.eval_every and step % stage.eval_every == 0)
                due = evaluating or stopping or step % stage.checkpoint_every == 0
                if due and diverged is None:
                    diverged = flush()
                if diverged is not None:
                    rollbacks, pending = rollbacks + 1, None
                    if rollbacks > stage.max_rollbacks:
                        raise Diverged(
                            f"{job.stage_name} diverged at step {diverged} after {rollbacks - 1} "
                            "roll-backs"
                        )
                    fresh = init_state(make_model(job.model, seed)[1], optimizer)
                    state, old = start(job, checkpoints, strategy, fresh)
                    step = old["step"]
                    meta = {**old, "skipped": meta["skipped"] + diverged - step}
                    writer.cut(job.stage_name, step)
                    tracker.event(
                        diverged,
                        "rolled back",
                        f"to step {step}; {diverged - step} batches are skipped",
                    )
                    tracker.restart_clock()
                    continue
                if due:
                    rows = evaluation(state.params, final=last) if evaluating else []
                    tracker.evals(step, rows)
                    # After the records of its step, so that all rows up to a checkpoint exist when
                    # a run resumes from it.
                    kept = {**meta, "records": writer.extents()}
                    checkpoints.save(step, items_of(state), kept, kept_by(rows))
                    tracker.restart_clock()
                if stopping and not last:
                    checkpoints.wait()
                    raise Preempted(f"{job.stage_name} at step {step} of {stage.steps}")
            checkpoints.wait()
        finally:
            tracker.close()


def has_diverged(metrics: Mapping[str, float], meta: Row, vocab_size: int) -> bool:
    """Whether the loss is not finite or exploded, or the new parameters are not finite.

    Exploded means above twice the loss of guessing and above twice that of the stage's first step
    (`first_loss` of `meta`); a mixture of softmaxes starts at four times the loss of guessing. The
    loss is that of the old parameters, so the new ones are checked too: a checkpoint of this step
    must not contain damage from its gradient.
    """
    limit = 2 * max(math.log(vocab_size), meta.get("first_loss", math.inf))
    return not (metrics["loss"] < limit and math.isfinite(metrics["parameter_norm"]))


def start(
    job: Job, checkpoints: Checkpoints, strategy: Strategy, fresh: State
) -> tuple[State, Row]:
    """The state to continue from, and the `meta` of its checkpoint.

    The first of these that exists is used: a checkpoint in the run's own directory, one in
    `resume_from`, the parameters in `init_from`, a new initialisation.
    """
    meta = {**job.meta, "course": job.course, "stage": job.stage_name, "step": 0, "skipped": 0}
    target = strategy.abstract(fresh)
    where = checkpoints_of(job.directory, job.stage_name)
    restored = checkpoints.restore(items_of(target), lambda old: _check_own(where, old, meta))
    if restored is None and job.resume_from:
        items, old = _read(
            job.resume_from,
            items_of(target),
            "resume_from",
            lambda old: _check_same_course(old, job),
        )
        restored = items, {**old, "records": None}  # they describe the other run
    if restored:
        items, old = restored
        return State(items["optimizer"]["step"], items["params"], items["optimizer"]["state"]), {
            **old,
            **job.meta,
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


def begin(job: Job, writer: RunWriter, meta: Row) -> Tracker:
    """Prepares the records for the next step.

    Writes the run's identity, drops rows of later steps, and reports lost rows. All checks must
    have passed before: a command that is refused leaves nothing behind.

    Args:
      job: the stage.
      writer: the writer of its records.
      meta: the `meta` of the checkpoint that the stage continues from.
    """
    step = meta["step"]
    writer.begin()
    writer.cut(job.stage_name, step)
    tracker = make_tracker(job, writer, step)
    if step:
        tracker.event(step, "resumed", f"from the checkpoint of step {step}")
    for told in job.kind.lost(job.corpus, job.stage) if not step else ():
        tracker.event(step, "text lost", told)
        if distributed.is_first() and not job.quiet:
            print(f"warning: {job.config.run_id} {job.stage_name}: {told}", file=sys.stderr)
    for told in _lost_records(writer, meta):
        tracker.event(step, records.LOST, told)
        print(f"warning: {writer.path}: {told}", file=sys.stderr)
    return tracker


def _lost_records(writer: RunWriter, meta: Row) -> list[str]:
    """The differences of the records, cut back to the checkpoint's step, from when it was saved."""
    kept, found, lost = meta.get("records") or {}, writer.extents() or {}, []
    for name in kept.keys() & found.keys():
        before, now = kept[name]["rows"], found[name]["rows"]
        if now != before:
            lost.append(f"{name} has {now} rows where {before} stood when the checkpoint was saved")
        elif found[name] != kept[name]:
            lost.append(
                f"{name} has other values in its {now} rows than when the checkpoint was saved"
            )
    return lost


def checkpoints_of(directory: Path, stage_name: str) -> Path:
    """Where a stage of a run keeps its checkpoints."""
    return directory / "checkpoints" / stage_name


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
    steps = getattr(job.config, before).steps
    if old["step"] != steps:
        reached = f"{before}ing has reached step {old['step']} of {steps}"
        raise InputError(f"{job.init_from}: {reached}; finish it, or give --init-from")


def _check_same_course(old: Mapping[str, Any], job: Job) -> None:
    """Refuses another run's checkpoint if training would continue differently from that run."""
    where = f"resume_from: {str(job.resume_from)!r}"
    for key in ("fingerprint", "seed"):
        if old.get(key) != job.meta.get(key):
            mine, theirs = job.meta.get(key), old.get(key)
            raise InputError(
                f"{where} has {key} = {theirs}, this run {mine}; --init-from starts anew"
            )
    if changes := differences(old.get("course", {}), job.course if "course" in old else {}):
        raise InputError(
            f"{where} has other settings: {'; '.join(changes)}; --init-from starts anew"
        )
    if old["step"] >= job.stage.steps:
        raise InputError(
            f"resume_from: step {old['step']} leaves nothing of {job.stage.steps} steps to do"
        )


def _read(
    directory: Path, targets: dict[str, Any], key: str, accept: Callable[[Mapping[str, Any]], None]
) -> tuple[dict[str, Any], Row]:
    if not os.path.isdir(directory):  # Path.is_dir raises if the name is too long
        raise InputError(f"{key}: {str(directory)!r} is not a directory of checkpoints")
    with Checkpoints(directory, read_only=True) as checkpoints:
        restored = checkpoints.restore(targets, accept)
    if restored is None:
        raise InputError(f"{key}: {str(directory)!r} holds no checkpoint")
    return restored


def check_checkpoints_are_there(job: Job) -> None:
    """Refuses to start over if there are records of steps without their checkpoints.

    The records would be erased. A run that was killed before its first checkpoint may start over:
    its directory of checkpoints exists, and so few steps are recorded that none had to be saved.
    """
    where, stage = checkpoints_of(job.directory, job.stage_name), job.stage
    has_any = where.is_dir() and any(path.name.isdecimal() for path in where.iterdir())
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
    """The checkpoints of the job's stage."""
    best = job.kind.best(job.corpus, job.stage)
    where = checkpoints_of(job.directory, job.stage_name)
    return Checkpoints(where, job.stage.keep_every, best)


def items_of(state: State) -> dict[str, Any]:
    """A state as items of a checkpoint, separate because finetuning reads only parameters."""
    return {"params": state.params, "optimizer": {"step": state.step, "state": state.optimizer}}


def make_evaluation(job: Job, model: Model, strategy: Strategy) -> Evaluator:
    """What the stage is evaluated by; called with parameters, it gives rows for evals.jsonl."""
    given = (job.corpus, job.stage, job.config.seed, model, strategy)
    made = [EVALUATORS[name](*given) for name in job.kind.evaluators]

    def evaluate(params: Any, *, final: bool) -> list[Row]:
        return [row for evaluator in made for row in evaluator(params, final=final)]

    return evaluate


def make_source(job: Job) -> batches.Pretrain | batches.Finetune:
    """The stage's training batches, a pure function of the step."""
    return job.kind.source(job.corpus, job.config, job.model)


def make_tracker(job: Job, writer: RunWriter, done: int) -> Tracker:
    """Makes the tracker that turns metrics of steps into records, from step `done` on."""
    stage = job.stage
    quiet = job.quiet or not distributed.is_first()
    progress = Progress(f"{job.config.run_id} {job.stage_name}", stage.steps, done, quiet=quiet)
    flops = arch_zoo.count_flops(job.model, stage.input_length, stage.target_length).train
    names = job.config.trackers if distributed.is_first() else ()
    about = {"model": job.model.to_dict(), job.stage_name: to_dict(stage), **job.meta}
    others = trackers.open_trackers(
        names, job.directory, job.config.run_id, job.config.study, about
    )
    return Tracker(writer, job.stage_name, stage, flops, progress, tuple(others))
