"""A mixture of experts token by token: routing, weights, capacity, balance; counts; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo.architectures.moe import MixtureFeedForward
from arch_zoo.layers.context import Context
from tests import tolerances
from tests.arch_zoo import models

OPTIONS = {"num_experts": 4, "top_k": 2, "group_size": 32, "train_capacity_factor": 0.7}
MIXTURES = {
    "softmax": {},
    "kept": {"normalised": False},
    "sigmoid": {"scores": "sigmoid", "scale": 2.5, "num_shared": 1},
    "biased": {"scores": "sigmoid", "balance_bias": True},
}


def layer_and_input(**options):
    cfg = models.config("moe", **(OPTIONS | options))
    layer = MixtureFeedForward(cfg, cfg.architecture, jax.random.key(0))
    if layer.bias is not None:
        layer.bias[...] = jnp.asarray([0.3, -0.2, 0.0, 0.1])
    rng = np.random.default_rng(0)
    segments = (np.arange(16) < rng.integers(8, 17, (4, 1))).astype(np.int32)
    x = rng.normal(size=(4, 16, cfg.embed_dim)).astype(np.float32) * segments[..., None]
    return layer, x, segments


def run(layer, x, segments, *, train: bool):
    ctx = Context(jnp.asarray(segments), jnp.zeros(segments.shape, jnp.int32), train=train)
    y, _, aux = jax.jit(lambda layer, x: layer(x, ctx))(layer, jnp.asarray(x))
    return y, aux


def reference(layer, x, segments, groups: list[list[int]], limit: int | None):
    """Token by token: the output, the balance loss before it is weighted, the share dropped."""
    options = layer.options
    router, wi_0, wi_1, wo = (
        np.asarray(w[...], np.float64) for w in (layer.router, layer.wi_0, layer.wi_1, layer.wo)
    )
    logits = np.float64(x) @ router
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if options.scores == "sigmoid":
        scores = 1 / (1 + np.exp(-logits))
    bias = 0.0 if layer.bias is None else np.asarray(layer.bias[...], np.float64)
    y, losses, dropped = np.zeros(x.shape), [], []
    for group in groups:
        taken, late, of_experts = np.zeros(len(wo), int), 0, np.zeros(len(wo))
        tokens = [(row, t) for t in range(x.shape[1]) for row in group if segments[row, t]]
        for token in tokens:
            chosen = np.argsort(-scores[token] - bias, kind="stable")[: options.top_k]
            weights = scores[token][chosen]
            if options.normalised:
                weights = weights / weights.sum()
            for e, weight in zip(chosen, weights, strict=True):
                of_experts[e] += 1
                taken[e] += 1
                if limit is not None and taken[e] > limit:
                    late += 1
                    continue
                gate = x[token] @ wi_0[e]
                hidden = gate / (1 + np.exp(-gate)) * (x[token] @ wi_1[e])
                y[token] += options.scale * weight * (hidden @ wo[e])
        mean = np.mean([scores[token] for token in tokens], axis=0)
        losses.append(len(wo) * np.sum(mean * of_experts / len(tokens)))
        dropped.append(late / len(tokens) / options.top_k)
    return y, np.mean(losses), np.mean(dropped)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_layer_equals_token_by_token(mixture, train):
    layer, x, segments = layer_and_input(**MIXTURES[mixture])
    limit = int(64 * 0.7 / 4) if train else None  # of two rows, with two experts for each token
    expected, loss, dropped = reference(layer, x, segments, [[0, 1], [2, 3]], limit)
    y, aux = run(layer, x, segments, train=train)
    if layer.shared is not None:
        y -= layer.shared(jnp.asarray(x), Context(jnp.asarray(segments), segments))[0]
    np.testing.assert_allclose(y * segments[..., None], expected, atol=tolerances.REORDERED)
    if train:
        np.testing.assert_allclose(aux.losses["load_balance"], 0.01 * loss, rtol=1e-5)
        assert dropped > 0.02, "the test must drop some"
    np.testing.assert_allclose(aux.metrics["expert_drop_rate"], [dropped, 1], atol=1e-6)


def test_one_expert_of_one_is_a_feed_forward_layer():
    layer, x, segments = layer_and_input(num_experts=1, top_k=1)
    y, aux = run(layer, x, segments, train=False)
    wi_0, wi_1, wo = (w[...][0] for w in (layer.wi_0, layer.wi_1, layer.wo))
    expected = (jax.nn.silu(x @ wi_0) * (x @ wi_1)) @ wo
    np.testing.assert_allclose(y, expected, atol=tolerances.REORDERED)
    np.testing.assert_allclose(aux.losses["load_balance"], 0.01, rtol=1e-5)


def test_the_slope_of_the_biases_is_what_the_loads_have_over_their_mean():
    """Real tokens count, dropped ones as well, and nothing else reaches the biases."""
    layer, x, segments = layer_and_input(**MIXTURES["biased"])
    ctx = Context(jnp.asarray(segments), jnp.zeros(segments.shape, jnp.int32), train=True)

    def loss(layer):
        y, _, aux = layer(jnp.asarray(x), ctx)
        return jnp.sum(jnp.square(y)) + aux.losses["load_balance"], aux.losses["load_balance"]

    slopes, value = jax.grad(loss, has_aux=True)(layer)
    scores = 1 / (1 + np.exp(-np.float64(x) @ np.asarray(layer.router[...], np.float64)))
    chosen = np.argsort(-scores - np.asarray(layer.bias[...]), kind="stable", axis=-1)[..., :2]
    loads = np.bincount(chosen[segments > 0].ravel(), minlength=4)
    assert len(set(loads)) > 1 and loads.sum() == 2 * segments.sum()
    np.testing.assert_array_equal(slopes.bias[...], 4 * loads - loads.sum())
    plain, _, _ = layer_and_input(scores="sigmoid")
    layer.bias[...] = jnp.zeros(4)
    (y, aux), (expected, other) = (run(one, x, segments, train=True) for one in (layer, plain))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(aux.losses["load_balance"], other.losses["load_balance"])
    assert value > 0, "the other loss of the balance is still there"


@pytest.mark.parametrize(
    "options", [{}, {"num_experts": 16, "top_k": 4, "num_shared": 1, "balance_bias": True}]
)
def test_a_token_uses_the_parameters_and_flops_of_the_vanilla_layer(options):
    """All experts together have E / k times as many."""
    cfg, vanilla = (
        arch_zoo.config(name, "base", family="decoder_only", **own)
        for name, own in (("moe", options), ("transformer", {}))
    )
    moe = cfg.architecture
    used, shared = moe.top_k, moe.num_shared
    expert, products = 3 * cfg.embed_dim * cfg.mlp_dim, cfg.embed_dim * moe.num_experts
    router = products + moe.balance_bias * moe.num_experts
    counts = arch_zoo.count_params(cfg)
    layers = cfg.num_decoder_layers
    norms = layers * cfg.embed_dim
    assert counts.by_part["decoder/feed_forward"] == norms + layers * (
        router + (moe.num_experts + shared) * expert
    )
    assert counts.total - counts.active == layers * (moe.num_experts - used) * expert
    active = counts.active - counts.embedding - layers * router
    assert active == pytest.approx(arch_zoo.count_params(vanilla).non_embedding, rel=0.02)
    flops = arch_zoo.count_flops(cfg, 64).by_part
    found = sum(n for part, n in flops.items() if "feed_forward" in part)
    assert found == 64 * layers * 2 * (products + (used + shared) * expert)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 9}, "top_k=9: must be 1 to 8, the experts"),
        ({"top_k": 0}, "top_k=0: must be 1 to 8"),
        ({"num_shared": -1}, "num_shared=-1: must be at least 0"),
        ({"scores": "max"}, "scores='max': must be softmax or sigmoid"),
        ({"scale": 0.0}, "scale=0.0: must be above 0"),
        ({"train_capacity_factor": 0.0}, "train_capacity_factor=0.0: must be above 0 or None"),
        ({"eval_capacity_factor": -1.0}, "eval_capacity_factor=-1.0: must be above 0 or None"),
        ({"group_size": 0}, "group_size=0: must be at least 1"),
        ({"balance_weight": -1.0}, "balance_weight=-1.0: must be at least 0"),
    ],
)
def test_what_is_no_mixture_is_refused(options, message):
    with pytest.raises(arch_zoo.ConfigError, match=f"moe: {message}"):
        arch_zoo.config("moe", "nano", **options)
