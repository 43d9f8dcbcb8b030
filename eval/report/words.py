"""Names of axes and slopes in words, for what a person reads. Files keep the columns' own names."""

import re
from collections.abc import Sequence

_COLUMNS = {
    "upstream_nll": "held-out loss",
    "upstream_bits_per_byte": "held-out loss per byte",
    "downstream_mean": "mean downstream score",
    "downstream_glue": "mean score on GLUE",
    "downstream_super_glue": "mean score on SuperGLUE",
    "downstream_squad": "score on SQuAD",
    "flops_forward": "FLOPs of a forward pass",
    "flops_forward_without_head": "FLOPs of a forward pass without the head",
    "flops_forward_per_65536_tokens": "FLOPs of a forward pass of 65,536 tokens",
    "flops_train_total": "FLOPs of the whole pretraining",
    "params_total": "parameters",
    "params_active": "parameters used by a token",
    "params_non_embedding": "parameters outside the embedding",
    "steps_per_second": "steps per second",
    "state_size": "numbers kept in decoding",
}
_LETTERS = {
    "F": "FLOPs",
    "P": "parameters",
    "S": "speed",
    "M": "state",
    "U": "upstream",
    "D": "downstream",
}
# What `eval.data.quantity.Axis.label` makes: -upstream_nll (nats), log10 flops_forward.
_AXIS = re.compile(r"(?P<minus>-?)((?P<log>ln|log\S+) )?(?P<column>\w+)(?P<unit> \([^()]*\))?")


def column(name: str) -> str:
    """A column of a run table in words; the name with spaces if there are no words for it."""
    if name in _COLUMNS:
        return _COLUMNS[name]
    if name.startswith("downstream_"):
        return f"score on {name.removeprefix('downstream_').replace('_', ' ')}"
    return name.replace("_", " ")


def axis(label: str) -> str:
    """An axis in words: `-upstream_nll (nats)` becomes `minus the held-out loss (nats)`."""
    found = _AXIS.fullmatch(label)
    if found is None:
        return label
    words = column(found["column"])
    if found["log"]:
        words = f"{found['log']} of {words}"
    return f"{'minus the ' if found['minus'] else ''}{words}{found['unit'] or ''}"


def slope(alpha: str) -> str:
    """A slope in words: `F,U` becomes `upstream on FLOPs`; other text stays."""
    x, _, y = alpha.partition(",")
    return f"{_LETTERS[y]} on {_LETTERS[x]}" if x in _LETTERS and y in _LETTERS else alpha


def terms(
    flops: str,
    reference: str,
    sizes: Sequence[str],
    log_base: float,
    several_protocols: bool,
    several_families: bool = False,
) -> list[tuple[str, str]]:
    """The words that a reader of a report needs, each with one short line.

    Args:
      flops: how the FLOPs axis counts, such as `FLOPs, one forward pass of one sequence`.
      reference: the architecture that the others are compared with.
      sizes: the sizes of the study.
      log_base: the base of the logarithms.
      several_protocols: whether sizes were made in more than one way.
      several_families: whether there are encoder-decoders and decoder-only models.
    """
    step = "tenfold" if log_base == 10 else f"factor {log_base:g} of"
    size = f" ({', '.join(sizes[:3])}{', ...' if len(sizes) > 3 else ''})"
    under, protocol = "", []
    if several_protocols:
        under = " under a protocol"
        how = "how the sizes were made: plain sizes, more layers (depth) or wider ones (width)"
        protocol = [("protocol", how)]
    family = []
    if several_families:
        kinds = (
            "encoder-decoder, one stack reads and one writes; or decoder-only, one stack does both"
        )
        family = [("family", f"{kinds}. Encoder-decoders have the plain names")]
    return [
        (
            "architecture",
            f"a kind of model; {reference} is the reference that the others are compared with",
        ),
        *family,
        (
            "size",
            f"a name for the dimensions of a model{size}; architectures of one size differ in "
            "parameters and FLOPs",
        ),
        (
            "seed",
            "the number that fixes what is random in a training: the first weights, the order of "
            "the data",
        ),
        (
            "run",
            "one training of one architecture at one size with one seed: pretraining, then "
            "fine-tuning",
        ),
        *protocol,
        ("cell", f"an architecture at a size{under}; its runs differ only in their seeds"),
        (
            "upstream",
            "the loss on held-out text after pretraining, in nats per token: lower is better. "
            "Charts show minus the loss, so that up is better",
        ),
        (
            "downstream",
            "the score on tasks after fine-tuning, in percent: higher is better. Differences of "
            "scores are in points",
        ),
        (
            "FLOPs axis",
            "what a model costs: the floating-point operations of "
            f"{flops.removeprefix('FLOPs, ')}, on a logarithmic scale",
        ),
        ("slope", f"the quality that an architecture gains per {step} FLOPs"),
    ]
