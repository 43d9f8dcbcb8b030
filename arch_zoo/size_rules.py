"""How large the models of one size are, compared with the vanilla Transformer.

`paper` is each architecture's own rule (`Architecture.dimensions`), which the original studies
used. With it, models of one size differ in parameters outside the embedding: at `base`, Evolved has
0.97 of the vanilla model's, DConv 0.94 and Universal 0.08.

`matched` changes the width of the feed-forward layers, and nothing else, until the model has as
many parameters outside the embedding as the vanilla model of that size. They agree within half a
percent, or within half a unit of width where one unit is more than that.

Parameters are matched, not FLOPs: a shared block that is as large as N blocks is still applied N
times.
"""

import dataclasses
import functools

from arch_zoo.config import ModelConfig
from arch_zoo.registry import ConfigError

_GRAINS = (
    128,
    64,
    32,
    16,
    8,
    4,
    2,
)  # the coarsest within the tolerance is taken: accelerators like round widths
TOLERANCE = 0.005
"""The share of a model's parameters by which a round width may miss."""


@functools.lru_cache(maxsize=1024)
def matched(cfg: ModelConfig, vanilla: ModelConfig) -> ModelConfig:
    """`cfg` with the `mlp_dim` that gives it the non-embedding parameters of `vanilla`.

    Raises:
      ConfigError: the other layers alone have more parameters than that, or none depends on
        `mlp_dim`.
    """
    from arch_zoo.accounting import count_params  # it needs JAX

    def count(at: ModelConfig) -> int:
        small = dataclasses.replace(at, vocab_size=3)  # the vocabulary changes no such count
        return count_params(small).non_embedding

    target = count(vanilla)
    here, doubled = count(cfg), count(dataclasses.replace(cfg, mlp_dim=2 * cfg.mlp_dim))
    per_unit = (doubled - here) / cfg.mlp_dim  # the number of parameters is linear in the width
    besides = here - per_unit * cfg.mlp_dim
    units = (target - besides) / per_unit if per_unit else 0
    if round(units) < 1:
        raise ConfigError(
            f"{cfg.name}: size_rule='matched': besides its feed-forward layers {cfg.size} has "
            f"{round(besides):,} parameters, the vanilla model {target:,} in all"
        )
    return dataclasses.replace(cfg, mlp_dim=round_width(units, TOLERANCE * target / per_unit))


def round_width(units: float, allowed: float) -> int:
    """The roundest width that is at most `allowed` away, or the nearest."""
    for grain in _GRAINS:
        rounded = round(units / grain) * grain
        if rounded and abs(rounded - units) <= allowed:
            return rounded
    return round(units)
