"""Narrow models trained for very long, beside wide ones: where the softmax limits what is learned.

    make study STUDY=saturation  # hours on two cores

Godey et al. (2024, arXiv 2404.07647) find that the loss of small models rises again late in
training, while their last states turn to one direction and the singular values of the head flatten
and then spike. Widths of 8 to 32 read 50M tokens, which is hundreds per parameter; those of 64 to
256 read 10M and give the law from which the narrow ones depart; a law in N and D needs three sizes.
The rate is constant, so that nothing but training itself changes the loss, until the last tenth of
a run, where it falls to zero: the claims are about what comes before.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

NARROW, WIDE = (32, 16, 8), (256, 128, 64)
LONG, SHORT = 50_000_000, 10_000_000  # tokens
EVALUATIONS = 60
DECAY = 10  # one step of so many is in the decay
HEAD = 8


def _run(width: int, tokens: int) -> RunConfig:
    size = f"nano-DM{width}-FF{4 * width}-NH{width // HEAD}-KV{HEAD}"
    plain = presets.cpu_text("transformer", size)
    steps = tokens // declare.tokens_per_step(plain)
    every = max(steps // EVALUATIONS, 1)
    stage = dataclasses.replace(
        plain.pretrain,
        steps=steps,
        eval_every=every,
        measures=("representation", "memorisation"),
        log_every=100,
        checkpoint_every=every,
        optimizer=dataclasses.replace(
            plain.pretrain.optimizer, schedule="constant", decay_steps=steps // DECAY
        ),
    )
    return dataclasses.replace(plain, pretrain=stage)


def study(share: float = 1.0) -> StudyConfig:
    """Declares the runs, the longest first, with this share of the tokens."""
    long, short = int(share * LONG), int(share * SHORT)
    cells = [_run(width, long) for width in NARROW] + [_run(width, short) for width in WIDE]
    return StudyConfig(
        name="saturation",
        cells=tuple(cells),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
