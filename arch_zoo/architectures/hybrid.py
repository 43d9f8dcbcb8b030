"""A pattern of mixers by depth (Lieber et al., 2024, arXiv 2403.19887), mostly recurrent ones.

Overrides `mixer`: the mixer at a depth is that of another architecture, with its default options.
Overrides `positions`: the angles of Llama, for those mixers that turn queries and keys. The rest
are Llama's blocks. The pattern repeats in deeper stacks. The default is that of Qwen3-Next (2025),
three layers of `gated_deltanet` to one of `llama`. `mamba2` cannot be part of a pattern, since its
blocks have two mixers and no feed-forward layer.

Deviations. Qwen3-Next's attention has a gate and norms of queries and keys, and turns a quarter of
each head only.
"""

import dataclasses
from typing import ClassVar

import jax

from arch_zoo.architecture import Architecture
from arch_zoo.architectures.llama import LlamaBlocks
from arch_zoo.architectures.recurrent import RecurrentBlocks
from arch_zoo.config import ModelConfig
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.rotary import Rotary
from arch_zoo.registry import ConfigError, get, names, register
from arch_zoo.side import Side
from arch_zoo.sizes import Dimensions


@register("hybrid")
@dataclasses.dataclass(frozen=True)
class Hybrid(RecurrentBlocks):
    """Mixers of several architectures in one model.

    Attributes:
      pattern: the architectures whose mixers the depths have, in turn.
      theta: the base of the rotary wavelengths.
    """

    title = "Hybrid"
    paper = "Lieber et al., 2024, arXiv 2403.19887"
    cpu_options: ClassVar = {"pattern": ("gated_deltanet", "llama")}  # its sizes have two layers
    pattern: tuple[str, ...] = ("gated_deltanet", "gated_deltanet", "gated_deltanet", "llama")
    theta: float = 10_000.0

    def check(self, cfg: ModelConfig) -> None:
        """Refuses what one of the mixers refuses."""
        super().check(cfg)
        for part in self._parts():
            part.check(cfg)
            part.check_short_conv(cfg)

    def mixer_params(self, vanilla: Dimensions) -> float:
        """The mean over the depths."""
        depths = range(vanilla.num_decoder_layers)
        parts = self._parts()
        each = [_params(parts[depth % len(parts)], vanilla) for depth in depths]
        return sum(each) / len(each)

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """The mixer of this depth's architecture."""
        parts = self._parts()
        return parts[depth % len(parts)].mixer(cfg, side, depth, key)

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> Rotary:
        """Angles for those mixers that turn queries and keys."""
        return Rotary(cfg.head_dim, self.theta)

    def _parts(self) -> list[LlamaBlocks]:
        """The architectures of the pattern, with the epsilon of this one.

        Raises:
          ConfigError: the pattern names no architecture, or one that has no such mixer.
        """
        mixers = _mixers()
        if not self.pattern or any(name not in mixers for name in self.pattern):
            raise ConfigError(f"hybrid: pattern={self.pattern}: allowed are {', '.join(mixers)}")
        parts = [get(name)() for name in self.pattern]
        return [
            dataclasses.replace(part, norm_epsilon=self.norm_epsilon)
            if isinstance(part, RecurrentBlocks)
            else part
            for part in parts
        ]


def _params(part: LlamaBlocks, vanilla: Dimensions) -> int:
    """The parameters of a mixer of this architecture."""
    if isinstance(part, RecurrentBlocks):
        return int(part.mixer_params(vanilla))
    return 4 * vanilla.embed_dim * vanilla.num_heads * vanilla.head_dim


def _mixers() -> list[str]:
    """The architectures that are Llama's blocks around one mixer of their own."""
    found = {name: get(name) for name in names() if issubclass(get(name), LlamaBlocks)}
    return [
        name
        for name, cls in found.items()
        if cls.layers is Architecture.layers and "mixer" in vars(cls) and cls is not Hybrid
    ]
