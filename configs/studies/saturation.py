"""Narrow models trained for very long, beside wide ones: where the softmax limits what is learned.

    nice make study STUDY=saturation  # a night on two cores

Godey et al. (2024, arXiv 2404.07647) find that the loss of small models rises again late in
training, while their last states turn to one direction and the singular values of the head flatten
and then spike. Widths of 8 to 32 read 50M tokens, which is hundreds per parameter; those of 64 to
256 read 10M and give the law from which the narrow ones depart; a law in N and D needs three sizes.
The rate is constant, so that nothing but training itself changes the loss.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

NARROW, WIDE = (32, 16, 8), (256, 128, 64)
LONG, SHORT = 50_000_000, 10_000_000  # tokens
EVALUATIONS = 60
HEAD = 8


def _run(width: int, tokens: int) -> RunConfig:
    size = f"nano-DM{width}-FF{4 * width}-NH{width // HEAD}-KV{HEAD}"
    plain = presets.cpu_text("transformer", size)
    steps = tokens // declare.tokens_per_step(plain)
    stage = dataclasses.replace(
        plain.pretrain,
        steps=steps,
        eval_every=steps // EVALUATIONS,
        measures=("representation", "memorisation"),
        log_every=100,
        checkpoint_every=steps // EVALUATIONS,
        optimizer=dataclasses.replace(plain.pretrain.optimizer, schedule="constant"),
    )
    return dataclasses.replace(plain, pretrain=stage)


def study() -> StudyConfig:
    """Declares the runs, the longest first."""
    cells = [_run(width, LONG) for width in NARROW] + [_run(width, SHORT) for width in WIDE]
    return StudyConfig(
        name="saturation",
        cells=tuple(cells),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
