"""Does the best rate of a narrow model hold for wider ones?

    make study STUDY=transfer
    python -m eval tune runs/transfer

A decoder-only Transformer at three widths with AdamW, under the standard parametrisation with one
rate and with rates by role, and under mup. The exponent of the best rate in N must be about 0 where
rates carry over.
"""

import dataclasses

from configs import presets
from configs.studies.optimizers import ADAMW, BY_ROLE, RATE
from train.study import declare
from train.study.config import RunConfig, StudyConfig

BASE, WIDTHS = "micro-NH4-KV16", (32, 64, 128)  # heads of one width
RATES = (0.0014, 0.0028, 0.0056, 0.011, 0.022, 0.044, 0.088)
STEPS, SEEDS = 1000, 2
MUP = {"parametrization": "mup", "base_size": "nano"}


def _protocols(cell: RunConfig) -> tuple[RunConfig, ...]:
    stage = dataclasses.replace(
        cell.pretrain, steps=STEPS, checkpoint_every=STEPS, log_every=50, optimizer=ADAMW
    )
    plain = dataclasses.replace(cell, pretrain=stage)
    roles = dataclasses.replace(stage, optimizer=dataclasses.replace(ADAMW, **BY_ROLE))
    return (
        dataclasses.replace(plain, protocol="standard"),
        dataclasses.replace(plain, protocol="standard_roles", pretrain=roles),
        dataclasses.replace(plain, protocol="mup", model={**cell.model, **MUP}),
    )


def study() -> StudyConfig:
    """Declares the runs, the widest first."""
    wide = [declare.scale(BASE, "W", width) for width in reversed(WIDTHS)]
    cells = declare.grid(presets.cpu_text, size=wide, architecture=("transformer",))
    runs = declare.sweep(tuple(run for cell in cells for run in _protocols(cell)), {RATE: RATES})
    return StudyConfig(
        name="transfer",
        cells=declare.seeds(runs, SEEDS),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
