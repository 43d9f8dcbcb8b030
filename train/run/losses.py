"""Losses as sums and weights, so that a mean is taken only once, over all devices and batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from arch_zoo.layers.head import cross_entropy
from arch_zoo.skeleton import Batch


class TokenLosses(NamedTuple):
    """The result of `token_nll`.

    Attributes:
      nll: [B,T] in nats.
      log_z: [B,T] in nats.
      aux: auxiliary losses, already weighted.
      metrics: diagnostics.
    """

    nll: jax.Array
    log_z: jax.Array
    aux: dict[str, jax.Array]
    metrics: dict[str, jax.Array]


def token_losses(
    model: Any,
    batch: Batch,
    key: jax.Array,
    label_smoothing: float = 0.0,
    expert_axis: str | None = None,
) -> Any:
    """The token losses of a model in training.

    `label_smoothing` is the share of the target that is spread over the vocabulary.
    """
    if not label_smoothing:
        return model.token_nll(batch, key=key, train=True, expert_axis=expert_axis)
    # Smoothing needs all logits, but token_nll may compute them only in parts.
    out = model(batch, key=key, train=True, expert_axis=expert_axis)
    nll, log_z = cross_entropy(out.logits, batch["decoder_target_tokens"])
    uniform = log_z - out.logits.mean(-1)  # nats, for a target uniform over the vocabulary
    return TokenLosses(
        (1 - label_smoothing) * nll + label_smoothing * uniform, log_z, out.aux, out.metrics
    )


def token_sums(
    out: Any, batch: Batch, z_loss: float = 0.0
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Sums the token losses of one batch.

    Args:
      out: `model.token_nll(...)`, with nll and log_z [B,T] in nats, in f32.
      batch: has decoder_loss_weights [B,T].
      z_loss: coefficient of log(Z)^2 (T5: 1e-4 in training), which keeps the normaliser of the
        logits near 1.

    Returns:
      The sum to be minimised, and the sums `nll`, `z_loss` and `weight`.
    """
    weights_BT = batch["decoder_loss_weights"].astype(jnp.float32)
    nll = jnp.sum(out.nll * weights_BT)
    z = z_loss * jnp.sum(jnp.square(out.log_z) * weights_BT)
    return nll + z, {"nll": nll, "z_loss": z, "weight": jnp.sum(weights_BT)}


def sequence_sums(out: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Sums of nll and of weights for each sequence, both [B]; they give a standard error."""
    weights_BT = batch["decoder_loss_weights"].astype(jnp.float32)
    return jnp.sum(out.nll * weights_BT, -1), jnp.sum(weights_BT, -1)
