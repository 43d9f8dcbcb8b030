"""One H100 for a night: twelve architectures at three sizes on C4 in bfloat16, all tasks.

    python -m train plan gpu --device h100
    python -m train study gpu

There are fewer steps than in the paper, and warm-up is shortened in proportion. Every cell sees the
same number of tokens.
"""

from configs import presets
from configs.studies.paper import ARCHITECTURES
from train.study import declare
from train.study.config import StudyConfig

SIZES = ("small", "mini", "tiny")
TOKENS = 2**29  # inputs and targets, of pretraining
FINETUNE_STEPS = 4000


def study() -> StudyConfig:
    """Declares the cells, the largest first."""
    runs = declare.grid(presets.t5, size=SIZES, architecture=ARCHITECTURES)
    settings = {
        "model.dtype": "bfloat16",
        "pretrain.optimizer.warmup_steps": 1000,
        "finetune.steps": FINETUNE_STEPS,
        "finetune.eval_every": FINETUNE_STEPS // 2,
    }
    runs = declare.fixed_tokens(declare.override(runs, settings), TOKENS)
    return StudyConfig(name="gpu", cells=runs, corpus="corpora/c4")
