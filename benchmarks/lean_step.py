"""The vanilla training step with nothing around it.

`step_time.py --lean` compares the zoo's own step with it. It is plain jnp over the same parameters,
with products and softmax in the zoo's order, but without modules, seams, auxiliary values,
diagnostics and accumulation. It gives the same loss; the benchmark checks this before it measures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import arch_zoo
from arch_zoo.layers.attention import add_bias
from arch_zoo.layers.relative_bias import buckets

Params = Mapping[str, jax.Array]
Batch = Mapping[str, jax.Array]


def loss(params: Params, batch: Batch, cfg: arch_zoo.ModelConfig) -> jax.Array:
    """Mean negative log-likelihood of targets, by parameters of `config("transformer", ...)`."""
    inputs_BS, targets_BT = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    real_BS = inputs_BS > 0

    def norm(x_BLD, name):
        mean_square = jnp.mean(jnp.square(x_BLD), -1, keepdims=True)
        return x_BLD * jax.lax.rsqrt(mean_square + 1e-6) * params[name + ".norm.scale"]

    def dot(x, name):
        return (x.reshape(-1, x.shape[-1]) @ params[name]).reshape(*x.shape[:2], -1)

    def attention(x_BTD, m_BSD, name, mask, bias):
        split = lambda x, kernel: dot(x, f"{name}.layer.{kernel}").reshape(
            *x.shape[:2], -1, cfg.head_dim
        )
        q_BTHK, k_BSHK, v_BSHK = split(x_BTD, "query"), split(m_BSD, "key"), split(m_BSD, "value")
        logits_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK) + jnp.where(mask, 0.0, -1e10)
        logits_BHTS = logits_BHTS if bias is None else add_bias(logits_BHTS, bias[None])
        weights_BHTS = jnp.exp(
            logits_BHTS - jax.lax.stop_gradient(logits_BHTS.max(-1, keepdims=True))
        )
        y_BTHK = jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS, v_BSHK)
        y_BTHK /= weights_BHTS.sum(-1, keepdims=True).swapaxes(1, 2)
        return dot(y_BTHK.reshape(*x_BTD.shape[:2], -1), f"{name}.layer.out")

    def bias(stack, length, causal):
        distances = np.arange(length)[None, :] - np.arange(length)[:, None]
        # A product with a constant: the backward pass of a lookup would be a scatter.
        table_NH = params[stack + ".positions.table"]
        one_hot_LLN = np.eye(len(table_NH), dtype=np.float32)[buckets(distances, causal=causal)]
        return jnp.einsum("TSN,NH->HTS", one_hot_LLN, table_NH)

    def blocks(stack, x_BLD, mask, memory_BSD=None):
        self_bias = bias(stack, x_BLD.shape[1], memory_BSD is not None)
        for number in range(
            cfg.num_encoder_layers if memory_BSD is None else cfg.num_decoder_layers
        ):
            block = f"{stack}.blocks.{number}"
            y_BLD = norm(x_BLD, block + ".self_attention")
            x_BLD += attention(y_BLD, y_BLD, block + ".self_attention", mask, self_bias)
            if memory_BSD is not None:
                y_BLD = norm(x_BLD, block + ".cross_attention")
                x_BLD += attention(
                    y_BLD, memory_BSD, block + ".cross_attention", real_BS[:, None, None], None
                )
            y_BLD = norm(x_BLD, block + ".feed_forward")
            y_BLF = jax.nn.relu(dot(y_BLD, block + ".feed_forward.layer.wi"))
            x_BLD += dot(y_BLF, block + ".feed_forward.layer.wo")
        return norm(x_BLD, stack)

    table_VD = params["embedding.table"]
    memory_BSD = blocks("encoder", table_VD[inputs_BS], real_BS[:, None, None])
    causal = np.tri(targets_BT.shape[1], dtype=bool)
    y_BTD = blocks("decoder", table_VD[batch["decoder_input_tokens"]], causal, memory_BSD)
    log_p_BTV = jax.nn.log_softmax((y_BTD * cfg.embed_dim**-0.5) @ table_VD.T)
    nll_BT = -jnp.take_along_axis(log_p_BTV, targets_BT[..., None], -1)[..., 0]
    weights_BT = batch["decoder_loss_weights"]
    return jnp.sum(nll_BT * weights_BT) / jnp.sum(weights_BT)


def make_step(
    cfg: arch_zoo.ModelConfig, optimizer: optax.GradientTransformation, rate: float
) -> Callable[..., Any]:
    """A function `(params, optimizer_state, batch) -> (params, optimizer_state, loss)`."""

    def step(params, state, batch):
        value, grads = jax.value_and_grad(loss)(params, batch, cfg)
        directions, state = optimizer.update(grads, state, params)
        return jax.tree.map(lambda p, d: p - rate * d, params, directions), state, value

    return step
