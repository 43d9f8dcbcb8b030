"""Lightweight convolution in place of self-attention (Wu et al., 2019, arXiv 1901.10430).

Overrides `mixer`: a gated linear unit, then a depthwise convolution whose weights are a softmax
over its taps, then a projection. Overrides `positions`: relative biases would not be read.
Cross-attention and feed-forward layers stay. The published forms are different layers:

* `mesh`, from the original study's code base and the default here: each channel has its own kernel,
  and there are a bias and one more pointwise projection after the convolution. Every projection has
  a bias.
* `fairseq`, the paper's own: consecutive groups of channels share `num_heads` kernels. There is no
  second projection.
* `fairseq_sinusoids`: the same layer, with the sinusoids that fairseq's models add to the input of
  a stack.

The variant `wu` is the last of these. The variant `narang` is that of the sibling study (Narang et
al., 2021, arXiv 2102.11972): the mesh form with a width of 9 at every depth. At base it has 223M
parameters; that study reports 224M.

Deviations. Taps never reach into another packed segment or into padding. In Mesh TensorFlow they
do, and its decoder masks position 0 in training only. The widths 3, 7, 15, 31 repeat with the depth
instead of ending in a run of 31, so that stacks of any depth have the same mix. DropConnect on the
weights (`fairseq`) uses the model's `dropout_rate`.
"""

import dataclasses
from typing import ClassVar

import jax

from arch_zoo.architecture import Architecture
from arch_zoo.config import ModelConfig
from arch_zoo.layers import convolution, parameters
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.layer import Layer
from arch_zoo.layers.parameters import Dense
from arch_zoo.layers.positions import SinusoidalPositions
from arch_zoo.registry import ConfigError, register
from arch_zoo.side import Side

FORMS = ("mesh", "fairseq", "fairseq_sinusoids")


class LightweightConvolution(Layer):
    """`out(conv(linear(x) * sigmoid(gate(x))))`; conv weights are a softmax over its taps."""

    def __init__(self, cfg: ModelConfig, width: int, form: str, key: jax.Array):
        """Draws the projections, then the kernel (`init_kernel`)."""
        linear_key, gate_key, kernel_key, pointwise_key, out_key = jax.random.split(key, 5)
        dim = cfg.embed_dim
        self.width, self.num_groups = width, dim if form == "mesh" else cfg.num_heads

        def square(key):
            return Dense(parameters.fan_in(key, (dim, dim), ("embed", "embed_out")), bias=True)

        self.linear, self.gate, self.out = square(linear_key), square(gate_key), square(out_key)
        self.bias = parameters.constant(0.0, (dim,), ("embed",)) if form == "mesh" else None
        self.pointwise = square(pointwise_key) if form == "mesh" else None
        self.init_kernel(cfg, kernel_key)

    def init_kernel(self, cfg: ModelConfig, key: jax.Array) -> None:
        """Draws the logits of the weights, [W, D] (mesh) or [W, H] (fairseq)."""
        axes = ("width", "heads" if self.pointwise is None else "embed")
        self.kernel = parameters.normal(key, (self.width, self.num_groups), axes, self.width**-0.5)

    def logits(self, gated_BLD: jax.Array) -> jax.Array:
        """Logits of the weights, [W, B, L, H] in float32.

        Here all examples and positions share them, so B = L = 1.
        """
        return self.kernel[:, None, None]

    def __call__(self, x_BLD: jax.Array, ctx: Context, cache=None):
        """Mixes each position with its neighbours; in a causal context, with those before it."""
        gated_BLD = self.linear(x_BLD) * jax.nn.sigmoid(self.gate(x_BLD))
        weights_WBLH = jax.nn.softmax(self.logits(gated_BLD), axis=0)
        if self.pointwise is None:
            weights_WBLH = ctx.dropout(weights_WBLH)
        y_BLD, cache = convolution.depthwise(gated_BLD, weights_WBLH, ctx, cache)
        if self.pointwise is not None and self.bias is not None:  # the mesh form has both
            y_BLD = self.pointwise(y_BLD + self.bias.astype(y_BLD.dtype))
        return self.out(y_BLD), cache, Aux()

    def init_cache(self, ctx: Context) -> jax.Array:
        """Zeros for the last W-1 gated inputs."""
        return convolution.init_cache(ctx, self.width, self.linear.kernel.shape[1])


@register("lconv")
@dataclasses.dataclass(frozen=True)
class LConv(Architecture):
    """Lightweight convolutions in both stacks.

    Attributes:
      widths: odd kernel widths by depth; they repeat in deeper stacks.
      form: `mesh`, `fairseq` or `fairseq_sinusoids`.
    """

    title = "Lightweight convolution"
    paper = "Wu et al., 2019, arXiv 1901.10430"
    variants: ClassVar = {"narang": {"widths": (9,)}, "wu": {"form": "fairseq_sinusoids"}}
    no_short_conv: ClassVar = {"B": "since its mixers have no queries, keys and values"}
    widths: tuple[int, ...] = (3, 7, 15, 31)
    form: str = "mesh"

    def check(self, cfg: ModelConfig) -> None:
        """Refuses even widths, unknown forms, and channels that the heads do not divide."""
        if self.form not in FORMS:
            raise ConfigError(f"{self.name}: form={self.form!r}: allowed are {', '.join(FORMS)}")
        if not self.widths or any(
            not isinstance(width, int) or width < 1 or width % 2 == 0 for width in self.widths
        ):
            raise ConfigError(f"{self.name}: widths={self.widths}: must be odd positive integers")
        if any(side.prefix for side in cfg.sides):
            raise ConfigError(
                f"{self.name}: prefix='bidirectional': its taps do not look ahead; use "
                "prefix='causal'"
            )
        if self.form != "mesh" and cfg.embed_dim % cfg.num_heads:
            raise ConfigError(
                f"{self.name}: embed_dim={cfg.embed_dim} is no multiple of "
                f"num_heads={cfg.num_heads}"
            )

    def positions(self, cfg: ModelConfig, side: Side, key: jax.Array) -> SinusoidalPositions | None:
        """Sinusoids if the form asks for them, else nothing.

        A convolution knows the distance of its taps.
        """
        return SinusoidalPositions() if self.form == "fairseq_sinusoids" else None

    def mixer(
        self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array
    ) -> LightweightConvolution:
        """A convolution of this depth's width."""
        return LightweightConvolution(cfg, self.widths[depth % len(self.widths)], self.form, key)
