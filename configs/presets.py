"""Presets of single runs: functions of architecture, size, seed and family."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import arch_zoo
from arch_zoo.sizes import dimensions
from train.records import InputError
from train.study import declare
from train.study.config import Family, OptimizerConfig, RunConfig, StageConfig, StudyConfig

__all__ = ["cpu", "cpu_text", "t5"]

PROBE_SIZE = "nano-NL2-DM64-FF256-NH4-KV16"
"""The size of models for probes on a CPU, with the smallest width of the published MQAR models."""

CPU_RATES = "configs/rates/cpu.json"  # from the root of the project
"""The learning rates of `cpu`: what `eval tune` found in the study `lr_sweep`."""
_ROOT = Path(__file__).parents[1]


def named(name: str) -> Callable[..., RunConfig]:
    """The preset of this name.

    Raises:
      InputError: there is none.
    """
    if name not in __all__:
        raise InputError(f"preset = {name!r} is not one of {', '.join(__all__)}")
    return globals()[name]


_CPU = {"corpus": "corpora/python", "prepare": "python", "platform": "cpu"}
_SHARED: dict[str, dict[str, str]] = {
    "cpu": {**_CPU, "tuning": CPU_RATES},
    "cpu_text": _CPU,
    "t5": {"corpus": "corpora/c4"},
}


def study(
    name: str,
    preset: str,
    architectures: Sequence[str],
    sizes: Sequence[str],
) -> StudyConfig:
    """Every architecture at every size in the settings of a preset, the largest size first.

    No worker then starts a long run at the end.
    """
    dims = {size: dimensions(size) for size in sizes}
    ordered = sorted(sizes, key=lambda size: -dims[size].embed_dim * dims[size].num_decoder_layers)
    cells = declare.grid(named(preset), size=ordered, architecture=architectures)
    return StudyConfig(name=name, cells=cells, **_SHARED[preset])


def t5(
    architecture: str, size: str, seed: int = 0, family: Family = "encoder_decoder"
) -> RunConfig:
    """The study's own setting: 2^19 steps of 128 x 512 tokens, then 100,000 steps of finetuning.

    Finetuning is on every task of the corpus.
    """
    return RunConfig(architecture=architecture, size=size, seed=seed, family=family)


def cpu(
    architecture: str, size: str, seed: int = 0, family: Family = "encoder_decoder"
) -> RunConfig:
    """About a minute on one core: short sequences, small batches, Adafactor with a short warm-up.

    Both stages have the same shapes and no dropout, so they share one compiled step. 64 inputs of
    span corruption have 14 targets. Learning rates fall to zero, because T5's schedule does worse
    in so few steps. That of pretraining is the best one of the architecture and size in a sweep
    (`CPU_RATES`), for a size with operators that of its name. An architecture that was not swept
    has the rates of the vanilla Transformer. Adafactor factors matrices of every size, so that all
    sizes of the ladder have the same optimizer. Some options are set by the architecture for so few
    steps (`Architecture.cpu_options`).
    """
    shape: dict[str, Any] = {"batch_size": 16, "input_length": 64, "target_length": 16}
    pretrain = StageConfig(
        steps=1000,
        **shape,
        optimizer=OptimizerConfig(schedule="linear", warmup_steps=100, min_factored_size=32),
        eval_batches=8,
        eval_batch_size=64,
        log_every=50,
        checkpoint_every=500,
    )
    finetune = StageConfig(
        steps=400,
        **shape,
        optimizer=OptimizerConfig(
            learning_rate=0.015, schedule="linear", warmup_steps=0, min_factored_size=32
        ),
        eval_batch_size=64,
        log_every=20,
        checkpoint_every=200,
    )
    plain = RunConfig(
        architecture=architecture,
        size=size.split("-")[0],
        seed=seed,
        family=family,
        model=dict(arch_zoo.get(architecture).cpu_options),
        pretrain=pretrain,
        finetune=finetune,
    )
    (run,) = declare.tuned((plain,), _ROOT / CPU_RATES, otherwise="transformer")
    return dataclasses.replace(run, size=size)


def cpu_text(
    architecture: str, size: str, seed: int = 0, family: Family = "decoder_only"
) -> RunConfig:
    """Plain text on a CPU, without finetuning: 16 rows of 128 tokens, every one of them a target.

    The encoder of an encoder-decoder has nothing to read.
    """
    pretrain = StageConfig(
        steps=1800,
        batch_size=16,
        input_length=16,
        target_length=128,
        objective="causal_lm",
        optimizer=OptimizerConfig(
            learning_rate=0.03, schedule="linear", warmup_steps=100, min_factored_size=32
        ),
        eval_batches=8,
        eval_batch_size=64,
        log_every=50,
        checkpoint_every=500,
    )
    plain = cpu(architecture, size, seed, family)
    return dataclasses.replace(plain, pretrain=pretrain, finetune=None)


def cpu_probe(
    architecture: str,
    task: str,
    options: Mapping[str, Any] | None = None,
    size: str = PROBE_SIZE,
    seed: int = 0,
) -> RunConfig:
    """A probe on a CPU: two layers of width 64, AdamW with a linear decay, 32 rows a step.

    The protocol names the probe and its settings.

    Args:
      architecture: a name of `python -m arch_zoo list`.
      task: the name of a probe.
      options: its settings.
      size: of the model.
      seed: of the run.
    """
    pretrain = StageConfig(
        steps=1000,
        batch_size=32,
        probe={"task": task, **(options or {})},
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=3e-3, schedule="linear", warmup_steps=50, clip_norm=1.0
        ),
        z_loss=0.0,
        eval_batch_size=64,
        log_every=50,
        checkpoint_every=1000,
    )
    return RunConfig(
        architecture=architecture,
        size=size,
        protocol="-".join([task, *map(_named, sorted((options or {}).items()))]),
        seed=seed,
        family="decoder_only",
        model=dict(arch_zoo.get(architecture).cpu_options),
        pretrain=pretrain,
        finetune=None,
    )


def _named(setting: tuple[str, Any]) -> str:
    key, value = setting
    return key + ("_".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
