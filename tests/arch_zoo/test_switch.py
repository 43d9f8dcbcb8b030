"""Switch's special features: routing, dropping, balance loss, causality under capacity, counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import arch_zoo
from arch_zoo.architectures.switch import SwitchFeedForward
from arch_zoo.layers import experts
from arch_zoo.layers.context import Context
from arch_zoo.side import ENCODER
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

OPTIONS = {"num_experts": 3, "jitter": 0.0, "train_capacity_factor": 0.6, "group_size": 32}


block_places = jax.jit(experts.block_places, static_argnums=2)
limited_places = jax.jit(experts.limited_places, static_argnums=(2, 3, 4))


@functools.partial(jax.jit, static_argnames="train")
def run(layer, x, segments, train: bool):
    ctx = Context(segments, jnp.zeros_like(segments), key=jax.random.key(1), train=train)
    y, _, aux = layer(x, ctx)
    return y, aux


def layer_and_input(rows: int = 4, length: int = 16, **options):
    cfg = models.config("switch", **(OPTIONS | options))
    layer = SwitchFeedForward(cfg, cfg.architecture, jax.random.key(0))
    rng = np.random.default_rng(0)
    segments = (np.arange(length) < rng.integers(length // 2, length + 1, (rows, 1))).astype(
        np.int32
    )
    x = rng.normal(size=(rows, length, cfg.embed_dim)).astype(np.float32) * segments[..., None]
    return layer, jnp.asarray(x), segments


def reference(layer, x, segments, groups: list[list[int]], limit: int | None):
    """The layer token by token: its output, and the balance loss before it is weighted."""
    router, wi, wo = (np.asarray(a[...], np.float64) for a in (layer.router, layer.wi, layer.wo))
    scores = np.exp(np.float64(x) @ router)
    probs = scores / scores.sum(-1, keepdims=True)
    y, losses, dropped = np.zeros(x.shape), [], []
    for group in groups:
        taken, late = np.zeros(len(wi), int), 0
        tokens = [(row, t) for t in range(x.shape[1]) for row in group if segments[row, t]]
        for row, t in tokens:
            e = probs[row, t].argmax()
            taken[e] += 1
            if limit is not None and taken[e] > limit:
                late += 1
                continue
            y[row, t] = probs[row, t, e] * np.maximum(x[row, t] @ wi[e], 0) @ wo[e]
        mean = np.mean([probs[token] for token in tokens], axis=0)
        losses.append(len(wi) * np.sum(mean * taken / len(tokens)))
        dropped.append(late / len(tokens))
    return y, np.mean(losses), np.mean(dropped)


@pytest.mark.parametrize("train", [False, True])
def test_layer_equals_token_by_token(train):
    layer, x, segments = layer_and_input()
    limit = int(32 * 0.6 / 3) if train else None
    expected, loss, dropped = reference(layer, x, segments, [[0, 1], [2, 3]], limit)
    y, aux = run(layer, x, segments, train)
    np.testing.assert_allclose(y, expected, atol=tolerances.REORDERED)
    np.testing.assert_allclose(aux.losses["load_balance"], 0.01 * loss, rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["expert_drop_rate"], [dropped, 1], atol=1e-6)
    assert dropped > 0.1 or not train, "the test must drop some"


def test_evaluation_can_have_a_capacity():
    layer, x, segments = layer_and_input(eval_capacity_factor=0.6)
    limited, _ = run(layer, x, segments, train=False)
    trained, _ = run(layer, x, segments, train=True)
    np.testing.assert_array_equal(limited, trained)


def test_capacity_and_loss_do_not_depend_on_the_number_of_devices():
    """Half of the rows on each of two devices give the same outputs and the same mean loss."""
    layer, x, segments = layer_and_input()
    y, aux = run(layer, x, segments, train=True)
    halves = [
        run(layer, x[half], segments[half], train=True) for half in (slice(0, 2), slice(2, 4))
    ]
    np.testing.assert_allclose(
        jnp.concatenate([part[0] for part in halves]), y, atol=tolerances.REORDERED
    )
    loss = np.mean([part[1].losses["load_balance"] for part in halves])
    np.testing.assert_allclose(loss, aux.losses["load_balance"], rtol=1e-6)


@pytest.mark.parametrize("limited", [False, True])
def test_places_of_earlier_positions_do_not_move(limited):
    """Wherever a position is sent, all earlier positions of all rows keep their places.

    Bitwise causality depends on this.
    """
    rng = np.random.default_rng(0)
    expert, real = jnp.asarray(rng.integers(0, 3, (4, 16))), jnp.ones((4, 16), bool)

    def places(expert):
        found = limited_places(expert, real, 2, 3, 5) if limited else block_places(expert, real, 3)
        return np.asarray(found[0]).reshape(4, 16)

    for position in range(16):
        moved = expert.at[:, position].set((expert[:, position] + 1) % 3)
        np.testing.assert_array_equal(places(moved)[:, :position], places(expert)[:, :position])


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.floats(0, 1), st.integers(0, 2**31))
@pytest.mark.parametrize(
    ("rows", "length", "num_experts"), [(1, 1, 16), (5, 7, 1), (3, 7, 4), (3, 64, 9)]
)
def test_blocks_hold_every_token_with_its_expert(rows, length, num_experts, skew, seed):
    """Also if all tokens choose one expert.

    No token is lost, no two share a place, and each meets the kernels of its own expert.
    """
    rng = np.random.default_rng(seed)
    expert = np.where(
        rng.random((rows, length)) < skew,
        num_experts - 1,
        rng.integers(0, num_experts, (rows, length)),
    )
    real = rng.random((rows, length)) < 0.8
    places, expert_of, block_size = block_places(
        jnp.asarray(expert), jnp.asarray(real), num_experts
    )
    places = np.asarray(places).reshape(rows, length)
    assert (places[~real] == len(expert_of) * block_size).all()
    assert ((places[real] >= 0) & (places[real] < len(expert_of) * block_size)).all()
    assert len(np.unique(places[real])) == real.sum()
    np.testing.assert_array_equal(np.asarray(expert_of)[places[real] // block_size], expert[real])


@pytest.mark.parametrize("tokens", [1, 8, 9, 35, 64, 65])
def test_one_expert_can_take_all_tokens(tokens):
    """Whole blocks, and a last block that is not full."""
    real = jnp.ones((1, tokens), bool)
    places, expert_of, size = block_places(jnp.full((1, tokens), 1), real, 2)
    assert sorted(np.asarray(places).tolist()) == list(range(tokens))
    assert (np.asarray(expert_of)[: -(-tokens // size)] == 1).all()


def test_the_backward_gather_is_the_gradient():
    places = jnp.asarray([3, 6, 0, 5, 6])  # 6 is outside: the token has no place
    tokens = experts.inverse(places, 6)
    np.testing.assert_array_equal(tokens, [2, 5, 5, 0, 5, 3])
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)))

    def by_exchange(x):
        return jnp.sum(experts.exchange(x, tokens, places) * weights)

    def by_scatter(x):
        return jnp.sum(jnp.zeros((6, 2)).at[places].set(x, mode="drop") * weights)

    x = jnp.arange(10.0).reshape(5, 2)
    assert by_exchange(x) == by_scatter(x)
    np.testing.assert_array_equal(jax.grad(by_exchange)(x), jax.grad(by_scatter)(x))


@pytest.mark.slow
def test_training_under_a_tight_capacity_is_causal_in_every_row():
    model = models.build(models.config("switch", **(OPTIONS | {"jitter": 0.01}), dropout_rate=0.1))
    batch = models.pad(models.examples(np.random.default_rng(0), [16] * 4, [12] * 4))
    key = jax.random.key(0)
    before = models.forward(model, batch, key, train=True)
    assert before.metrics["expert_drop_rate"] > 0.05
    for where in range(12):
        changed = batch | {
            "decoder_input_tokens": batch["decoder_input_tokens"].at[:, where].set(2 + where)
        }
        after = models.forward(model, changed, key, train=True)
        np.testing.assert_array_equal(after.logits[:, :where], before.logits[:, :where])


def test_an_even_load_costs_its_weight():
    """A router without preferences gives every expert the probability 1/E.

    The loss is then exactly the weight, for each sparse layer.
    """
    layer, x, segments = layer_and_input(balance_weight=0.5)
    layer.router[...] = jnp.zeros(layer.router.shape)
    _, aux = run(layer, x, segments, train=False)
    np.testing.assert_allclose(aux.losses["load_balance"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(
        aux.metrics["expert_load"], [3, 1], rtol=1e-6
    )  # ties are given to the first expert


def test_the_routers_input_is_jittered_in_training_by_the_width_it_says():
    """If one score is the input and the others are zero, log-probabilities differ by the jitter."""
    layer, _, _ = layer_and_input(jitter=arch_zoo.config("switch", "nano").architecture.jitter)
    D, E = layer.router.shape
    layer.router[...] = jnp.zeros((D, E)).at[0, 0].set(1.0)
    ones, ids = jnp.ones((40, 50, D)), jnp.ones((40, 50), jnp.int32)

    def factors(train: bool):
        log_probs = np.log(
            layer.probabilities(ones, Context(ids, ids, key=jax.random.key(3), train=train))
        )
        return log_probs[..., 0] - log_probs[..., 1]

    np.testing.assert_allclose(factors(train=False), 1.0, atol=1e-6)
    jittered = factors(train=True)
    assert abs(jittered.mean() - 1) < 5 * 0.01 / np.sqrt(
        3 * jittered.size
    )  # uniform between .99 and 1.01
    assert jittered.std() == pytest.approx(0.01 / np.sqrt(3), rel=0.05)
    assert 0.0099 < np.abs(jittered - 1).max() < 0.0101
    assert len(np.unique(jittered.round(6))) > 1000, "every token has a draw of its own"


def test_closed_form_counts_at_base():
    cfg = arch_zoo.config("switch", "base")
    D, sparse = cfg.embed_dim, 12
    router = 16 * D
    params = arch_zoo.count_params(cfg)
    vanilla = on_paper.vanilla_params(cfg)
    assert params.total == vanilla + sparse * (router + 15 * on_paper.feed_forward_params(cfg))
    assert params.active == vanilla + sparse * router
    assert round(params.total / 1e6, 1) == 1072.4
    S, T = 512, 114
    routers = 2 * router * (S + T) * sparse // 2
    assert arch_zoo.count_flops(cfg, S, T).forward == on_paper.vanilla_flops(cfg, S, T) + routers


def test_the_sibling_studys_setting_has_its_published_size():
    """1100M at base (Narang et al., 2021): 32 experts at the last of every four depths."""
    cfg = arch_zoo.config("switch", "base", variant="narang")
    options = cfg.architecture
    assert (options.num_experts, options.every, options.train_capacity_factor) == (32, 4, 1.2)
    sparse, router = 6, 32 * cfg.embed_dim
    params = arch_zoo.count_params(cfg)
    assert params.total == on_paper.vanilla_params(cfg) + sparse * (
        router + 31 * on_paper.feed_forward_params(cfg)
    )
    assert round(params.total / 1e6, 1) == 1100.7
    assert (
        arch_zoo.config("switch", "base", variant="narang", num_experts=64).architecture.num_experts
        == 64
    )


@pytest.mark.parametrize(
    ("every", "sparse"), [(1, (0, 1, 2, 3)), (2, (1, 3)), (3, (2,)), (4, (3,))]
)
def test_the_last_of_every_so_many_depths_is_sparse(every, sparse):
    cfg = arch_zoo.config("switch", "nano-NL4", every=every)
    layers = [
        cfg.architecture.feed_forward(cfg, ENCODER, depth, jax.random.key(0)) for depth in range(4)
    ]
    assert (
        tuple(d for d, layer in enumerate(layers) if isinstance(layer, SwitchFeedForward)) == sparse
    )


@pytest.mark.parametrize(
    ("group_size", "num_experts", "factor", "places"),
    [
        (32, 3, 0.6, 6),  # 6.4, rounded down
        (1024, 16, 1.25, 80),
        (32, 16, 1.0, 4),  # two each, but never fewer than four
        (3, 1, 1.0, 4),
        (64, 2, 5.0, 64),  # never more than there are tokens
    ],
)
def test_an_expert_has_its_share_of_places(group_size, num_experts, factor, places):
    assert experts.capacity(group_size, num_experts, factor) == places


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_token_meets_its_expert_in_its_own_type(dtype):
    """`relu(x wi) wo`, computed token by token.

    The kernels are stored in float32 and rounded to the tokens' type.
    """
    rng = np.random.default_rng(0)
    expert, real = rng.integers(0, 3, (2, 9)), rng.random((2, 9)) < 0.8
    x, wi, wo = (
        jnp.asarray(rng.normal(size=s), t)
        for s, t in (((2, 9, 4), dtype), ((3, 4, 8), jnp.float32), ((3, 8, 4), jnp.float32))
    )
    y = experts.dropless(x, jnp.asarray(expert), jnp.asarray(real), (wi,), wo)
    assert y.dtype == dtype
    x, wi, wo = (np.float64(a.astype(dtype).astype(jnp.float32)) for a in (x, wi, wo))
    expected = np.zeros(x.shape)
    for b, t in zip(*np.nonzero(real), strict=True):
        expected[b, t] = np.maximum(x[b, t] @ wi[expert[b, t]], 0) @ wo[expert[b, t]]
    rounding = tolerances.REORDERED if dtype == jnp.float32 else 2**-7 * np.abs(expected).max()
    np.testing.assert_allclose(y.astype(jnp.float32), expected, atol=rounding)
    assert not np.asarray(y)[~real].any()


@pytest.mark.parametrize("train", [False, True])
def test_the_layer_computes_in_the_type_of_its_input(train):
    """Except for the router, whose probabilities are float32 until they multiply the output."""
    layer, x, segments = layer_and_input()
    exact, _ = run(layer, x, segments, train)
    y, aux = run(layer, x.astype(jnp.bfloat16), segments, train)
    assert y.dtype == jnp.bfloat16 and aux.losses["load_balance"].dtype == jnp.float32
    assert layer.probabilities(x.astype(jnp.bfloat16), Context(segments, segments)).dtype == (
        jnp.float32
    )
    assert exact.dtype == jnp.float32


def test_rows_take_turns_in_a_group():
    """The first positions of all rows come first, then all second positions.

    Here two groups of two rows with three positions.
    """
    x_BL = jnp.arange(12).reshape(4, 3)
    x_GN = experts.by_position(x_BL, 2)
    assert x_GN.tolist() == [[0, 3, 1, 4, 2, 5], [6, 9, 7, 10, 8, 11]]
    assert experts.by_row(x_GN, 2).tolist() == list(range(12))


def test_limited_places_are_first_come_first_served():
    """Computed one token after the other.

    The places of expert e in group g start at (e * groups + g) * limit.
    """
    rng = np.random.default_rng(0)
    expert, real = rng.integers(0, 3, (4, 16)), rng.random((4, 16)) < 0.8
    places, size = limited_places(jnp.asarray(expert), jnp.asarray(real), 2, 3, 5)
    assert size == 3 * 2 * 5
    expected = np.full((4, 16), size)
    for group, rows in enumerate(([0, 1], [2, 3])):
        taken = [0, 0, 0]
        for row, t in ((row, t) for t in range(16) for row in rows):
            e = expert[row, t]
            if real[row, t] and taken[e] < 5:
                expected[row, t] = (e * 2 + group) * 5 + taken[e]
            taken[e] += real[row, t]
    assert (expected[real] == size).any()
    np.testing.assert_array_equal(np.asarray(places).reshape(4, 16), expected)


@pytest.mark.parametrize(
    ("tokens", "num_experts", "block_size", "blocks"),
    [(2048, 16, 32, 64 + 16), (64, 16, 8, 8 + 16), (6, 2, 8, 2), (3, 16, 8, 3)],
)
def test_tokens_that_are_spread_evenly_fill_four_blocks_an_expert(
    tokens, num_experts, block_size, blocks
):
    """Blocks hold at least eight tokens.

    Every expert may leave one block half full, and no block is empty.
    """
    expert = jnp.arange(tokens)[None] % num_experts
    _, expert_of, size = block_places(expert, jnp.ones((1, tokens), bool), num_experts)
    assert (size, len(expert_of)) == (block_size, blocks)


def test_groups_are_whole_rows_that_divide_the_batch():
    assert experts.rows_per_group(128, 512, 1024) == 2
    assert experts.rows_per_group(6, 128, 1024) == 6
    assert experts.rows_per_group(10, 128, 1024) == 5
    assert experts.rows_per_group(7, 2048, 1024) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"num_experts": 0},
        {"every": 3},
        {"group_size": 0},
        {"jitter": 1.0},
        {"train_capacity_factor": 0.0},
    ],
)
def test_nonsense_is_refused(options):
    name = next(iter(options)).removeprefix("train_").replace("_factor", "")
    with pytest.raises(arch_zoo.ConfigError, match=name):
        arch_zoo.config("switch", "nano", **options)


def test_jitter_needs_a_key():
    cfg = models.config("switch")
    batch = models.pad(models.examples(np.random.default_rng(0), [4], [4]))
    with pytest.raises(arch_zoo.ConfigError, match="jitter"):
        arch_zoo.build(cfg, jax.random.key(0))(batch, train=True)
    calm = models.config("switch", jitter=0.0)
    assert not calm.architecture.stochastic(calm)
