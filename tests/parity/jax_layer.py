"""Goldens of single layers whose oracle is written in JAX.

Environment, of its own and never the project's: the project's pinned jax and flax, `pip install
gin-config`.
"""

from collections.abc import Callable
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.golden import Golden

VERSIONS = f"jax {metadata.version('jax')}, flax {metadata.version('flax')}"


def golden(
    oracle: str,
    model: dict,
    layer: str,
    call: Callable,
    weights: dict[str, np.ndarray],
    x_BLD: np.ndarray,
    causal: bool,
) -> Golden:
    """Runs `call(weights, x) -> y` on whole rows and differentiates it.

    Args:
      oracle: whose code `call` runs, and which version.
      model: the zoo's configuration.
      layer: the path of the same layer in the zoo.
      call: the layer, given its parameters by the zoo's names.
      weights: these parameters.
      x_BLD: an input without padding.
      causal: whether the layer is one of a decoder.
    """
    rng = np.random.default_rng(2)
    segment_ids = np.ones(x_BLD.shape[:2], np.int32)
    positions = np.broadcast_to(np.arange(x_BLD.shape[1]), segment_ids.shape)

    def loss(values, x, cotangent):
        y = call(values, x)
        return jnp.sum(y * cotangent), y

    with jax.default_matmul_precision("highest"):
        cotangent = rng.standard_normal(np.shape(call(weights, x_BLD))).astype(np.float32)
        (of_weights, of_x), y = jax.grad(loss, argnums=(0, 1), has_aux=True)(
            weights, x_BLD, cotangent
        )
    inputs = {
        "x": x_BLD,
        "segment_ids": segment_ids,
        "positions": positions,
        "causal": np.array(causal),
        "cotangent": cotangent,
    }
    gradients = {
        name: np.asarray(gradient) for name, gradient in (of_weights | {"x": of_x}).items()
    }
    return Golden(oracle, model, inputs, weights, {"y": np.asarray(y)}, gradients, layer)
