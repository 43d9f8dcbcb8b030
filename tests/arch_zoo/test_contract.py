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
from tests import tolerances
from tests.arch_zoo import models

SETTINGS = settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


# The fast tests check two architectures, since compiling the whole zoo takes minutes.
FAST = ("transformer", "lconv", "transformer-lm")
# Kernel widths that repeat after two layers, so that four layers show the effect of scanning.
PERIODIC = {"lconv": {"widths": (3, 5)}, "dconv": {"widths": (3, 5)}}


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


@pytest.fixture
def default(variant):
    """A variant with the default options of its architecture, or any of Universal's.

    Other options change what a layer computes, not how layers are run, trained or stored; those of
    Universal change how they are run, too.
    """
    name = variant.removesuffix("-lm").removesuffix("-prefix")
    if name not in arch_zoo.names() and not name.startswith("universal"):
        pytest.skip("tested with the default options")
    return variant


# All batches have the same shape where possible, so that the checks share what they compile.
ROWS = 8


@st.composite
def examples_of_random_lengths(draw):
    """Inputs and targets from a single token to the full length."""
    lengths = [
        [draw(st.integers(1, longest)) for _ in range(ROWS)]
        for longest in (models.INPUT_LENGTH, models.TARGET_LENGTH)
    ]
    return models.examples(np.random.default_rng(draw(st.integers(0, 2**32 - 1))), *lengths)


def longest_examples():
    rng = np.random.default_rng(0)
    return models.examples(rng, [models.INPUT_LENGTH] * ROWS, [models.TARGET_LENGTH] * ROWS)


def full_batch(cfg):
    return models.pad(longest_examples(), family=cfg.family)


def stochastic(cfg) -> bool:
    return cfg.architecture.stochastic(cfg)


def real(batch) -> np.ndarray:
    return np.asarray(batch["decoder_loss_weights"]) > 0


def test_shapes_types_and_finiteness(variant):
    cfg = models.config(variant)
    model, batch = models.build(cfg), full_batch(cfg)
    out, losses = models.forward(model, batch), models.token_nll(model, batch)
    shape = batch["decoder_target_tokens"].shape
    assert out.logits.shape == (*shape, models.VOCAB) and out.logits.dtype == jnp.float32
    assert losses.nll.shape == losses.log_z.shape == shape
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
    model, batch = models.build(cfg), full_batch(cfg)
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
    pairs=examples_of_random_lengths(),
    where=st.integers(0, models.TARGET_LENGTH - 1),
    token=st.integers(2, models.VOCAB - 1),
)
@pytest.mark.parametrize("train", [False, True])
def test_decoder_is_causal(variant, train, pairs, where, token):
    """Changing a decoder input leaves all earlier outputs bit-identical, also in training.

    Where a prefix looks ahead, this holds for the outputs that predict targets.
    """
    cfg = models.config(variant)
    model, batch = models.build(cfg), models.pad(pairs, family=cfg.family)
    changed = batch | {
        "decoder_input_tokens": batch["decoder_input_tokens"].at[:, where].set(token)
    }
    key = jax.random.key(3)
    counts = real(batch) if cfg.sides[-1].prefix else np.ones(real(batch).shape, bool)
    counts[:, where:] = False
    before, after = (
        np.asarray(models.forward(model, given, key, train=train).logits)[counts]
        for given in (batch, changed)
    )
    np.testing.assert_array_equal(before, after)


@SETTINGS
@given(data=st.data())
def test_padding_is_ignored(variant, data):
    """More padding changes nothing, on either side.

    If no weight depends on the length, any length is accepted.
    """
    lengths = [data.draw(st.lists(st.integers(1, n), min_size=ROWS, max_size=ROWS)) for n in (5, 7)]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    pairs, cfg = models.examples(rng, *lengths), models.config(variant)
    model = models.build(cfg)
    short, long = (models.pad(pairs, *most, family=cfg.family) for most in ((5, 7), ()))
    there = real(short)
    expected = np.asarray(models.forward(model, short).logits)[there]
    got = np.asarray(models.forward(model, long).logits)[:, : there.shape[1]][there]
    np.testing.assert_allclose(got, expected, atol=tolerances.REORDERED)


def test_a_weight_of_zero_hides_no_token_before_the_last(variant):
    """Without segments, only positions after a row's last token are padding, on every backend."""
    targets = [models.TARGET_LENGTH - row for row in range(ROWS)]
    cfg = models.config(variant)
    pairs = models.examples(np.random.default_rng(0), [models.INPUT_LENGTH] * ROWS, targets)
    batch = models.pad(pairs, family=cfg.family)
    weights = np.array(batch["decoder_loss_weights"])
    weights[:, [0, 2, 3]] = 0  # positions before the last token of every row
    ignored = batch | {"decoder_loss_weights": jnp.asarray(weights)}
    model = models.build(cfg)
    logits = [
        np.asarray(models.forward(model, given).logits)[real(batch)] for given in (batch, ignored)
    ]
    np.testing.assert_array_equal(*logits)


@SETTINGS
@given(data=st.data())
def test_packed_equals_unpacked(variant, data):
    cfg = models.config(variant)
    multiple = cfg.architecture.segment_multiple(cfg, cfg.sides[0])
    count = data.draw(st.integers(1, 3))
    longest = (models.INPUT_LENGTH // count - (multiple or 1) + 1, models.TARGET_LENGTH // count)
    lengths = [
        data.draw(st.lists(st.integers(1, n), min_size=count, max_size=count)) for n in longest
    ]
    pairs = models.examples(np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), *lengths)
    packed, starts = models.pack(pairs, multiple or 1, family=cfg.family)
    model = models.build(cfg)
    if multiple is None:
        with pytest.raises(arch_zoo.ConfigError, match="packed"):
            models.forward(model, packed)
        return
    alone = models.pad([*pairs, *pairs[:1] * (ROWS - count)], family=cfg.family)
    expected, got = models.forward(model, alone).logits, models.forward(model, packed).logits
    firsts = models.starts(pairs, cfg.family)
    for row, ((_, target), start, first) in enumerate(zip(pairs, starts, firsts, strict=True)):
        np.testing.assert_allclose(
            got[0, start : start + len(target)],
            expected[row, first : first + len(target)],
            atol=tolerances.REORDERED,
        )


@SETTINGS
@given(pairs=examples_of_random_lengths())
def test_decoding_equals_teacher_forcing(variant, pairs):
    """Step by step, from the first position on."""
    cfg = models.config(variant)
    if cfg.sides[-1].prefix:
        pytest.skip("a prefix is read as a whole: see the test of prefill")
    model, batch = models.build(cfg), models.pad(pairs, family=cfg.family)
    expected = np.asarray(models.forward(model, batch).logits)
    cache = models.init_cache(model, batch)
    assert all(leaf.shape[0] == ROWS for leaf in jax.tree.leaves(cache)), (
        "every cache leaf leads with the batch"
    )
    for index in range(expected.shape[1]):
        logits_BV, cache = models.decode_step(
            model, batch["decoder_input_tokens"][:, index], index, cache
        )
        there = real(batch)[:, index]
        np.testing.assert_allclose(
            logits_BV[there], expected[there, index], atol=tolerances.REORDERED
        )


@SETTINGS
@given(pairs=examples_of_random_lengths())
def test_prefill_equals_teacher_forcing(variant, pairs):
    """Inputs of all lengths in one batch, read at once, and then the targets step by step."""
    cfg = models.config(variant)
    model, batch = models.build(cfg), models.pad(pairs, family=cfg.family)
    expected = np.asarray(models.forward(model, batch).logits)
    firsts = np.array(models.starts(pairs, cfg.family))
    lengths = np.array([len(target) for _, target in pairs])
    targets_BT = np.zeros((ROWS, models.TARGET_LENGTH), np.int32)
    for row, (_, target) in zip(targets_BT, pairs, strict=True):
        row[: len(target)] = target
    logits_BV, first, cache = models.prefill(
        model, models.given(pairs, cfg.family), models.TARGET_LENGTH
    )
    for step in range(models.TARGET_LENGTH):
        there = np.flatnonzero(step < lengths)
        np.testing.assert_allclose(
            logits_BV[there], expected[there, firsts[there] + step], atol=tolerances.REORDERED
        )
        if step + 1 < models.TARGET_LENGTH:
            tokens_B = jnp.asarray(targets_BT[:, step])
            logits_BV, cache = models.decode_step(model, tokens_B, first + step, cache)


def test_greedy_decoding_follows_its_own_logits(default):
    """Each token is the argmax given those before it, and nothing follows the end of a row."""
    cfg, pairs = models.config(default), longest_examples()
    model = models.build(cfg)
    ids = models.greedy(model, models.given(pairs, cfg.family), models.TARGET_LENGTH)
    answered = [(source, row) for (source, _), row in zip(pairs, np.asarray(ids), strict=True)]
    forced = models.pad(answered, family=cfg.family)
    best = np.asarray(models.forward(model, forced).logits.argmax(-1))
    firsts = models.starts(pairs, cfg.family)
    for row, want, first in zip(np.asarray(ids), best, firsts, strict=True):
        length = list(row).index(1) + 1 if 1 in row else len(row)
        np.testing.assert_array_equal(row[:length], want[first : first + length])
        assert not row[length:].any()


def test_prompts_decode_together_as_alone(default):
    """Inputs of 1, 2, 7 and the most tokens in one batch are answered as each one alone.

    An encoder's inputs are padded like those of any batch, so the shortest and the longest will do.
    """
    cfg = models.config(default)
    between = (2, 7) if cfg.family == "decoder_only" else ()
    rng, lengths = np.random.default_rng(1), (1, *between, models.INPUT_LENGTH)
    pairs = models.examples(rng, lengths, [1] * len(lengths))
    model, new = models.build(cfg), 4
    together, _, _ = models.prefill(model, models.given(pairs, cfg.family), new)
    ids = np.asarray(models.greedy(model, models.given(pairs, cfg.family), new))
    for row, pair in enumerate(pairs):
        alone = models.given([pair], cfg.family, len(pair[0]))
        logits_BV, _, _ = models.prefill(model, alone, new)
        np.testing.assert_allclose(together[row], logits_BV[0], atol=tolerances.REORDERED)
        if row == 0:  # each length compiles anew
            np.testing.assert_array_equal(ids[:1], models.greedy(model, alone, new))


@pytest.mark.slow
def test_scanning_changes_nothing_or_is_refused(default):
    """Outputs and gradients equal those of unrolled layers, at the smallest depth that repeats."""
    for size in (models.SIZE, models.SIZE + "-NL4"):
        cfg = models.config(default, size)
        cfg = models.config(default, size, **PERIODIC.get(cfg.name, {}))
        try:
            scanned = models.like(models.build(cfg), dataclasses.replace(cfg, scan_layers=True))
        except arch_zoo.ConfigError as error:
            assert "scan_layers" in str(error)
        else:
            return _assert_same_training(models.build(cfg), scanned)
    assert not cfg.architecture.scans


@pytest.mark.slow
def test_rematerialisation_changes_nothing(default):
    cfg = models.config(default)
    for policy in ("full", "dots") if default == "transformer" else ("full",):
        model = models.build(cfg)
        _assert_same_training(model, models.like(model, dataclasses.replace(cfg, remat=policy)))


def _assert_same_training(model, other):
    batch, key = full_batch(model.cfg), jax.random.key(5)
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
    batch = full_batch(cfg)
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
            .token_nll(full_batch(cfg), key=jax.random.key(0), train=True)
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
    # Architectures that need more of it declare their share. A site of short convolutions has a
    # hundredth at this width, and less where models are wider.
    allowed = cfg.architecture.float32_share + 0.01 * len(cfg.short_conv)
    assert flops["float32"] < allowed * flops.total(), flops


def test_a_decoder_that_reads_nothing_is_a_language_model(variant):
    """With silent cross-attention and the same weights, an encoder-decoder says the same."""
    cfg = models.config(variant)
    name, options = models.VARIANTS[variant]
    if cfg.family != "decoder_only" or cfg.sides[-1].prefix or name == "mixer":
        pytest.skip("no decoder with a memory has these layers")
    two = {**options, "family": "encoder_decoder", "max_target_length": models.ROW_LENGTH}
    reader = models.build(arch_zoo.config(name, models.SIZE, vocab_size=models.VOCAB, **two))
    state = dict(nnx.to_flat_state(nnx.state(reader)))
    for path in state:
        if "cross_attention" in path and path[-1] in ("out", "out_bias"):
            state[path] = state[path].replace(0 * state[path][...])
    graph, own = nnx.split(models.build(cfg))
    weights = [(path, state[path]) for path, _ in nnx.to_flat_state(own)]
    alone = nnx.merge(graph, nnx.from_flat_state(weights))
    reader = nnx.merge(nnx.graphdef(reader), nnx.from_flat_state(list(state.items())))
    batch = full_batch(cfg)
    silent = batch | {"encoder_input_tokens": batch["decoder_target_tokens"]}
    np.testing.assert_array_equal(
        models.forward(alone, batch).logits, models.forward(reader, silent).logits
    )


def test_training_without_a_key_is_refused_where_something_is_random(variant):
    model = models.like(
        models.build(models.config(variant)), models.config(variant, dropout_rate=0.1)
    )
    with pytest.raises(arch_zoo.ConfigError, match="key"):
        model(full_batch(model.cfg), train=True)


def test_dropout_follows_its_key(variant):
    plain = models.build(models.config(variant))
    batch = full_batch(plain.cfg)
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
def test_loss_falls_on_a_copy_task(default):
    """A few hundred small batches bring the loss of copying below that of guessing."""
    cfg = models.config(default)
    model = arch_zoo.build(cfg, jax.random.key(0))
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
            [(source, np.append(source[:3], 1).astype(np.int32)) for source in sources],
            family=cfg.family,
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


def test_saving_and_restoring_is_bitwise(default, tmp_path):
    """Parameters are saved as plain arrays by path, the form in which weights are exchanged."""
    model = models.build(models.config(default))
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
    batch = full_batch(model.cfg)
    np.testing.assert_array_equal(
        models.forward(again, batch).logits, models.forward(model, batch).logits
    )
