"""Checkpoints of one stage of a run. All calls of Orbax are here: its release 1.0 will change them.

A checkpoint holds the state and, as JSON, its identity (stage, step, hashes, a checksum). Saving is
asynchronous. The last two checkpoints, the best ones (of the held-out loss and of each task) and
the milestones are kept. A checkpoint that cannot be read is skipped for the one before it.
"""

import contextlib
import errno
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from train.records import InputError
from train.run import distributed

_log = logging.getLogger(__name__)


Items = Mapping[str, Any]


class _Manager(ocp.CheckpointManager):
    """Orbax's manager with two of its problems removed."""

    def reached_preemption(self, step: int) -> bool:
        """Always False.

        Orbax would ask JAX's coordinator with step numbers of its own, besides those of
        `distributed.should_stop`. The coordinator compares with the last number it was given, so
        with two counters a SIGTERM would be lost.
        """
        return False

    def metrics(self, step: int) -> Any:
        """The metrics of a checkpoint; None if their file is damaged, so that others open."""
        try:
            return super().metrics(step)
        except ValueError as error:
            _log.warning("checkpoint %d: its metrics cannot be read: %s", step, error)
            return None


class Checkpoints:
    """The checkpoints of one directory.

    Use it as a context manager, which waits for saves in progress.
    """

    def __init__(
        self,
        directory: Path,
        keep_every: int = 0,
        best: Sequence[str] = (),
        keep_at: Sequence[int] = (),
        *,
        read_only: bool = False,
    ):
        """Opens or creates the directory, and removes the remains of saves that were killed.

        Args:
          directory: the directory of the stage.
          keep_every: steps between checkpoints that are never deleted; 0 for none.
          keep_at: steps whose checkpoints are never deleted.
          best: metrics for which the best checkpoint is kept: the lowest "nll", the highest score
            of a task.
          read_only: for the directory of another run, from which nothing is removed, even if it
            looks unfinished.

        Raises:
          InputError: the path contains a character that Orbax treats as a pattern. It would save
            there, but never find the checkpoints again.
        """
        directory = directory.absolute()
        if found := sorted(set("[]*?") & set(str(directory))):
            raise InputError(
                f"checkpoints: {str(directory)!r} has {found[0]!r} in its path; use another name"
            )
        # `best_fn` with `max_to_keep` would delete the newest checkpoint if it is not among the
        # best.
        policies: list[Any] = [preservation_policy.LatestN(2), *map(_best, best)]
        if keep_every:
            policies.append(preservation_policy.EveryNSteps(keep_every))
        if keep_at:
            policies.append(preservation_policy.CustomSteps(keep_at))
        self._read_only = read_only
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: (
                0.0
            ),  # ignored because there is a policy, but metrics are not written without it
            cleanup_tmp_directories=not read_only,
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
            read_only=read_only,
        )
        quiet = (
            _below_errors_ignored() if read_only else contextlib.nullcontext()
        )  # otherwise Orbax warns that it is read-only
        with quiet:
            self._manager = _Manager(directory, options=options)

    def __enter__(self) -> "Checkpoints":
        """Returns itself; the directory is already open."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for saves in progress, and closes."""
        with self._full_disk_named():
            self._manager.close()

    def save(
        self,
        step: int,
        items: Items,
        meta: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Starts a save; returns as soon as the arrays may be changed.

        Args:
          step: the number of steps done.
          items: trees of arrays by name, each of which can be restored separately.
          meta: JSON values that identify the arrays.
          metrics: values that decide which checkpoints are best: "nll" (lowest) and scores by task
            (highest).

        Raises:
          OSError: the disk is full, now or in the previous save. Complete checkpoints are kept.
        """
        meta = {
            **meta,
            "step": step,
            "checksums": {name: checksum(item) for name, item in items.items()},
        }
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        with self._full_disk_named():
            self._manager.save(
                step,
                args=ocp.args.Composite(meta=ocp.args.JsonSave(meta), **arrays),
                metrics=dict(metrics or {}),  # Orbax warns about each save without metrics
                force=True,
            )

    def wait(self) -> None:
        """Waits until every save is complete, and raises the errors of failed saves."""
        with self._full_disk_named():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """Turns the errors of Orbax and TensorStore on a full disk into an OSError."""
        try:
            yield
        except Exception as error:
            full = os.strerror(errno.ENOSPC)
            if full in f"{error} {error.__cause__} {error.__context__}":
                raise OSError(errno.ENOSPC, full, str(self._manager.directory)) from error
            raise

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def restore(
        self,
        targets: Items,
        accept: Callable[[Mapping[str, Any]], None] = lambda meta: None,
        at: int = 0,
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Restores the newest readable checkpoint; None if there is no checkpoint at all.

        Newer checkpoints that are damaged are skipped with a warning, and moved aside so that their
        steps can be saved again.

        Args:
          targets: trees of `jax.ShapeDtypeStruct` with shardings, for the items to restore.
          accept: called with `meta` before any array is read; raises InputError to refuse the
            checkpoint.
          at: only the checkpoint of this step; 0 for any.

        Returns:
          The items, and the checkpoint's `meta`.

        Raises:
          InputError: no checkpoint can be read although there are some, or their arrays are those
            of another model.
        """
        steps = [step for step in self.steps() if at in (0, step)]
        damaged = []
        for step in reversed(steps):
            restored, reason = None, "another process could not read it"
            try:
                restored = self._read(step, targets, accept)
            except InputError:
                raise
            except Exception as error:  # noqa: BLE001  damaged files raise many kinds of error
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            if not distributed.any_process(restored is None):
                if not self._read_only:
                    self._move_aside(damaged)
                return restored
            _log.warning("checkpoint %d cannot be read and is skipped: %s", step, reason)
            damaged.append(step)
        if steps:
            raise InputError(
                f"{self._manager.directory}: none of the checkpoints {steps} can be read: {reason}"
            )
        return None

    def _move_aside(self, steps: list[int]) -> None:
        directory = Path(self._manager.directory)
        for step in steps if distributed.is_first() else []:
            aside = directory.with_name(f"{directory.name}-damaged")
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(step), ignore_errors=True)
            os.replace(directory / str(step), aside / str(step))
        if steps:
            distributed.barrier("damaged checkpoints are aside")
            self._manager.reload()

    def _read(
        self, step: int, targets: Items, accept: Callable[[Mapping[str, Any]], None]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))[
            "meta"
        ]
        accept(meta)
        if not targets:
            return {}, meta
        self._check_shapes(step, targets)
        arrays = {name: ocp.args.StandardRestore(target) for name, target in targets.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**arrays))
        items = {name: restored[name] for name in targets}
        for name, item in items.items():
            if not _matches(item, meta["checksums"][name]):
                raise ValueError(f"the checksum of {name} does not match its arrays")
        return items, meta

    def _check_shapes(self, step: int, targets: Items) -> None:
        """Refuses arrays of another model by name; Orbax would print a traceback for each."""
        for name, target in targets.items():
            found = ocp.StandardCheckpointHandler().metadata(
                self._manager.directory / str(step) / name
            )
            theirs, ours = _shapes(found.tree), _shapes(target)
            for key in sorted(theirs.keys() | ours.keys()):
                if theirs.get(key) != ours.get(key):
                    sizes = f"{_shape(theirs.get(key))} there and {_shape(ours.get(key))} here"
                    raise InputError(
                        f"{self._manager.directory}: step {step} is of another model: {name}.{key} "
                        f"has {sizes}"
                    )


@contextlib.contextmanager
def _below_errors_ignored() -> Iterator[None]:
    """Silences Orbax's messages through absl, except errors."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a tree, by its path."""
    leaves = jax.tree.leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no array" if shape is None else f"shape {list(shape)}"


def _best(name: str) -> preservation_policy.BestN:
    """Keeps the checkpoint with the best value, or the newest of equals.

    Checkpoints without metrics do not count.
    """

    def value(metrics: Mapping[str, float]) -> float:
        return -metrics.get(name, math.inf) if name == "nll" else metrics.get(name, -math.inf)

    return preservation_policy.BestN(
        get_metric_fn=value, n=1, keep_checkpoints_without_metrics=False
    )


def checksum(tree: Any) -> int | str:
    """CRC-32 of all arrays in order; `word_sum` if this process does not hold all of them."""
    leaves = jax.tree.leaves(tree)
    if not _is_here(leaves):
        return word_sum(leaves)
    crc = 0
    for leaf in leaves:
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc


def word_sum(tree: Any) -> str:
    """A checksum that devices compute together, each from its own part of the arrays.

    It multiplies every word by an odd number for its position, and adds. A sum of integers does not
    depend on the order, so neither the number of devices nor the way arrays are cut matters.
    """
    return f"words:{int(np.asarray(_word_sum(jax.tree.leaves(tree)).addressable_data(0))):08x}"


@jax.jit
def _word_sum(leaves: list[jax.Array]) -> jax.Array:
    total = jnp.zeros((), jnp.uint32)
    for x in leaves:
        words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(
            jnp.uint32
        )
        place = jnp.zeros(x.shape, jnp.uint32)
        for axis, size in enumerate(x.shape):
            place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        # The factor makes the sum depend on the order of the arrays.
        total = 31 * total + jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)
    return total


def _matches(tree: Any, expected: int | str) -> bool:
    """Whether a restored tree has its saved checksum.

    If the tree was saved whole and this process holds only parts of it, this cannot be checked, and
    the result is True.
    """
    if isinstance(expected, str):
        return word_sum(tree) == expected
    return not _is_here(jax.tree.leaves(tree)) or checksum(tree) == expected


def _is_here(leaves: list[jax.Array]) -> bool:
    return all(leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in leaves)
