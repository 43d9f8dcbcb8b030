"""Linear attention against its quadratic form; causality, constant state, positions, counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core as jex_core

import arch_zoo
from arch_zoo.architectures.performer import RandomFeatures
from arch_zoo.layers import favor
from arch_zoo.layers.context import Context
from arch_zoo.layers.positions import LearnedPositions
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

BATCH, LENGTH, HEADS, DIM = 2, 150, 2, 8  # three chunks, the last one incomplete


attend_to_prefix = jax.jit(favor.attend_to_prefix)
to_all = jax.jit(favor.attend_to_all, static_argnames="packed")


def packed_segments() -> np.ndarray:
    """Three examples and padding at the end; in the second row also within the first example."""
    segments = (
        np.repeat([1, 2, 3, 0], [70, 50, 20, 10]).astype(np.int32)[None].repeat(BATCH, axis=0)
    )
    segments[1, [5, 66]] = 0
    return segments


def queries_keys_values(key_length: float = 1.0):
    q, k, v = (
        np.random.default_rng(0).normal(size=(3, BATCH, HEADS, LENGTH, DIM)).astype(np.float32)
    )
    return q, k * key_length, v


def features(kernel: str, q, k, v, segments) -> favor.Features:
    if kernel == "relu":
        phi = favor.relu_features(q, k, 1e-3)
    else:
        phi = favor.softmax_features(q, k, favor.draw_directions(jax.random.key(0), 32, DIM), 1e-6)
    v = jnp.pad(v, ((0, 0),) * 3 + ((0, 1),), constant_values=1.0)
    return favor.Features(*phi, v, jnp.asarray(segments)[:, None])


def quadratic(phi: favor.Features, causal: bool) -> np.ndarray:
    """Attention from all products of a query and a key, masked, in float64."""
    keys = np.float64(phi.key_BHLM) * np.exp(np.float64(phi.log_scale_BHL))[..., None]
    segments = np.asarray(phi.segment_ids_B1L)
    products = np.einsum("BHTM,BHSM->BHTS", np.float64(phi.query_BHLM), keys)
    products *= segments[..., :, None] == segments[..., None, :]
    products = np.tril(products) if causal else products
    return np.einsum(
        "BHTS,BHSK->BHTK", products / products.sum(-1, keepdims=True), phi.value_BHLJ[..., :-1]
    )


def prefix(phi: favor.Features) -> jax.Array:
    start = favor.empty_state(len(phi.key_BHLM), HEADS, phi.key_BHLM.shape[-1], DIM)
    return attend_to_prefix(phi, start)[0]


def assert_close(got, expected, real) -> None:
    """Compares the positions that hold a token."""
    got, expected = (np.moveaxis(np.asarray(y), 1, 2)[real] for y in (got, expected))
    np.testing.assert_allclose(got, expected, atol=tolerances.REORDERED)


@pytest.mark.parametrize("kernel", ["relu", "softmax"])
@pytest.mark.parametrize("causal", [False, True])
def test_packed_rows_equal_the_quadratic_form(kernel, causal):
    phi = features(kernel, *queries_keys_values(3.0), packed_segments())
    y = prefix(phi) if causal else to_all(phi, packed=True)
    assert_close(y, quadratic(phi, causal), packed_segments() != 0)


@pytest.mark.parametrize("kernel", ["relu", "softmax"])
def test_unpacked_rows_equal_the_quadratic_form(kernel):
    segments = np.ones((BATCH, LENGTH), np.int32)
    segments[1, 100:] = 0
    phi = features(kernel, *queries_keys_values(), segments)
    assert_close(to_all(phi, packed=False), quadratic(phi, False), segments != 0)


@pytest.mark.parametrize("epsilon", [0.0, 0.25])
def test_features_are_those_of_their_formulas(epsilon):
    """Epsilon is added to every feature of queries and keys, after their scales are taken out."""
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 2, 3, 5, 16))
    directions = rng.normal(size=(7, 16))
    query, key, log_scale = favor.relu_features(*map(jnp.float32, (q, k)), epsilon)
    for ours, u in ((query, q), (key, k)):
        np.testing.assert_allclose(ours, np.maximum(u, 0) + epsilon, atol=tolerances.REORDERED)
    assert log_scale.shape == (2, 3, 5) and not log_scale.any()
    u, v = 2 * q @ directions.T, k / 2 @ directions.T  # K^1/4 = 2
    v -= np.sum((k / 2) ** 2, -1, keepdims=True) / 2
    query, key, log_scale = favor.softmax_features(*map(jnp.float32, (q, k, directions)), epsilon)
    for ours, logs in ((query, u), (key, v)):
        expected = np.exp(logs - logs.max(-1, keepdims=True)) + epsilon
        np.testing.assert_allclose(ours, expected, atol=tolerances.REORDERED)
    np.testing.assert_allclose(log_scale, v.max(-1), atol=tolerances.REORDERED)


def test_before_the_first_position_nothing_is_summed():
    sums, segment = favor.empty_state(2, 3, 5, 7)
    assert (sums.total.shape, sums.log_scale.shape, segment.shape) == ((2, 3, 5, 8), (2, 3), (2, 1))
    assert not sums.total.any() and not segment.any() and segment.dtype == jnp.int32
    assert (np.exp(sums.log_scale) == 0).all() and np.isfinite(sums.log_scale).all()


def test_a_query_without_keys_gets_zero():
    """This happens in an example that is only padding, whose outputs nobody reads.

    It must be zero, because a NaN would spread.
    """
    segments = np.ones((BATCH, LENGTH), np.int32)
    segments[1] = 0
    y = to_all(features("relu", *queries_keys_values(), segments), packed=False)
    assert y[0].all() and not y[1].any()


@pytest.mark.parametrize("kernel", ["relu", "softmax"])
@pytest.mark.parametrize("where", [1, 63, 64, 100, 149])
def test_a_later_key_changes_no_earlier_output(kernel, where):
    """Even a very large key; a stabiliser computed over the whole sequence would fail here."""
    arrays = queries_keys_values()
    segments = np.ones((BATCH, LENGTH), np.int32)
    before = prefix(features(kernel, *arrays, segments))
    # A copy, since JAX may still be reading the arrays that `before` is computed from.
    scale_L1 = np.where(np.arange(LENGTH) < where, 1, np.float32(20))[:, None]
    after = prefix(features(kernel, *(x * scale_L1 for x in arrays), segments))
    np.testing.assert_array_equal(after[:, :, :where], before[:, :, :where])
    assert np.abs(after - before)[:, :, where:].max() > 0.1


@pytest.mark.parametrize("kernel", ["relu", "softmax"])
def test_step_by_step_equals_all_at_once(kernel):
    """Also across segments, as a step may start the next example."""
    phi = features(kernel, *queries_keys_values(3.0), packed_segments())
    state = favor.empty_state(BATCH, HEADS, phi.key_BHLM.shape[-1], DIM)
    steps = []
    for t in range(LENGTH):
        y, state = attend_to_prefix(jax.tree.map(lambda x, t=t: x[:, :, t : t + 1], phi), state)
        steps.append(y)
    assert_close(np.concatenate(steps, axis=2), prefix(phi), packed_segments() != 0)


@pytest.mark.parametrize("causal", [False, True])
def test_long_keys_overflow_nothing(causal):
    """For keys of length 100, exp(|k|^2 / 2) is far beyond float32's range.

    Outputs and gradients must stay finite.
    """

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1, 2))
    def loss(q, k, v):
        phi = features("softmax", q, k, v, packed_segments())
        return jnp.sum(jnp.square(prefix(phi) if causal else to_all(phi, packed=True)))

    for leaf in jax.tree.leaves(loss(*queries_keys_values(40.0))):
        assert np.isfinite(leaf).all()


def test_random_features_estimate_the_vanilla_layers_weights():
    """The estimate has no bias, and is closer with more features.

    It estimates exp(q . k) for the same queries and keys, that is T5's attention, which is not
    scaled.
    """
    rng = np.random.default_rng(0)
    q, k = (
        jnp.asarray(rng.normal(size=(1, 1, 6, 16)) * scale, jnp.float32)
        for scale in (0.5 / 16**0.5, 0.5)
    )
    exact = np.exp(np.einsum("BHTK,BHSK->TS", q, k))

    def error(num_features: int) -> float:
        directions = favor.draw_directions(jax.random.key(0), num_features, 16)
        _, key, log_scale = favor.softmax_features(q, k, directions, 0.0)
        query = np.exp(
            2 * q @ directions.T - np.sum(np.square(2 * q), -1, keepdims=True) / 2
        )  # K^1/4 = 2
        estimate = (
            np.einsum("BHTM,BHSM->TS", query, key * np.exp(log_scale)[..., None]) / num_features
        )
        return np.sqrt(np.mean(np.square(estimate / exact - 1)))

    assert error(16384) < 0.04
    assert error(16384) < error(256) / 4


def test_directions_are_orthogonal_in_blocks():
    directions = np.asarray(favor.draw_directions(jax.random.key(0), 40, 16))
    assert directions.shape == (40, 16)
    for block in np.split(directions, [16, 32]):
        gram = block @ block.T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4)
    lengths = np.linalg.norm(
        np.asarray(favor.draw_directions(jax.random.key(1), 4096, 16)), axis=-1
    )
    assert abs(np.mean(lengths**2) - 16) < 0.5 and np.std(lengths) > 0.3


def test_nothing_grows_with_the_square_of_the_length():
    """There is also no state per position: the largest array is a few times the features."""

    def largest(length: int) -> int:
        q, k, v = (jnp.zeros((1, 2, length, width)) for width in (32, 32, 33))
        phi = favor.Features(
            q, k, jnp.zeros((1, 2, length)), v, jnp.ones((1, 1, length), jnp.int32)
        )
        start = favor.empty_state(1, 2, 32, 32)
        jaxpr = jax.make_jaxpr(jax.grad(lambda phi: prefix_sum(phi, start), allow_int=True))(phi)
        return max(v.aval.size for eqn in _equations(jaxpr.jaxpr) for v in eqn.outvars)

    def prefix_sum(phi, start):
        return jnp.sum(favor.attend_to_prefix(phi, start)[0])

    assert largest(2048) == 2 * largest(1024)
    assert largest(2048) <= 2048 * 2 * 64


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for sub in jex_core.jaxprs_in_params(eqn.params):
            yield from _equations(sub)


def test_the_cache_does_not_grow():
    model = models.build(models.config("performer", max_target_length=64))
    batch = models.pad(models.examples(np.random.default_rng(0), [5], [5]))
    short, long = (
        jax.eval_shape(lambda m, n=n: m.init_cache(batch, n), model)["layers"] for n in (8, 64)
    )
    assert jax.tree.map(lambda x: x.shape, short) == jax.tree.map(lambda x: x.shape, long)


@pytest.mark.slow
def test_random_features_are_redrawn_in_training_and_fixed_in_evaluation():
    batch = models.pad(models.examples(np.random.default_rng(0), [9, 16], [12, 5]))

    def nll(train: bool, seed: int, **options):
        model = models.build(
            models.config("performer", kernel="softmax", num_features=16, **options)
        )
        return np.asarray(models.token_nll(model, batch, jax.random.key(seed), train=train).nll)

    assert np.abs(nll(True, 0) - nll(True, 1)).max() > 1e-4
    np.testing.assert_array_equal(nll(False, 0), nll(False, 1))
    np.testing.assert_array_equal(nll(True, 0, redraw=False), nll(True, 1, redraw=False))
    np.testing.assert_array_equal(nll(True, 0, redraw=False), nll(False, 0))


def test_random_features_are_no_parameters():
    cfg = models.config("performer", kernel="softmax")
    params, features, _ = nnx.state(models.build(cfg), nnx.Param, RandomFeatures, ...)
    assert not [path for path, _ in nnx.to_flat_state(params) if "directions" in path]
    assert len(nnx.to_flat_state(features)) == cfg.num_encoder_layers + cfg.num_decoder_layers
    relu = arch_zoo.config("performer", "base")
    softmax = arch_zoo.config("performer", "base", kernel="softmax")
    assert arch_zoo.count_params(relu) == arch_zoo.count_params(softmax)


@pytest.mark.parametrize(("options", "num_features"), [({}, 64), ({"kernel": "softmax"}, 256)])
def test_closed_form_counts_at_base(options, num_features):
    cfg = arch_zoo.config("performer", "base", **options)
    D, H, K, N = cfg.embed_dim, cfg.num_heads, cfg.head_dim, cfg.num_encoder_layers
    tables = (cfg.max_input_length + cfg.max_target_length) * D - 2 * on_paper.BUCKETS * H
    assert arch_zoo.count_params(cfg).total == on_paper.vanilla_params(cfg) + tables
    S, T, M = 512, 114, num_features
    chunk, chunks = 57, 2
    random = 2 * 2 * M * K * H * (S + T) if options else 0
    encoder = 4 * S * H * M * (K + 1) - 4 * S * S * H * K
    inside = 2 * chunk * chunk * (M + K + 1)
    decoder = chunks * H * (inside + 4 * chunk * M * (K + 1)) - 4 * T * T * H * K
    expected = on_paper.vanilla_flops(cfg, S, T) + N * (encoder + decoder + random)
    assert arch_zoo.count_flops(cfg, S, T).forward == expected


def test_sequences_beyond_the_tables_are_refused():
    table = LearnedPositions(16, 8, "max_input_length", jax.random.key(0))
    ids = jnp.ones((1, 17), jnp.int32)
    with pytest.raises(arch_zoo.ConfigError, match="max_input_length=16"):
        table(jnp.zeros((1, 17, 8)), Context(ids, ids))
    with pytest.raises(arch_zoo.ConfigError, match="max_input_length=16"):
        table(
            jnp.zeros((1, 1, 8)), Context(ids[:, :1], ids[:, :1], index=jnp.int32(0), max_length=17)
        )


@pytest.mark.parametrize("packed", [False, True])
def test_a_position_has_its_own_vector(packed):
    table = LearnedPositions(16, 8, "max_input_length", jax.random.key(0))
    positions = jnp.asarray([[0, 1, 2, 0, 1]]) if packed else jnp.arange(5)[None]
    y, _ = table(
        jnp.zeros((1, 5, 8)), Context(jnp.ones((1, 5), jnp.int32), positions, packed=packed)
    )
    np.testing.assert_array_equal(y[0], table.table[...][positions[0]])
    low, _ = table(jnp.zeros((1, 5, 8), jnp.bfloat16), Context(positions, positions, packed=packed))
    assert low.dtype == jnp.bfloat16
    np.testing.assert_array_equal(low[0], y[0].astype(jnp.bfloat16))


@pytest.mark.parametrize("options", [{"kernel": "cosine"}, {"num_features": 0}])
def test_nonsense_is_refused(options):
    with pytest.raises(arch_zoo.ConfigError, match=next(iter(options))):
        arch_zoo.config("performer", "nano", **options)
