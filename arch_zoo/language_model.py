"""The decoder-only skeleton: embed, one causal stack, head.

The architecture provides the parts.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import core

from arch_zoo.config import LONGEST_ROW, ModelConfig
from arch_zoo.layers.context import Aux, Context
from arch_zoo.layers.readout import LastState
from arch_zoo.prompts import check_left_padded
from arch_zoo.registry import ConfigError
from arch_zoo.skeleton import (
    Batch,
    BatchSpec,
    Skeleton,
    first_positions,
    segments_and_positions,
    target_mask,
)


class LanguageModel(Skeleton):
    """A decoder-only model.

    A batch has `decoder_input_tokens`, `decoder_target_tokens` and `decoder_loss_weights` [B, L],
    and for packed rows `decoder_segment_ids` and `decoder_positions`. Where the configuration has
    `prefix="bidirectional"`, `decoder_causal_attention` is 1 in the prefix of every example, whose
    positions see one another; without it a row is causal.

    Prompts, which `prefill` reads, are `decoder_input_tokens` [B, P] that begin with the start
    token, 0, and are padded on the left, where `decoder_segment_ids` is 0: see
    `arch_zoo.prompts.left_padded`.
    """

    family = "decoder_only"

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Builds the model, with a bottleneck before the head if the configuration asks for it."""
        super().__init__(cfg, key)
        own_key = jax.random.fold_in(key, 1)
        self.readout = LastState(cfg, own_key) if cfg.readout == "last" else None

    @staticmethod
    def batch_spec(rows: int, length: int = LONGEST_ROW, targets: int | None = None) -> BatchSpec:
        """Shapes and types of an unpacked batch of rows of `length` tokens.

        With `targets` the head is applied at so many positions of a row only.
        """
        lengths = {"decoder_input_tokens": length, "decoder_target_tokens": length}
        if targets is not None:
            lengths["decoder_target_positions"] = targets
        return {
            name: jax.ShapeDtypeStruct((rows, length), jnp.int32)
            for name, length in lengths.items()
        }

    def _run(
        self, batch: Batch, key: jax.Array | None, common: dict[str, Any]
    ) -> tuple[jax.Array, Aux]:
        (side,), packed = self.cfg.sides, "decoder_segment_ids" in batch
        if packed:
            self._check_packed(side)
            self._check_readout("packed rows")
        prefix_BL = batch.get("decoder_causal_attention") if side.prefix else None
        ctx = Context(
            *segments_and_positions(batch, side, target_mask(batch)),
            prefix_BL=None if prefix_BL is None else prefix_BL > 0,
            key=key,
            dtype=self.cfg.dtype,
            causal=side.causal,
            packed=packed,
            **common,
        )
        x_BLD = self._embed(batch["decoder_input_tokens"])
        with jax.named_scope("decoder"):
            x_BLD, _, _, aux = self.decoder(x_BLD, ctx)
        if self.readout is not None:
            with jax.named_scope("readout"):
                x_BLD = self.readout(x_BLD, ctx)
        return x_BLD, aux

    def _check_readout(self, what: str) -> None:
        if self.readout is not None:
            raise ConfigError(f"{self.cfg.name}: readout='last' has no {what}")

    def init_cache(self, batch: Batch, max_length: int) -> dict[str, Any]:
        """A cache of `max_length` positions, the prompts' included.

        Raises:
          ConfigError: the readout is of the last position only.
        """
        self._check_readout("decoding")
        segment_ids_BP = _segments(batch)
        new = max_length - segment_ids_BP.shape[1]
        segment_ids_BT = jnp.pad(segment_ids_BP, ((0, 0), (0, new)), constant_values=1)
        ctx = Context(
            segment_ids_BT,
            segment_ids_BT,
            dtype=self.cfg.dtype,
            causal=True,
            max_length=max_length,
        )
        return {"layers": self.decoder.init_cache(ctx), "segment_ids": segment_ids_BT}

    def prefill(self, batch: Batch, new_tokens: int) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        """Reads the prompts in one pass; where inputs are a prefix, all of a prompt is one.

        Raises:
          ConfigError: a prompt is padded on the right (checked outside of compiled functions only).
        """
        ids_BP, segment_ids_BP = batch["decoder_input_tokens"], _segments(batch)
        if not isinstance(segment_ids_BP, core.Tracer):
            check_left_padded(segment_ids_BP)
        length = ids_BP.shape[1]
        max_length = length + new_tokens - 1  # the last new token is never read
        cache = self.init_cache(batch, max_length)
        positions_BP = jnp.arange(length, dtype=jnp.int32) - first_positions(segment_ids_BP)
        ctx = Context(
            segment_ids_BP,
            jnp.maximum(positions_BP, 0),
            prefix_BL=(segment_ids_BP != 0) if self.cfg.sides[0].prefix else None,
            dtype=self.cfg.dtype,
            causal=True,
            left_padded=True,
            max_length=max_length,
        )
        x_BPD, _, layers, _ = self.decoder(self._embed(ids_BP), ctx, cache["layers"])
        return self._logits(x_BPD[:, -1:])[:, 0], jnp.int32(length), cache | {"layers": layers}


def _segments(batch: Batch) -> jax.Array:
    """1 at a prompt's tokens, 0 at the padding before them."""
    if "decoder_segment_ids" in batch:
        return batch["decoder_segment_ids"]
    return jnp.ones(batch["decoder_input_tokens"].shape, jnp.int32)
