"""How many bits each architecture memorises per parameter, on uniform random tokens.

    make study STUDY=capacity

The design of Morris et al. (2025, arXiv 2505.24832) at the smallest sizes: one layer, 64 symbols,
rows of 16, all rows in every step, and a rate that falls to zero. A model gets as many rows as 3.6
bits a parameter could hold, or 1.5 times as many; if it cannot memorise them all, what it memorises
is its capacity. With the fewer rows it is also trained at a lower rate, and for twice the steps: if
that adds more than a little, the capacity is a lower bound. The vanilla model is also trained at a
larger width, to see whether the bits per parameter depend on it.
"""

import dataclasses
import math

import arch_zoo
from configs import presets
from train.study import declare
from train.study.config import OptimizerConfig, RunConfig, StageConfig, StudyConfig

ARCHITECTURES = (
    "transformer",
    "llama",
    "glu",
    "evolved",
    "universal",
    "switch",
    "performer",
    "albert",
    "mos",
    "lconv",
    "dconv",
    "mixer",
)
OPTIONS = {"switch": {"every": 1, "num_experts": 4}}  # its one layer is sparse
WIDTH, LARGER = 16, 24
HEAD = 4
LENGTH = 16
SYMBOL_BITS = 6
BITS_PER_PARAMETER = 3.6  # of the source's GPT-2 shapes
LOADS = (1.5, 1.0)  # rows, as a share of what that capacity holds
LOW, RATE = 0.03, 0.1
STEPS = 8000


def rows(cell: RunConfig, load: float) -> int:
    """The number of rows that a model of 3.6 bits a parameter holds, times `load`."""
    params = arch_zoo.count_params(declare.model(cell, declare.RANDOM_VOCABULARY)).total
    return math.ceil(load * BITS_PER_PARAMETER * params / (SYMBOL_BITS * LENGTH))


def _cell(plain: RunConfig, load: float, rate: float, times: int = 1) -> RunConfig:
    count = rows(plain, load)
    stage = dataclasses.replace(
        plain.pretrain,
        steps=times * STEPS,
        batch_size=count,
        eval_batch_size=count,
        unique_tokens=count * LENGTH,
        optimizer=dataclasses.replace(plain.pretrain.optimizer, learning_rate=rate),
        checkpoint_every=times * STEPS,
    )
    protocol = f"load{load:g}-rate{rate:g}" + (f"-x{times}" if times > 1 else "")
    return dataclasses.replace(plain, pretrain=stage, protocol=protocol)


def _plain(architecture: str, width: int) -> RunConfig:
    size = f"nano-NL1-DM{width}-FF{4 * width}-NH{width // HEAD}-KV{HEAD}"
    stage = StageConfig(
        target_length=LENGTH,
        objective="causal_lm",
        optimizer=OptimizerConfig(name="adamw", schedule="linear", warmup_steps=100, beta1=0.8),
        z_loss=0.0,
        eval_batches=1,
        measures=("memorisation",),
        log_every=200,
    )
    plain = presets.cpu_text(architecture, size)
    model = {**plain.model, **OPTIONS.get(architecture, {})}
    return dataclasses.replace(plain, pretrain=stage, model=model)


def study() -> StudyConfig:
    """Declares the runs, the largest first."""
    runs = []
    for plain in (
        _plain(ARCHITECTURES[0], LARGER),
        *(_plain(architecture, WIDTH) for architecture in ARCHITECTURES),
    ):
        runs += [_cell(plain, 1.0, RATE, times=2), _cell(plain, 1.0, LOW)]
        runs += [_cell(plain, load, RATE) for load in LOADS]
    return StudyConfig(
        name="capacity",
        cells=tuple(runs),
        corpus="corpora/random",
        prepare="random",
        platform="cpu",
    )
