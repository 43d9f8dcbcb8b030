"""The Funnel Transformer's special features: how it pools, counts, length of the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo.architectures.funnel import pool
from arch_zoo.layers.context import Context
from arch_zoo.side import ENCODER
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

S, T = 509, 114  # odd, so that the model has to pad


def encoder_flops(cfg, length: int, pooled_depths, pools: str) -> int:
    """FLOPs layer by layer: `whole` positions enter a layer, and `length` leave it."""
    total = 0
    joined = cfg.num_heads * cfg.head_dim
    for depth in range(cfg.num_encoder_layers):
        whole = length
        length = whole // 2 if depth in pooled_depths else whole
        queries = length if pools == "query" else whole
        total += (queries + whole) * on_paper.attention_params(cfg) + 4 * queries * whole * joined
        total += length * 2 * on_paper.feed_forward_params(cfg)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("pools", ["attention", "query"])
@pytest.mark.parametrize(("size", "depths"), [("nano", (1,)), ("tiny", (2, 3)), ("base", (4, 8))])
def test_closed_form_counts(size, depths, pools):
    """The parameters are those of the vanilla model.

    The FLOPs of a layer, and of reading the memory, follow the pooled lengths.
    """
    cfg = arch_zoo.config("funnel", size, pools=pools)
    assert arch_zoo.count_params(cfg).total == on_paper.vanilla_params(cfg)
    memory = -(-S // 2 ** len(depths))
    decoder = cfg.num_decoder_layers * on_paper.decoder_block_flops(cfg, memory, T)
    flops = (
        encoder_flops(cfg, memory * 2 ** len(depths), depths, pools)
        + decoder
        + on_paper.head_flops(cfg, T)
    )
    assert arch_zoo.count_flops(cfg, S, T).forward == flops


def test_base_is_the_specified_model():
    assert round(arch_zoo.count_params(arch_zoo.config("funnel", "base")).total / 1e6, 1) == 222.9


@pytest.mark.parametrize(
    ("layers", "blocks", "depths"),
    [
        (12, 3, (4, 8)),
        (24, 4, (6, 12, 18)),
        (4, 3, (2, 3)),
        (5, 3, (2, 4)),
        (2, 3, (1,)),
        (1, 3, ()),
        (6, 1, ()),
    ],
)
def test_first_blocks_take_the_remainder_and_no_block_is_empty(layers, blocks, depths):
    cfg = arch_zoo.config("funnel", "nano", num_encoder_layers=layers, num_blocks=blocks)
    assert cfg.architecture.pooled_depths(cfg) == depths
    assert cfg.architecture.segment_multiple(cfg, ENCODER) == 2 ** len(depths)


def test_a_pair_becomes_the_mean_of_its_tokens():
    """The mean of both, of the one that is not padding, or zero; ids and positions follow."""
    x_BLD = jnp.arange(8.0).reshape(1, 8, 1)
    bias = jnp.arange(8)[None, None, None, :] - jnp.arange(8)[None, None, :, None]
    ctx = Context(
        jnp.array([[1, 1, 1, 0, 2, 2, 0, 0]]), jnp.array([[0, 1, 2, 0, 0, 1, 0, 0]]), {1: bias}
    )
    mean_BPD, pooled = pool(x_BLD, ctx)
    np.testing.assert_array_equal(mean_BPD[0, :, 0], [0.5, 2, 4.5, 0])
    np.testing.assert_array_equal(pooled.segment_ids_BL, [[1, 1, 2, 0]])
    np.testing.assert_array_equal(pooled.positions_BL[0, :3], [0, 1, 0])
    np.testing.assert_array_equal(pooled.biases[1], bias[:, :, :4, :4])


@pytest.mark.slow
@pytest.mark.parametrize("pools", ["attention", "query"])
def test_memory_is_a_quarter_and_equal_under_any_padding(pools):
    """Lengths that are divisible, and others; values at padding do not enter any mean."""
    cfg = arch_zoo.config("funnel", "nano-EL3", pools=pools, vocab_size=models.VOCAB)
    model = models.build(cfg)
    ids_BS = jnp.asarray(np.random.default_rng(0).integers(2, models.VOCAB, (2, 13)), jnp.int32)
    encode = jax.jit(lambda model, ids_BS: model.encode({"encoder_input_tokens": ids_BS}))
    memory, segments, _ = encode(model, ids_BS)
    assert memory.shape == (2, 4, cfg.embed_dim) and bool((segments == 1).all())
    padded, padded_segments, _ = encode(model, jnp.pad(ids_BS, ((0, 0), (0, 9))))
    np.testing.assert_allclose(padded[:, :4], memory, atol=tolerances.REORDERED)
    assert not padded_segments[:, 4:].any() and not padded[:, 4:].any()


def test_the_two_forms_differ():
    batch = models.pad(models.examples(np.random.default_rng(0), [16], [12]))
    one, other = (models.build(models.config(variant)) for variant in ("funnel", "funnel-query"))
    assert (
        np.abs(models.forward(one, batch).logits - models.forward(other, batch).logits).max() > 1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"), [({"pools": "max"}, "pools"), ({"num_blocks": 0}, "num_blocks")]
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(arch_zoo.ConfigError, match=f"funnel: {message}"):
        arch_zoo.config("funnel", "nano", **options)


def test_scanning_is_refused_unless_nothing_is_pooled():
    with pytest.raises(arch_zoo.ConfigError, match="scan_layers"):
        arch_zoo.config("funnel", "nano", scan_layers=True)
    assert arch_zoo.config("funnel", "nano", scan_layers=True, num_blocks=1).scan_layers
