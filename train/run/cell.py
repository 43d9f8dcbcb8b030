"""Runs one cell from start to end: its directory, its records, its two stages, and how it ends."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

import arch_zoo
from train import records
from train.data.batch_shape import BatchShape
from train.data.corpus import Corpus
from train.data.probe_batches import corpus_of
from train.records import InputError, Row
from train.run import distributed, lengths, loop
from train.run import stages as kinds
from train.run.evaluators import tasks
from train.run.stages import KINDS
from train.run.start import Job, Start, has_checkpoint
from train.study import declare
from train.study.config import RunConfig, differences, digest, identity, to_dict
from train.tasks import scoring

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: saved; run the same command again

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def resolve(config: RunConfig, corpus: Corpus) -> Row:
    """The settings that determine a run's result, and its cost, as they are written to config.json.

    Raises:
      ConfigError: the architecture, the size or a model option is unknown or not allowed.
      InputError: the corpus does not have one of the tasks.
    """
    model = model_config(config, corpus)
    for task in config.finetune.tasks if config.finetune else ():
        if task not in corpus.tasks:
            raise InputError(
                f"finetune.tasks: {task!r} is not in {corpus.path}; known: "
                f"{', '.join(corpus.tasks)}"
            )
    data = {"name": corpus.name, "fingerprint": corpus.fingerprint, "vocab_size": corpus.vocab_size}
    hashed = {**identity(config), "model": model.identity(), "data": data}
    plain = to_dict(config)
    return {
        "run_id": config.run_id,
        "study": config.study,
        "architecture": config.architecture,
        "family": config.family,
        "size": config.size,
        "protocol": config.protocol,
        "seed": config.seed,
        "hash": digest(hashed),
        "model": model.to_dict(),
        **{stage: plain[stage] for stage in KINDS},
        "data": {**data, "documents_left_out": corpus.num_left_out},
        "parallel": {"strategy": config.parallel, "mesh": plain["mesh"]},
        "accounting": account(config, model) | _epoch(config, corpus, model),
    }


def model_config(config: RunConfig, corpus: Corpus) -> arch_zoo.ModelConfig:
    """The resolved model for the devices of this machine."""
    return declare.model(config, corpus.vocab_size, accelerator=jax.default_backend() != "cpu")


def check_room(config: RunConfig, model: arch_zoo.ModelConfig, seeds: int = 1) -> None:
    """Refuses a run that cannot fit into this machine's memory, before anything is built.

    The check is a lower bound, far below what a run needs: weights and gradients, and an eighth of
    the residual stream at every layer (Funnel shortens its own). `python -m train plan` estimates
    the whole.

    Raises:
      InputError: says how much is needed at least, and how much there is.
    """
    room = _memory_of_devices()
    stages = [stage for stage in (config.pretrain, config.finetune) if stage is not None]
    width = 2 if model.dtype == "bfloat16" else 4
    rows = {
        f"batch_size = {stage.batch_size}": stage.batch_size // stage.accumulate for stage in stages
    }
    rows |= {
        f"eval_batch_size = {stage.eval_batch_size}": stage.eval_batch_size for stage in stages
    }
    names = [name for name in records.STAGES if getattr(config, name) is not None]
    tokens = max(
        sum(
            model.num_layers(side) * config.shape(name).row_lengths[side.name]
            for side in model.sides
        )
        for name in names
    )
    largest = max(rows, key=lambda name: rows[name])
    need = seeds * (
        8 * arch_zoo.count_params(model).total
        + rows[largest] * tokens * model.embed_dim * width // 8
    )
    if room is not None and need > room:
        several = f" for {seeds} seeds" if seeds > 1 else ""
        raise InputError(
            f"{config.run_id}: needs at least {need / 1e9:,.0f} GB{several} (size {config.size}, "
            f"{largest}); "
            f"the devices here have {room / 1e9:,.0f} GB"
        )


def _memory_of_devices() -> int | None:
    """Bytes of memory of all devices together; None if the devices do not report it."""
    if jax.default_backend() == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * jax.process_count()
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["bytes_limit"] * jax.device_count() if "bytes_limit" in stats else None


def account(config: RunConfig, model: arch_zoo.ModelConfig) -> Row:
    """What a run costs: `costs` of one sequence of pretraining, and the FLOPs of all of it."""
    stage = config.pretrain
    one = costs(model, config.shape("pretrain"))
    return {
        **one,
        "sequences_per_step": stage.batch_size,
        "flops_train_total": one["flops_train"] * stage.batch_size * stage.steps,
    }


def costs(model: arch_zoo.ModelConfig, shape: BatchShape) -> Row:
    """Parameters; of one sequence its FLOPs, and what decoding it would keep."""
    params = arch_zoo.count_params(model)
    lengths = shape.counted_lengths.values()
    flops = arch_zoo.count_flops(model, *lengths)
    return {
        "params_total": params.total,
        "params_embedding": params.embedding,
        "params_non_embedding": params.non_embedding,
        "params_active": params.active,
        "flops_forward": flops.forward,
        "flops_train": flops.train,
        "flops_by_part": flops.by_part,
        "state_size": arch_zoo.count_state(model, *lengths),
    }


def _epoch(config: RunConfig, corpus: Corpus, model: arch_zoo.ModelConfig) -> Row:
    """The size of an epoch of pretraining: its examples, and the tokens of text behind them."""
    source = kinds.kind("pretrain", config).source(corpus, config, model)
    return {"sequences_per_epoch": source.num_windows, "tokens_per_epoch": source.epoch_tokens}


def run_cell(
    config: RunConfig,
    corpus: Corpus,
    directory: Path,
    stages: tuple[str, ...] = records.STAGES,
    start_from: Start | None = None,
    stop: Callable[[], bool] = lambda: False,
    *,
    quiet: bool = False,
) -> str:
    """Runs the remaining stages of one cell.

    Args:
      config: the cell.
      corpus: the corpus to train on, unless the run is trained on a probe.
      directory: the run directory.
      stages: the stages to run; those that `config` does not have are skipped.
      start_from: checkpoints of other runs that the first stage starts from.
      stop: called between steps; whether to save and stop.
      quiet: shows no progress.

    Returns:
      "done", or "locked" if another process is running this cell.

    Raises:
      InputError: the directory belongs to another configuration, or cannot be written; or the
        corpus has no task to finetune on.
      Preempted: the run was stopped and has been saved.
    """
    stages = tuple(stage for stage in stages if getattr(config, stage) is not None)
    for stage in stages:
        if not KINDS[stage].best(corpus, getattr(config, stage)):
            none = "has no task with validation examples; `prepare --tasks` makes them"
            raise InputError(f"{stage}: {corpus.path} {none}")
    with distributed.lock(directory) as free:
        if not free:
            return "locked"
        run = open_run(config, corpus, directory)
        old = records.read_status(directory)
        # The last known progress, shown until a step is done.
        before = {old.get("stage"): old.get("step", 0)}
        for stage in stages:
            if stage in run.writer.extra["finished"]:
                continue
            job = dataclasses.replace(
                run.job(stage), start_from=start_from or Start(), stop=stop, quiet=quiet
            )
            try:
                if job.start_from.trunk:
                    _take_over_records(job, run.writer)
                run.writer.status(
                    "running", stage=stage, step=before.get(stage, 0), steps=job.stage.steps
                )
                loop.train(job, run.writer)
                run.finish(job)
            except Exception as error:
                run.record_end(stage, error)
                raise
            start_from = None
    return "done"


def _take_over_records(job: Job, writer: records.RunWriter) -> None:
    """Copies the records of a trunk into a branch; rows after the branch are cut off later."""
    trunk = job.start_from.trunk
    if trunk is None or writer.silent:
        return
    if not has_checkpoint(job.directory, job.stage_name):
        writer.copy(trunk)


@dataclasses.dataclass
class OpenRun:
    """A run whose directory has been checked. The caller holds its lock.

    Attributes:
      config: the run.
      corpus: the corpus it is trained on.
      directory: the run directory.
      identity: what the run's checkpoints must have (hash, corpus fingerprint, seed).
      writer: the writer of its records, which knows the finished stages. It writes config.json
        before step 0, after the first stage has checked its input.
    """

    config: RunConfig
    corpus: Corpus
    directory: Path
    identity: Row
    writer: records.RunWriter

    def job(self, stage: str) -> Job:
        """One of its stages."""
        model = model_config(self.config, self.corpus)
        return Job(self.config, stage, model, self.identity, self.corpus, self.directory)

    def finish(self, job: Job) -> None:
        """Records that a stage is finished."""
        _record_best(self.writer, job)
        finished = [*self.writer.extra["finished"], job.stage_name]
        extra = {**self.writer.extra, "finished": finished}
        self.writer = dataclasses.replace(self.writer, extra=extra)
        state = "done" if _is_done(job.config, finished) else "queued"
        self.writer.status(state, stage=job.stage_name)

    def record_end(self, stage: str, error: Exception) -> None:
        """Records that a stage was stopped or failed, and why."""
        if isinstance(error, loop.Preempted):
            self.writer.status("preempted", stage=stage, error=str(error))
            return
        reason = records.reason(error)
        with contextlib.suppress(OSError):  # on a full disk this fails too; report the first error
            self.writer.status("failed", stage=stage, error=reason)


def open_run(config: RunConfig, corpus: Corpus, directory: Path) -> OpenRun:
    """Opens a run's directory. The caller must hold its lock.

    Raises:
      InputError: the directory belongs to another configuration, or finetuning would cut a label.
    """
    corpus = corpus_of(config, corpus)
    model = model_config(config, corpus)
    check_room(config, model)
    resolved = resolve(config, corpus)
    _check_same(directory, resolved, model)
    status = records.read_status(directory)
    finished = [
        stage
        for stage in records.STAGES
        if distributed.as_first(stage in status.get("finished", []))
    ]
    done = _is_done(config, finished)
    if config.finetune and not done:  # checked now, not only after hours of pretraining
        lengths.check_labels(corpus, config.finetune.tasks or tuple(corpus.tasks), config.finetune)
    written = (
        None if done and (directory / "config.json").exists() else (resolved, environment(corpus))
    )
    extra = {"finished": finished, "hash": resolved["hash"]}
    writer = records.RunWriter(directory, extra, not distributed.is_first(), written)
    if done:
        writer.begin()  # no stage is left that would do it
    identity = {
        "hash": resolved["hash"],
        "fingerprint": corpus.fingerprint,
        "seed": config.seed,
    }
    return OpenRun(config, corpus, directory, identity, writer)


def _is_done(config: RunConfig, finished: list[str]) -> bool:
    last = [stage for stage in KINDS if getattr(config, stage) is not None][-1]
    return last in finished


def _record_best(writer: records.RunWriter, job: Job) -> None:
    """Adds the best score of each task to the evaluations of a stage, once."""
    if writer.silent:
        return
    rows = records.read_jsonl(writer.path / "evals.jsonl")
    own = [row["step"] for row in rows if row["stage"] == job.stage_name]
    if own and not any(row["metric"] == scoring.BEST for row in rows):
        where = {"step": max(own), "stage": job.stage_name}
        writer.evals({**where, **row} for row in tasks.best(rows, job.stage_name))


def _check_same(directory: Path, resolved: Row, model: arch_zoo.ModelConfig) -> None:
    """Refuses a directory with records of another configuration."""
    path = directory / "config.json"
    if not path.exists():
        status = records.read_status(directory)
        if status.get("finished") and status.get("hash") != resolved["hash"]:
            told = (
                "of another configuration"
                if "hash" in status
                else "of a configuration that nobody can tell"
            )
            raise InputError(
                f"{directory}: config.json is gone, and the run there is {told}; use another "
                "directory"
            )
        return
    old = records.read_json(path)
    if old.get("hash") == resolved["hash"]:
        return
    parts = ("architecture", "family", "size", "protocol", "seed", "model", *KINDS, "data")
    before = {"family": "encoder_decoder", **old}
    if isinstance(old.get("model"), dict):
        before["model"] = model.completed(old["model"])
    changes = differences({k: before.get(k) for k in parts}, {k: resolved[k] for k in parts})
    raise InputError(
        f"{path}: the run there has another configuration: {'; '.join(changes)}; settings belong "
        "to a run from its start: give those it has, or use another directory (--study or --runs)"
    )


def environment(corpus: Corpus) -> Row:
    """Versions, devices, host and code, as written to env.json."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        **machine(),
        "fingerprint": corpus.fingerprint,
        "command": " ".join(sys.argv),
    }


def machine() -> Row:
    """Versions, devices and the commit of the code."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "git_commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of this code; None outside a clone or without git, as in slim images.

    An installed copy may be inside another repository, so git is asked whether it tracks this file.
    """
    here = Path(__file__)

    def ask(*command: str) -> str:
        done = subprocess.run(
            ["git", *command], cwd=here.parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    try:
        return (
            ask("ls-files", here.name) and ask("rev-parse", "--verify", "--quiet", "HEAD")
        ) or None
    except OSError:
        return None


class StopOnSignal:
    """Turns SIGTERM and Ctrl-C into a request to save and stop.

    Use it as a context manager, and call it to ask whether to stop. A second Ctrl-C ends the
    process at once.
    """

    def __init__(self):
        """Starts without a request."""
        self._asked = False
        self._old: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether a stop was requested."""
        return self._asked

    def __enter__(self) -> "StopOnSignal":
        """Catches both signals from now on.

        With several processes, SIGTERM is left to JAX, see `distributed.should_stop`.
        """
        if jax.process_count() == 1:
            self._old = {
                number: signal.signal(number, self._ask)
                for number in (signal.SIGTERM, signal.SIGINT)
            }
        return self

    def __exit__(self, *exception: object) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
