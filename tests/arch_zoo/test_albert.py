"""ALBERT's special features: sharing by groups, the factorised embedding, counts."""

import jax
import jax.numpy as jnp
import pytest

import arch_zoo
from arch_zoo.architectures.albert import FactorisedEmbedding
from arch_zoo.side import ENCODER
from tests.arch_zoo import closed_form as on_paper

BIAS_TABLES = 2 * 32  # a relative bias of 32 buckets in each stack, for every head


def test_closed_form_counts_at_base():
    cfg = arch_zoo.config("albert", "base")
    embedding = 128 * (cfg.vocab_size + cfg.embed_dim)
    blocks = on_paper.encoder_block_params(cfg) + on_paper.decoder_block_params(cfg)
    params = arch_zoo.count_params(cfg)
    assert params.total == embedding + blocks + on_paper.outside_params(cfg)
    assert (
        params.embedding == embedding + BIAS_TABLES * cfg.num_heads
        and params.active == params.total
    )
    assert round(params.total / 1e6, 1) == 20.7
    S, T = 512, 114
    layers = on_paper.vanilla_flops(cfg, S, T) - on_paper.head_flops(cfg, T)
    factors = 2 * 128 * ((S + 2 * T) * cfg.embed_dim + T * cfg.vocab_size)
    assert arch_zoo.count_flops(cfg, S, T).forward == layers + factors


@pytest.mark.parametrize(
    ("size", "factor"), [("nano", 16), ("centi", 64), ("tiny", 128), ("xxl", 128)]
)
def test_factor_is_the_papers_wherever_it_factorises(size, factor):
    cfg = arch_zoo.config("albert", size)
    tables = factor * (cfg.vocab_size + cfg.embed_dim) + BIAS_TABLES * cfg.num_heads
    assert arch_zoo.count_params(cfg).embedding == tables


def test_groups_are_neighbours_of_equal_number():
    cfg = arch_zoo.config("albert", "base", groups=3)
    assert cfg.architecture.schedule(cfg, ENCODER) == (0,) * 4 + (1,) * 4 + (2,) * 4
    once = arch_zoo.count_params(arch_zoo.config("albert", "base"))
    blocks = on_paper.encoder_block_params(cfg) + on_paper.decoder_block_params(cfg)
    assert arch_zoo.count_params(cfg).total == once.total + 2 * blocks


def test_embedding_starts_with_unit_variance():
    cfg = arch_zoo.config("albert", "tiny", vocab_size=512)
    vectors = FactorisedEmbedding(cfg, 128, jax.random.key(0))(jnp.arange(512))
    assert abs(float(jnp.var(vectors)) - 1) < 0.05


@pytest.mark.parametrize(
    "options", [{"groups": 0}, {"groups": 3}, {"factor": 33}, {"factor": 0}, {"factor": True}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(arch_zoo.ConfigError, match=next(iter(options))):
        arch_zoo.config("albert", "nano", **options)
