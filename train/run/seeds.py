"""Several seeds of one cell in one program, by `vmap` over the state: how error bars become affordable.

Each seed keeps its own parameters, order of the data, dropout, checkpoints and records, in the
format of a run alone, and equals its run alone up to rounding: what is interrupted here may go on
there, and the other way round. Start-up is paid once; steps cost less than one by one where a
single small model leaves the device idle. benchmarks/seeds.py tells how much.
"""

import contextlib
import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arch_zoo.layers import fused_attention
from train import records
from train.data.corpus import Corpus
from train.records import InputError, Row, RunWriter
from train.run import cell, distributed, loop
from train.run.checkpoint import Checkpoints
from train.run.evaluators import kept_by
from train.run.loop import Job
from train.run.optimizers import learning_rate, make_optimizer
from train.run.parallel import SingleDevice
from train.run.step import Model, State, init_state, make_model, make_train_step
from train.run.tracking import Tracker
from train.study.config import RunConfig, StageConfig


@dataclasses.dataclass
class Member:
    """One seed on its way through a stage.

    Attributes:
      job: its stage.
      writer: of its records.
      checkpoints: its own.
      state: where it starts.
      meta: what its checkpoints say.
      constants: arrays of its model that are not trained.
      source: its batches.
      evaluation: its rows for evals.jsonl.
      tracker: its records of steps, from the moment that it is known which seeds go together.
      diverged: it has left; its last checkpoint is from before.
    """

    job: Job
    writer: RunWriter
    checkpoints: Checkpoints
    state: State
    meta: Row
    constants: Any
    source: Any
    evaluation: Any
    tracker: Tracker = dataclasses.field(init=False)
    diverged: bool = False


def run_seeds(
    runs: Sequence[RunConfig],
    corpus: Corpus,
    study: Path,
    stages: tuple[str, ...] = records.STAGES,
    stop: Callable[[], bool] = lambda: False,
    *,
    quiet: bool = False,
) -> list[str]:
    """Runs what is left of cells that differ in nothing but the seed.

    Those that cannot go together (another process is at work there, another step, a loss that has
    diverged) are run alone afterwards.

    Args:
      runs: the cells.
      corpus: what they are trained on.
      study: the directory of their run directories.
      stages: the stages to run; those that the cells lack are left out.
      stop: tells between steps whether to save and stop.
      quiet: show no progress.

    Returns:
      What `cell.run_cell` says of each.

    Raises:
      InputError: they differ in more than the seed, or several processes are at it.
      Preempted: the runs were stopped and have been saved.
      Diverged: a seed did, also alone; the others are done.
    """
    if not all(run.differs_in_seed_alone(runs[0]) for run in runs):
        raise InputError("seeds: the cells must be the same but for the seed")
    if jax.process_count() > 1:
        raise InputError("seeds: several seeds in one program need one process")
    cell.check_room(runs[0], cell.model_config(runs[0], corpus), len(runs))
    with contextlib.ExitStack() as locks:
        free = [run for run in runs if locks.enter_context(distributed.lock(study / run.run_id))]
        if not free:  # another process has just begun with them
            return ["locked"] * len(runs)
        opened = {run.seed: cell.open_run(run, corpus, study / run.run_id) for run in free}
        for stage in stages:
            if getattr(runs[0], stage) is None:
                continue
            jobs = []
            for run in free:
                writer, meta = opened[run.seed]
                if stage not in writer.extra["finished"]:
                    jobs.append(
                        cell.make_job(
                            run, stage, corpus, study / run.run_id, meta, stop=stop, quiet=quiet
                        )
                    )
            for job in _train_recorded(
                jobs, {seed: writer for seed, (writer, _) in opened.items()}
            ):
                seed = job.config.seed
                opened[seed] = cell.finish(job, opened[seed][0]), opened[seed][1]
            free = [run for run in free if stage in opened[run.seed][0].extra["finished"]]
    states, errors = [], []
    for run in runs:
        try:
            states.append(
                cell.run_cell(run, corpus, study / run.run_id, stages, stop=stop, quiet=quiet)
            )
        except loop.Diverged as error:  # of this seed alone
            errors.append(error)
    if errors:
        raise errors[0]
    return states


def _train_recorded(jobs: list[Job], writers: dict[int, RunWriter]) -> list[Job]:
    """`train`, with an end by error in the status of each."""
    if len(jobs) < 2:
        return []
    try:
        return train(jobs, [writers[job.config.seed] for job in jobs])
    except Exception as error:
        for job in jobs:
            cell.record_end(writers[job.config.seed], job.stage_name, error)
        raise


def train(jobs: Sequence[Job], writers: Sequence[RunWriter]) -> list[Job]:
    """Trains, evaluates and records one stage of several seeds; returns the jobs that have come to its end.

    Raises:
      Preempted: `stop` said so; the last step of each is saved.
    """
    stage, strategy = jobs[0].stage, _OneEvaluation()
    models = [
        make_model(dataclasses.replace(job.model, dropout_rate=stage.dropout_rate), job.config.seed)
        for job in jobs
    ]
    optimizer = make_optimizer(stage.optimizer, models[0][0].axes)
    model = models[0][0]

    train_step = make_seeds_step(model, optimizer, stage)
    with contextlib.ExitStack() as closing:
        members = []
        for job, writer, (own, params) in zip(jobs, writers, models, strict=True):
            loop.check_checkpoints_are_there(job)
            checkpoints = closing.enter_context(loop.open_checkpoints(job))
            state, meta = loop.start(job, checkpoints, strategy, init_state(params, optimizer))
            evaluation = loop.make_evaluation(job, _WithConstants(model), strategy)  # pyright: ignore
            source = loop.make_source(job)
            member = Member(
                job, writer, checkpoints, state, meta, own.constants, source, evaluation
            )
            members.append(member)
        step = statistics.mode(member.meta["step"] for member in members)
        members = [member for member in members if member.meta["step"] == step]
        for number, member in enumerate(members):
            shown = dataclasses.replace(member.job, quiet=member.job.quiet or number > 0)
            member.writer.status(
                "running", stage=member.job.stage_name, step=step, steps=stage.steps
            )
            member.tracker = loop.begin(shown, member.writer, member.meta)
            closing.callback(member.tracker.close)
        _steps(train_step, members, step)
        return [member.job for member in members if not member.diverged]


def make_seeds_step(
    model: Model, optimizer: optax.GradientTransformation, stage: StageConfig
) -> Any:
    """The training step of all seeds: `(states, constants, batches, learning rate, seeds)`, the rate the same for all.

    Attention is XLA's, also where a seed alone would have cuDNN's.
    """

    def step_of_one(state: State, constants: Any, batch: Any, rate: Any, seed: Any) -> Any:
        with fused_attention.disallowed():
            return make_train_step(
                dataclasses.replace(model, constants=constants), optimizer, stage
            )(state, batch, rate, seed)

    return jax.jit(jax.vmap(step_of_one, in_axes=(0, 0, 0, None, 0)), donate_argnums=0)


def _steps(train_step: Callable[..., Any], members: list[Member], step: int) -> None:
    """The loop of `loop.train` for several seeds; one that diverges leaves, for a run alone to roll it back."""
    job, stage = members[0].job, members[0].job.stage
    states = _stack([member.state for member in members])
    constants = _stack([member.constants for member in members])
    seeds = np.array([member.job.config.seed for member in members], np.uint32)
    pending: tuple[int, Any, float] | None = None
    while step < stage.steps and not all(member.diverged for member in members):
        parts = [member.source.batch(step + member.meta["skipped"]) for member in members]
        batch = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        rate = learning_rate(stage.optimizer, step, stage.steps)
        states, metrics = train_step(states, constants, batch, np.float32(rate), seeds)
        _record(members, pending)  # the step before, while this one is computed
        step, pending = step + 1, (step + 1, metrics, rate)
        last, stopping = step == stage.steps, distributed.should_stop(job.stop)
        evaluating = last or bool(stage.eval_every and step % stage.eval_every == 0)
        if evaluating or stopping or step % stage.checkpoint_every == 0:
            _record(members, pending)
            pending = None
            for number, member in enumerate(members):
                if not member.diverged:
                    state = jax.tree.map(lambda x, number=number: x[number], states)
                    _save(member, state, step, evaluating=evaluating, last=last)
        if stopping and not last:
            for member in members:
                member.checkpoints.wait()
            raise loop.Preempted(f"{job.stage_name} at step {step} of {stage.steps}")
    for member in members:
        member.checkpoints.wait()


def _record(members: list[Member], pending: tuple[int, Any, float] | None) -> None:
    """Records the metrics of a step, [seeds] each, and notes who has diverged."""
    if pending is None:
        return
    done, metrics, rate = pending
    values = {name: np.asarray(value) for name, value in metrics.items()}
    for number, member in enumerate(members):
        if member.diverged:
            continue
        own = {name: float(value[number]) for name, value in values.items()}
        if loop.has_diverged(own, member.meta, member.job.model.vocab_size):
            member.diverged = True
            member.tracker.event(done, "diverged", "leaves the other seeds to go on alone")
        else:
            member.meta = {"first_loss": own["loss"], **member.meta}
            member.tracker.step(done, own, rate)


def _save(member: Member, state: State, step: int, *, evaluating: bool, last: bool) -> None:
    rows = member.evaluation((state.params, member.constants), final=last) if evaluating else []
    member.tracker.evals(step, rows)
    meta = {**member.meta, "records": member.writer.extents()}
    member.checkpoints.save(step, loop.items_of(state), meta, kept_by(rows))
    member.tracker.restart_clock()


@dataclasses.dataclass(frozen=True)
class _WithConstants:
    """A model of which the constants, too, are an argument: one program evaluates every seed."""

    model: Model

    def merge(self, both: tuple[Any, Any]) -> Any:
        params, constants = both
        return dataclasses.replace(self.model, constants=constants).merge(params)


class _OneEvaluation(SingleDevice):
    """Compiles an evaluation once for all seeds, which differ only in what they give it."""

    def __init__(self):
        self._compiled: dict[str, Callable[..., Any]] = {}

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._compiled.setdefault(function.__qualname__, jax.jit(function))


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
