"""The one interface of a residual layer, for training and for decoding."""

from typing import Any

import jax
from flax import nnx

from arch_zoo.layers.context import Aux, Context


class Layer(nnx.Module):
    """A layer of a block. The block adds its norm, dropout and residual connection.

    A cache is whatever the layer needs of the positions so far: arrays whose first axis is the
    batch, since beam search reorders them along it. The position that is decoded is `ctx.index`,
    the same for every row.
    """

    def __call__(
        self, x_BLD: jax.Array, ctx: Context, cache: Any = None
    ) -> tuple[jax.Array, Any, Aux]:
        """Whole sequences without a cache.

        With a cache and `ctx.index` a single position, L = 1, with what comes before it in the
        cache. With a cache but no index whole prompts, which an empty cache takes in.

        Returns:
          The output [B, L, D] in the type of `x`; the next cache, None where none was given; losses
          and diagnostics.
        """
        raise NotImplementedError

    def init_cache(self, ctx: Context) -> Any:
        """The cache before the first of `ctx.max_length` positions.

        Empty where no position depends on another.
        """
        return {}
