"""What six mixers can learn: five probes in their short settings, at one size.

    make study STUDY=probes

Each at four learning rates with three seeds; the report shows every model at its own best rate.
MQAR has fewer ids than the source, because every id must be seen often enough in so few steps. The
state of Gated DeltaNet may change its sign.
"""

import dataclasses
from typing import Any

from configs import presets
from train.study import declare
from train.study.config import StudyConfig

ARCHITECTURES = ("transformer", "llama", "retnet", "gla", "mamba2", "gated_deltanet")
OPTIONS: dict[str, dict[str, Any]] = {"gated_deltanet": {"negative": True}}
PROBES: dict[str, dict[str, Any]] = {
    "mqar": {"ids": 64, "row": 32, "test_examples": 1024},
    "selective_copy": {"row": 32, "copied": 6},
    "copy": {"longest_trained": 12, "tested": (16, 24, 32)},
    "parity": {"longest_trained": 20, "tested": (24, 32, 48, 64)},
    "cycle": {"longest_trained": 20, "tested": (24, 32, 48, 64)},
}
RATES = (0.001, 0.003, 0.01, 0.03)
SEEDS = 3
STEPS = 500


def study() -> StudyConfig:
    """Declares the runs."""
    plain = tuple(
        presets.cpu_probe(architecture, task, options)
        for task, options in PROBES.items()
        for architecture in ARCHITECTURES
    )
    cells = tuple(
        dataclasses.replace(cell, model={**cell.model, **OPTIONS.get(cell.architecture, {})})
        for cell in plain
    )
    cells = declare.override(cells, {"pretrain.steps": STEPS})
    runs = declare.sweep(cells, {"pretrain.optimizer.learning_rate": RATES})
    return StudyConfig(name="probes", cells=declare.seeds(runs, SEEDS), platform="cpu")
