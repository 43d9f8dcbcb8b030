"""Generation with any architecture's cache."""

import jax
import jax.numpy as jnp

from arch_zoo.seq2seq import Batch, Seq2Seq

PAD, EOS = 0, 1


def greedy(model: Seq2Seq, batch: Batch, max_length: int) -> jax.Array:
    """The likeliest token at each step, [B, max_length]; zeros after the end-of-sequence token.

    Stops when every row has ended. Reads the encoder's side of `batch` only.
    """
    batch_size = batch["encoder_input_tokens"].shape[0]

    def unfinished(state):
        index, _, ended_B, _, _ = state
        return (index < max_length) & ~jnp.all(ended_B)

    def step(state):
        index, tokens_B, ended_B, ids_BT, cache = state
        logits_BV, cache = model.decode_step(tokens_B, index, cache)
        tokens_B = jnp.where(ended_B, PAD, jnp.argmax(logits_BV, axis=-1).astype(jnp.int32))
        ids_BT = ids_BT.at[:, index].set(tokens_B)
        return index + 1, tokens_B, ended_B | (tokens_B == EOS), ids_BT, cache

    start = (
        jnp.int32(0),
        jnp.full((batch_size,), PAD, jnp.int32),
        jnp.zeros((batch_size,), bool),
        jnp.full((batch_size, max_length), PAD, jnp.int32),
        model.init_cache(batch, max_length),
    )
    return jax.lax.while_loop(unfinished, step, start)[3]
