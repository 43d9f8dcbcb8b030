"""Golden of the MLP-Mixer's token mixing: the MixerBlock of google-research/vision_transformer.

Recipe: the environment of `jax_layer`, a checkout of google-research/vision_transformer (commit
c6de1e5378c9831a8477feb30994971bdc409e46), then, from the root of this checkout, `python -m
tests.parity.make_mixer_jax CHECKOUT`.

The whole block runs as published, with its norms replaced by the identity and its channel mixing by
zero: what is left beside the residual connection is what it does with positions. The zoo's norm and
channel mixing are T5's.
"""

import importlib
import sys
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from tests.parity import jax_layer

LENGTH, WIDTH, DIM = 9, 7, 12
# The zoo's parameters, and where the block's are.
NAMES = {
    "wi": ("Dense_0", "kernel"),
    "wi_bias": ("Dense_0", "bias"),
    "wo": ("Dense_1", "kernel"),
    "wo_bias": ("Dense_1", "bias"),
}


def token_mixing(block: nn.Module):
    """What the block adds for its positions, given the zoo's parameters."""

    def bare(call, arguments, options, context):
        if isinstance(context.module, nn.LayerNorm):
            return arguments[0]
        if context.module.name == "channel_mixing":
            return jnp.zeros_like(arguments[0])
        return call(*arguments, **options)

    def call(weights, x_BLD):
        params: dict[str, dict] = {"Dense_0": {}, "Dense_1": {}}
        for name, (layer, key) in NAMES.items():
            params[layer][key] = weights[name]
        with nn.intercept_methods(bare):
            return block.apply({"params": {"token_mixing": params}}, x_BLD) - x_BLD

    return call


def main(checkout: Path) -> None:
    """Writes the golden."""
    sys.path.insert(0, str(checkout))
    block = importlib.import_module("vit_jax.models_mixer").MixerBlock(WIDTH, 4 * DIM)
    rng = np.random.default_rng(0)
    shapes = {
        "wi": (LENGTH, WIDTH),
        "wi_bias": (WIDTH,),
        "wo": (WIDTH, LENGTH),
        "wo_bias": (LENGTH,),
    }
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) * shape[0] ** -0.5
        for name, shape in shapes.items()
    }
    x_BLD = rng.standard_normal((2, LENGTH, DIM)).astype(np.float32)
    model = {
        "name": "mixer",
        "size": "nano",
        "max_input_length": LENGTH,
        "token_mlp_dim": WIDTH,
        "embed_dim": DIM,
    }
    oracle = f"vision_transformer c6de1e5, {jax_layer.VERSIONS}"
    layer = "encoder.blocks.0.self_attention.layer"
    jax_layer.golden(oracle, model, layer, token_mixing(block), weights, x_BLD, causal=False).save(
        "mixer-block"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
