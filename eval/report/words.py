"""Names of axes and slopes in words, for what a person reads. Files keep the columns' own names."""

import re

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
}
_LETTERS = {"F": "FLOPs", "P": "parameters", "S": "speed", "U": "upstream", "D": "downstream"}
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
