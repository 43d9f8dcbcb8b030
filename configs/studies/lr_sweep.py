"""The learning rate of each architecture: five rates at two sizes, and at a third for two of them.

    make study STUDY=lr_sweep
    python -m eval tune runs/lr_sweep --out configs/rates/cpu.json

The runs are the pretraining of the CPU study. Its preset takes the best rates from the file
(`configs.presets.CPU_RATES`).
"""

from configs import presets
from configs.studies import cpu
from train.study import declare
from train.study.config import StudyConfig

SIZES = ("micro", "nano")
LARGER, OF_LARGER = "centi", ("transformer", "lconv")
RATES = (0.03, 0.045, 0.067, 0.1, 0.15)
SEEDS = 3


def study() -> StudyConfig:
    """Declares the runs, the largest first."""
    cells = declare.grid(presets.cpu, size=(LARGER,), architecture=OF_LARGER)
    cells += declare.grid(presets.cpu, size=SIZES, architecture=cpu.ARCHITECTURES)
    cells = declare.override(cells, {"finetune": None})
    runs = declare.sweep(cells, {"pretrain.optimizer.learning_rate": RATES})
    return StudyConfig(
        name="lr_sweep",
        cells=declare.seeds(runs, SEEDS),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
