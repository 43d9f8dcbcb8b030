"""The encoder-decoder skeleton: embed, encode, decode, head.

The architecture provides the parts.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers.context import Aux, Context
from arch_zoo.registry import ConfigError
from arch_zoo.side import DECODER, ENCODER, Side

Batch = Mapping[str, jax.Array]


class Logits(NamedTuple):
    """Logits [B, T, V] in float32, weighted auxiliary losses and diagnostics."""

    logits: jax.Array
    aux: dict[str, jax.Array]
    metrics: dict[str, jax.Array]


class TokenNLL(NamedTuple):
    """For each target token [B, T] the loss in nats and the log-normaliser.

    Weighted auxiliary losses, diagnostics.
    """

    nll: jax.Array
    log_z: jax.Array
    aux: dict[str, jax.Array]
    metrics: dict[str, jax.Array]


class Seq2Seq(nnx.Module):
    """An encoder-decoder model.

    A batch uses seqio's names: `encoder_input_tokens` [B, S], `decoder_input_tokens` and
    `decoder_target_tokens` [B, T], `decoder_loss_weights` [B, T], and for packed rows
    `encoder_segment_ids`, `encoder_positions`, `decoder_segment_ids` and `decoder_positions`.
    Padding is 0 and the end of a sequence is 1. The decoder's first input is 0 as well, so its
    padding is read from the weights or the targets, never from its inputs. Without segments a row
    has padding only after its last token: a token before that with a weight of 0 can still be
    attended to.
    """

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Builds the model and draws every parameter from `key`."""
        embedding_key, encoder_key, decoder_key, head_key = jax.random.split(key, 4)
        architecture = cfg.architecture
        self.cfg = cfg
        self.embedding = architecture.embedding(cfg, embedding_key)
        self.encoder = architecture.stack(cfg, ENCODER, encoder_key)
        self.decoder = architecture.stack(cfg, DECODER, decoder_key)
        self.head: Any = architecture.head(cfg, head_key)

    def __call__(
        self,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        expert_axis: str | None = None,
    ) -> Logits:
        """Logits of every target position given the tokens before it.

        `expert_axis`: see `Context`.
        """
        x_BTD, aux = self.hidden(batch, key, train=train, expert_axis=expert_axis)
        with jax.named_scope("head"):
            logits_BTV = self.head.logits(x_BTD, self.embedding)
        return Logits(logits_BTV, *_finish(aux))

    def token_nll(
        self,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        expert_axis: str | None = None,
    ) -> TokenNLL:
        """The loss of every target token.

        The head decides how many logits it holds in memory at once.
        """
        x_BTD, aux = self.hidden(batch, key, train=train, expert_axis=expert_axis)
        with jax.named_scope("head"):
            nll_BT, log_z_BT = self.head.nll(x_BTD, batch["decoder_target_tokens"], self.embedding)
        return TokenNLL(nll_BT, log_z_BT, *_finish(aux))

    def hidden(
        self,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        expert_axis: str | None = None,
    ) -> tuple[jax.Array, Aux]:
        """The decoder's output [B, T, D], and the auxiliary losses and diagnostics of all layers.

        Raises:
          ConfigError: training needs a key and has none, or inputs are packed although the
            architecture forbids it.
        """
        if train and key is None and self.cfg.architecture.stochastic(self.cfg):
            raise ConfigError(
                f"{self.cfg.name}: key=None, but training it is random (dropout or jitter above "
                "zero)"
            )
        common = {"train": train, "dropout_rate": self.cfg.dropout_rate, "expert_axis": expert_axis}
        encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
        memory_BSD, memory_segment_ids_BS, encoder_aux = self.encode(
            batch, key=encoder_key, **common
        )
        ctx = Context(
            *_segments_and_positions(batch, DECODER, _target_mask(batch)),
            memory_BSD=memory_BSD,
            memory_segment_ids_BS=memory_segment_ids_BS,
            key=decoder_key,
            dtype=self.cfg.dtype,
            causal=DECODER.causal,
            packed="decoder_segment_ids" in batch or "encoder_segment_ids" in batch,
            **common,
        )
        x_BTD = self._embed(batch["decoder_input_tokens"])
        with jax.named_scope("decoder"):
            x_BTD, _, _, decoder_aux = self.decoder(x_BTD, ctx)
        return x_BTD, encoder_aux.merge(decoder_aux)

    def encode(self, batch: Batch, **context: Any) -> tuple[jax.Array, jax.Array, Aux]:
        """The memory [B, S, D], its segment ids [B, S] and `Aux`.

        It is shorter than the input if the encoder pools.
        """
        packed = "encoder_segment_ids" in batch
        if packed and self.cfg.architecture.segment_multiple(self.cfg, ENCODER) is None:
            raise ConfigError(
                f"{self.cfg.name}: packed inputs (encoder_segment_ids) would mix examples; do not "
                "pack"
            )
        ids_BS = batch["encoder_input_tokens"]
        surroundings = _segments_and_positions(batch, ENCODER, ids_BS != 0)
        ctx = Context(
            *surroundings, dtype=self.cfg.dtype, causal=ENCODER.causal, packed=packed, **context
        )
        x_BSD = self._embed(ids_BS)
        with jax.named_scope("encoder"):
            x_BSD, ctx, _, aux = self.encoder(x_BSD, ctx)
        return x_BSD, ctx.segment_ids_BL, aux

    def init_cache(self, batch: Batch, max_length: int) -> dict[str, Any]:
        """Encodes the inputs and prepares `max_length` decoding steps.

        Every array has B as its first axis.
        """
        memory_BSD, memory_segment_ids_BS, _ = self.encode(batch)
        segment_ids_BT = jnp.ones((memory_BSD.shape[0], max_length), jnp.int32)
        ctx = Context(
            segment_ids_BT,
            segment_ids_BT,
            memory_BSD=memory_BSD,
            memory_segment_ids_BS=memory_segment_ids_BS,
            dtype=self.cfg.dtype,
            causal=DECODER.causal,
            max_length=max_length,
        )
        return {
            "layers": self.decoder.init_cache(ctx),
            "segment_ids": segment_ids_BT,
            "memory_segment_ids": memory_segment_ids_BS,
        }

    def decode_step(self, tokens_B: jax.Array, index: jax.Array, cache: dict[str, Any]):
        """Logits [B, V] at `index + 1`, given the token at `index`, and the next cache."""
        batch_size, max_length = cache["segment_ids"].shape
        ctx = Context(
            jnp.ones((batch_size, 1), jnp.int32),
            jnp.full((batch_size, 1), index, jnp.int32),
            memory_segment_ids_BS=cache["memory_segment_ids"],
            index=jnp.asarray(index, jnp.int32),
            dtype=self.cfg.dtype,
            causal=DECODER.causal,
            max_length=max_length,
        )
        x_B1D, _, layers, _ = self.decoder(self._embed(tokens_B[:, None]), ctx, cache["layers"])
        return self.head.logits(x_B1D, self.embedding)[:, 0], cache | {"layers": layers}

    def _embed(self, ids_BL: jax.Array) -> jax.Array:
        with jax.named_scope("embedding"):
            return self.embedding(ids_BL)


def build(cfg: ModelConfig, key: jax.Array) -> Seq2Seq:
    """Builds the model of `cfg` and draws its parameters from `key`."""
    return Seq2Seq(cfg, key)


def _target_mask(batch: Batch) -> jax.Array:
    """True where the decoder has a token.

    Everywhere if the batch has neither weights nor targets.
    """
    if "decoder_loss_weights" in batch:
        return batch["decoder_loss_weights"] > 0
    if "decoder_target_tokens" in batch:
        return batch["decoder_target_tokens"] != 0
    return jnp.ones(batch["decoder_input_tokens"].shape, bool)


def _segments_and_positions(
    batch: Batch, side: Side, mask_BL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Segment ids and positions.

    From a packed batch, else one segment up to the last token, with positions from 0.
    """
    if f"{side.name}_segment_ids" in batch:
        return batch[f"{side.name}_segment_ids"], batch[f"{side.name}_positions"]
    positions_BL = jnp.broadcast_to(jnp.arange(mask_BL.shape[1], dtype=jnp.int32), mask_BL.shape)
    return jax.lax.cummax(mask_BL.astype(jnp.int32), axis=1, reverse=True), positions_BL


def _finish(aux: Aux) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    return aux.losses, {name: total / count for name, (total, count) in aux.metrics.items()}
