"""The encoder-decoder skeleton: embed, encode, decode, head.

The architecture provides the parts.
"""

from typing import Any

import jax
import jax.numpy as jnp

from arch_zoo.layers.context import Aux, Context
from arch_zoo.side import DECODER, ENCODER
from arch_zoo.skeleton import Batch, BatchSpec, Skeleton, segments_and_positions, target_mask


class Seq2Seq(Skeleton):
    """An encoder-decoder model.

    A batch has `encoder_input_tokens` [B, S], `decoder_input_tokens` and `decoder_target_tokens`
    [B, T], `decoder_loss_weights` [B, T], and for packed rows `encoder_segment_ids`,
    `encoder_positions`, `decoder_segment_ids` and `decoder_positions`.
    """

    family = "encoder_decoder"
    encoder: Any

    @staticmethod
    def batch_spec(rows: int, input_length: int = 512, target_length: int = 114) -> BatchSpec:
        """Shapes and types of an unpacked batch of `input_length` S and `target_length` T."""
        lengths = {
            "encoder_input_tokens": input_length,
            "decoder_input_tokens": target_length,
            "decoder_target_tokens": target_length,
        }
        return {
            name: jax.ShapeDtypeStruct((rows, length), jnp.int32)
            for name, length in lengths.items()
        }

    def _run(
        self, batch: Batch, key: jax.Array | None, common: dict[str, Any]
    ) -> tuple[jax.Array, Aux]:
        encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
        memory_BSD, memory_segment_ids_BS, encoder_aux = self.encode(
            batch, key=encoder_key, **{**common, "keep_states": False}
        )
        ctx = Context(
            *segments_and_positions(batch, DECODER, target_mask(batch)),
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
        if packed:
            self._check_packed(ENCODER)
        ids_BS = batch["encoder_input_tokens"]
        ctx = Context(
            *segments_and_positions(batch, ENCODER, ids_BS != 0),
            dtype=self.cfg.dtype,
            causal=ENCODER.causal,
            packed=packed,
            **context,
        )
        x_BSD = self._embed(ids_BS)
        with jax.named_scope("encoder"):
            x_BSD, ctx, _, aux = self.encoder(x_BSD, ctx)
        return x_BSD, ctx.segment_ids_BL, aux

    def init_cache(self, batch: Batch, max_length: int) -> dict[str, Any]:
        """Encodes the inputs and prepares `max_length` decoding steps."""
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

    def prefill(self, batch: Batch, new_tokens: int) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        """Encodes the inputs and reads the token that every target starts from, 0."""
        cache = self.init_cache(batch, new_tokens)
        start_B = jnp.zeros(len(cache["segment_ids"]), jnp.int32)
        logits_BV, cache = self.decode_step(start_B, jnp.int32(0), cache)
        return logits_BV, jnp.int32(1), cache
