"""The two families of models, and how runs of both are kept apart.

A family is part of a cell: `llama` as an encoder-decoder and `llama` as a decoder-only model are
two things. Analyses group runs by their architecture, so a table with several families gets a name
of its own for each: `llama` and `llama (decoder-only)`.
"""

import pandas as pd

ENCODER_DECODER = "encoder_decoder"
DECODER_ONLY = "decoder_only"
FAMILIES = (ENCODER_DECODER, DECODER_ONLY)
PLAIN = ("", ENCODER_DECODER)
"""The families whose architectures keep their plain name; the empty one is not recorded."""


def told_apart(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each family of an architecture under a name of its own.

    Nothing is renamed in a table of one family, or twice.

    Args:
      table: one row per run; the column `family` may be missing.
    """
    if not several(table):
        return table
    family, names = table["family"].fillna("").astype(str), table["architecture"]
    ends = _ending(family)
    done = [str(name).endswith(end) for name, end in zip(names, ends, strict=True)]
    renamed = ~family.isin(PLAIN) & names.notna() & ~pd.Series(done, index=table.index)
    return table.assign(architecture=names.where(~renamed, names.astype(str) + ends))


def plain_names(table: pd.DataFrame) -> pd.Series:
    """The architecture of every row without its family."""
    ends = _ending(table["family"].fillna("").astype(str))
    names = table["architecture"].astype(str)
    plain = [name.removesuffix(end) for name, end in zip(names, ends, strict=True)]
    return pd.Series(plain, index=table.index, dtype=object)


def without_family(name: str) -> str:
    """A name from `told_apart` without its family."""
    return name.removesuffix(f" ({DECODER_ONLY.replace('_', '-')})")


def several(table: pd.DataFrame) -> bool:
    """Whether the runs are of more than one family."""
    return "family" in table and table["family"].fillna("").nunique() > 1


def _ending(family: pd.Series) -> pd.Series:
    return " (" + family.str.replace("_", "-") + ")"
