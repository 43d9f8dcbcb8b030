"""From the decoder's output to the distribution of the next token."""

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers.embedding import Embedding


class Head(nnx.Module):
    """Softmax over logits tied to the embedding, scaled by D^-1/2 (T5.1.0)."""

    def __init__(self, cfg: ModelConfig):
        """Has no parameters of its own; the embedding is an argument, so that nothing is shared by reference."""
        self.scale = cfg.embed_dim**-0.5

    def logits(self, x_BTD: jax.Array, embedding: Embedding) -> jax.Array:
        """Logits [B, T, V] in float32."""
        return embedding.attend(x_BTD * self.scale)

    def nll(self, x_BTD: jax.Array, targets_BT: jax.Array, embedding: Embedding) -> tuple[jax.Array, jax.Array]:
        """Negative log-likelihood of the targets in nats, and the log-normaliser, both [B, T] in float32."""
        logits_BTV = self.logits(x_BTD, embedding)
        log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
        target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
        return log_z_BT - target_BT, log_z_BT
