"""The contract that every architecture and named variant of the registry must fulfil."""

import collections
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.extend import core as jex_core

import arch_zoo
from arch_zoo.side import ENCODER
from tests import tolerances
from tests.arch_zoo import models

SETTINGS = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


# The fast tests check two architectures, since compiling the whole zoo takes minutes.
FAST = ("transformer", "lconv")
# Kernel widths that repeat after two layers, so that four layers show the effect of scanning.
CONVOLUTIONS = ("lconv", "lconv-fairseq", "dconv", "dconv-sinusoids", "dconv-mesh")
PERIODIC = {name: {"widths": (3, 5)} for name in CONVOLUTIONS}


@pytest.fixture(
    scope="module",
    params=[v if v in FAST else pytest.param(v, marks=pytest.mark.slow) for v in models.VARIANTS],
)
def variant(request):
    """One variant after the other.

    The tests of a variant share what they compile; it is freed before the next variant.
    """
    yield request.param
    models.clear()


# All batches have the same shape where possible, so that the checks share what they compile.
ROWS = 8


@st.composite
def padded_batches(draw):
    """Rows of random lengths, from a single token to the full length."""
    lengths = [
        [draw(st.integers(1, longest)) for _ in range(ROWS)]
        for longest in (models.INPUT_LENGTH, models.TARGET_LENGTH)
    ]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return models.pad(models.examples(rng, *lengths))


def full_batch():
    rng = np.random.default_rng(0)
    return models.pad(
        models.examples(rng, [models.INPUT_LENGTH] * ROWS, [models.TARGET_LENGTH] * ROWS)
    )


def stochastic(cfg) -> bool:
    return cfg.architecture.stochastic(cfg)


def real(batch) -> np.ndarray:
    return np.asarray(batch["decoder_loss_weights"]) > 0


def test_shapes_types_and_finiteness(variant):
    model, batch = models.build(models.config(variant)), full_batch()
    out, losses = models.forward(model, batch), models.token_nll(model, batch)
    assert (
        out.logits.shape == (ROWS, models.TARGET_LENGTH, models.VOCAB)
        and out.logits.dtype == jnp.float32
    )
    assert losses.nll.shape == losses.log_z.shape == (ROWS, models.TARGET_LENGTH)
    assert losses.nll.dtype == losses.log_z.dtype == jnp.float32
    for leaf in jax.tree.leaves((out, losses)):
        assert np.isfinite(leaf).all()
    log_probs = jax.nn.log_softmax(out.logits)
    expected = -np.take_along_axis(
        np.asarray(log_probs), np.asarray(batch["decoder_target_tokens"])[..., None], -1
    )
    np.testing.assert_allclose(losses.nll, expected[..., 0], atol=tolerances.REORDERED)


def test_every_parameter_has_axes_and_a_gradient(variant):
    cfg = models.config(variant)
    model, batch = models.build(cfg), full_batch()
    value, gradient = models.value_and_grad(model, batch, key=jax.random.key(0), train=True)
    assert np.isfinite(value)
    params = nnx.to_flat_state(nnx.state(model, nnx.Param))
    for (path, param), (_, slope) in zip(
        params, nnx.to_flat_state(nnx.state(gradient, nnx.Param)), strict=True
    ):
        assert len(param.axes) == param.ndim, path
        assert np.isfinite(slope[...]).all(), path
        assert np.abs(slope[...]).max() > 0, f"nothing reaches {path}"


@SETTINGS
@given(
    batch=padded_batches(),
    where=st.integers(0, models.TARGET_LENGTH - 1),
    token=st.integers(2, models.VOCAB - 1),
)
@pytest.mark.parametrize("train", [False, True])
def test_decoder_is_causal(variant, train, batch, where, token):
    """Changing a decoder input leaves all earlier outputs bit-identical, also in training."""
    model = models.build(models.config(variant))
    changed = batch | {
        "decoder_input_tokens": batch["decoder_input_tokens"].at[:, where].set(token)
    }
    key = jax.random.key(3)
    before = models.forward(model, batch, key, train=train).logits[:, :where]
    after = models.forward(model, changed, key, train=train).logits[:, :where]
    np.testing.assert_array_equal(before, after)


@SETTINGS
@given(data=st.data())
def test_padding_is_ignored(variant, data):
    """More padding changes nothing, on either side.

    If no weight depends on the length, any length is accepted.
    """
    lengths = [data.draw(st.lists(st.integers(1, n), min_size=ROWS, max_size=ROWS)) for n in (5, 7)]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    pairs = models.examples(rng, *lengths)
    model = models.build(models.config(variant))
    short, long = models.pad(pairs, 5, 7), models.pad(pairs)
    there = real(short)
    expected = np.asarray(models.forward(model, short).logits)[there]
    got = np.asarray(models.forward(model, long).logits)[:, :7][there]
    np.testing.assert_allclose(got, expected, atol=tolerances.REORDERED)


def test_a_weight_of_zero_hides_no_token_before_the_last(variant):
    """Without segments, only positions after a row's last token are padding, on every backend."""
    targets = [models.TARGET_LENGTH - row for row in range(ROWS)]
    batch = models.pad(
        models.examples(np.random.default_rng(0), [models.INPUT_LENGTH] * ROWS, targets)
    )
    weights = np.array(batch["decoder_loss_weights"])
    weights[:, [0, 2, 3]] = 0  # positions before the last token of every row
    ignored = batch | {"decoder_loss_weights": jnp.asarray(weights)}
    model = models.build(models.config(variant))
    logits = [
        np.asarray(models.forward(model, given).logits)[real(batch)] for given in (batch, ignored)
    ]
    np.testing.assert_array_equal(*logits)


@SETTINGS
@given(data=st.data())
def test_packed_equals_unpacked(variant, data):
    cfg = models.config(variant)
    multiple = cfg.architecture.segment_multiple(cfg, ENCODER)
    count = data.draw(st.integers(1, 3))
    longest = (models.INPUT_LENGTH // count - (multiple or 1) + 1, models.TARGET_LENGTH // count)
    lengths = [
        data.draw(st.lists(st.integers(1, n), min_size=count, max_size=count)) for n in longest
    ]
    pairs = models.examples(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), *lengths)
    packed, starts = models.pack(pairs, multiple or 1)
    model = models.build(cfg)
    if multiple is None:
        with pytest.raises(arch_zoo.ConfigError, match="packed"):
            models.forward(model, packed)
        return
    alone = models.pad([*pairs, *pairs[:1] * (ROWS - count)])
    expected, got = models.forward(model, alone).logits, models.forward(model, packed).logits
    for row, ((_, target), start) in enumerate(zip(pairs, starts, strict=True)):
        np.testing.assert_allclose(
            got[0, start : start + len(target)],
            expected[row, : len(target)],
            atol=tolerances.REORDERED,
        )


@SETTINGS
@given(batch=padded_batches())
def test_decoding_equals_teacher_forcing(variant, batch):
    model = models.build(models.config(variant))
    expected = np.asarray(models.forward(model, batch).logits)
    cache = models.init_cache(model, batch)
    assert all(leaf.shape[0] == ROWS for leaf in jax.tree.leaves(cache)), (
        "every cache leaf leads with the batch"
    )
    for index in range(models.TARGET_LENGTH):
        logits_BV, cache = models.decode_step(
            model, batch["decoder_input_tokens"][:, index], index, cache
        )
        there = real(batch)[:, index]
        np.testing.assert_allclose(
            logits_BV[there], expected[there, index], atol=tolerances.REORDERED
        )


def test_greedy_decoding_follows_its_own_logits(variant):
    """Each token is the argmax given those before it, and nothing follows the end of a row."""
    model, batch = models.build(models.config(variant)), full_batch()
    ids = models.greedy(model, batch, models.TARGET_LENGTH)
    shifted = jnp.pad(ids, ((0, 0), (1, 0)))[:, :-1]
    forced = {
        "encoder_input_tokens": batch["encoder_input_tokens"],
        "decoder_input_tokens": shifted,
    }
    best = np.asarray(models.forward(model, forced).logits.argmax(-1))
    for row, want in zip(np.asarray(ids), best, strict=True):
        length = list(row).index(1) + 1 if 1 in row else len(row)
        np.testing.assert_array_equal(row[:length], want[:length])
        assert not row[length:].any()


@pytest.mark.slow
def test_scanning_changes_nothing_or_is_refused(variant):
    """Outputs and gradients equal those of unrolled layers, at the smallest depth that repeats."""
    for size in (models.SIZE, models.SIZE + "-NL4"):
        cfg = models.config(variant, size, **PERIODIC.get(variant, {}))
        try:
            scanned = models.like(models.build(cfg), dataclasses.replace(cfg, scan_layers=True))
        except arch_zoo.ConfigError as error:
            assert "scan_layers" in str(error)
        else:
            return _assert_same_training(models.build(cfg), scanned)
    assert not cfg.architecture.scans


@pytest.mark.slow
def test_rematerialisation_changes_nothing(variant):
    cfg = models.config(variant)
    for policy in ("full", "dots") if variant == "transformer" else ("full",):
        model = models.build(cfg)
        _assert_same_training(model, models.like(model, dataclasses.replace(cfg, remat=policy)))


def _assert_same_training(model, other):
    batch, key = full_batch(), jax.random.key(5)
    value, gradient = models.value_and_grad(model, batch, key, train=True)
    other_value, other_gradient = models.value_and_grad(other, batch, key, train=True)
    np.testing.assert_allclose(other_value, value, atol=tolerances.REORDERED)
    for mine, theirs in zip(
        jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True
    ):
        if not jnp.issubdtype(mine.dtype, jnp.floating):
            continue
        scale = max(np.abs(mine).max(), 1e-3)
        np.testing.assert_allclose(theirs / scale, mine / scale, atol=tolerances.REORDERED_GRADIENT)


def test_bfloat16_is_close_to_float32(variant):
    cfg = models.config(variant)
    model = models.build(cfg)
    half = models.like(model, dataclasses.replace(cfg, dtype="bfloat16"))
    assert all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(half)), (
        "parameters stay in float32"
    )
    batch = full_batch()
    exact, rounded = models.token_nll(model, batch), models.token_nll(half, batch)
    assert rounded.nll.dtype == jnp.float32
    assert abs(float(exact.nll.mean() - rounded.nll.mean())) < tolerances.BFLOAT16_NLL


def products(jaxpr, times: int = 1):
    """The matrix products of a program, each with the number of times that it runs."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            yield eqn, times
        repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for inner in jex_core.jaxprs_in_params(eqn.params):
            yield from products(inner, times * repeats)


def test_products_stay_in_bfloat16(variant):
    """In both passes, because a single float32 operand makes an accelerator compute in float32."""
    cfg = models.config(variant)
    model = models.like(models.build(cfg), dataclasses.replace(cfg, dtype="bfloat16"))
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        return (
            nnx.merge(graph, params, rest)
            .token_nll(full_batch(), key=jax.random.key(0), train=True)
            .nll.sum()
        )

    flops = collections.Counter()
    for eqn, times in products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr):
        a, b = (operand.aval for operand in eqn.invars)
        assert a.dtype == b.dtype, f"{a} by {b} in {eqn.source_info.name_stack}"
        (contracted, _), _ = eqn.params["dimension_numbers"]
        flops[str(a.dtype)] += (
            times * eqn.outvars[0].aval.size * math.prod(a.shape[axis] for axis in contracted)
        )
    # Routers, and sums over gradients of biases and of depthwise weights, are in float32.
    # Architectures that need more of it declare their share.
    assert flops["float32"] < cfg.architecture.float32_share * flops.total(), flops


def test_training_without_a_key_is_refused_where_something_is_random(variant):
    model = models.like(
        models.build(models.config(variant)), models.config(variant, dropout_rate=0.1)
    )
    with pytest.raises(arch_zoo.ConfigError, match="key"):
        model(full_batch(), train=True)


def test_dropout_follows_its_key(variant):
    plain, batch = models.build(models.config(variant)), full_batch()
    model = models.like(plain, models.config(variant, dropout_rate=0.5))
    first, again, other = (
        models.token_nll(model, batch, jax.random.key(seed), train=True).nll for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_array_equal(
        models.token_nll(model, batch).nll, models.token_nll(plain, batch).nll
    )


@pytest.mark.slow
def test_loss_falls_on_a_copy_task(variant):
    """A few hundred small batches bring the loss of copying below that of guessing."""
    model = arch_zoo.build(models.config(variant), jax.random.key(0))
    leaves, structure = jax.tree.flatten(model)
    trained = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    optimizer = optax.masked(optax.adam(3e-3), trained)
    update = models.jit(
        lambda gradient, state, leaves: _updated(optimizer, gradient, state, leaves, trained)
    )
    rng, state, values = np.random.default_rng(0), optimizer.init(leaves), []
    for number in range(250):
        sources = rng.integers(2, 8, (ROWS, 5)).astype(np.int32)
        batch = models.pad(
            [(source, np.append(source[:3], 1).astype(np.int32)) for source in sources]
        )
        model = jax.tree.unflatten(structure, leaves)
        value, gradient = models.value_and_grad(model, batch, jax.random.key(number), train=True)
        leaves, state = update(jax.tree.leaves(gradient), state, leaves)
        values.append(float(value))
    assert np.mean(values[-20:]) < 0.6 * np.mean(values[:5]), (values[0], values[-1])
    assert np.mean(values[-20:]) < np.log(6)


def _updated(optimizer, gradient, state, leaves, trained):
    gradient = [
        slope if moves else jnp.zeros(()) for slope, moves in zip(gradient, trained, strict=True)
    ]
    updates, state = optimizer.update(gradient, state)
    pairs = zip(leaves, updates, trained, strict=True)
    return [leaf + update if moves else leaf for leaf, update, moves in pairs], state


def test_saving_and_restoring_is_bitwise(variant, tmp_path):
    """Parameters are saved as plain arrays by path, the form in which weights are exchanged."""
    model = models.build(models.config(variant))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    arrays = {
        "/".join(map(str, path)): np.asarray(param[...])
        for path, param in nnx.to_flat_state(params)
    }
    np.savez(tmp_path / "weights.npz", **arrays)  # pyright: ignore[reportArgumentType]
    with np.load(tmp_path / "weights.npz") as restored:
        flat = [
            (path, param.replace(jnp.asarray(restored["/".join(map(str, path))])))
            for path, param in nnx.to_flat_state(params)
        ]
    again = nnx.merge(graph, nnx.from_flat_state(flat), rest)
    batch = full_batch()
    np.testing.assert_array_equal(
        models.forward(again, batch).logits, models.forward(model, batch).logits
    )
