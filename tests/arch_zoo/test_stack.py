"""Stacks of blocks: scanning, rematerialisation, and the context that their layers share."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core as jex_core

import arch_zoo
from arch_zoo.accounting import abstract_model, count_state
from arch_zoo.layers.context import Aux, Context, observe
from arch_zoo.layers.stack import Residual
from tests.arch_zoo import models
from tests.tolerances import PARITY, REORDERED


def scans(jaxpr) -> list[int]:
    """The lengths of all loops of a program."""
    found = []
    for eqn in jaxpr.eqns:
        found += [eqn.params["length"]] if eqn.primitive.name == "scan" else []
        for inner in jex_core.jaxprs_in_params(eqn.params):
            found += scans(inner)
    return found


@pytest.mark.parametrize(("scan_layers", "lengths"), [(False, []), (True, [6, 6])])
def test_blocks_are_scanned_where_requested(scan_layers, lengths):
    model = models.build(models.config("transformer", "nano-NL6", scan_layers=scan_layers))
    tokens = jnp.ones((1, 4), jnp.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": tokens,
    }
    assert scans(jax.make_jaxpr(lambda: model(batch).logits)().jaxpr) == lengths


def dots(jaxpr) -> int:
    """The number of matrix products in a program."""
    inner = (dots(inner) for eqn in jaxpr.eqns for inner in jex_core.jaxprs_in_params(eqn.params))
    return sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns) + sum(inner)


def test_a_gradient_recomputes_what_remat_says():
    """`dots` recomputes products of pairs of positions, `full` everything that a gradient needs."""
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    batch = {name: jnp.ones((1, 4), jnp.int32) for name in names}

    def products(remat: str) -> tuple[int, int]:
        model = models.build(models.config("transformer", "nano-NL1", remat=remat))
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        loss = lambda params: nnx.merge(graph, params, rest).token_nll(batch).nll.sum()
        return tuple(dots(jax.make_jaxpr(f)(params).jaxpr) for f in (loss, jax.grad(loss)))

    forward, gradient = products("none")
    pairs = 3 * 2  # queries with keys and weights with values, in three attention layers
    assert products("dots") == (forward, gradient + pairs)
    needed = forward - 1 - 2  # the logits and the last product of each block are not needed
    assert products("full") == (forward, gradient + needed)


def test_settings_of_a_context_are_not_arrays():
    """In a loop over blocks, JAX would trace it as a number, on which `if` cannot branch."""
    ids = jnp.ones((1, 4), jnp.int32)
    ctx = Context(
        ids,
        ids,
        causal=True,
        packed=True,
        train=True,
        dropout_rate=0.1,
        max_length=7,
        expert_axis="expert",
    )
    assert len(jax.tree.leaves(ctx)) == 2
    again = jax.tree.map(lambda x: x + 1, ctx)
    assert (again.packed, again.expert_axis, again.max_length) == (True, "expert", 7)


def test_a_context_is_one_of_evaluation_by_default():
    """Decoding relies on this: no dropout, no jitter, no capacity limit, one segment per row."""
    ids = jnp.ones((1, 4), jnp.int32)
    ctx = Context(ids, ids)
    assert not (ctx.train or ctx.causal or ctx.packed or ctx.dropout_rate or ctx.biases)
    others = (ctx.memory_BSD, ctx.memory_segment_ids_BS, ctx.key, ctx.index, ctx.expert_axis)
    assert all(other is None for other in others)


def test_masks_follow_segments_order_and_decoding():
    """Padding, segment 0, is treated like other segments; no real token can see it."""
    own, memory = [1, 1, 2, 0], [1, 2, 2, 0, 0]
    ids = jnp.asarray([own, [1, 1, 1, 1]])
    ctx = Context(ids, ids, memory_segment_ids_BS=jnp.asarray([memory, [1] * 5]))
    same = np.equal.outer(own, own)
    assert (ctx.self_mask().shape, ctx.cross_mask().shape) == ((2, 1, 4, 4), (2, 1, 4, 5))
    np.testing.assert_array_equal(ctx.self_mask()[0, 0], same)
    np.testing.assert_array_equal(ctx.cross_mask()[0, 0], np.equal.outer(own, memory))
    causal = dataclasses.replace(ctx, causal=True)
    np.testing.assert_array_equal(causal.self_mask()[0, 0], np.tril(same))
    np.testing.assert_array_equal(causal.self_mask()[1, 0], np.tril(np.ones((4, 4), bool)))
    assert causal.cross_mask().sum() == ctx.cross_mask().sum()
    cached = jnp.asarray([[0, 1, 1, 1, 1, 1], [1] * 6])  # the first row has padding on the left
    decoding = dataclasses.replace(causal, index=jnp.int32(2), max_length=6)
    decoding = dataclasses.replace(decoding, cache_segment_ids_BT=cached)
    assert decoding.self_mask()[:, 0, 0].tolist() == [
        [False, True, True, False, False, False],
        [True, True, True, False, False, False],
    ]
    prefix = dataclasses.replace(causal, prefix_BL=jnp.asarray([[1, 1, 0, 0], [1, 1, 1, 0]]) > 0)
    shared = np.tril(np.ones((4, 4), bool))
    shared[:3, :3] = True
    np.testing.assert_array_equal(prefix.self_mask()[1, 0], shared)
    assert ctx.real_BL1[..., 0].tolist() == [[True, True, True, False], [True] * 4]


def test_a_residual_layer_sees_zeros_at_padding_and_adds_what_it_returns():
    class Spread(nnx.Module):
        """Adds the sum over all positions, as a convolution does within its width."""

        def __call__(self, x_BLD, ctx, cache):
            return jnp.broadcast_to(x_BLD.sum(1, keepdims=True), x_BLD.shape), cache, Aux()

    cfg = models.config("transformer", "nano")
    x_BLD = 3.0 * jax.random.normal(jax.random.key(0), (1, 4, cfg.embed_dim))
    ids = jnp.asarray([[1, 1, 2, 0]])
    y_BLD, _, _ = Residual(cfg, Spread())(x_BLD, Context(ids, ids))
    normed = x_BLD / np.sqrt(np.square(x_BLD).mean(-1, keepdims=True) + 1e-6)
    expected = np.broadcast_to(normed[:, :3].sum(1, keepdims=True), x_BLD.shape)
    np.testing.assert_allclose(y_BLD - x_BLD, expected, atol=PARITY)


def test_what_layers_return_is_added_up():
    """Losses are summed; a diagnostic is a sum and a count, so that its mean can be taken."""
    one = Aux({"balance": jnp.float32(2)}, {"load": observe(jnp.bfloat16(3))})
    other = Aux(
        {"balance": jnp.float32(5), "ponder": jnp.float32(7)}, {"load": observe(jnp.int32(4))}
    )
    for merged in (one.merge(other), other.merge(one)):
        assert {name: float(loss) for name, loss in merged.losses.items()} == {
            "balance": 7.0,
            "ponder": 7.0,
        }
        assert merged.metrics["load"].tolist() == [7.0, 2.0]
        assert merged.metrics["load"].dtype == jnp.float32
    assert Aux().merge(one) == one and one.merge(Aux()) == one


def test_randomness_is_folded_where_there_is_any():
    ids = jnp.ones((1, 4), jnp.int32)
    x, plain = jnp.ones((1, 4, 50)), Context(ids, ids, train=True)
    assert plain.fold(3) is plain and plain.dropout(x) is x
    ctx = dataclasses.replace(plain, key=jax.random.key(0), dropout_rate=0.5)
    folded = [ctx, ctx.fold(0), ctx.fold(1), ctx.fold(0).fold(1)]
    drawn = {tuple(np.asarray(c.dropout(x)).ravel().tolist()) for c in folded}
    assert len(drawn) == 4
    np.testing.assert_array_equal(ctx.fold(1).dropout(x), ctx.fold(jnp.int32(1)).dropout(x))
    idle = dataclasses.replace(ctx, train=False)
    assert idle.dropout(x) is x


@pytest.mark.parametrize(
    ("sites", "where", "channels"),
    [
        ("A", ["self_attention"], [32]),
        ("B", ["self_attention"], [3 * 32]),
        ("C", ["feed_forward"], [32]),
        ("D", ["feed_forward"], [128]),
        ("ABCD", ["self_attention", "feed_forward"], [32, 3 * 32, 32, 128]),
    ],
)
def test_a_short_convolution_stands_where_it_is_asked_for(sites, where, channels):
    """It adds four taps for each channel of these layers, and changes no other parameter."""
    plain, short = (
        nnx.to_flat_state(nnx.state(arch_zoo.build(cfg, jax.random.key(0)), nnx.Param))
        for cfg in (models.config("transformer"), models.config("transformer", short_conv=sites))
    )
    before = {".".join(map(str, path)): param for path, param in plain}
    after = {".".join(map(str, path)): param for path, param in short}
    added = set(after) - set(before)
    assert {path.split(".")[3] for path in added} == set(where)
    shapes = sorted(after[path].shape for path in added)
    assert shapes == sorted([(4, count) for count in channels] * 4)  # two layers in either stack
    assert all(np.array_equal(before[path][...], after[path][...]) for path in before)


def test_the_taps_are_counted():
    """An encoder-decoder has no convolution in cross-attention."""
    plain, short = (models.config("transformer", short_conv=sites) for sites in ("", "ABCD"))
    channels = 32 + 3 * 32 + 32 + 128
    counts = [arch_zoo.count_params(cfg).total for cfg in (plain, short)]
    assert counts[1] - counts[0] == 4 * 4 * channels
    flops = [arch_zoo.count_flops(cfg, 16, 12).forward for cfg in (plain, short)]
    assert flops[1] - flops[0] == 2 * (16 + 12) * 2 * 4 * channels
    states = [
        count_state(models.config("transformer-lm", short_conv=sites), 20) for sites in ("", "ABCD")
    ]
    assert states[1] - states[0] == 2 * 3 * channels


@pytest.mark.parametrize("name", [name for name in arch_zoo.names() if name != "hybrid"])
def test_an_architecture_has_the_sites_that_it_does_not_refuse(name):
    """On every side. A hybrid has those of its mixers."""
    cls = arch_zoo.get(name)
    for family, site in itertools.product(cls.families, "BD"):
        if site not in cls.no_short_conv:
            cfg = models.config(name, family=family, short_conv=site)
            params = nnx.to_flat_state(nnx.state(abstract_model(cfg), nnx.Param))
            found = {path[0] for path, _ in params if path[-2:] == ("short", "taps")}
            assert found == {side.name for side in cfg.sides}, (family, site)


def _with_taps(x, taps, starts):
    """Each position [1, L, C] and the taps of it and the three before it, from its start on."""
    mixed = np.asarray(x).copy()
    for t, start in enumerate(starts):
        for tap in range(4):
            if t - 3 + tap >= start:
                mixed[0, t] += np.asarray(taps)[tap] * np.asarray(x)[0, t - 3 + tap]
    return mixed


@pytest.mark.parametrize("variant", ["transformer-short", "gla-short"])
def test_a_layer_works_on_its_projections_and_the_short_convolution_of_them(variant):
    cfg = models.config(variant)
    block = models.build(cfg).decoder.blocks[0]
    x = jax.random.normal(jax.random.key(1), (1, 6, cfg.embed_dim))
    ids = jnp.array([[1, 1, 1, 2, 2, 0]])
    ctx = Context(ids, ids, causal=True)
    x *= ctx.real_BL1
    for layer in (block.self_attention.layer, block.feed_forward.layer):
        got, _, _ = layer(x, ctx)
        projected, start, convolved = layer.projections(x), 0, []
        for array in projected:
            flat = array.reshape(1, 6, -1)
            taps = layer.short.taps[:, start : start + flat.shape[2]]
            mixed = _with_taps(flat, taps, [0, 0, 0, 3, 3])
            convolved.append(jnp.asarray(mixed).reshape(array.shape))
            start += flat.shape[2]
        assert start == layer.short.taps.shape[1]
        expected, _, _ = layer.work(x, tuple(convolved), ctx, None)
        np.testing.assert_allclose(got[0, :5], expected[0, :5], atol=REORDERED)


@pytest.mark.parametrize(
    ("name", "sites", "message"),
    [
        (
            "lconv",
            "AB",
            "lconv: short_conv='AB': it has no site B, since its mixers have no queries",
        ),
        ("dconv", "B", "dconv: short_conv='B': it has no site B"),
        ("mixer", "B", "mixer: short_conv='B': it has no site B"),
        ("mamba2", "B", "mamba2: short_conv='B': it has no site B, since it has mixers with"),
        ("mamba2", "D", "mamba2: short_conv='D': it has no site D"),
        ("gated_deltanet", "B", "gated_deltanet: short_conv='B': .* convolutions of their own"),
        ("hybrid", "B", "gated_deltanet: short_conv='B'"),
        ("moe", "ABCD", "moe: short_conv='ABCD': it has no site D, since an expert's tokens"),
        ("switch", "D", "switch: short_conv='D': it has no site D"),
        ("transformer", "BA", "short_conv='BA': allowed are , A, B, C, D, AB"),
    ],
)
def test_a_site_that_is_not_there_is_refused(name, sites, message):
    with pytest.raises(arch_zoo.ConfigError, match=message):
        arch_zoo.config(name, "nano", short_conv=sites)


def test_a_layer_reads_its_input_and_the_short_convolution_of_it():
    cfg = models.config("transformer", short_conv="C")
    residual = models.build(cfg).decoder.blocks[0].feed_forward
    x = jax.random.normal(jax.random.key(1), (1, 6, cfg.embed_dim))
    ids = jnp.array([[1, 1, 1, 2, 2, 0]])
    got, _, _ = residual(x, Context(ids, ids, causal=True))
    normed, taps = np.asarray(residual.norm(x)), np.asarray(residual.taps[...])
    mixed = _with_taps(normed, taps, [0, 0, 0, 3, 3])
    expected, _, _ = residual.layer(jnp.asarray(mixed), Context(ids, ids, causal=True))
    np.testing.assert_allclose((got - x)[0, :5], expected[0, :5], atol=REORDERED)
