"""One H100 for a night: three sizes on C4 in bfloat16, all tasks.

The paper's twelve architectures as encoder-decoders, and today's mixers with the vanilla model as
decoder-only models.

    python -m train plan gpu --device h100
    python -m train study gpu

There are fewer steps than in the paper, and warm-up is shortened in proportion. Every cell sees the
same number of tokens.
"""

from configs import presets
from configs.studies.modern import ARCHITECTURES as MODERN
from configs.studies.paper import ARCHITECTURES
from train.study import declare
from train.study.config import Family, StudyConfig

FAMILIES: dict[Family, tuple[str, ...]] = {
    "encoder_decoder": ARCHITECTURES,
    "decoder_only": MODERN,
}
SIZES = ("small", "mini", "tiny")
TOKENS = 2**29  # inputs and targets, of pretraining
FINETUNE_STEPS = 4000


def study() -> StudyConfig:
    """Declares the cells, the largest first."""
    runs = tuple(
        presets.t5(architecture, size, family=family)
        for size in SIZES
        for family, architectures in FAMILIES.items()
        for architecture in architectures
    )
    settings = {
        "model.dtype": "bfloat16",
        "pretrain.optimizer.warmup_steps": 1000,
        "finetune.steps": FINETUNE_STEPS,
        "finetune.eval_every": FINETUNE_STEPS // 2,
    }
    runs = declare.override(runs, settings)
    # A step of the small one does not fit into 80 GB.
    halves = {"pretrain.accumulate": 2, "finetune.accumulate": 2}
    runs = declare.override(runs, halves, architecture="mamba2", size="small")
    runs = declare.fixed_tokens(runs, TOKENS)
    return StudyConfig(name="gpu", cells=runs, corpus="corpora/c4")
