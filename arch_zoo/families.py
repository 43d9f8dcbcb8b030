"""The model of each family."""

import jax

from arch_zoo.config import ModelConfig
from arch_zoo.language_model import LanguageModel
from arch_zoo.seq2seq import Seq2Seq
from arch_zoo.skeleton import Skeleton

MODELS: dict[str, type[Skeleton]] = {kind.family: kind for kind in (Seq2Seq, LanguageModel)}


def build(cfg: ModelConfig, key: jax.Array) -> Skeleton:
    """Builds the model of `cfg` and draws its parameters from `key`."""
    return MODELS[cfg.family](cfg, key)
