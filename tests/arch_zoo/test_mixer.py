"""The Mixer's special features: counts, the lengths it accepts, which stack has positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo.accounting import abstract_model
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

S, T = 512, 114


@pytest.mark.parametrize("width", [None, 100])
@pytest.mark.parametrize("size", ["nano", "tiny", "base"])
def test_closed_form_counts(size, width):
    """Two matrices over positions with biases replace the encoder's attention and bias table."""
    cfg = arch_zoo.config("mixer", size, token_mlp_dim=width)
    mixing, layers = 2 * S * (width or cfg.embed_dim // 2), cfg.num_encoder_layers
    params = mixing + (width or cfg.embed_dim // 2) + S - on_paper.attention_params(cfg)
    total = on_paper.vanilla_params(cfg) + layers * params - on_paper.BUCKETS * cfg.num_heads
    assert arch_zoo.count_params(cfg).total == total
    products = 4 * S * S * cfg.num_heads * cfg.head_dim
    flops = 2 * mixing * cfg.embed_dim - S * 2 * on_paper.attention_params(cfg) - products
    assert (
        arch_zoo.count_flops(cfg, S, T).forward
        == on_paper.vanilla_flops(cfg, S, T) + layers * flops
    )


@jax.jit
def encode(model, ids_BS):
    return model.encode({"encoder_input_tokens": ids_BS})[0]


@pytest.mark.slow
def test_shorter_inputs_are_padded_and_longer_ones_refused():
    model = models.build(models.config("mixer"))
    ids = jnp.asarray(
        np.random.default_rng(0).integers(2, models.VOCAB, (2, models.INPUT_LENGTH + 1)), jnp.int32
    )
    short, whole = ids[:, :5], jnp.pad(ids[:, :5], ((0, 0), (0, models.INPUT_LENGTH - 5)))
    memory, padded_memory = (encode(model, ids) for ids in (short, whole))
    np.testing.assert_allclose(memory, padded_memory[:, :5], atol=tolerances.REORDERED)
    with pytest.raises(arch_zoo.ConfigError, match="17 tokens is longer than max_input_length=16"):
        encode(model, ids)


def test_every_position_reaches_every_other():
    model = models.build(models.config("mixer"))
    ids = jnp.full((1, models.INPUT_LENGTH), 5, jnp.int32)
    memory, changed = (encode(model, ids) for ids in (ids, ids.at[0, 7].set(9)))
    assert (np.abs(memory - changed).max(axis=-1) > 1e-4).all()


def test_only_the_decoder_has_position_biases():
    model = abstract_model(models.config("mixer"))
    assert model.encoder.positions is None and model.decoder.positions.table.shape == (
        32,
        model.cfg.num_heads,
    )


@pytest.mark.parametrize(
    "options", [{"token_mlp_dim": 0}, {"token_mlp_dim": 1.5}, {"max_input_length": 0}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(arch_zoo.ConfigError, match=next(iter(options))):
        arch_zoo.config("mixer", "nano", **options)
