"""Decoder-only models: prefixes, targets, prompts, counts from closed forms, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo import decoding, prompts
from arch_zoo.__main__ import main
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models

VOCAB, L, N = 512, 96, 20  # of the counts: tokens of a row, and the targets among them


def language_model(name: str, size: str = "micro", **options) -> arch_zoo.ModelConfig:
    return arch_zoo.config(name, size, family="decoder_only", vocab_size=VOCAB, **options)


def some_batch(cfg):
    pairs = models.examples(np.random.default_rng(0), [9, 16, 1], [12, 5, 3])
    return models.pad(pairs, family=cfg.family)


def test_the_head_at_the_targets_alone_gives_their_losses():
    cfg = models.config("transformer-lm")
    model, batch = models.build(cfg), some_batch(cfg)
    weights = np.asarray(batch["decoder_loss_weights"]) > 0
    at = np.full((3, models.TARGET_LENGTH), models.ROW_LENGTH, np.int32)
    for row, places in zip(at, weights, strict=True):
        row[: places.sum()] = np.flatnonzero(places)
    everywhere = models.token_nll(model, batch)
    at_targets = models.token_nll(model, batch | {"decoder_target_positions": jnp.asarray(at)})
    for name in ("nll", "log_z"):
        found = np.asarray(getattr(at_targets, name))
        np.testing.assert_allclose(
            found[weights], getattr(everywhere, name)[weights], atol=tolerances.REORDERED
        )
        assert not found[~weights].any()


@pytest.mark.parametrize("variant", ["transformer-prefix", "mixer-prefix", "performer-prefix"])
def test_positions_of_a_prefix_see_all_of_it_and_nothing_after(variant):
    cfg = models.config(variant)
    model, batch = models.build(cfg), some_batch(cfg)
    hidden = models.jit(lambda batch: model.hidden(batch)[0])
    before = hidden(batch)
    ids = batch["decoder_input_tokens"]
    last_input = hidden(batch | {"decoder_input_tokens": ids.at[0, 9].set(5)})
    assert np.abs(last_input - before)[0, :9].max(-1).min() > 1e-4, "an earlier input sees it"
    first_target = hidden(batch | {"decoder_input_tokens": ids.at[0, 10].set(5)})
    np.testing.assert_array_equal(first_target[0, :10], before[0, :10])
    causal = {name: rows for name, rows in batch.items() if name != "decoder_causal_attention"}
    earlier = hidden(causal | {"decoder_input_tokens": ids.at[0, 9].set(5)})
    np.testing.assert_array_equal(earlier[0, :9], hidden(causal)[0, :9])


def test_a_prompt_is_padded_on_the_left():
    batch = prompts.left_padded([[5, 6], [7]], 4)
    np.testing.assert_array_equal(batch["decoder_input_tokens"], [[0, 0, 5, 6], [0, 0, 0, 7]])
    np.testing.assert_array_equal(batch["decoder_segment_ids"], [[0, 1, 1, 1], [0, 0, 1, 1]])
    with pytest.raises(arch_zoo.ConfigError, match="length=2: a prompt with .* has 3 tokens"):
        prompts.left_padded([[5, 6]], 2)


def test_a_prompt_padded_on_the_right_is_refused():
    model = models.build(models.config("transformer-lm"))
    batch = {
        "decoder_input_tokens": np.array([[0, 5, 6, 7], [0, 7, 0, 0]], np.int32),
        "decoder_segment_ids": np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int32),
    }
    with pytest.raises(arch_zoo.ConfigError, match="prompt 1 has padding after a token"):
        model.prefill(batch, 2)


def test_beam_search_and_sampling_from_prompts_of_unequal_length():
    """Each row alone gives the same; scores are those of teacher forcing."""
    cfg = models.config("llama-lm")
    model = models.build(cfg)
    pairs = models.examples(np.random.default_rng(2), [3, 9], [1, 1])
    together = models.jit(lambda batch: decoding.beam(model, batch, 5, num_beams=3))(
        models.given(pairs, cfg.family)
    )
    alone = models.jit(lambda batch: decoding.beam(model, batch, 5, num_beams=3))
    for row, pair in enumerate(pairs):
        one = alone(models.given([pair], cfg.family))
        np.testing.assert_array_equal(together.ids[row], one.ids[0])
        np.testing.assert_allclose(together.scores[row], one.scores[0], atol=tolerances.REORDERED)
    drawn = models.jit(lambda batch, key: decoding.sample(model, batch, 5, key, temperature=0.7))(
        models.given(pairs, cfg.family), jax.random.key(0)
    )
    forced = models.pad(
        [(source, row) for (source, _), row in zip(pairs, np.asarray(drawn.ids), strict=True)],
        family=cfg.family,
    )
    nll = np.asarray(models.token_nll(model, forced).nll * forced["decoder_loss_weights"])
    for row, (source, _) in enumerate(pairs):
        ids = list(np.asarray(drawn.ids)[row])
        length = ids.index(1) + 1 if 1 in ids else 5
        expected = -nll[row, len(source) : len(source) + length].sum()
        np.testing.assert_allclose(drawn.log_probs[row], expected, atol=tolerances.REORDERED)


def block_params(cfg, mixer: int, feed_forward: int) -> int:
    """Two layers, each with a norm."""
    return mixer + feed_forward + 2 * cfg.embed_dim


def flops(cfg, mixer: int, feed_forward: int) -> int:
    """Of a row whose head is applied at the targets."""
    return cfg.num_decoder_layers * (mixer + L * feed_forward) + on_paper.head_flops(cfg, N)


def counts(cfg) -> tuple[int, int, int]:
    params = arch_zoo.count_params(cfg)
    assert arch_zoo.count_flops(cfg, L, N) == arch_zoo.count_flops(cfg, length=L, targets=N)
    return params.total, params.non_embedding, arch_zoo.count_flops(cfg, L, N).forward


def test_counts_of_the_vanilla_model():
    cfg = language_model("transformer")
    D, attention, dense = cfg.embed_dim, on_paper.attention_params(cfg), 2 * 64 * 256
    inner = cfg.num_decoder_layers * block_params(cfg, attention, dense) + D
    tables = VOCAB * D + on_paper.BUCKETS * cfg.num_heads
    products = 4 * L * L * cfg.num_heads * cfg.head_dim
    assert counts(cfg) == (
        inner + tables,
        inner,
        flops(cfg, 2 * L * attention + products, 2 * dense),
    )
    assert arch_zoo.count_state(cfg, L) == cfg.num_decoder_layers * 2 * L * D
    everywhere = arch_zoo.count_flops(cfg, L).by_part["head"]
    assert everywhere * N == arch_zoo.count_flops(cfg, L, N).by_part["head"] * L


@pytest.mark.parametrize(("kv_heads", "tied"), [(None, False), (1, True)])
def test_counts_of_llama(kv_heads, tied):
    cfg = language_model("llama", num_kv_heads=kv_heads, tied=tied)
    D, H, K, F = cfg.embed_dim, cfg.num_heads, cfg.head_dim, 168  # 2/3 of 256, to a multiple of 8
    assert cfg.mlp_dim == F
    attention, gated = 2 * D * H * K + 2 * D * (kv_heads or H) * K, 3 * D * F
    inner = cfg.num_decoder_layers * block_params(cfg, attention, gated) + D
    mixer = 2 * L * attention + 4 * L * L * H * K
    assert counts(cfg) == (
        inner + (1 if tied else 2) * VOCAB * D,
        inner,
        flops(cfg, mixer, 2 * gated),
    )
    assert arch_zoo.count_state(cfg, L) == cfg.num_decoder_layers * 2 * L * (kv_heads or H) * K


def test_counts_of_gpt2():
    """Every matrix has a bias, every norm too, and positions have a table."""
    cfg = language_model("gpt2")
    D, attention, dense = cfg.embed_dim, on_paper.attention_params(cfg), 2 * 64 * 256
    biases = 4 * D + (256 + D) + 2 * D
    inner = cfg.num_decoder_layers * (block_params(cfg, attention, dense) + biases) + 2 * D
    products = 4 * L * L * cfg.num_heads * cfg.head_dim
    mixer = 2 * L * attention + products
    tables = (VOCAB + cfg.max_target_length) * D
    assert counts(cfg) == (inner + tables, inner, flops(cfg, mixer, 2 * dense))
    published = arch_zoo.config("gpt2", "gpt2", family="decoder_only", vocab_size=50257)
    assert arch_zoo.count_params(published).total == 124_439_808


def test_counts_of_the_causal_mixer():
    """Half of its square matrices is never used, and is not counted as parameters."""
    cfg = language_model("mixer", max_target_length=L)
    D, dense = cfg.embed_dim, 2 * 64 * 256
    mixing = L * (L + 1) + 2 * L
    inner = cfg.num_decoder_layers * block_params(cfg, mixing, dense) + D
    assert counts(cfg) == (inner + VOCAB * D, inner, flops(cfg, 2 * 2 * L * L * D, 2 * dense))
    assert arch_zoo.count_state(cfg, L) == cfg.num_decoder_layers * 2 * L * D


def test_counts_of_evolved():
    """Half of the blocks; each has attention with twice the heads, convolutions, attention."""
    cfg = language_model("evolved", "tiny")
    D, attention, dense = cfg.embed_dim, on_paper.attention_params(cfg), 2 * 256 * 1024
    separable = [(11, D, 2 * D), (7, D, D // 2), (7, 2 * D, D)]  # taps, channels, features
    convolutions = sum(w * c + c + c * f + f for w, c, f in separable) + 2 * 2 * D  # and a norm
    block = 3 * attention + convolutions + dense + 4 * D
    inner = 2 * block + D
    tables = VOCAB * D + 3 * on_paper.BUCKETS * cfg.num_heads
    assert cfg.num_decoder_layers == 2
    assert arch_zoo.count_params(cfg).total == inner + tables
    mixing = sum(2 * L * (w * c + c * f) for w, c, f in separable)
    products = 3 * 4 * L * L * cfg.num_heads * cfg.head_dim
    mixer = 2 * L * 3 * attention + products + mixing
    assert arch_zoo.count_flops(cfg, L, N).forward == flops(cfg, mixer, 2 * dense)


def test_counts_of_a_performer_do_not_grow_with_the_row():
    cfg = language_model("performer")
    K = cfg.head_dim
    per_head = K * (K + 1) + 1  # the sums of features times values and one, and their scale
    state = cfg.num_decoder_layers * cfg.num_heads * per_head
    assert arch_zoo.count_state(cfg, L) == arch_zoo.count_state(cfg, 2 * L) == state


@pytest.mark.parametrize(
    ("size", "layers", "embed_dim", "heads", "millions"),
    [
        ("gpt2", 12, 768, 12, 85),
        ("gpt2_medium", 24, 1024, 16, 302),
        ("gpt2_large", 36, 1280, 20, 708),
        ("gpt2_xl", 48, 1600, 25, 1475),
        ("pythia_14m", 6, 128, 4, 1.2),
        ("pythia_70m", 6, 512, 8, 18.9),
        ("pythia_160m", 12, 768, 12, 85),
        ("pythia_410m", 24, 1024, 16, 302),
        ("pythia_1b", 16, 2048, 8, 805),
        ("pythia_12b", 36, 5120, 40, 11_327),
    ],
)
def test_sizes_of_other_papers(size, layers, embed_dim, heads, millions):
    """Parameters outside the tables as published, to a percent: ours have no biases."""
    cfg = language_model("transformer", size)
    assert (cfg.num_decoder_layers, cfg.embed_dim, cfg.num_heads) == (layers, embed_dim, heads)
    assert cfg.head_dim * heads == embed_dim and cfg.mlp_dim == 4 * embed_dim
    assert arch_zoo.count_params(cfg).non_embedding / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        ("funnel", "nano", {}, "funnel: family='decoder_only': a pooled position would see"),
        ("transformer", "nano-EL3", {}, "size 'nano-EL3': EL sets encoder layers"),
        ("transformer", "nano", {"num_encoder_layers": 2}, "family='decoder_only' has no encoder"),
        ("lconv", "nano", {"prefix": "bidirectional"}, "lconv: prefix='bidirectional': its taps"),
        ("dconv", "nano", {"prefix": "bidirectional"}, "dconv: prefix='bidirectional': its taps"),
        ("mixer", "nano", {"token_mlp_dim": 4}, "the hidden width is max_target_length"),
        ("llama", "nano", {"num_kv_heads": 3}, "num_kv_heads=3: must be None or divide"),
        ("llama", "nano-KV15", {}, "head_dim=15: must be even"),
        ("transformer", "nano", {"prefix": "both"}, "prefix='both': allowed are causal, bidire"),
    ],
)
def test_what_no_language_model_can_be_is_refused(name, size, options, message):
    with pytest.raises(arch_zoo.ConfigError, match=message):
        language_model(name, size, **options)


def test_an_encoder_decoder_has_no_prefix():
    with pytest.raises(arch_zoo.ConfigError, match="only inputs of family='decoder_only'"):
        arch_zoo.config("transformer", "nano", prefix="bidirectional")


def test_both_families_are_listed_and_counted_on_the_command_line(capsys):
    assert main(["show", "llama", "--size", "nano", "--family", "decoder_only"]) == 0
    shown = capsys.readouterr().out
    assert "llama nano: 2 layers" in shown and "one sequence: 1024 tokens" in shown
    assert main(["show", "funnel", "--family", "decoder_only"]) == 2
    assert "hourglass" in capsys.readouterr().err
