"""What it takes for models of one size to be as large as each other.

`paper` is each architecture's own rule (`Architecture.dimensions`), as the studies had it. Its
models of one size differ in parameters: outside the embedding, `base` has 0.97 of the vanilla
model's with Evolved, 0.94 with DConv, 0.08 with Universal. `matched` keeps all that the rule says
but the width of the feed-forward layers, and solves for that: these parameters
(`arch_zoo.accounting`) are then as many as the vanilla model's of that size, within half a percent
or, where one unit of width is more than that, half a unit. Depth, heads and the residual stream
stay as they were.

Parameters are matched, not FLOPs: a shared block that holds what N blocks held is still applied N
times.
"""

import dataclasses
import functools

from arch_zoo.config import ModelConfig, config
from arch_zoo.registry import ConfigError

_GRAINS = (
    128,
    64,
    32,
    16,
    8,
    4,
    2,
)  # the coarsest that the tolerance allows, for the sake of accelerators
_TOLERANCE = 0.005


@functools.lru_cache(maxsize=1024)
def matched(cfg: ModelConfig) -> ModelConfig:
    """The model `cfg` with the `mlp_dim` at which it has the vanilla model's parameters outside the embedding.

    Raises:
      ConfigError: there is none, since the other layers alone have more, or no parameter depends on
        the width.
    """
    from arch_zoo.accounting import count_params  # it needs JAX

    def count(at: ModelConfig) -> int:
        plain = dataclasses.replace(
            at, scan_layers=False, remat="none", vocab_size=3
        )  # these change no count
        return count_params(plain).non_embedding

    target = count(config("transformer", cfg.size))
    here, doubled = count(cfg), count(dataclasses.replace(cfg, mlp_dim=2 * cfg.mlp_dim))
    per_unit = (
        doubled - here
    ) / cfg.mlp_dim  # every layer's parameters are a straight line in the width
    besides = here - per_unit * cfg.mlp_dim
    units = (target - besides) / per_unit if per_unit else 0
    if round(units) < 1:
        raise ConfigError(
            f"{cfg.name}: size_rule='matched': besides its feed-forward layers {cfg.size} has {round(besides):,} "
            f"parameters, the vanilla model {target:,} in all"
        )
    for grain in _GRAINS:
        rounded = round(units / grain) * grain
        if rounded and abs(rounded - units) * per_unit <= _TOLERANCE * target:
            return dataclasses.replace(cfg, mlp_dim=rounded)
    return dataclasses.replace(cfg, mlp_dim=round(units))
