"""What both skeletons share: parts, loss, and one step of decoding."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from arch_zoo.config import ModelConfig
from arch_zoo.layers.context import Aux, Context
from arch_zoo.registry import ConfigError
from arch_zoo.side import Side

Batch = Mapping[str, jax.Array]
BatchSpec = dict[str, jax.ShapeDtypeStruct]


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


class Skeleton(nnx.Module):
    """A model of either family. It has one stack for each side of its configuration.

    A batch uses seqio's names; see the two families' classes. Padding is 0 and the end of a
    sequence is 1. The decoder's first input is 0 as well, so its padding is read from segments,
    weights or targets, never from its inputs. Without segments a row has padding only after its
    last token: a token before that with a weight of 0 can still be attended to.
    """

    family: ClassVar[str]
    decoder: Any  # the stack of the last side

    def __init__(self, cfg: ModelConfig, key: jax.Array):
        """Builds the model and draws every parameter from `key`."""
        embedding_key, *side_keys, head_key = jax.random.split(key, len(cfg.sides) + 2)
        architecture = cfg.architecture
        self.cfg = cfg
        self.embedding = architecture.embedding(cfg, embedding_key)
        for side, side_key in zip(cfg.sides, side_keys, strict=True):
            setattr(self, side.name, architecture.stack(cfg, side, side_key))
        self.head: Any = architecture.head(cfg, head_key)

    @staticmethod
    def batch_spec(rows: int, *lengths: Any, **named_lengths: Any) -> BatchSpec:
        """Shapes and types of a batch of `rows` rows, for lengths that the family names."""
        raise NotImplementedError

    def hidden(
        self,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        expert_axis: str | None = None,
        keep_states: bool = False,
    ) -> tuple[jax.Array, Aux]:
        """The last stack's output [B, T, D], and losses and diagnostics of all layers.

        `expert_axis` and `keep_states`: see `Context`.

        Raises:
          ConfigError: training needs a key and has none, or rows are packed although the
            architecture forbids it.
        """
        if train and key is None and self.cfg.architecture.stochastic(self.cfg):
            raise ConfigError(
                f"{self.cfg.name}: key=None, but training it is random (dropout or jitter above "
                "zero)"
            )
        common = {
            "train": train,
            "dropout_rate": self.cfg.dropout_rate,
            "expert_axis": expert_axis,
            "keep_states": keep_states,
        }
        return self._run(batch, key, common)

    def _run(
        self, batch: Batch, key: jax.Array | None, common: dict[str, Any]
    ) -> tuple[jax.Array, Aux]:
        """Runs all stacks for `hidden`; `common` is what their contexts share."""
        raise NotImplementedError

    def states(self, batch: Batch) -> tuple[jax.Array, ...]:
        """What the last stack computes at each position, without dropout.

        Returns:
          The residual stream [B, T, D] after each depth, and at last what the head reads.
        """
        x_BTD, aux = self.hidden(batch, keep_states=True)
        return (*aux.states, x_BTD)

    def head_matrix(self) -> jax.Array:
        """The matrix [D, V] of the logits of one softmax, in float32.

        That of a mixture of softmaxes is the one that its components share.
        """
        return self.head.matrix(self.embedding, self.cfg.embed_dim)

    def init_cache(self, batch: Batch, max_length: int) -> dict[str, Any]:
        """A cache with room for `max_length` positions of the decoder, before its first one.

        Every array has B as its first axis.
        """
        raise NotImplementedError

    def prefill(self, batch: Batch, new_tokens: int) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
        """Reads all that is given, so that `new_tokens` tokens can be generated.

        Returns:
          The logits [B, V] of the first new token, the index at which it goes into the cache, and
          the cache. `decode_step` takes both.
        """
        raise NotImplementedError

    def __call__(
        self,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        expert_axis: str | None = None,
    ) -> Logits:
        """Logits of every target position given the tokens before it.

        The arguments are those of `hidden`.
        """
        x_BTD, aux = self.hidden(batch, key, train=train, expert_axis=expert_axis)
        return Logits(self._logits(x_BTD), *_finish(aux))

    def logits_at(self, batch: Batch, positions_BN: jax.Array) -> jax.Array:
        """Logits [B, N, V] at these positions of each row, without dropout."""
        x_BTD, _ = self.hidden(batch)
        x_BND = jnp.take_along_axis(x_BTD, positions_BN[..., None], axis=1, mode="clip")
        return self._logits(x_BND)

    def token_nll(
        self,
        batch: Batch,
        key: jax.Array | None = None,
        *,
        train: bool = False,
        expert_axis: str | None = None,
    ) -> TokenNLL:
        """The loss of every target token.

        The head decides how many logits it holds in memory at once. The arguments are those of
        `hidden`. With `decoder_target_positions` [B, N] in the batch the head is applied to these
        positions only, and the loss of all others is 0; numbers beyond the row stand for none.
        """
        x_BTD, aux = self.hidden(batch, key, train=train, expert_axis=expert_axis)
        targets_BT = batch["decoder_target_tokens"]
        at_BN = batch.get("decoder_target_positions")
        with jax.named_scope("head"):
            if at_BN is None:
                nll_BT, log_z_BT = self.head.nll(x_BTD, targets_BT, self.embedding)
            else:
                x_BND = jnp.take_along_axis(x_BTD, at_BN[..., None], axis=1, mode="clip")
                targets_BN = jnp.take_along_axis(targets_BT, at_BN, axis=1, mode="clip")
                each_BN = self.head.nll(x_BND, targets_BN, self.embedding)
                nll_BT, log_z_BT = (_spread(values_BN, at_BN, targets_BT) for values_BN in each_BN)
        return TokenNLL(nll_BT, log_z_BT, *_finish(aux))

    def decode_step(
        self, tokens_B: jax.Array, index: jax.Array, cache: dict[str, Any]
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Logits [B, V] at `index + 1`, given the token at `index`, and the next cache."""
        index = jnp.asarray(index, jnp.int32)
        segment_ids_BT = cache["segment_ids"]
        ctx = Context(
            jax.lax.dynamic_slice_in_dim(segment_ids_BT, index, 1, axis=1),
            jnp.maximum(index - first_positions(segment_ids_BT), 0),
            memory_segment_ids_BS=cache.get("memory_segment_ids"),
            index=index,
            cache_segment_ids_BT=segment_ids_BT,
            dtype=self.cfg.dtype,
            causal=True,
            max_length=segment_ids_BT.shape[1],
        )
        x_B1D, _, layers, _ = self.decoder(self._embed(tokens_B[:, None]), ctx, cache["layers"])
        return self._logits(x_B1D)[:, 0], cache | {"layers": layers}

    def _check_packed(self, side: Side) -> None:
        """Refuses packed rows of a side whose architecture would mix their examples."""
        if self.cfg.architecture.segment_multiple(self.cfg, side) is None:
            raise ConfigError(
                f"{self.cfg.name}: packed rows ({side.name}_segment_ids) would mix examples; do "
                "not pack"
            )

    def _embed(self, ids_BL: jax.Array) -> jax.Array:
        with jax.named_scope("embedding"):
            return self.embedding(ids_BL)

    def _logits(self, x_BTD: jax.Array) -> jax.Array:
        with jax.named_scope("head"):
            return self.head.logits(x_BTD, self.embedding)


def target_mask(batch: Batch) -> jax.Array:
    """True where the decoder has a token.

    Everywhere if the batch has neither weights nor targets.
    """
    if "decoder_loss_weights" in batch:
        return batch["decoder_loss_weights"] > 0
    if "decoder_target_tokens" in batch:
        return batch["decoder_target_tokens"] != 0
    return jnp.ones(batch["decoder_input_tokens"].shape, bool)


def segments_and_positions(
    batch: Batch, side: Side, mask_BL: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Segment ids and positions.

    From a packed batch, else one segment up to the last token, with positions from 0.
    """
    if f"{side.name}_segment_ids" in batch:
        return batch[f"{side.name}_segment_ids"], batch[f"{side.name}_positions"]
    positions_BL = jnp.broadcast_to(jnp.arange(mask_BL.shape[1], dtype=jnp.int32), mask_BL.shape)
    return jax.lax.cummax(mask_BL.astype(jnp.int32), axis=1, reverse=True), positions_BL


def first_positions(segment_ids_BL: jax.Array) -> jax.Array:
    """The index [B, 1] at which each row's padding on the left ends; 0 for rows of padding."""
    return jnp.argmax(segment_ids_BL != 0, axis=1, keepdims=True).astype(jnp.int32)


def _spread(values_BN: jax.Array, at_BN: jax.Array, like_BT: jax.Array) -> jax.Array:
    """Zeros [B, T] with `values` at their positions; positions beyond the row are dropped."""
    rows_B1 = jnp.arange(len(values_BN))[:, None]
    zeros_BT = jnp.zeros(like_BT.shape, values_BN.dtype)
    return zeros_BT.at[rows_B1, at_BN].set(values_BN, mode="drop")


def _finish(aux: Aux) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    return aux.losses, {name: total / count for name, (total, count) in aux.metrics.items()}
