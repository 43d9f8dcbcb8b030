"""Figure 4: vanilla, Evolved, MoS and LConv at `base`, with 4 to 32 layers in each stack.

python -m train study depth
"""

from configs import presets
from train.study import declare
from train.study.config import RunConfig, StudyConfig

ARCHITECTURES = ("transformer", "evolved", "mos", "lconv")
LAYERS = (32, 24, 16, 8, 4)


def runs() -> tuple[RunConfig, ...]:
    """The cells of the protocol `depth`.

    `base` itself, with 12 layers, belongs to the plain sizes.
    """
    base = declare.grid(presets.t5, architecture=ARCHITECTURES, size=("base",))
    deep = declare.ladder(base, "depth", "NL", LAYERS)
    return declare.override(deep, {"model.remat": "full"}, size=("base-NL32", "base-NL24"))


def study() -> StudyConfig:
    """Declares the ladder and the plain `base`."""
    base = declare.grid(presets.t5, architecture=ARCHITECTURES, size=("base",))
    return StudyConfig(name="depth", cells=(*base, *runs()), corpus="corpora/c4")
