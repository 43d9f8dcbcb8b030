"""The output layer: from the decoder's output to the distribution of the next token."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from arch_zoo.config import ModelConfig
from arch_zoo.layers import parameters
from arch_zoo.layers.embedding import Embedding

LOG_Z = "log_z"  # the name under which jax.checkpoint can keep the log-normaliser


def cross_entropy(logits_BTV: jax.Array, targets_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Negative log-likelihood of the targets in nats, and the log-normaliser, both [B, T].

    The gradient, `softmax - one_hot`, is written by hand. JAX's own scatters into another array [B,
    T, V], which is written, read and written again before it is rounded for the products that
    follow.
    """
    log_z_BT = jax.nn.logsumexp(jax.lax.stop_gradient(logits_BTV), axis=-1)
    return _normalised(logits_BTV, targets_BT, checkpoint_name(log_z_BT, LOG_Z))


@jax.custom_vjp
def _normalised(logits_BTV, targets_BT, log_z_BT):
    target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return log_z_BT - target_BT, log_z_BT


def _forward(logits_BTV, targets_BT, log_z_BT):
    return _normalised(logits_BTV, targets_BT, log_z_BT), (logits_BTV, targets_BT, log_z_BT)


def _backward(kept, grads):
    logits_BTV, targets_BT, log_z_BT = kept
    nll_BT1, log_z_BT1 = (grad_BT[..., None] for grad_BT in grads)
    softmax_BTV = jnp.exp(logits_BTV - log_z_BT[..., None])
    one_hot_BTV = targets_BT[..., None] == jnp.arange(logits_BTV.shape[-1])
    return softmax_BTV * (nll_BT1 + log_z_BT1) - jnp.where(one_hot_BTV, nll_BT1, 0), None, None


_normalised.defvjp(_forward, _backward)


class Head(nnx.Module):
    """Softmax over logits tied to the embedding, scaled by D^-1/2 (T5.1.0).

    Where the parametrisation asks for 1/D, the base's width has the scale D^-1/2. Without
    `scale_tied_logits` there is no scale.
    """

    def __init__(self, cfg: ModelConfig):
        """Draws nothing; methods take the embedding, so no parameter is shared by reference."""
        scaled = (cfg.embed_dim * cfg.width_ratio) ** -0.5
        self.scale = scaled if cfg.scale_tied_logits else 1.0

    def logits(self, x_BTD: jax.Array, embedding: Embedding) -> jax.Array:
        """Logits [B, T, V] in float32."""
        return embedding.attend(x_BTD * self.scale)

    def matrix(self, embedding: Embedding, embed_dim: int) -> jax.Array:
        """The matrix [D, V] by which states become logits, in float32."""
        return self.logits(jnp.eye(embed_dim)[None], embedding)[0]

    def nll(
        self, x_BTD: jax.Array, targets_BT: jax.Array, embedding: Embedding
    ) -> tuple[jax.Array, jax.Array]:
        """Negative log-likelihood of targets in nats, and log-normaliser, [B, T] in float32."""
        return cross_entropy(self.logits(x_BTD, embedding), targets_BT)


class UntiedHead(Head):
    """Softmax over logits from a table of their own."""

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Draws the table [D, V]."""
        self.table = parameters.fan_in(
            key,
            (cfg.embed_dim, cfg.vocab_size),
            ("embed", "vocab"),
            scale=cfg.width_ratio**0.5,
        )
        self.scale = 1 / cfg.width_ratio

    def logits(self, x_BTD: jax.Array, embedding: Embedding) -> jax.Array:
        """Logits [B, T, V] in float32."""
        return parameters.project(x_BTD, self.table, jnp.float32) * self.scale
