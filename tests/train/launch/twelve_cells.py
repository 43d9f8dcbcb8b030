"""Twelve of the smallest cells, which differ only in their seeds, for tests of launchers."""

from tests.train import tiny_study
from train.study import declare
from train.study.config import StudyConfig


def study() -> StudyConfig:
    """Declares them."""
    return StudyConfig(
        "twelve",
        declare.seeds((tiny_study.run("transformer"),), 12),
        corpus="nowhere",
        platform="cpu",
    )
