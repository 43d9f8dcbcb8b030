"""Encoder-decoders against decoder-only models of equal FLOPs and of equal parameters.

    make study STUDY=families

Four architectures at four sizes, each with both of its twins: a decoder-only model of another depth
and of equal cost. All are pretrained on the same prefixes and continuations, so that their losses
are those of the same tokens. The twins of equal FLOPs are compared with the encoder-decoders; those
of equal parameters are the protocol `params`.
"""

from configs import presets
from train.study import declare
from train.study.config import StudyConfig

ARCHITECTURES = ("transformer", "llama", "lconv", "performer")
SIZES = ("centi", "milli", "micro", "nano")  # the largest first, see `configs.studies.cpu`


def study() -> StudyConfig:
    """Declares the cells."""
    cells = declare.grid(presets.cpu, size=SIZES, architecture=ARCHITECTURES)
    cells = declare.override(cells, {"pretrain.objective": "prefix_lm"})
    vocabulary = declare.PYTHON_VOCABULARY
    runs = (
        *declare.twins(cells, "params", "params", vocabulary),
        *declare.twins(cells, "flops", vocab_size=vocabulary),
        *cells,
    )
    return StudyConfig(
        name="families", cells=runs, corpus="corpora/python", prepare="python", platform="cpu"
    )
