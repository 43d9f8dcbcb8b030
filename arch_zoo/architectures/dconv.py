"""Dynamic convolution in place of self-attention (Wu et al., 2019, arXiv 1901.10430).

A kernel for each position. This is the lightweight convolution of `lconv` (see there), except that
its weights are not parameters: one dense layer predicts them from the gated input at each position.
The published forms:

* `fairseq`, the paper's own and the default here: the layer predicts the weights of `num_heads`
  kernels, [D, W * H]. `fairseq_sinusoids`, the variant `wu`, is the same layer with fairseq's
  positions.
* `mesh`, from the original study's code base: the layer predicts the weights of every channel, with
  [D, D] and a bias for each tap. These W * D^2 parameters are most of the layer: base has 294M with
  a width of 5 and 322M with 7. The sibling study (Narang et al., 2021, arXiv 2102.11972) reports
  257M, which fits a width of 5 in the encoder alone. It is said to have had a width of 9 in both
  stacks, which gives 351M. Since its setting is not known, no variant is named after it.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from arch_zoo.architectures.lconv import LConv, LightweightConvolution
from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.registry import register
from arch_zoo.side import Side


class DynamicConvolution(LightweightConvolution):
    """A lightweight convolution with a kernel predicted from the input at each position."""

    def init_kernel(self, cfg: ModelConfig, key: jax.Array) -> None:
        """Draws the layer that predicts the kernel.

        [W, D, H] (fairseq), or [W, D, D] and a bias (mesh).
        """
        shape = (self.width, cfg.embed_dim, self.num_groups)
        if self.pointwise is None:
            self.kernel = parameters.fan_in(
                key, shape, ("width", "embed", "heads"), batch_axis=(0,)
            )
            self.kernel_bias = None
            return
        # Each tap is a dense layer over D, but Mesh TensorFlow also divides its variance by W.
        self.kernel = parameters.fan_in(key, shape, ("width", "embed", "embed_out"))
        self.kernel_bias = parameters.constant(0.0, shape[::2], ("width", "embed_out"))

    def logits(self, gated_BLD: jax.Array) -> jax.Array:
        """Logits of the weights of every position, [W, B, L, H] in float32."""
        by_tap_DWH = jnp.swapaxes(self.kernel[...], 0, 1)
        logits = parameters.project(gated_BLD, by_tap_DWH.reshape(len(by_tap_DWH), -1), jnp.float32)
        logits_WBLH = jnp.moveaxis(logits.reshape(*gated_BLD.shape[:2], self.width, -1), 2, 0)
        return (
            logits_WBLH
            if self.kernel_bias is None
            else logits_WBLH + self.kernel_bias[:, None, None]
        )


@register("dconv")
@dataclasses.dataclass(frozen=True)
class DConv(LConv):
    """Dynamic convolutions in both stacks."""

    title = "Dynamic convolution"
    variants: ClassVar = {"wu": {"form": "fairseq_sinusoids"}, "mesh": {"form": "mesh"}}
    form: str = "fairseq"

    def mixer(self, cfg: ModelConfig, side: Side, depth: int, key: jax.Array) -> DynamicConvolution:
        """A convolution of this depth's width."""
        return DynamicConvolution(cfg, self.widths[depth % len(self.widths)], self.form, key)
