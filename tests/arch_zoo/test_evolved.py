"""The Evolved Transformer's special features: counts, depth, two tables of biases, ring buffers."""

import jax
import jax.numpy as jnp
import pytest

import arch_zoo
from arch_zoo.accounting import abstract_model
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

S, T = 512, 114


def separable_params(width: int, channels: int, features: int) -> int:
    return width * channels + channels + channels * features + features


def separable_flops(width: int, channels: int, features: int) -> int:
    return 2 * (width * channels + channels * features)


def encoder_block(cfg) -> tuple[int, int]:
    """Parameters, and FLOPs for S positions."""
    dim, half = cfg.embed_dim, cfg.embed_dim // 2
    gate = 2 * dim * dim
    convolutions = dim * 4 * dim + 3 * dim * half
    params = gate + 2 * dim + convolutions + 2 * 4 * dim + separable_params(9, 4 * dim, half)
    flops = S * (2 * (gate + convolutions) + separable_flops(9, 4 * dim, half))
    return params + 2 * dim + on_paper.encoder_block_params(
        cfg
    ), flops + on_paper.encoder_block_flops(cfg, S)


def decoder_block(cfg) -> tuple[int, int]:
    """Parameters, and FLOPs for T positions that attend to S positions."""
    dim, half, joined = cfg.embed_dim, cfg.embed_dim // 2, cfg.num_heads * cfg.head_dim
    convolutions = [(11, dim, 2 * dim), (7, dim, half), (7, 2 * dim, dim)]
    parallel = 3 * on_paper.attention_params(cfg)
    params = parallel + sum(separable_params(*shape) for shape in convolutions) + 2 * 2 * dim
    double_heads = T * 2 * 2 * on_paper.attention_params(cfg) + 4 * T * T * 2 * joined
    cross = (S + T) * on_paper.attention_params(cfg) + 4 * T * S * joined
    flops = double_heads + cross + T * sum(separable_flops(*shape) for shape in convolutions)
    return params + 2 * dim + on_paper.decoder_block_params(
        cfg
    ), flops + on_paper.decoder_block_flops(cfg, S, T)


@pytest.mark.parametrize("size", ["nano", "tiny", "base"])
def test_closed_form_counts(size):
    cfg = arch_zoo.config("evolved", size)
    assert cfg.num_encoder_layers == cfg.num_decoder_layers
    (encoder_params, encoder_flops), (decoder_params, decoder_flops) = (
        encoder_block(cfg),
        decoder_block(cfg),
    )
    blocks = cfg.num_encoder_layers * (encoder_params + decoder_params)
    second_table = on_paper.BUCKETS * 2 * cfg.num_heads
    total = cfg.vocab_size * cfg.embed_dim + blocks + on_paper.outside_params(cfg) + second_table
    assert arch_zoo.count_params(cfg).total == total
    flops = cfg.num_encoder_layers * (encoder_flops + decoder_flops) + on_paper.head_flops(cfg, T)
    assert arch_zoo.count_flops(cfg, S, T).forward == flops


def test_base_is_the_specified_model():
    cfg = arch_zoo.config("evolved", "base")
    assert round(arch_zoo.count_params(cfg).total / 1e6, 1) == 216.3
    (encoder_params, _), (decoder_params, _) = encoder_block(cfg), decoder_block(cfg)
    assert (
        round((encoder_params + decoder_params) / cfg.embed_dim**2, 1) == 54.1
    )  # 54 million, and small terms


@pytest.mark.parametrize(
    ("size", "blocks"), [("base", 6), ("nano", 1), ("base-NL5", 3), ("base-NL1", 1)]
)
def test_half_of_the_blocks_rounded_up(size, blocks):
    assert arch_zoo.config("evolved", size).num_decoder_layers == blocks


def test_an_override_is_taken_as_it_stands():
    assert arch_zoo.config("evolved", "base", num_encoder_layers=5).num_encoder_layers == 5


def test_decoder_has_a_table_for_each_number_of_heads():
    model = abstract_model(models.config("evolved"))
    heads = model.cfg.num_heads
    positions = model.decoder.positions
    assert positions.single.table.shape == (32, heads) and positions.double.table.shape == (
        32,
        2 * heads,
    )
    assert model.encoder.positions.table.shape == (32, heads)


def test_decoding_keeps_no_more_than_the_taps_need():
    """It keeps 10 and 6 inputs for the first convolutions and 6 for the second, not all of them."""
    cfg = models.config("evolved")
    batch = {"encoder_input_tokens": jnp.ones((2, 5), jnp.int32)}
    cache = jax.eval_shape(lambda model: model.init_cache(batch, 100), abstract_model(cfg))
    shapes = {name: leaf.shape for name, leaf in cache["layers"][0]["convolutions"].items()}
    dim = cfg.embed_dim
    assert shapes == {"left": (2, 10, dim), "right": (2, 6, dim), "out": (2, 6, 2 * dim)}


def test_a_width_without_a_half_is_refused():
    with pytest.raises(arch_zoo.ConfigError, match="embed_dim=33"):
        arch_zoo.config("evolved", "nano-DM33")
