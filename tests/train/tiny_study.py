"""A study of two of the smallest cells, for tests from declaration to scores.

Run it with `study --config tests/train/tiny_study.py`.
"""

from train.study.config import OptimizerConfig, RunConfig, StageConfig, StudyConfig

STAGE = StageConfig(
    steps=12,
    batch_size=8,
    input_length=24,
    target_length=12,
    optimizer=OptimizerConfig(learning_rate=0.3, warmup_steps=4, min_factored_size=16),
    eval_batches=2,
    eval_batch_size=8,
    eval_examples=16,
    eval_every=6,
    log_every=2,
    checkpoint_every=4,
)
MODEL = {"num_encoder_layers": 1, "num_decoder_layers": 1}


def run(architecture: str) -> RunConfig:
    """One cell, with one layer in each stack."""
    return RunConfig(architecture, "nano", model=MODEL, pretrain=STAGE, finetune=STAGE)


def study() -> StudyConfig:
    """Declares both cells."""
    return StudyConfig("tiny", (run("transformer"), run("glu")), corpus="nowhere", platform="cpu")
