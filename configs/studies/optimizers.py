"""Optimizers and schedules on one cell of the CPU study, each at its best of four rates.

    make study STUDY=optimizers
    python -m eval tune runs/optimizers

Adafactor with a linear decay is the CPU study's choice and the baseline. Against it: Adafactor with
a constant rate that falls to zero over the last fifth (WSD), AdamW with one rate for all
parameters, and AdamW, Muon and Lion with ten times the rate for the embedding and decay by role.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import OptimizerConfig, RunConfig, StudyConfig

STEPS, SEEDS = 1000, 3
RATE = "pretrain.optimizer.learning_rate"
ADAFACTOR = OptimizerConfig(schedule="linear", warmup_steps=100, min_factored_size=32)
ADAMW = dataclasses.replace(ADAFACTOR, name="adamw", beta2=0.95)
BY_ROLE = {
    "weight_decay": 0.1,
    "decayed": ("matrix", "expert", "head"),
    "rates": {"embedding": 10.0},
}
OPTIMIZERS: dict[str, tuple[OptimizerConfig, tuple[float, ...]]] = {
    "adafactor": (ADAFACTOR, (0.045, 0.067, 0.1, 0.15)),
    "adafactor_wsd": (
        dataclasses.replace(ADAFACTOR, schedule="constant", decay_steps=STEPS // 5),
        (0.03, 0.045, 0.067, 0.1),
    ),
    "adamw": (ADAMW, (0.001, 0.002, 0.004, 0.008)),
    "adamw_roles": (dataclasses.replace(ADAMW, **BY_ROLE), (0.002, 0.004, 0.008, 0.016)),
    "muon_roles": (
        dataclasses.replace(ADAMW, name="muon", beta1=0.95, **BY_ROLE),
        (0.002, 0.004, 0.008, 0.016),
    ),
    "lion_roles": (
        dataclasses.replace(ADAMW, name="lion", beta2=0.99, **BY_ROLE),
        (0.0002, 0.0005, 0.001, 0.002),
    ),
}


def _runs(cell: RunConfig, protocol: str) -> tuple[RunConfig, ...]:
    optimizer, rates = OPTIMIZERS[protocol]
    stage = dataclasses.replace(
        cell.pretrain, steps=STEPS, checkpoint_every=STEPS, log_every=50, optimizer=optimizer
    )
    plain = dataclasses.replace(cell, protocol=protocol, pretrain=stage, finetune=None)
    return declare.sweep((plain,), {RATE: rates})


def study() -> StudyConfig:
    """Declares the runs."""
    cell = presets.cpu("transformer", "micro")
    runs = tuple(run for protocol in OPTIMIZERS for run in _runs(cell, protocol))
    return StudyConfig(
        name="optimizers",
        cells=declare.seeds(runs, SEEDS),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
