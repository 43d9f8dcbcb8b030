"""The training loop: one stage of one run, from its start rule to its last checkpoint."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import arch_zoo
from train import evaluate
from train.checkpoint import Checkpoints
from train.config import RunConfig, StageConfig
from train.data import batches
from train.data.corpus import Corpus
from train.optimizers import learning_rate, make_optimizer
from train.parallel import make_strategy
from train.records import InputError, Row, RunWriter
from train.step import State, init_state, make_model, make_train_step
from train.tracking import Progress, Tracker, fetch


class Preempted(Exception):
    """The run was told to stop, and has saved its last step."""


class Diverged(Exception):
    """The loss is not finite, and rolling back has not helped."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A stage to train and where everything is.

    Attributes:
      config: the run.
      stage_name: pretrain or finetune.
      model: the resolved model, without dropout.
      meta: what a checkpoint must belong to (hash, corpus fingerprint); goes into each of them.
      corpus: the prepared corpus.
      directory: of the run.
      resume_from: checkpoints of the same stage of another directory to continue.
      init_from: checkpoints to take the first parameters from.
      stop: tells between steps whether to save and stop.
      quiet: show no progress.
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


def train(job: Job, writer: RunWriter) -> None:
    """Trains, evaluates and records one stage; continues where an earlier call ended.

    Raises:
      InputError: the configuration does not fit the corpus, the devices or the checkpoints.
      Preempted: `job.stop` said so; the last step is saved.
      Diverged: the loss stayed infinite or NaN after every allowed roll-back.
    """
    config, stage, seed = job.config, job.stage, job.config.seed
    model_config = dataclasses.replace(job.model, dropout_rate=stage.dropout_rate)
    model, params = make_model(model_config, seed)
    optimizer = make_optimizer(stage.optimizer, model.axes)
    strategy = make_strategy(config)
    state = init_state(params, optimizer)
    target = strategy.abstract(state)
    train_step = strategy.compile(make_train_step(model, optimizer, stage, strategy.devices))
    evaluation = _Evaluation(job, model)
    source = _source(job)
    host, num_hosts = jax.process_index(), jax.process_count()

    with Checkpoints(job.directory / "checkpoints" / job.stage_name, stage.keep_every) as checkpoints:
        # The start rule: what this directory has > what --resume-from has > the parameters of --init-from > scratch.
        first, meta = 0, {**job.meta, "stage": job.stage_name, "skipped": 0}
        restored = checkpoints.restore(_items(target))
        if restored is None and job.resume_from:
            with Checkpoints(job.resume_from) as other:
                restored = other.restore(_items(target))
            if restored is None:
                raise InputError(f"resume_from: {job.resume_from} holds no checkpoint")
        if restored:
            items, meta = restored
            state, first = State(items["optimizer"]["step"], items["params"], items["optimizer"]["state"]), meta["step"]
        elif job.init_from:
            with Checkpoints(job.init_from) as other:
                found = other.restore({"params": target.params})
            if found is None:
                raise InputError(f"init_from: {job.init_from} holds no checkpoint")
            state = strategy.place_state(state._replace(params=found[0]["params"]))
        else:
            state = strategy.place_state(state)
        writer.cut(job.stage_name, first)

        progress = Progress(f"{config.run_id} {job.stage_name}", stage.steps, first, job.quiet)
        flops = arch_zoo.count_flops(job.model, stage.input_length, stage.target_length).train
        tracker = Tracker(writer, job.stage_name, stage, flops, progress)
        if first:
            tracker.event(first, "resumed", f"from the checkpoint of step {first}")
        pending: tuple[int, Any, float] | None = None

        def flush() -> None:
            """Fetches the metrics of the step that was dispatched before the last one, and records them."""
            nonlocal pending
            if pending is not None:
                done, metrics, rate = pending
                pending = None
                values = fetch(metrics)
                if not math.isfinite(values["loss"]):
                    raise Diverged(f"step {done}: loss = {values['loss']}")
                tracker.step(done, values, rate)

        try:
            for step in range(first, stage.steps):
                batch = strategy.place_batch(source.batch(step, host, num_hosts))
                rate = learning_rate(stage.optimizer, step, stage.steps)
                state, metrics = train_step(state, batch, np.float32(rate), np.uint32(seed))
                flush()  # the metrics of the step before, while this one is computed
                done, pending = step + 1, (step + 1, metrics, rate)

                last, stopping = done == stage.steps, job.stop()
                evaluating = last or (stage.eval_every and done % stage.eval_every == 0)
                if evaluating or stopping or done % stage.checkpoint_every == 0:
                    flush()
                    nll = None
                    if evaluating:
                        rows = evaluation(state.params, final=last)
                        nll = next((row["value"] for row in rows if row["metric"] == "nll"), None)
                        tracker.evals(done, rows)
                    # After the records of its step: whoever resumes from a checkpoint finds every row up to it.
                    checkpoints.save(done, _items(state), meta, nll)
                    tracker.restart_clock()
                if stopping and not last:
                    checkpoints.wait()
                    raise Preempted(f"{job.stage_name} at step {done} of {stage.steps}")
            checkpoints.wait()
        finally:
            tracker.close()


def _items(state: State) -> dict[str, Any]:
    """A state as the items of a checkpoint: finetuning reads the parameters alone."""
    return {"params": state.params, "optimizer": {"step": state.step, "state": state.optimizer}}


class _Evaluation:
    """What a stage is evaluated on; compiled when first called."""

    def __init__(self, job: Job, model: Any):
        self._job, self._stage = job, job.stage
        if job.stage_name == "pretrain":
            self._nll = evaluate.make_nll(model)
            self._heldout = batches.heldout(
                job.corpus,
                self._stage.eval_batch_size,
                self._stage.input_length,
                self._stage.target_length,
                self._stage.eval_batches,
            )
        else:
            self._decode = evaluate.make_decode(model, self._stage.decode_length or self._stage.target_length)

    def __call__(self, params: Any, final: bool) -> list[Row]:
        corpus, stage = self._job.corpus, self._stage
        if self._job.stage_name == "finetune":
            tasks = stage.tasks or tuple(corpus.tasks)
            return [row for task in tasks for row in evaluate.downstream(self._decode, params, corpus, task, stage)]
        rows = [evaluate.upstream(self._nll, params, self._heldout)]
        return rows + ([evaluate.unigram(corpus, stage, self._job.config.seed, self._heldout)] if final else [])


def _source(job: Job) -> batches.Pretrain | batches.Finetune:
    """The stage's training batches, a pure function of the step."""
    stage, seed = job.stage, job.config.seed
    lengths = (stage.batch_size, stage.input_length, stage.target_length)
    if job.stage_name == "pretrain":
        return batches.Pretrain(job.corpus, "train", *lengths, seed)
    return batches.Finetune(job.corpus, stage.tasks or tuple(job.corpus.tasks), *lengths, seed)
