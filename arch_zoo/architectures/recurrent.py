"""What the recurrent architectures have in common; it is no architecture itself.

They are Llama's blocks with another mixer and without positions. As many parameters as the vanilla
model: the width of the feed-forward layers makes up for what the mixers have more or less. So at
every size the models that are compared have equal parameters outside the tables.
"""

import dataclasses
from typing import ClassVar

import jax
from flax import nnx

from arch_zoo import size_rules
from arch_zoo.architectures.llama import LlamaBlocks
from arch_zoo.config import ModelConfig
from arch_zoo.registry import ConfigError
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


@dataclasses.dataclass(frozen=True)
class RecurrentBlocks(LlamaBlocks):
    """Blocks of a recurrent mixer and a gated feed-forward layer.

    Attributes:
      head_multiple: what the width of a head must be a multiple of.
      norm_epsilon: of the norm of what heads read. Such a vector can be close to zero, and a
        smaller epsilon would magnify its rounding.
    """

    float32_share = 0.9
    head_multiple: ClassVar[int] = 1
    norm_epsilon: float = 1e-5

    def check(self, cfg: ModelConfig) -> None:
        """Refuses what no recurrence can do, and heads that it cannot divide."""
        if any(side.prefix for side in cfg.sides):
            raise ConfigError(
                f"{self.name}: prefix='bidirectional': a recurrence does not look ahead; use "
                "prefix='causal'"
            )
        if cfg.head_dim % self.head_multiple:
            raise ConfigError(
                f"{self.name}: head_dim={cfg.head_dim}: must be a multiple of {self.head_multiple}"
            )
        if not self.norm_epsilon > 0:
            raise ConfigError(f"{self.name}: norm_epsilon={self.norm_epsilon}: must be above 0")
        for field, operator in (("shared_heads", "SH"), ("tied_keys_values", "SKV")):
            if getattr(cfg, field):
                raise ConfigError(
                    f"{self.name}: {field}=True: the size's operator {operator} is for attention"
                )
        if not all(side.causal for side in cfg.sides) and self.num_heads(cfg) < 2:
            raise ConfigError(
                f"{self.name}: num_heads={self.num_heads(cfg)}: an encoder needs at least 2, one "
                "for each direction"
            )

    def num_heads(self, cfg: ModelConfig) -> int:
        """The heads of a mixer."""
        return cfg.num_heads

    def mixer_params(self, vanilla: Dimensions) -> float:
        """The number of parameters of one mixer, or its mean over the depths."""
        raise NotImplementedError

    def dimensions(self, vanilla: Dimensions) -> Dimensions:
        """The hidden units for which a block has as many parameters as the vanilla one."""
        per_unit = 3 * vanilla.embed_dim
        units = (block_params(vanilla) - self.mixer_params(vanilla)) / per_unit
        return self.with_width(vanilla, units, per_unit)

    def with_width(self, vanilla: Dimensions, units: float, per_unit: float) -> Dimensions:
        """The dimensions with about so many `mlp_dim`, of so many parameters in a block each."""
        if round(units) < 1:
            raise ConfigError(
                f"{self.name}: mlp_dim={vanilla.mlp_dim}: besides it, the layers have more "
                f"parameters than the {block_params(vanilla):,} of a vanilla block"
            )
        allowed = size_rules.TOLERANCE * block_params(vanilla) / per_unit
        return dataclasses.replace(vanilla, mlp_dim=size_rules.round_width(units, allowed))

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> nnx.Module | None:
        """Nothing: a recurrence knows the order."""
        return None


def block_params(vanilla: Dimensions) -> int:
    """The parameters of a vanilla block in matrices, without cross-attention."""
    joined = vanilla.num_heads * vanilla.head_dim
    return vanilla.embed_dim * (4 * joined + 2 * vanilla.mlp_dim)
