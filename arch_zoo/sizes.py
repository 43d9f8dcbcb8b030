"""What a size means: the named sizes, and operators that change one dimension of a size.

`tiny` to `xxl` come from the model cards of "Scale Efficiently" (Tay et al., 2021, arXiv
2109.10686). The one exception is the head dimension of `small`: T5 has 64, the card says 32, and
T5's is used here. `nano` to `centi` are smaller sizes of our own, which a laptop trains in minutes.
The operators come from the same paper: `base-NL24-DM512` is `base` with 24 layers in each stack and
a model dimension of 512.

A decoder-only model has the decoder's layers. At the same size it has about the FLOPs per token of
the encoder-decoder, whose tokens each pass through one of its two stacks, and less than half of its
parameters outside the tables.

`gpt2` to `gpt2_xl` are the sizes of Radford et al. (2019) and `pythia_14m` to `pythia_12b` those of
Biderman et al. (2023, arXiv 2304.01373), with the dimensions of their published configurations.
"""

import dataclasses
import re
from collections.abc import Mapping

from arch_zoo.registry import ConfigError


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """The dimensions of one vanilla encoder-decoder Transformer."""

    num_encoder_layers: int
    num_decoder_layers: int
    embed_dim: int
    mlp_dim: int
    num_heads: int
    head_dim: int
    shared_heads: bool = False
    tied_keys_values: bool = False


SIZES: dict[str, Dimensions] = {
    "nano": Dimensions(2, 2, 32, 128, 2, 16),
    "micro": Dimensions(2, 2, 64, 256, 2, 32),
    "milli": Dimensions(2, 2, 96, 384, 3, 32),
    "centi": Dimensions(2, 2, 128, 512, 4, 32),
    "tiny": Dimensions(4, 4, 256, 1024, 4, 32),
    "mini": Dimensions(4, 4, 384, 1536, 8, 32),
    "small": Dimensions(6, 6, 512, 2048, 8, 64),
    "base": Dimensions(12, 12, 768, 3072, 12, 64),
    "large": Dimensions(24, 24, 1024, 4096, 16, 64),
    "xl": Dimensions(24, 24, 1024, 16384, 32, 128),
    "xxl": Dimensions(24, 24, 1024, 65536, 128, 128),
    "gpt2": Dimensions(12, 12, 768, 3072, 12, 64),
    "gpt2_medium": Dimensions(24, 24, 1024, 4096, 16, 64),
    "gpt2_large": Dimensions(36, 36, 1280, 5120, 20, 64),
    "gpt2_xl": Dimensions(48, 48, 1600, 6400, 25, 64),
    "pythia_14m": Dimensions(6, 6, 128, 512, 4, 32),
    "pythia_31m": Dimensions(6, 6, 256, 1024, 8, 32),
    "pythia_70m": Dimensions(6, 6, 512, 2048, 8, 64),
    "pythia_160m": Dimensions(12, 12, 768, 3072, 12, 64),
    "pythia_410m": Dimensions(24, 24, 1024, 4096, 16, 64),
    "pythia_1b": Dimensions(16, 16, 2048, 8192, 8, 256),
    "pythia_1_4b": Dimensions(24, 24, 2048, 8192, 16, 128),
    "pythia_2_8b": Dimensions(32, 32, 2560, 10240, 32, 80),
    "pythia_6_9b": Dimensions(32, 32, 4096, 16384, 32, 128),
    "pythia_12b": Dimensions(36, 36, 5120, 20480, 40, 128),
}

DECODER_ONLY = frozenset(name for name in SIZES if name.startswith(("gpt2", "pythia_")))
"""Named sizes whose models are decoder-only."""

OPERATORS: dict[str, tuple[tuple[str, ...], str]] = {
    "NL": (("num_encoder_layers", "num_decoder_layers"), "layers of either stack"),
    "EL": (("num_encoder_layers",), "encoder layers"),
    "DL": (("num_decoder_layers",), "decoder layers"),
    "DM": (("embed_dim",), "model dimension"),
    "FF": (("mlp_dim",), "feed-forward dimension"),
    "NH": (("num_heads",), "attention heads"),
    "KV": (("head_dim",), "dimension of one head"),
    "SH": (
        ("shared_heads",),
        "all heads share one key and one value projection (written without a number)",
    ),
    "SKV": (
        ("tied_keys_values",),
        "keys and values share one projection (written without a number)",
    ),
}

_FLAGS = ("SH", "SKV")

MOST_LAYERS = 1024  # of a stack: each is traced separately, and no published Transformer is deeper
MOST_UNITS = 2**24  # of any other dimension


def dimensions(size: str) -> Dimensions:
    """Reads a size such as `base` or `base-NL24-DM512-SKV`.

    Raises:
      ConfigError: an unknown size or operator, an operator given twice, or a number that is no
        positive integer.
    """
    name, *operators = size.split("-")
    if name not in SIZES:
        raise ConfigError(f"size {name!r} is unknown; known: {', '.join(SIZES)}")
    values: dict[str, int | bool] = {}
    for operator in operators:
        match = re.fullmatch(r"([A-Z]+)(\d*)", operator)
        if match is None or match[1] not in OPERATORS:
            raise ConfigError(
                f"size {size!r}: operator {operator!r} is unknown; known: {', '.join(OPERATORS)}"
            )
        code, number = match.groups()
        if code in _FLAGS and number:
            raise ConfigError(f"size {size!r}: operator {code} takes no number")
        if code not in _FLAGS and not int(number or 0):
            raise ConfigError(
                f"size {size!r}: operator {code} takes a positive number, as in {code}2"
            )
        for field in OPERATORS[code][0]:
            if field in values:
                raise ConfigError(
                    f"size {size!r}: {operator} sets {field}, which an operator before it has set"
                )
            values[field] = int(number) if number else True
    return dataclasses.replace(SIZES[name], **values)


def nearest(dims: Mapping[str, int]) -> str:
    """The name of a size with these dimensions, with as few operators as possible.

    Args:
      dims: some fields of `Dimensions`; the others may be any.
    """
    alone = "num_encoder_layers" not in dims
    names = [name for name in SIZES if alone or name not in DECODER_ONLY]
    return min((_written(name, dims) for name in names), key=lambda size: size.count("-"))


def _written(name: str, dims: Mapping[str, int]) -> str:
    """A named size with an operator for every dimension in which it differs."""
    own = dataclasses.asdict(SIZES[name])
    left = {field for field, value in dims.items() if own[field] != value}
    found = []
    for code, (fields, _) in OPERATORS.items():
        values = {dims[field] for field in fields if field in left}
        whole = set(fields) <= left or len(fields) == 1 or not set(fields) <= set(dims)
        if left.intersection(fields) and len(values) == 1 and whole:
            found.append(f"{code}{values.pop()}")
            left -= set(fields)
    return "-".join([name, *found])
