"""Trains several seeds of one cell in one program, by `vmap` over the state, for cheap error bars.

Each seed keeps its own parameters, data order, dropout, checkpoints and records, in the same format
as a run alone, and equals its run alone up to rounding. So a run that was interrupted here can
continue alone, and the other way round. Start-up is paid once. Steps cost less than one by one if a
single small model leaves the device partly idle; benchmarks/seeds.py measures how much.
"""

import contextlib
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from arch_zoo.layers import fused_attention
from train import records
from train.data.batches import HostBatch
from train.data.corpus import Corpus
from train.records import InputError, Row, RunWriter
from train.run import cell, distributed, loop
from train.run.evaluators import Evaluator
from train.run.loop import Member, run_steps
from train.run.optimizers import make_optimizer
from train.run.parallel import SingleDevice
from train.run.start import Job, check_checkpoints_are_there, open_checkpoints, start
from train.run.step import Model, State, init_state, make_model, make_train_step
from train.study.config import RunConfig, StageConfig


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
        opened = [cell.open_run(run, corpus, study / run.run_id) for run in free]
        for stage in stages:
            if getattr(runs[0], stage) is None:
                continue
            left = [run for run in opened if stage not in run.writer.extra["finished"]]
            jobs = [dataclasses.replace(run.job(stage), stop=stop, quiet=quiet) for run in left]
            _train_recorded(jobs, left)
            # A seed that has not finished this stage runs alone below, and so do its later stages.
            opened = [run for run in opened if stage in run.writer.extra["finished"]]
    states, errors = [], []
    for run in runs:
        directory = study / run.run_id
        try:
            states.append(cell.run_cell(run, corpus, directory, stages, stop=stop, quiet=quiet))
        except loop.Diverged as error:  # only this seed
            errors.append(error)
    if errors:
        raise errors[0]
    return states


def _train_recorded(jobs: list[Job], runs: list[cell.OpenRun]) -> None:
    """Like `train`, but records in the status of each run that it finished, or the error."""
    if len(jobs) < 2:
        return
    try:
        finished = train(jobs, [run.writer for run in runs])
    except Exception as error:
        for job, run in zip(jobs, runs, strict=True):
            run.record_end(job.stage_name, error)
        raise
    for job, run in zip(jobs, runs, strict=True):
        if job in finished:
            run.finish(job)


def train(jobs: Sequence[Job], writers: Sequence[RunWriter]) -> list[Job]:
    """Trains, evaluates and records one stage of several seeds.

    Seeds at another step than most, and seeds that diverge, are left out.

    Returns:
      The jobs that finished the stage.

    Raises:
      Preempted: `stop` asked for it; the last step of each is saved.
    """
    stage, strategy = jobs[0].stage, _OneEvaluation()
    models = [
        make_model(dataclasses.replace(job.model, dropout_rate=stage.dropout_rate), job.config.seed)
        for job in jobs
    ]
    optimizer = make_optimizer(stage.optimizer, models[0][0].axes, models[0][0].growth)
    model = models[0][0]

    train_step = make_seeds_step(model, optimizer, stage)
    with contextlib.ExitStack() as closing:
        members, states = [], []
        for job, writer, (own, params) in zip(jobs, writers, models, strict=True):
            check_checkpoints_are_there(job)
            checkpoints = closing.enter_context(open_checkpoints(job))
            state, meta = start(job, checkpoints, strategy, init_state(params, optimizer))
            evaluation = loop.make_evaluation(job, _WithConstants(model), strategy)  # pyright: ignore
            evaluate, source = _Evaluation(evaluation, own.constants), loop.make_source(job)
            members.append(Member(job, writer, checkpoints, source, evaluate, meta))
            states.append((state, own.constants))
        step = statistics.mode(member.meta["step"] for member in members)
        here = [number for number, member in enumerate(members) if member.meta["step"] == step]
        members = [members[number] for number in here]
        for number, member in enumerate(members):
            member.writer.status(
                "running", stage=member.job.stage_name, step=step, steps=stage.steps
            )
            member.active = not member.ended_early
            member.begin(quiet=number > 0)
            closing.callback(member.tracker.close)
        states, constants = _stack([states[number] for number in here])
        run_steps(_Together(train_step, members, constants), members, states)
        return [member.job for member in members if member.active or member.ended_early]


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


class _Together:
    """The program of several seeds. One that diverges leaves the others, to roll back alone."""

    feed = (0, 1)

    def __init__(self, train_step: Callable[..., Any], members: Sequence[Member], constants: Any):
        self._step, self._constants = train_step, constants
        self._seeds = np.array([member.job.config.seed for member in members], np.uint32)

    def step(self, state: State, batches: list[HostBatch], rate: float) -> tuple[State, Any]:
        batch = {name: np.stack([own[name] for own in batches]) for name in batches[0]}
        return self._step(state, self._constants, batch, np.float32(rate), self._seeds)

    def values(self, metrics: Any) -> list[Mapping[str, float]]:
        values = {name: np.asarray(value) for name, value in metrics.items()}
        return [
            {name: float(value[number]) for name, value in values.items()}
            for number in range(len(self._seeds))
        ]

    def state_of(self, state: State, number: int) -> State:
        return jax.tree.map(lambda x: x[number], state)

    def recover(self, member: Member, done: int) -> None:
        member.active = False
        member.tracker.event(done, "diverged", "leaves the other seeds to go on alone")


@dataclasses.dataclass(frozen=True)
class _WithConstants:
    """A model whose constants are an argument too, so that one program evaluates every seed."""

    model: Model

    @property
    def family(self) -> str:
        return self.model.family

    def merge(self, both: tuple[Any, Any]) -> Any:
        params, constants = both
        return dataclasses.replace(self.model, constants=constants).merge(params)


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """The evaluation of one seed, with its constants."""

    evaluation: Evaluator
    constants: Any

    def __call__(self, params: Any, *, final: bool, before: Sequence[Row] = ()) -> list[Row]:
        return self.evaluation((params, self.constants), final=final, before=before)


class _OneEvaluation(SingleDevice):
    """Compiles an evaluation once for all seeds, which differ only in its arguments."""

    def __init__(self):
        self._compiled: dict[str, Callable[..., Any]] = {}

    def compile_evaluation(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self._compiled.setdefault(function.__qualname__, jax.jit(function))


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
