"""Figure 5: vanilla, Evolved, MoS and LConv at `base`, with model dimensions from 384 to 1,280.

    python -m train study width

The feed-forward dimension grows in proportion, and heads keep their dimension. Each width is the
multiple of 64 at which the vanilla Transformer's FLOPs are closest to those of one step of the
ladder of depths (`configs.studies.depth`). The other architectures have the same widths, as in the
paper, so their FLOPs differ from those of their depths. For equal FLOPs see `equal_flops`.
"""

from configs import presets
from configs.studies.depth import ARCHITECTURES
from train.study import declare
from train.study.config import RunConfig, StudyConfig

WIDTHS = (1280, 1088, 896, 640, 448)


def runs() -> tuple[RunConfig, ...]:
    """The cells of the protocol `width`; `base` itself, with 768, belongs to the plain sizes."""
    return declare.ladder(
        declare.grid(presets.t5, architecture=ARCHITECTURES, size=("base",)), "width", "W", WIDTHS
    )


def study() -> StudyConfig:
    """Declares the ladder and the plain `base`."""
    base = declare.grid(presets.t5, architecture=ARCHITECTURES, size=("base",))
    return StudyConfig(name="width", cells=(*base, *runs()), corpus="corpora/c4")
