"""Blocks of residual layers, and the stack that runs them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers import convolution, short_convolution
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.layer import Layer
from arch_zoo.registry import ConfigError

# Numbers from which the keys of dropout at the input and output are derived; blocks use their
# depths 0, 1, 2, ...
_INPUT, _OUTPUT = 2**20, 2**20 + 1
# and more, from which the keys of short convolutions before a layer and inside it are derived
_SHORT, _INSIDE = 2**21, 2**22


# Where a short convolution may stand, by the names of Allen-Zhu (2025): before a layer that mixes
# positions (A) and before a feed-forward layer (C).
_PLACES = {"feed_forward": "C", "cross_attention": ""}


class Residual(nnx.Module):
    """`x + dropout(layer(norm(x)))`; the layer gets zeros at padding.

    Where the parametrisation asks for it, what a deep model adds is divided by its depth. With
    `taps` [W, D] a depthwise convolution of `norm(x)` is added to what the layer gets.
    """

    def __init__(self, cfg: ModelConfig, layer: Layer, taps: nnx.Param | None = None):
        """Wraps `layer`, with a norm before it."""
        self.norm = cfg.architecture.norm(cfg)
        self.taps = taps
        self.layer = layer
        self.depth_ratio = cfg.depth_ratio

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Adds the layer's output to the residual stream."""
        normed_BLD = self.norm(x_BLD) * ctx.real_BL1
        if self.taps is None:
            y_BLD, cache, aux = self.layer(normed_BLD, ctx.fold(0), cache)
        else:
            taps, before = (None, None) if cache is None else (cache["taps"], cache["layer"])
            mixed_BLD, taps = convolution.depthwise(normed_BLD, self.taps[:, None, None], ctx, taps)
            y_BLD, after, aux = self.layer(normed_BLD + mixed_BLD, ctx.fold(0), before)
            cache = None if cache is None else {"taps": taps, "layer": after}
        return self.add(x_BLD, y_BLD, ctx), cache, aux

    def add(self, x_BLD: jax.Array, y_BLD: jax.Array, ctx: Context) -> jax.Array:
        """The residual stream with a layer's output added."""
        if self.depth_ratio != 1:
            y_BLD /= self.depth_ratio
        return x_BLD + ctx.fold(1).dropout(y_BLD, over=1)

    def init_cache(self, ctx: Context) -> Any:
        """The cache of the layer, and of the convolution before it."""
        if self.taps is None:
            return self.layer.init_cache(ctx)
        taps = convolution.init_cache(ctx, *self.taps.shape)
        return {"taps": taps, "layer": self.layer.init_cache(ctx)}


class Block(nnx.Module):
    """Named residual layers, one after the other."""

    def __init__(self, cfg: ModelConfig, layers: dict[str, Layer], key: jax.Array | None = None):
        """Wraps each of `layers`; they run in this order.

        The key is that of the short convolutions that the configuration asks for.
        """
        self.names = tuple(layers)
        for site, (name, layer) in enumerate(layers.items()):
            place, taps = _PLACES.get(name, "A"), None
            if key is not None and place and place in cfg.short_conv:
                drawn = jax.random.fold_in(key, _SHORT + site)
                taps = convolution.short_taps(drawn, cfg.embed_dim, "embed")
            if key is not None and cfg.short_conv:
                inside = jax.random.fold_in(key, _INSIDE + site)
                short_convolution.insert(layer, cfg.short_conv, cfg.embed_dim, inside)
            setattr(self, name, Residual(cfg, layer, taps))

    def __call__(
        self, x_BLD: jax.Array, ctx: Context, cache=None, names: tuple[str, ...] | None = None
    ):
        """Applies the layers called `names`, by default all of them."""
        caches, total = dict(cache or {}), Aux()
        for site, name in enumerate(self.names):
            if names is not None and name not in names:
                continue
            with jax.named_scope(name):
                layer_cache = None if cache is None else cache[name]
                x_BLD, caches[name], aux = getattr(self, name)(x_BLD, ctx.fold(site), layer_cache)
            total = total.merge(aux)
        return x_BLD, (None if cache is None else caches), total

    def init_cache(self, ctx: Context) -> dict[str, Any]:
        """The caches of the layers by name."""
        return {name: getattr(self, name).init_cache(ctx) for name in self.names}


class Stack(nnx.Module):
    """An encoder or decoder: positions, blocks in the order of a schedule, a final norm."""

    def __init__(
        self,
        cfg: ModelConfig,
        blocks: list[Block],
        schedule: tuple[int, ...],
        positions: nnx.Module | None,
    ):
        """`schedule[depth]` is the index of the block that runs at that depth.

        A block may run at many depths.
        """
        self.blocks = nnx.List(blocks)
        self.schedule = schedule
        self.positions = positions
        self.norm = cfg.architecture.norm(cfg)
        self.scan, self.remat = cfg.scan_layers, cfg.remat
        if self.scan:
            self.period()

    def step(
        self, block: Block, depth: int | jax.Array, x_BLD: jax.Array, ctx: Context, cache=None
    ):
        """Runs one depth. Returns `(x, ctx, cache, aux)`.

        A stack that shortens the sequence returns a new context.
        """
        x_BLD, cache, aux = block(x_BLD, ctx.fold(depth), cache)
        if ctx.keep_states:
            aux = aux._replace(states=(x_BLD,))
        return x_BLD, ctx, cache, aux

    def walk(self, x_BLD: Any, ctx: Context, caches=None) -> tuple[Any, Context, Any, Aux]:
        """Runs all depths. Returns `(x, ctx, caches, aux)`.

        A subclass may carry more than `x` from depth to depth.
        """
        if self.scan and caches is None and not ctx.keep_states:
            return self._scanned(x_BLD, ctx)
        return self._unrolled(x_BLD, ctx, caches)

    def __call__(self, x_BLD: jax.Array, ctx: Context, caches=None):
        """Runs the whole stack and returns `(x, ctx, caches, aux)`.

        The output is zero at padding.
        """
        if self.positions is not None:
            x_BLD, ctx = self.positions(x_BLD, ctx)
        x_BLD = ctx.fold(_INPUT).dropout(x_BLD, over=1)
        x_BLD, ctx, caches, aux = self.walk(x_BLD, ctx, caches)
        x_BLD = ctx.fold(_OUTPUT).dropout(self.norm(x_BLD), over=1) * ctx.real_BL1
        return x_BLD, ctx, caches, aux

    def init_cache(self, ctx: Context) -> list[dict[str, Any]]:
        """One cache for every depth, even where depths share a block."""
        return [self.blocks[which].init_cache(ctx) for which in self.schedule]

    def period(self) -> int:
        """The number of blocks after which their structure repeats.

        One step of a scan runs so many.

        Raises:
          ConfigError: the structure never repeats, so the blocks cannot be scanned.
        """
        if len(set(self.schedule)) == 1:
            return 1
        blocks = [self.blocks[which] for which in self.schedule]
        shapes = [
            (jax.tree.structure(block), [leaf.shape for leaf in jax.tree.leaves(block)])
            for block in blocks
        ]
        count = len(shapes)
        for period in range(1, count // 2 + 1):
            if count % period == 0 and all(shapes[i] == shapes[i % period] for i in range(count)):
                return period
        raise ConfigError(
            f"scan_layers=True: these {count} blocks never repeat, so they cannot be scanned"
        )

    def _step(self, block, depth, x_BLD, ctx, cache):
        """Calls `step`; its values are recomputed in the backward pass by `ModelConfig.remat`."""

        def run(block, x_BLD, ctx, cache):
            return self.step(block, depth, x_BLD, ctx, cache)

        if self.remat != "none" and cache is None:
            saved = (
                jax.checkpoint_policies.dots_with_no_batch_dims_saveable
                if self.remat == "dots"
                else None
            )
            run = jax.checkpoint(run, policy=saved)
        return run(block, x_BLD, ctx, cache)

    def _unrolled(self, x_BLD, ctx, caches):
        new_caches, total = [], Aux()
        for depth, which in enumerate(self.schedule):
            cache = None if caches is None else caches[depth]
            x_BLD, ctx, cache, aux = self._step(self.blocks[which], depth, x_BLD, ctx, cache)
            new_caches.append(cache)
            total = total.merge(aux)
        return x_BLD, ctx, (None if caches is None else new_caches), total

    def _scanned(self, x_BLD, ctx):
        """Loops over groups of `period` blocks.

        Weights are stored per layer and stacked here, inside the forward pass. So neither training
        nor checkpoints depend on whether layers are scanned.
        """
        period = self.period()
        depths = jnp.arange(len(self.schedule)).reshape(-1, period)
        shared = len(set(self.schedule)) == 1
        walked = [self.blocks[which] for which in self.schedule]
        groups = [walked[i : i + period] for i in range(0, len(walked), period)]
        stacked = None if shared else jax.tree.map(lambda *leaves: jnp.stack(leaves), *groups)

        def body(x_BLD, xs):
            group, group_depths = xs
            total = Aux()
            for i, block in enumerate([self.blocks[0]] if shared else group):
                x_BLD, _, _, aux = self._step(block, group_depths[i], x_BLD, ctx, None)
                total = total.merge(aux)
            return x_BLD, total

        x_BLD, auxes = jax.lax.scan(body, x_BLD, (stacked, depths))
        return x_BLD, ctx, None, jax.tree.map(lambda leaf: leaf.sum(axis=0), auxes)
