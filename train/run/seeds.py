"""Trains several seeds of one cell in one program, by `vmap` over the state, for cheap error bars.

Each seed keeps its own parameters, data order, dropout, checkpoints and records, in the same format
as a run alone, and equals its run alone up to rounding. So a run that was interrupted here can
continue alone, and the other way round. Start-up is paid once. Steps cost less than one by one if a
single small model leaves the device partly idle; benchmarks/seeds.py measures how much.
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
    """One seed during a stage.

    Attributes:
      job: its stage.
      writer: the writer of its records.
      checkpoints: its checkpoints.
      state: the state it starts from.
      meta: the `meta` of its checkpoints.
      constants: arrays of its model that are not trained.
      source: its batches.
      evaluation: computes its rows for evals.jsonl.
      tracker: records its steps; set once it is known which seeds run together.
      diverged: it has left the group; its last checkpoint is from before.
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
    """Runs the remaining stages of cells that differ only in the seed.

    Cells that cannot join the others (another process is running them, they are at another step, or
    their loss diverged) are run alone afterwards.

    Args:
      runs: the cells.
      corpus: the corpus to train on.
      study: the directory of their run directories.
      stages: the stages to run; those that the cells do not have are skipped.
      stop: called between steps; whether to save and stop.
      quiet: shows no progress.

    Returns:
      The result of `cell.run_cell` for each.

    Raises:
      InputError: the cells differ in more than the seed, or there are several processes.
      Preempted: the runs were stopped and have been saved.
      Diverged: a seed diverged, also when run alone; the others are done.
    """
    if not all(run.differs_in_seed_alone(runs[0]) for run in runs):
        raise InputError("seeds: the cells must be the same but for the seed")
    if jax.process_count() > 1:
        raise InputError("seeds: several seeds in one program need one process")
    cell.check_room(runs[0], cell.model_config(runs[0], corpus), len(runs))
    with contextlib.ExitStack() as locks:
        free = [run for run in runs if locks.enter_context(distributed.lock(study / run.run_id))]
        if not free:  # another process has just started them
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
        except loop.Diverged as error:  # only this seed
            errors.append(error)
    if errors:
        raise errors[0]
    return states


def _train_recorded(jobs: list[Job], writers: dict[int, RunWriter]) -> list[Job]:
    """Like `train`, but records an error in the status of each run."""
    if len(jobs) < 2:
        return []
    try:
        return train(jobs, [writers[job.config.seed] for job in jobs])
    except Exception as error:
        for job in jobs:
            cell.record_end(writers[job.config.seed], job.stage_name, error)
        raise


def train(jobs: Sequence[Job], writers: Sequence[RunWriter]) -> list[Job]:
    """Trains, evaluates and records one stage of several seeds; returns the jobs that finished it.

    Raises:
      Preempted: `stop` asked for it; the last step of each is saved.
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
    """The training step of all seeds: `(states, constants, batches, learning rate, seeds)`.

    The learning rate is the same for all. Attention uses XLA, even if a seed alone would use cuDNN.
    """

    def step_of_one(state: State, constants: Any, batch: Any, rate: Any, seed: Any) -> Any:
        with fused_attention.disallowed():
            return make_train_step(
                dataclasses.replace(model, constants=constants), optimizer, stage
            )(state, batch, rate, seed)

    return jax.jit(jax.vmap(step_of_one, in_axes=(0, 0, 0, None, 0)), donate_argnums=0)


def _steps(train_step: Callable[..., Any], members: list[Member], step: int) -> None:
    """The loop of `loop.train` for several seeds. One that diverges leaves, to roll back alone."""
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
        _record(members, pending)  # the previous step, while this one is being computed
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
    """Records the metrics of a step, [seeds] each, and marks members that diverged."""
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
    """A model whose constants are an argument too, so that one program evaluates every seed."""

    model: Model

    def merge(self, both: tuple[Any, Any]) -> Any:
        params, constants = both
        return dataclasses.replace(self.model, constants=constants).merge(params)


class _OneEvaluation(SingleDevice):
    """Compiles an evaluation once for all seeds, which differ only in its arguments."""

    def __init__(self):
        self._compiled: dict[str, Callable[..., Any]] = {}

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._compiled.setdefault(function.__qualname__, jax.jit(function))


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
