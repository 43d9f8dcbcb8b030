"""The training loop: one stage of one run, or of several seeds, to its last checkpoint."""

import dataclasses
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

import arch_zoo
from train import records
from train.data import batches as sources
from train.data.batches import HostBatch
from train.records import Row, RunWriter
from train.run import distributed, trackers
from train.run.checkpoint import Checkpoints
from train.run.evaluators import EVALUATORS, Evaluator, kept_by
from train.run.optimizers import learning_rate, make_optimizer
from train.run.parallel import Strategy, make_strategy
from train.run.start import Job, check_checkpoints_are_there, items_of, open_checkpoints, start
from train.run.step import Model, State, Step, init_state, make_model, make_train_step
from train.run.tracking import Progress, StepSize, Tracker, fetch
from train.study.config import to_dict


class Preempted(Exception):
    """The run was stopped from outside, after it saved its last step."""


class Diverged(Exception):
    """The loss is not finite, and rolling back did not help."""


@dataclasses.dataclass
class Member:
    """A run during one of its stages, alone or beside other seeds of the same cell.

    Attributes:
      job: its stage.
      writer: the writer of its records.
      checkpoints: its checkpoints.
      source: its batches.
      evaluate: computes its rows for evals.jsonl from parameters.
      meta: the `meta` of its next checkpoint.
      tracker: records its steps; made by `begin`.
      active: false once it takes no more steps: it has diverged and left the other seeds, or it
        has ended before the last step, see `StageConfig.patience`.
    """

    job: Job
    writer: RunWriter
    checkpoints: Checkpoints
    source: Any
    evaluate: Evaluator
    meta: Row
    tracker: Tracker = dataclasses.field(init=False)
    active: bool = True

    @property
    def ended_early(self) -> bool:
        """Whether nothing has got better for as long as the stage's patience."""
        return self.job.stage.is_over(0, self.meta.get("without_gain", 0))

    def begin(self, *, quiet: bool = False) -> None:
        """Prepares the records for the next step.

        Writes the run's identity, drops rows of later steps, and reports lost rows. All checks must
        have passed before: a command that is refused leaves nothing behind.
        """
        job, writer, step = self.job, self.writer, self.meta["step"]
        quiet = quiet or job.quiet or not distributed.is_first()
        writer.begin()
        writer.cut(job.stage_name, step)
        self.tracker = make_tracker(job, writer, step, quiet=quiet)
        if step:
            self.tracker.event(step, "resumed", f"from the checkpoint of step {step}")
        for lost in job.kind.lost(job.corpus, job.config) if not step else ():
            self.tracker.event(step, "text lost", lost)
            if not quiet:
                print(f"warning: {job.config.run_id} {job.stage_name}: {lost}", file=sys.stderr)
        for lost in _lost_records(writer, self.meta):
            self.tracker.event(step, records.LOST, lost)
            print(f"warning: {writer.path}: {lost}", file=sys.stderr)

    def record(self, done: int, values: Mapping[str, float], rate: float) -> bool:
        """Records the metrics of a step; returns False, without a record, if it diverged."""
        if has_diverged(values, self.meta, self.job.model.vocab_size):
            return False
        self.meta = {"first_loss": values["loss"], **self.meta}
        self.tracker.step(done, values, rate)
        return True

    def save(self, state: State, step: int, *, evaluating: bool, last: bool) -> None:
        """Evaluates if it is time to, and saves a checkpoint."""
        found = self.evaluate(state.params, final=last) if evaluating else []
        if evaluating and self.job.stage.patience:
            self._wait_for_gain(kept_by(found))
            if self.ended_early and not last:
                self.active = False
                found = self.evaluate(state.params, final=True)
                waited = f"no gain in {self.meta['without_gain']} evaluations"
                self.tracker.event(step, "ended early", waited)
        self.writer.examples(found)
        rows = [{k: v for k, v in row.items() if k != records.EXAMPLES} for row in found]
        self.tracker.evals(step, rows)
        # After the records of its step, so that all rows up to a checkpoint exist when a run
        # resumes from it.
        kept = {**self.meta, "records": self.writer.extents()}
        self.checkpoints.save(step, items_of(state), kept, kept_by(rows))
        self.tracker.restart_clock()

    def _wait_for_gain(self, values: Mapping[str, float]) -> None:
        """Notes in `meta` the best values so far, and the evaluations since one of them changed."""
        best = dict(self.meta.get("best", {}))
        gains = {
            name: value
            for name, value in values.items()
            if name not in best or (value < best[name] if name == "nll" else value > best[name])
        }
        waited = 0 if gains else self.meta.get("without_gain", 0) + 1
        self.meta = {**self.meta, "best": best | gains, "without_gain": waited}


class Program(Protocol):
    """Computes steps of one run, or of several seeds together."""

    @property
    def feed(self) -> tuple[int, int]:
        """The part of each batch that this process provides, and the number of parts."""
        ...

    def step(self, state: Any, batches: list[HostBatch], rate: float) -> tuple[Any, Any]:
        """The next state and the metrics, from one batch for each member."""
        ...

    def values(self, metrics: Any) -> list[Mapping[str, float]]:
        """The metrics of each member as numbers. This waits until they are computed."""
        ...

    def state_of(self, state: Any, number: int) -> State:
        """The state of one member."""
        ...

    def recover(self, member: Member, done: int) -> tuple[Any, int] | None:
        """Follows a divergence at step `done`.

        Returns:
          The state and the step to continue from, or None to continue without this member.

        Raises:
          Diverged: it happened too often.
        """
        ...


class Alone:
    """The program of one run. It rolls back to the last checkpoint when the loss diverges."""

    def __init__(
        self,
        strategy: Strategy,
        train_step: Step,
        seed: int,
        restart: Callable[[], tuple[State, Row]],
    ):
        """Prepares the steps; `restart` gives the state and `meta` of the last checkpoint."""
        self.feed = strategy.feed
        self._strategy, self._step, self._seed = strategy, strategy.compile(train_step), seed
        self._restart, self._rollbacks = restart, 0

    def step(self, state: State, batches: list[HostBatch], rate: float) -> tuple[State, Any]:
        """See Program."""
        batch = self._strategy.place_batch(batches[0])
        return self._step(state, batch, np.float32(rate), np.uint32(self._seed))

    def values(self, metrics: Any) -> list[Mapping[str, float]]:
        """See Program."""
        return [fetch(metrics)]

    def state_of(self, state: State, number: int) -> State:
        """See Program."""
        return state

    def recover(self, member: Member, done: int) -> tuple[State, int]:
        """Rolls back, and skips the batches since then."""
        job = member.job
        self._rollbacks += 1
        if self._rollbacks > job.stage.max_rollbacks:
            raise Diverged(
                f"{job.stage_name} diverged at step {done} after {self._rollbacks - 1} roll-backs"
            )
        state, old = self._restart()
        step = old["step"]
        member.meta = {**old, "skipped": member.meta["skipped"] + done - step}
        member.writer.cut(job.stage_name, step)
        skipped = f"to step {step}; {done - step} batches are skipped"
        member.tracker.event(done, "rolled back", skipped)
        member.tracker.restart_clock()
        return state, step


def train(job: Job, writer: RunWriter) -> None:
    """Trains, evaluates and records one stage; continues where an earlier call ended.

    Raises:
      InputError: the configuration does not fit the corpus, the devices or the checkpoints.
      Preempted: `job.stop` asked for it; the last step is saved.
      Diverged: the loss was not finite, or exploded, more often than may be rolled back.
    """
    stage, seed = job.stage, job.config.seed
    model, params = make_model(
        dataclasses.replace(job.model, dropout_rate=stage.dropout_rate), seed
    )
    optimizer = make_optimizer(stage.optimizer, model.axes, model.growth)
    strategy = make_strategy(job.config, model.axes, params)
    train_step = make_train_step(model, optimizer, stage, strategy.devices)
    evaluate, source = make_evaluation(job, model, strategy), make_source(job)

    check_checkpoints_are_there(job)
    with open_checkpoints(job) as checkpoints:

        def restart() -> tuple[State, Row]:
            fresh = init_state(make_model(job.model, seed)[1], optimizer)
            return start(job, checkpoints, strategy, fresh)

        program = Alone(strategy, train_step, seed, restart)
        state, meta = start(job, checkpoints, strategy, init_state(params, optimizer))
        member = Member(job, writer, checkpoints, source, evaluate, meta)
        member.active = not member.ended_early
        member.begin()
        try:
            run_steps(program, [member], state)
        finally:
            member.tracker.close()


def run_steps(program: Program, members: Sequence[Member], state: Any) -> None:
    """Takes the remaining steps of a stage, with its records, evaluations and checkpoints.

    Args:
      program: computes the steps.
      members: the run, or the seeds that are trained together; all are at the same step.
      state: their state at that step, of which the first step reuses the memory.

    Raises:
      Preempted: `stop` asked for it; the last step is saved.
      Diverged: see `Program.recover`.
    """
    job, stage, step = members[0].job, members[0].job.stage, members[0].meta["step"]
    pending: tuple[int, Any, float] | None = None

    def flush() -> tuple[Any, int] | None:
        """Records the pending metrics; returns where to continue from if that is another step."""
        nonlocal pending
        if pending is None:
            return None
        done, metrics, rate = pending
        pending, back = None, None
        for member, values in zip(members, program.values(metrics), strict=True):
            if member.active and not member.record(done, values, rate):
                back = program.recover(member, done)
        return back

    while step < stage.steps and any(member.active for member in members):
        batches = [
            member.source.batch(step + member.meta["skipped"], *program.feed) for member in members
        ]
        rate = learning_rate(stage.optimizer, step, stage.steps)
        state, metrics = program.step(state, batches, rate)
        back = flush()  # the previous step, while this one is being computed
        step, pending = step + 1, (step + 1, metrics, rate)

        last, stopping = step == stage.steps, distributed.should_stop(job.stop)
        evaluating = stage.evaluates(step)
        due = evaluating or stopping or step % stage.checkpoint_every == 0 or stage.keeps(step)
        if due and back is None:
            back = flush()
        if back is not None:
            (state, step), pending = back, None
            continue
        if due:
            for number, member in enumerate(members):
                if member.active:
                    own = program.state_of(state, number)
                    member.save(own, step, evaluating=evaluating, last=last)
        if stopping and not last and any(member.active for member in members):
            for member in members:
                member.checkpoints.wait()
            raise Preempted(f"{job.stage_name} at step {step} of {stage.steps}")
    for member in members:
        member.checkpoints.wait()


def has_diverged(metrics: Mapping[str, float], meta: Row, vocab_size: int) -> bool:
    """Whether the loss is not finite or exploded, or the new parameters are not finite.

    Exploded means above twice the loss of guessing and above twice that of the stage's first step
    (`first_loss` of `meta`); a mixture of softmaxes starts at four times the loss of guessing. The
    loss is that of the old parameters, so the new ones are checked too: a checkpoint of this step
    must not contain damage from its gradient.
    """
    limit = 2 * max(math.log(vocab_size), meta.get("first_loss", math.inf))
    return not (metrics["loss"] < limit and math.isfinite(metrics["parameter_norm"]))


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


def make_evaluation(job: Job, model: Model, strategy: Strategy) -> Evaluator:
    """What the stage is evaluated by; called with parameters, it gives rows for evals.jsonl."""
    given = (job.corpus, job.stage, job.config.seed, model, strategy)
    made = [EVALUATORS[name](*given) for name in (*job.kind.evaluators, *job.stage.measures)]

    def evaluate(params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        rows = list(before)
        for evaluator in made:
            rows += evaluator(params, final=final, before=rows)
        return rows

    return evaluate


def make_source(job: Job) -> sources.Pretrain | sources.Finetune:
    """The stage's training batches, a pure function of the step."""
    return job.kind.source(job.corpus, job.config, job.model)


def make_tracker(job: Job, writer: RunWriter, done: int, *, quiet: bool) -> Tracker:
    """Makes the tracker that turns metrics of steps into records, from step `done` on."""
    stage = job.stage
    progress = Progress(f"{job.config.run_id} {job.stage_name}", stage.steps, done, quiet=quiet)
    shape = job.config.shape(job.stage_name)
    flops = arch_zoo.count_flops(job.model, *shape.counted_lengths.values()).train
    size = StepSize(shape.tokens, flops * shape.batch_size)
    names = job.config.trackers if distributed.is_first() else ()
    about = {"model": job.model.to_dict(), job.stage_name: to_dict(stage), **job.meta}
    others = trackers.open_trackers(
        names, job.directory, job.config.run_id, job.config.study, about
    )
    return Tracker(writer, job.stage_name, stage, size, progress, tuple(others))
