"""What a layer is given besides its input: segments, positions, biases, the memory, randomness."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What all layers of one stack share.

    It is immutable; `dataclasses.replace` makes a changed copy.

    Attributes:
      segment_ids_BL: which packed example a position belongs to; 0 is padding. Unpacked rows have
        one segment, 1, and padding after it.
      positions_BL: the position inside its segment.
      biases: attention biases [1, H, L, L] by number of heads H, added to the logits of
        self-attention.
      rotary: cosines and sines [B, L, K/2] by which queries and keys of self-attention are turned.
      prefix_BL: True in the prefix of an example, whose positions see one another although the
        stack is causal.
      memory_BSD: the encoder's output, in a decoder.
      memory_segment_ids_BS: its segments, after any pooling.
      key: the random key of dropout and router jitter, or None.
      index: the position that is decoded (a scalar), or None when whole sequences are computed,
        prompts among them.
      cache_segment_ids_BT: when decoding, the segment of every position of the caches.
      dtype: what the layers compute in; see `ModelConfig`.
      causal: whether a position sees only those up to itself.
      packed: whether rows may hold more than one example. An unpacked row has one segment.
      left_padded: whether rows may begin with padding, as prompts do.
      keep_states: whether a stack returns the states after each of its depths, in `Aux.states`.
      train: whether dropout, jitter and the training capacity of experts apply.
      dropout_rate: see `ModelConfig`.
      max_length: the number of positions that caches have room for, when decoding.
      expert_axis: the mapped axis over which experts are spread, each device holding some of them;
        None if every device holds all experts.
    """

    segment_ids_BL: jax.Array
    positions_BL: jax.Array
    biases: dict[int, jax.Array] = dataclasses.field(default_factory=dict)
    # Typed as Any: None where they do not apply, and the layers that read them are only used where
    # they do.
    rotary: Any = None
    prefix_BL: Any = None
    memory_BSD: Any = None
    memory_segment_ids_BS: Any = None
    key: Any = None
    index: Any = None
    cache_segment_ids_BT: Any = None
    dtype: str = dataclasses.field(default="float32", metadata={"static": True})
    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    packed: bool = dataclasses.field(default=False, metadata={"static": True})
    left_padded: bool = dataclasses.field(default=False, metadata={"static": True})
    keep_states: bool = dataclasses.field(default=False, metadata={"static": True})
    train: bool = dataclasses.field(default=False, metadata={"static": True})
    dropout_rate: float = dataclasses.field(default=0.0, metadata={"static": True})
    max_length: int = dataclasses.field(default=0, metadata={"static": True})
    expert_axis: str | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def batch_size(self) -> int:
        """B, rows of the batch."""
        return self.segment_ids_BL.shape[0]

    @property
    def aligned(self) -> bool:
        """Whether the row is computed whole and its positions are those of its tokens from 0 on."""
        return self.index is None and not (self.packed or self.left_padded)

    @property
    def real_BL1(self) -> jax.Array:
        """True where there is a token, False at padding."""
        return (self.segment_ids_BL != 0)[..., None]

    def fold(self, number: int | jax.Array) -> "Context":
        """A copy whose random key is derived for `number`.

        A depth, a layer or a place within a layer.
        """
        return (
            self
            if self.key is None
            else dataclasses.replace(self, key=jax.random.fold_in(self.key, number))
        )

    def dropout(self, x: jax.Array, over: int | None = None) -> jax.Array:
        """Drops entries of `x` in training. Axis `over` shares one draw, as in Mesh TensorFlow."""
        if not self.train or self.dropout_rate == 0.0:
            return x
        shape = [1 if axis == over else size for axis, size in enumerate(x.shape)]
        keep = jax.random.bernoulli(self.key, 1.0 - self.dropout_rate, shape)
        return jnp.where(keep, x / (1.0 - self.dropout_rate), 0.0).astype(x.dtype)

    def self_mask(self) -> jax.Array:
        """True where self-attention may look, [B, 1, L, L]; when decoding [B, 1, 1, max_length]."""
        if self.index is not None:
            seen_BT = (jnp.arange(self.max_length) <= self.index) & (self.cache_segment_ids_BT != 0)
            return seen_BT[:, None, None]
        mask = self.segment_ids_BL[:, None, :, None] == self.segment_ids_BL[:, None, None, :]
        if not self.causal:
            return mask
        if self.prefix_BL is None:
            return jnp.tril(mask)
        return jnp.tril(mask) | (
            mask & self.prefix_BL[:, None, :, None] & self.prefix_BL[:, None, None]
        )

    def cross_mask(self) -> jax.Array:
        """True where cross-attention may look, [B, 1, L, S]."""
        return self.segment_ids_BL[:, None, :, None] == self.memory_segment_ids_BS[:, None, None, :]


@dataclasses.dataclass(frozen=True)
class Mask:
    """Where queries may look. It is made and used within one trace, so it is no pytree.

    Attributes:
      seen_B1TS: True where a query may look; segments and order are in it already. B and T may be
        1, for all rows and queries.
      key_segment_ids_BS: the segments of the keys, from which cuDNN is told the number of keys.
      causal: whether a query sees only the keys up to itself. cuDNN is told so, and the accounting
        counts such products under their own name.
    """

    seen_B1TS: jax.Array
    key_segment_ids_BS: jax.Array
    causal: bool = False


class Aux(NamedTuple):
    """What a layer returns besides its output.

    Attributes:
      losses: weighted auxiliary losses, summed over layers and added to the training loss.
      metrics: diagnostics as pairs [sum, count], from which the mean over layers is taken (see
        `observe`).
      states: the residual stream [B, L, D] after each depth, if the context asks for it.
    """

    losses: dict[str, jax.Array] = {}
    metrics: dict[str, jax.Array] = {}
    states: tuple[jax.Array, ...] = ()

    def merge(self, other: "Aux") -> "Aux":
        """The sum of the losses and diagnostics of two layers, and the states of both."""
        return Aux(
            _add(self.losses, other.losses),
            _add(self.metrics, other.metrics),
            self.states + other.states,
        )


def observe(value: jax.Array) -> jax.Array:
    """One value of a diagnostic as a pair [sum, count]."""
    return jnp.stack([value.astype(jnp.float32), jnp.ones((), jnp.float32)])


def _add(mine: dict[str, jax.Array], theirs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return mine | {
        name: mine[name] + value if name in mine else value for name, value in theirs.items()
    }
