"""Two sizes at six batch sizes, each with its own rate: the steps and the examples to a loss.

    make study STUDY=batch_size

A larger batch needs fewer steps and more examples for the same loss; where either is twice its
minimum lies the critical batch size of McCandlish et al. (2018, arXiv 1812.06162), which Kaplan et
al. (2020) find to be a power law in the loss. Adafactor's updates have the size of their
parameters, so the rate grows with the square root of the batch; the middle batch is run at half and
at twice its rate as well, to see whether that matters.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

SIZES = ("micro", "nano")
ROWS = (4, 8, 16, 32, 64, 128)
MIDDLE, RATE = 16, 0.03
EXAMPLES, LEAST_STEPS = 40_000, 600  # a run reads so many rows, or takes so many steps
CHECKED = (0.5, 2.0)  # factors on the rate of the middle batch


def _at(cell: RunConfig, rows: int, factor: float = 1.0) -> RunConfig:
    steps = max(EXAMPLES // rows, LEAST_STEPS)
    stage = dataclasses.replace(
        cell.pretrain,
        steps=steps,
        batch_size=rows,
        eval_every=max(steps // 60, 1),
        checkpoint_every=steps,
        measures=("representation",),
        optimizer=dataclasses.replace(
            cell.pretrain.optimizer,
            learning_rate=RATE * factor * (rows / MIDDLE) ** 0.5,
            schedule="constant",
            warmup_steps=steps // 20,
        ),
    )
    protocol = f"batch{rows}" + (f"-rate{factor:g}" if factor != 1 else "")
    return dataclasses.replace(cell, pretrain=stage, protocol=protocol)


def study() -> StudyConfig:
    """Declares the runs, those with most tokens first."""
    cells = declare.grid(presets.cpu_text, size=SIZES, architecture=("transformer",))
    runs = [_at(cell, rows) for rows in sorted(ROWS, reverse=True) for cell in cells]
    runs += [_at(cell, MIDDLE, factor) for factor in CHECKED for cell in cells]
    return StudyConfig(
        name="batch_size",
        cells=tuple(runs),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
