"""How many bits each architecture memorises per parameter, on uniform random tokens.

    make study STUDY=capacity

The design of Morris et al. (2025, arXiv 2505.24832) at the smallest sizes: one layer, 64 symbols,
rows of 16, all rows in every step, and a rate that falls to zero. As many rows are learned as a
model of 3.6 bits a parameter could hold, and .4 to 2 times as many: the plateau of the memorised
bits is the capacity. At the middle number of rows three rates are tried, each also with twice the
steps: where that adds more than a little, the capacity is a lower bound.
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
WIDTHS = (24, 16)
LENGTH = 16
SYMBOL_BITS = 6
BITS_PER_PARAMETER = 3.6  # of the source's GPT-2 shapes
LOADS = (2.0, 1.5, 1.0, 0.7, 0.4)  # rows, as a share of what that capacity holds
RATES = (0.01, 0.03, 0.1)
STEPS = 4000


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
    size = f"nano-NL1-DM{width}-FF{4 * width}-NH{width // 8}-KV8"
    stage = StageConfig(
        target_length=LENGTH,
        objective="causal_lm",
        optimizer=OptimizerConfig(name="adamw", schedule="linear", warmup_steps=100),
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
    _, middle, _ = RATES
    runs = []
    for width in WIDTHS:
        for architecture in ARCHITECTURES:
            plain = _plain(architecture, width)
            runs += [_cell(plain, 1.0, rate, times) for times in (2, 1) for rate in RATES]
            runs += [_cell(plain, load, middle) for load in LOADS if load != 1.0]
    return StudyConfig(
        name="capacity",
        cells=tuple(runs),
        corpus="corpora/random",
        prepare="random",
        platform="cpu",
    )
