"""Sliding windows (Beltagy et al., 2020, arXiv 2004.05150): a position sees its neighbours only.

Overrides `mixer` of `llama`: on a causal side a position sees the last W positions up to itself, in
an encoder those less than W away on either side. `windows` gives W by depth; 0 is full attention.
The variants are the patterns of Mistral (Jiang et al., 2023, arXiv 2310.06825), of Gemma 2
(2408.00118), which alternates, and of Gemma 3 (2503.19786), with five windows to one full layer.

Rows longer than two windows are computed in blocks of W, so time and memory grow with the length
instead of its square. Each block meets the one before it (and the one after it, where positions may
look ahead). Half of the pairs in a causal block are masked; the FLOP convention
`attention="causal"` counts the others. Decoding keeps the keys and values of W positions.

Deviations. Gemma 2 and 3 differ from Llama in more: norms after the layers, capped logits, a
wavelength of their own in full layers.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from arch_zoo.architectures.llama import Llama
from arch_zoo.config import ModelConfig
from arch_zoo.layers.attention import SelfAttention, attend
from arch_zoo.layers.context import Context, Mask
from arch_zoo.layers.layer import Layer
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side


class WindowAttention(SelfAttention):
    """Self-attention to positions less than `window` away."""

    def __init__(self, cfg: ModelConfig, window: int, kv_heads: int | None, key: jax.Array):
        """Draws the projections of Llama's attention."""
        super().__init__(cfg, key, kv_heads=kv_heads, scaled_logits=True)
        self.window = window

    def attention(self, q_BLHK, k_BSHK, v_BSHK, ctx: Context) -> jax.Array:
        """Attends in blocks of the window where a row is longer than two of them."""
        # The mask says more than segments and order do, as it does for packed rows.
        masked = dataclasses.replace(ctx, packed=True)
        causal = ctx.causal and ctx.prefix_BL is None
        length = q_BLHK.shape[1]
        if ctx.index is not None:
            mask = Mask(self._in_cache(ctx), ctx.segment_ids_BL)
            return attend(q_BLHK, k_BSHK, v_BSHK, mask, None, masked)
        if length <= 2 * self.window:
            places_L = jnp.arange(length)
            near_LL = jnp.abs(places_L[:, None] - places_L) < self.window
            mask = Mask(ctx.self_mask() & near_LL, ctx.segment_ids_BL, causal=causal)
            return attend(q_BLHK, k_BSHK, v_BSHK, mask, None, masked)
        reach = range(-1, 1 if causal else 2)  # the blocks that a block meets, from itself
        keys, values = (self._blocks(x, reach) for x in (k_BSHK, v_BSHK))
        mask = Mask(self._seen(ctx, reach), self._blocks(ctx.segment_ids_BL, reach), causal=False)
        with jax.named_scope("causal_products" if causal else "products"):
            y = attend(self._blocks(q_BLHK, range(1)), keys, values, mask, None, masked)
        return y.reshape(len(q_BLHK), -1, *y.shape[2:])[:, :length]

    def store(self, cached_BWHK: jax.Array, new_BLHK: jax.Array, ctx: Context) -> jax.Array:
        """Position p is kept at p modulo the size of the cache."""
        size, length = cached_BWHK.shape[1], new_BLHK.shape[1]
        if ctx.index is not None:
            return jax.lax.dynamic_update_slice_in_dim(
                cached_BWHK, new_BLHK, ctx.index % size, axis=1
            )
        if length < size:
            return jax.lax.dynamic_update_slice_in_dim(cached_BWHK, new_BLHK, 0, axis=1)
        return jnp.roll(new_BLHK[:, length - size :], length % size, axis=1)

    def empty_cache(self, ctx: Context) -> dict[str, jax.Array]:
        """Zeros [B, W, H, K] for the keys and values of the window."""
        size = min(self.window, ctx.max_length)
        return super().empty_cache(dataclasses.replace(ctx, max_length=size))

    def _in_cache(self, ctx: Context) -> jax.Array:
        """True where the cache holds a token that the decoded position sees, [B, 1, 1, W]."""
        size = min(self.window, ctx.max_length)
        places_W = ctx.index - (ctx.index - jnp.arange(size)) % size
        segments_BW = jnp.take(ctx.cache_segment_ids_BT, places_W, axis=1, mode="clip")
        return ((places_W >= 0) & (segments_BW != 0))[:, None, None]

    def _blocks(self, x_BLX: jax.Array, reach: range) -> jax.Array:
        """For each block of W positions those that it meets: [B * N, W * len(reach), ...]."""
        size, margin = self.window, -x_BLX.shape[1] % self.window
        x_BNWX = jnp.pad(x_BLX, ((0, 0), (0, margin)) + ((0, 0),) * (x_BLX.ndim - 2))
        x_BNWX = x_BNWX.reshape(len(x_BLX), -1, size, *x_BLX.shape[2:])
        count = x_BNWX.shape[1]
        around = ((0, 0), (1, 1)) + ((0, 0),) * (x_BNWX.ndim - 2)
        padded = jnp.pad(x_BNWX, around)
        met = [padded[:, 1 + step : 1 + step + count] for step in reach]
        joined = jnp.concatenate(met, axis=2)
        return joined.reshape(-1, size * len(reach), *x_BLX.shape[2:])

    def _seen(self, ctx: Context, reach: range) -> jax.Array:
        """Where the positions of a block may look, [B * N, 1, W, W * len(reach)]."""
        places = jnp.broadcast_to(
            jnp.arange(1, ctx.segment_ids_BL.shape[1] + 1), ctx.segment_ids_BL.shape
        )
        own, met = (
            [self._blocks(x, r) for x in (ctx.segment_ids_BL, places)] for r in (range(1), reach)
        )
        distance = own[1][:, :, None] - met[1][:, None]
        seen = (own[0][:, :, None] == met[0][:, None]) & (jnp.abs(distance) < self.window)
        if ctx.causal:
            earlier = distance >= 0
            if ctx.prefix_BL is not None:
                prefix_own, prefix_met = (self._blocks(ctx.prefix_BL, r) for r in (range(1), reach))
                earlier |= prefix_own[:, :, None] & prefix_met[:, None]
            seen &= earlier
        return seen[:, None]


@register("sliding_window")
@dataclasses.dataclass(frozen=True)
class SlidingWindow(Llama):
    """Llama with attention to a window of positions.

    Attributes:
      windows: W by depth, repeated in deeper stacks; 0 is full attention.
    """

    title = "Sliding window"
    paper = "Beltagy et al., 2020, arXiv 2004.05150"
    variants: ClassVar = {
        "mistral": {"windows": (4096,)},
        "gemma2": {"windows": (4096, 0)},
        "gemma3": {"windows": (1024,) * 5 + (0,)},
    }
    cpu_options: ClassVar = {"windows": (32,)}  # shorter than the rows of its presets
    windows: tuple[int, ...] = (128,)

    def check(self, cfg: ModelConfig) -> None:
        """Refuses windows that are no whole numbers, beside what Llama refuses."""
        super().check(cfg)
        if not self.windows or any(type(w) is not int or w < 0 for w in self.windows):
            raise ConfigError(
                f"sliding_window: windows={self.windows}: must be whole numbers, 0 for full "
                "attention"
            )

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> Layer:
        """Attention in this depth's window."""
        window = self.windows[depth % len(self.windows)]
        if not window:
            return super().mixer(cfg, side, depth, key)
        return WindowAttention(cfg, window, self.num_kv_heads, key)
