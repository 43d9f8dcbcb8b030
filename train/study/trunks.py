"""Runs of several lengths that share their first steps: a trunk, and branches that leave it.

With a constant learning rate that falls only over the last steps, what is trained before does not
depend on the length of the run. A ladder of lengths then costs its longest run, the trunk, and the
decays of the others. A branch is an ordinary cell: trained alone, it gives the same numbers.
"""

import dataclasses
from collections.abc import Iterable

from train.study.config import RunConfig, digest, identity


def trunk_of(cell: RunConfig, cells: Iterable[RunConfig]) -> RunConfig | None:
    """The longest of the cells whose kept checkpoint `cell` can start from; None if there is none.

    It takes the same steps, up to the one where the rate of `cell` starts to fall, and keeps that
    step's checkpoint.
    """
    step = cell.pretrain.decay_starts
    if not 0 < step < cell.pretrain.steps:
        return None
    course = _course(cell)
    able = [
        other
        for other in cells
        if other != cell
        and other.pretrain.keeps(step)
        and _rank(other) > _rank(cell)
        and _course(other) == course
    ]
    return max(able, key=_rank, default=None)


def _rank(cell: RunConfig) -> tuple[int, int, str]:
    """By the length before the decay; the name decides between equals, so no two wait in turn."""
    return (cell.pretrain.decay_starts, cell.pretrain.steps, cell.run_id)


def _course(cell: RunConfig) -> str:
    """What determines the steps before the decay."""
    optimizer = dataclasses.replace(cell.pretrain.optimizer, decay_steps=0, decay_shape="linear")
    stage = dataclasses.replace(cell.pretrain, steps=1, optimizer=optimizer)
    alone = dataclasses.replace(cell, protocol="", pretrain=stage, finetune=None)
    # Some weights have the shape of the longest row of either stage.
    return digest({**identity(alone), "lengths": cell.max_lengths})
