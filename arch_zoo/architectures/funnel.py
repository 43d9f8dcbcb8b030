"""Funnel Transformer (Dai et al., 2020, arXiv 2006.03236).

The encoder halves its sequence from block to block. Overrides the encoder's `stack`: its layers are
divided into `num_blocks` blocks, and the first layer of each block except the first one pools the
sequence by two. Parameters are those of the vanilla model, FLOPs are fewer. The decoder is vanilla
and attends to the short memory. There are two published ways to pool:

* `attention`, from the original study's code base and the default here: after the residual
  self-attention, `pool(x + A(x))`.
* `query`, the paper's own: before it, `pool(x) + A(pool(x), x)`, where keys and values keep the
  full length.

Pooling takes the mean of a pair of positions, without padding; the sources average padding in. If
the layers cannot be divided evenly, the first blocks get one more. A stack with fewer layers than
blocks has as many blocks as layers. The model pads its input to a multiple of `2 ** (blocks - 1)`.
Packed segments must start at such multiples, so that no pair joins two examples. Biases count
distances in pooled units.

Deviations. Both forms have pre-norm and T5's relative biases. The first token gets no special
treatment, which BERT's would need.
"""

import dataclasses

import jax
import jax.numpy as jnp

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers.attention import SelfAttention, attend
from arch_zoo.layers.context import Context, Mask
from arch_zoo.layers.stack import Block, Residual, Stack
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side

POOLS = ("attention", "query")


def pool(x_BLD: jax.Array, ctx: Context) -> tuple[jax.Array, Context]:
    """Means over pairs of positions [B, L/2, D], and the context of the shorter sequence."""
    batch_size, length, dim = x_BLD.shape
    real_BPI1 = ctx.real_BL1.reshape(batch_size, length // 2, 2, 1)
    pairs_BPID = jnp.where(real_BPI1, x_BLD.reshape(batch_size, length // 2, 2, dim), 0)
    mean_BPD = pairs_BPID.sum(axis=2) / jnp.maximum(real_BPI1.sum(axis=2), 1).astype(x_BLD.dtype)
    pooled_ctx = dataclasses.replace(
        ctx,
        segment_ids_BL=ctx.segment_ids_BL.reshape(batch_size, -1, 2).max(axis=2),
        positions_BL=ctx.positions_BL[:, ::2] // 2,
        biases={
            heads: bias[:, :, : length // 2, : length // 2] for heads, bias in ctx.biases.items()
        },
    )
    return mean_BPD, pooled_ctx


class FunnelStack(Stack):
    """A stack that pools in the layers at `pooled_depths`."""

    def __init__(self, cfg: ModelConfig, parts: tuple, pooled_depths: tuple[int, ...], pools: str):
        """Takes `Architecture.stack_parts`, and which of `POOLS` to follow."""
        super().__init__(cfg, *parts)
        self.pooled_depths, self.pools = pooled_depths, pools

    def __call__(self, x_BLD: jax.Array, ctx: Context, caches=None):
        """Pads the sequence so that it can be halved; the output is shorter than the input."""
        missing = -x_BLD.shape[1] % 2 ** len(self.pooled_depths)
        ctx = dataclasses.replace(
            ctx,
            segment_ids_BL=jnp.pad(ctx.segment_ids_BL, ((0, 0), (0, missing))),
            positions_BL=jnp.pad(ctx.positions_BL, ((0, 0), (0, missing))),
        )
        return super().__call__(jnp.pad(x_BLD, ((0, 0), (0, missing), (0, 0))), ctx, caches)

    def step(
        self, block: Block, depth: int | jax.Array, x_BLD: jax.Array, ctx: Context, cache=None
    ):
        """Runs a block, and pools at its self-attention if this is one of the pooled depths."""
        if depth not in self.pooled_depths:
            return super().step(block, depth, x_BLD, ctx, cache)
        attention, *rest = block.names
        if self.pools == "query":
            with jax.named_scope(attention):
                x_BLD, ctx = _attend_pooled(
                    getattr(block, attention), x_BLD, ctx, ctx.fold(depth).fold(0)
                )
        else:
            x_BLD, _, _ = block(x_BLD, ctx.fold(depth), names=(attention,))
            x_BLD, ctx = pool(x_BLD, ctx)
        x_BLD, _, aux = block(x_BLD, ctx.fold(depth), names=tuple(rest))
        return x_BLD, ctx, cache, aux


def _attend_pooled(
    residual: Residual, x_BLD: jax.Array, ctx: Context, random: Context
) -> tuple[jax.Array, Context]:
    """`pool(x) + A(pool(x), x)`.

    A pair attends to all positions, with the biases of its first position.
    """
    attention = residual.layer
    assert isinstance(attention, SelfAttention)
    y_BPD, pooled_ctx = pool(x_BLD, ctx)
    q_BPHK = attention.queries(residual.norm(y_BPD) * pooled_ctx.real_BL1)
    k_BLHK, v_BLHK = attention.keys_values(residual.norm(x_BLD) * ctx.real_BL1)
    seen_B1PL = pooled_ctx.segment_ids_BL[:, None, :, None] == ctx.segment_ids_BL[:, None, None, :]
    mask = Mask(seen_B1PL, ctx.segment_ids_BL)
    bias_1HPL = ctx.biases[attention.num_heads][:, :, ::2]
    attended_BPHK = attend(q_BPHK, k_BLHK, v_BLHK, mask, bias_1HPL, random.fold(0))
    return residual.add(y_BPD, attention.output(attended_BPHK), random), pooled_ctx


@register("funnel")
@dataclasses.dataclass(frozen=True)
class Funnel(Architecture):
    """A pooling encoder.

    Attributes:
      num_blocks: the sequence is halved `num_blocks - 1` times.
      pools: what is pooled first: `attention` or `query`.
    """

    title = "Funnel Transformer"
    paper = "Dai et al., 2020, arXiv 2006.03236"
    scans = False
    families = ("encoder_decoder",)
    num_blocks: int = 3
    pools: str = "attention"

    def check(self, cfg: ModelConfig) -> None:
        """Refuses unknown options, and scanning, since the layers see different lengths."""
        if self.pools not in POOLS:
            raise ConfigError(f"funnel: pools={self.pools!r}: allowed are {', '.join(POOLS)}")
        if cfg.family not in self.families:
            raise ConfigError(
                f"funnel: family={cfg.family!r}: a pooled position would see the later one of its "
                "pair; the causal form of this idea is hourglass (Nawrot et al., 2021, arXiv "
                "2110.13711), which the zoo does not have"
            )
        if self.pools == "query" and {"A", "B"} & set(cfg.short_conv):
            raise ConfigError(
                f"funnel: short_conv={cfg.short_conv!r}: with pools='query' a layer reads a pooled "
                "sequence and the whole one; use pools='attention', or sites C and D alone"
            )
        if self.num_blocks < 1:
            raise ConfigError(f"funnel: num_blocks={self.num_blocks}: must be at least 1")
        if cfg.scan_layers and self.pooled_depths(cfg):
            raise ConfigError(
                "funnel: scan_layers=True: a sequence that gets shorter cannot be scanned over"
            )

    def pooled_depths(self, cfg: ModelConfig) -> tuple[int, ...]:
        """The depths at which all blocks except the first begin."""
        num_blocks = min(self.num_blocks, cfg.num_encoder_layers)
        size, remainder = divmod(cfg.num_encoder_layers, num_blocks)
        return tuple(block * size + min(block, remainder) for block in range(1, num_blocks))

    def segment_multiple(self, cfg: ModelConfig, side: Side) -> int:
        """Examples may start only where a pooled position of the encoder starts."""
        return 1 if side.causal else 2 ** len(self.pooled_depths(cfg))

    def stack(self, cfg: ModelConfig, side: Side, key: jax.Array) -> Stack:
        """The encoder's stack pools; the decoder's is the vanilla one."""
        parts = self.stack_parts(cfg, side, key)
        return (
            Stack(cfg, *parts)
            if side.causal
            else FunnelStack(cfg, parts, self.pooled_depths(cfg), self.pools)
        )
