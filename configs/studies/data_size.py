"""Models of four sizes on ever less text, repeated until they overfit.

    make study STUDY=data_size

The held-out loss is taken every half epoch, or more often where that is long, and a run ends after
three epochs without a better one, after 16 epochs, or after 5,000 steps. It asks what Kaplan et al.
(2020) say of data, of early stopping and of sample efficiency, what Niu et al. (2024, arXiv
2405.08707) say of memorisation, and what a repeated token is worth. The rate is constant after its
warm-up, so that a run may end at any step.
"""

import dataclasses
import math

from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

SIZES = ("centi", "milli", "micro", "nano")
TOKENS = (3_000_000, 1_000_000, 300_000, 100_000, 30_000)  # the corpus has 3.1M
SEEDS = 2
EPOCHS, MOST_STEPS = 16, 5000
PATIENCE = 3  # epochs
MOST_BETWEEN = 150  # steps between evaluations


def _limited(cell: RunConfig, tokens: int) -> RunConfig:
    half = max(round(tokens / declare.tokens_per_step(cell) / 2), 1)
    every = min(half, MOST_BETWEEN)
    stage = dataclasses.replace(
        cell.pretrain,
        steps=min(2 * EPOCHS * half, MOST_STEPS),
        unique_tokens=tokens,
        eval_every=every,
        patience=math.ceil(2 * PATIENCE * half / every),
        measures=("memorisation",),
        checkpoint_every=10 * MOST_STEPS,  # each evaluation leaves one
        optimizer=dataclasses.replace(
            cell.pretrain.optimizer, schedule="constant", warmup_steps=20
        ),
    )
    return dataclasses.replace(cell, pretrain=stage, protocol=f"unique{tokens}")


def study() -> StudyConfig:
    """Declares the runs, those on most text first."""
    cells = declare.grid(presets.cpu_text, size=SIZES, architecture=("transformer",))
    runs = declare.seeds(
        tuple(_limited(cell, tokens) for tokens in TOKENS for cell in cells), SEEDS
    )
    return StudyConfig(
        name="data_size", cells=runs, corpus="corpora/python", prepare="python", platform="cpu"
    )
