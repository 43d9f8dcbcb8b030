"""Recurrent architectures and sliding windows: equal parameters, closed forms, what they refuse.

The closed forms are those of the literature, per token and layer, with chunks of C tokens.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo.sizes import SIZES
from tests.arch_zoo import models

NAMES = ("retnet", "gla", "gated_deltanet", "mamba2")
LENGTH = 512  # a multiple of both kernels' chunks


def language_model(name: str, size: str = "tiny", **options) -> arch_zoo.ModelConfig:
    return arch_zoo.config(name, size, family="decoder_only", **options)


def assert_equal_parameters(name: str, family: str, sizes) -> None:
    for size in sizes:
        vanilla, own = (
            arch_zoo.count_params(arch_zoo.config(n, size, family=family)).non_embedding
            for n in ("transformer", name)
        )
        assert own == pytest.approx(vanilla, rel=0.02), size


@pytest.mark.parametrize("name", [*NAMES, "hybrid"])
def test_sizes_have_the_parameters_of_the_vanilla_model(name):
    assert_equal_parameters(name, "decoder_only", ("nano", "base-FF2048"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["decoder_only", "encoder_decoder"])
@pytest.mark.parametrize("name", [*NAMES, "hybrid"])
def test_every_size_has_the_parameters_of_the_vanilla_model(name, family):
    assert_equal_parameters(name, family, (*SIZES, "tiny-NH8"))


def mixing(name: str, cfg: arch_zoo.ModelConfig) -> float:
    """FLOPs of one mixer and token besides projections, from the table of the literature."""
    heads, width = cfg.num_heads, cfg.head_dim
    if name == "retnet":
        return linear_attention(64, heads, width, 2 * width)
    if name == "gla":
        return linear_attention(16, heads, width // 2, width)
    if name == "mamba2":
        inner_heads, state = -(-cfg.mlp_dim // width), 2 * width
        taps = 2 * 4 * (cfg.mlp_dim + 2 * state)
        pairs = 2 * 64 * (state + inner_heads * width)
        return pairs + 4 * inner_heads * state * width + taps
    chunk, key, value = 64, 3 * width // 4, 3 * width // 2
    # The inverse by halves: 2 b^3 products for each of C / 2b pairs of blocks of b, twice.
    inverse = 2 * (chunk**2 - 1) / 3
    pairs = 2 * chunk * (2 * key + value) + 2 * chunk * (key + value) + inverse
    return heads * (pairs + 6 * key * value + 2 * 4 * (2 * key + value))


def linear_attention(chunk: int, heads: int, key: int, value: int) -> int:
    return 2 * chunk * heads * (key + value) + 4 * heads * key * value


@pytest.mark.parametrize("name", NAMES)
def test_mixers_cost_what_their_closed_forms_say(name):
    cfg = language_model(name)
    parts = arch_zoo.count_flops(cfg, LENGTH).by_part
    found = sum(n for part, n in parts.items() if re.search("products|depthwise", part))
    mixers = 2 if name == "mamba2" else 1
    assert found == LENGTH * cfg.num_decoder_layers * mixers * mixing(name, cfg)


@pytest.mark.parametrize("name", NAMES)
def test_projections_cost_two_flops_for_each_parameter(name):
    """All matrices are applied at each token once; other parameters are added or multiplied."""
    cfg = language_model(name)
    count = arch_zoo.count_flops(cfg, LENGTH)
    projections = sum(
        n for part, n in count.by_part.items() if not re.search("products|depthwise|head", part)
    )
    params = arch_zoo.count_params(cfg).by_part
    blocks = sum(
        n for part, n in params.items() if part.startswith("decoder/") and "norm" not in part
    )
    vectors = cfg.num_decoder_layers * _vectors(name, cfg)
    assert projections == 2 * LENGTH * (blocks - vectors)


def _vectors(name: str, cfg) -> int:
    """Parameters of a block outside its matrices, norms before the layers among them."""
    width, joined = cfg.head_dim, cfg.num_heads * cfg.head_dim
    norms = 2 * cfg.embed_dim
    if name == "retnet":
        return norms + 2 * width
    if name == "gla":
        return norms + width + joined // 2
    if name == "mamba2":
        channels, heads = cfg.mlp_dim + 4 * width, -(-cfg.mlp_dim // width)
        return norms + 2 * (4 * channels + channels + 3 * heads + cfg.mlp_dim)
    return norms + 3 * width // 2 + 4 * 3 * joined + 2 * cfg.num_heads


@pytest.mark.parametrize("name", NAMES)
def test_the_state_does_not_grow_with_the_length(name):
    cfg = language_model(name)
    width, heads = cfg.head_dim, cfg.num_heads
    inner_heads = -(-cfg.mlp_dim // width)
    state = {
        "retnet": 2 * heads * width**2,
        "gla": heads * width**2 // 2,
        "gated_deltanet": heads * 9 * width**2 // 8 + 3 * 3 * heads * width,
        "mamba2": 2 * (inner_heads * 2 * width**2 + 3 * (cfg.mlp_dim + 4 * width)),
    }[name]
    for length in (8, 512):
        assert arch_zoo.count_state(cfg, length) == cfg.num_decoder_layers * state


@pytest.mark.parametrize("window", [16, 1000])
def test_a_window_costs_and_keeps_what_it_reaches(window):
    cfg = language_model("sliding_window", windows=(window,), num_kv_heads=2)
    heads, width, layers = cfg.num_heads, cfg.head_dim, cfg.num_decoder_layers
    reached = min(2 * window, LENGTH)  # computed; half of it is masked
    full, causal = (
        arch_zoo.count_flops(cfg, LENGTH, convention=arch_zoo.Convention(attention=kind)).forward
        for kind in ("full", "none")
    )
    assert full - causal == LENGTH * layers * 4 * reached * heads * width
    half = arch_zoo.count_flops(cfg, LENGTH, convention=arch_zoo.Convention(attention="causal"))
    assert half.forward - causal == pytest.approx((full - causal) / 2, rel=0.01)
    assert arch_zoo.count_state(cfg, LENGTH) == layers * 2 * min(window, LENGTH) * 2 * width


@pytest.mark.parametrize("window", [3, 8])
@pytest.mark.parametrize("causal", [True, False])
def test_a_window_ends_where_it_says(causal, window):
    """A token changes the positions less than W away, and all of them."""
    options = {"windows": (window,), "num_decoder_layers": 1, "num_encoder_layers": 1}
    family = "decoder_only" if causal else "encoder_decoder"
    if causal:
        del options["num_encoder_layers"]
    cfg = models.config("sliding_window", family=family, **options)
    model = models.build(cfg)
    stack = model.decoder if causal else model.encoder
    x = jax.random.normal(jax.random.key(0), (1, 20, cfg.embed_dim))
    ids = jnp.ones((1, 20), jnp.int32)
    ctx = arch_zoo.layers.context.Context(ids, jnp.arange(20)[None], causal=causal)

    def run(x):
        return stack(x, ctx)[0]

    moved = np.abs(models.jit(run)(x.at[0, 9].add(1.0)) - models.jit(run)(x)).max(-1)[0] > 0
    distance = np.arange(20) - 9
    expected = (distance < window) & (distance >= (0 if causal else 1 - window))
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retnet", {"prefix": "bidirectional"}, "prefix='bidirectional': a recurrence does not"),
        ("retnet", {"head_dim": 7}, "head_dim=7: must be a multiple of 2"),
        ("gated_deltanet", {"head_dim": 6}, "head_dim=6: must be a multiple of 4"),
        ("gla", {"shared_heads": True}, "shared_heads=True: .* SH is for attention"),
        ("gla", {"rank": 0}, "rank=0: must be at least 1"),
        ("gla", {"temperature": 0.0}, "temperature=0.0: must be above 0"),
        ("retnet", {"theta": 1.0}, "theta=1.0: must be above 1"),
        ("retnet", {"norm_epsilon": 0.0}, "norm_epsilon=0.0: must be above 0"),
        ("mamba2", {"state_dim": 0}, "state_dim=0: must be at least 1"),
        ("sliding_window", {"windows": ()}, r"windows=\(\): must be whole numbers"),
        ("sliding_window", {"windows": (-1,)}, r"windows=\(-1,\): must be whole numbers"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, message):
    with pytest.raises(arch_zoo.ConfigError, match=f"{name}: {message}"):
        language_model(name, **options)


def test_an_encoder_needs_a_head_for_each_direction():
    with pytest.raises(arch_zoo.ConfigError, match="gla: num_heads=1: an encoder needs at least 2"):
        arch_zoo.config("gla", "nano-NH1")
    language_model("gla", "nano-NH1")


def test_a_size_without_room_for_the_mixer_is_refused():
    with pytest.raises(arch_zoo.ConfigError, match="retnet: mlp_dim=8: besides it"):
        language_model("retnet", "nano-FF8")


def test_no_decay_is_deltanet():
    """Its state keeps everything, so nothing says how much."""
    with_decay, without = (
        arch_zoo.build(language_model("gated_deltanet", "nano", **options), jax.random.key(0))
        for options in ({}, {"variant": "deltanet"})
    )
    assert with_decay.decoder.blocks[0].self_attention.layer.decay is not None
    assert without.decoder.blocks[0].self_attention.layer.decay is None


@pytest.mark.parametrize("name", ["gla", "retnet"])
def test_sizes_whose_heads_are_wider_than_the_stream_are_counted(name):
    """At xl the heads have four times the width of the residual stream."""
    cfg = arch_zoo.config(name, "xl", family="decoder_only", num_decoder_layers=1)
    assert arch_zoo.count_flops(cfg, 64).forward > 0
