"""Token embedding, shared by the encoder, the decoder and the logits."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters


class Embedding(nnx.Module):
    """A table [V, D] of unit normal vectors."""

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws the table."""
        self.table = parameters.normal(
            key, (cfg.vocab_size, cfg.embed_dim), ("vocab", "embed"), 1.0
        )
        self.dtype = cfg.dtype

    def __call__(self, ids_BL: jax.Array) -> jax.Array:
        """Vectors [B, L, D] of the tokens, in the compute type."""
        return self.table[ids_BL].astype(self.dtype)

    def attend(self, x_BLD: jax.Array) -> jax.Array:
        """Products with every token's vector, [B, L, V] in float32: the tied logits."""
        return parameters.project(x_BLD, self.table.T, jnp.float32)
