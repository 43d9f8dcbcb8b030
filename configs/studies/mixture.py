"""Six mixtures of the corpus's parts at two sizes: do small models rank them like larger ones?

    make study STUDY=mixture

The held-out text is that of the whole corpus, as it is.
"""

import dataclasses

from configs import presets
from train.study import declare
from train.study.config import StudyConfig

SIZES = ("milli", "nano")
STEPS = 1350
SEEDS = 2
MIXTURES = {
    "docs100": {"docstrings": 1.0},
    "source100": {"source": 1.0},
    "docs25": {"docstrings": 0.25, "source": 0.75},
    "docs50": {"docstrings": 0.5, "source": 0.5},
    "docs75": {"docstrings": 0.75, "source": 0.25},
    "topics20": {"topics": 0.2, "docstrings": 0.4, "source": 0.4},
}


def study() -> StudyConfig:
    """Declares each mixture at both sizes, with two seeds."""
    cells = declare.override(
        declare.grid(presets.cpu_text, size=SIZES, architecture=("transformer",)),
        {"pretrain.steps": STEPS},
    )
    runs = tuple(
        dataclasses.replace(mixed, protocol=name)
        for name, sources in MIXTURES.items()
        for mixed in declare.override(cells, {"pretrain.sources": sources})
    )
    return StudyConfig(
        name="mixture",
        cells=declare.seeds(runs, SEEDS),
        corpus="corpora/python",
        prepare="python",
        platform="cpu",
    )
