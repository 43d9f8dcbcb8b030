"""The Universal Transformer's special features.

Counts, steps, and adaptive computation time against its definition.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo.layers.context import Context
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

S, T = 512, 114
STEPS, EPSILON, WEIGHT = 4, 0.01, 0.01


@pytest.mark.slow
@pytest.mark.parametrize("act", ["none", "accumulated", "basic"])
@pytest.mark.parametrize(
    ("steps", "setting"), [(12, {}), (24, {"variant": "narang"}), (5, {"num_steps": 5})]
)
def test_closed_form_counts(act, steps, setting):
    """Each stack has one block, applied as often as configured, and a vector for each step."""
    cfg = arch_zoo.config("universal", "base", act=act, **setting)
    dim = cfg.embed_dim
    halting = 0 if act == "none" else dim
    block = on_paper.encoder_block_params(cfg) + on_paper.decoder_block_params(cfg)
    bias = 0 if act == "none" else 2
    total = (
        cfg.vocab_size * dim
        + block
        + on_paper.outside_params(cfg)
        + 2 * steps * dim
        + 2 * halting
        + bias
    )
    assert arch_zoo.count_params(cfg).total == total
    layers = (
        on_paper.encoder_block_flops(cfg, S)
        + on_paper.decoder_block_flops(cfg, S, T)
        + 2 * (S + T) * halting
    )
    assert arch_zoo.count_flops(cfg, S, T).forward == steps * layers + on_paper.head_flops(cfg, T)


@pytest.fixture(scope="module")
def adaptive():
    """A decoder stack with halting, its input, and a context with padding, from real layers."""
    cfg = arch_zoo.config(
        "universal", "nano", act="accumulated", num_steps=STEPS, vocab_size=models.VOCAB
    )
    stack = models.build(cfg).encoder
    x_BLD = jnp.asarray(np.random.default_rng(0).normal(size=(3, 9, cfg.embed_dim)), jnp.float32)
    segments = (np.arange(9) < np.array([[9], [5], [1]])).astype(np.int32)
    return stack, x_BLD, Context(jnp.asarray(segments), jnp.broadcast_to(jnp.arange(9), (3, 9)))


@jax.jit
def run_block(block, x_BLD, ctx):
    return block(x_BLD, ctx)[0]


@jax.jit
def walk(stack, x_BLD, ctx):
    x_BLD, _, _, aux = stack.walk(x_BLD, ctx)
    return x_BLD, aux


def defined(stack, x_BLD, ctx, form: str):
    """Graves' definition, computed position by position.

    A position halts at the first N at which its probabilities sum to 1 - epsilon or more.
    """
    x_BLD, ctx = stack.positions(x_BLD, ctx)
    states, probabilities = [], []
    for signal_D in stack.step_signal[...]:
        x_BLD = x_BLD + signal_D
        probabilities.append(np.asarray(jax.nn.sigmoid(stack.halt(x_BLD)))[..., 0])
        x_BLD = run_block(stack.blocks[0], x_BLD, ctx)
        states.append(np.asarray(x_BLD))
    output, ponder = np.zeros_like(states[0]), np.zeros(states[0].shape[:2])
    for where in np.ndindex(ponder.shape):
        total = 0.0
        for n in range(STEPS):
            p = probabilities[n][where]
            halts = total + p > 1 - EPSILON or n == STEPS - 1
            weight = 1 - total if halts else p
            output[where] = (
                output[where] * (1 - weight if form == "basic" else 1) + weight * states[n][where]
            )
            total += weight
            if halts:
                ponder[where] = n + 1 + weight
                break
    return output, ponder


def test_every_step_adds_its_own_signal_before_the_block(adaptive):
    """Also without halting.

    The signal is neither scaled nor shared between steps.
    """
    _, x_BLD, ctx = adaptive
    stack = models.build(models.config("universal", num_steps=STEPS)).encoder
    assert len(stack.step_signal) == STEPS
    got, _ = walk(stack, *stack.positions(x_BLD, ctx))
    expected, ctx = stack.positions(x_BLD, ctx)
    for signal_D in stack.step_signal[...]:
        expected = run_block(stack.blocks[0], expected + signal_D, ctx)
    np.testing.assert_allclose(got, expected, atol=tolerances.REORDERED)


@pytest.mark.parametrize("form", ["accumulated", "basic"])
@pytest.mark.parametrize("bias", [-2.0, 0.0, 2.0])
def test_halting_follows_its_definition(adaptive, form, bias):
    """With few, some and most positions halting at once; the loss counts no padding."""
    stack, x_BLD, ctx = adaptive
    stack = jax.tree.unflatten(*reversed(jax.tree.flatten(stack)))
    stack.form, stack.halt.bias[...] = form, jnp.array([bias])
    output, ponder = defined(stack, x_BLD, ctx, form)
    got, aux = walk(stack, *stack.positions(x_BLD, ctx))
    np.testing.assert_allclose(got, output, atol=tolerances.REORDERED)
    there = np.asarray(ctx.segment_ids_BL) > 0
    np.testing.assert_allclose(aux.losses["ponder"], WEIGHT * ponder[there].mean(), rtol=1e-5)
    steps, count = aux.metrics["ponder_steps"]
    assert count == 1 and 1 <= steps <= STEPS
    if bias == 0.0:
        assert 1 < steps < STEPS, "positions halt at different steps, or this test shows little"


def test_halting_at_once_and_never(adaptive):
    """If it is certain to halt, the stack is its first step; if it never halts, its last step."""
    stack, x_BLD, ctx = adaptive
    stack = jax.tree.unflatten(*reversed(jax.tree.flatten(stack)))
    start, ctx = stack.positions(x_BLD, ctx)
    first = run_block(stack.blocks[0], start + stack.step_signal[0], ctx)
    for bias, steps, remainder in ((1e3, 1, 1), (-1e3, STEPS, 1)):
        stack.halt.bias[...] = jnp.array([bias])
        output, aux = walk(stack, start, ctx)
        np.testing.assert_allclose(aux.losses["ponder"], WEIGHT * (steps + remainder), rtol=1e-6)
        if steps == 1:
            np.testing.assert_allclose(output, first, atol=tolerances.REORDERED)


def test_the_ponder_loss_is_that_of_both_stacks_and_can_be_switched_off():
    cfg = models.config("universal-accumulated")
    batch = models.pad(models.examples(np.random.default_rng(0), [9, 16], [12, 5]))
    model = models.build(cfg)
    ponder = models.forward(model, batch).aux["ponder"]
    assert 2 * WEIGHT < ponder <= WEIGHT * 2 * (3 + 1)
    silent = dataclasses.replace(cfg.architecture, act_loss_weight=0.0)
    free = arch_zoo.build(dataclasses.replace(cfg, architecture=silent), jax.random.key(0))
    assert models.forward(free, batch).aux["ponder"] == 0


@pytest.mark.parametrize(
    "options",
    [{"act": "global"}, {"num_steps": -1}, {"act_epsilon": 0.0}, {"act_loss_weight": -0.1}],
)
def test_nonsense_is_refused(options):
    with pytest.raises(arch_zoo.ConfigError, match=next(iter(options))):
        arch_zoo.config("universal", "nano", **options)
