"""The bottleneck `readout="last"`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from tests import tolerances
from tests.arch_zoo import models

L = 6


def _model(name="llama", **options):
    cfg = models.config(name, family="decoder_only", readout="last", **options)
    return cfg, arch_zoo.build(cfg, jax.random.key(0))


def _batch(lengths):
    rng = np.random.default_rng(0)
    at = np.arange(L)
    weights = (at == np.array(lengths)[:, None] - 1).astype(np.float32)
    tokens = rng.integers(2, 10, (len(lengths), L)).astype(np.int32)
    return {
        "decoder_input_tokens": jnp.array(tokens),
        "decoder_target_tokens": jnp.array(tokens),
        "decoder_loss_weights": jnp.array(weights),
    }


def test_every_position_is_computed_from_the_last_state_as_written_here():
    cfg, model = _model()
    batch = _batch([L, 3])
    found = np.asarray(model.hidden(batch)[0])
    readout, model.readout = model.readout, None
    states = np.asarray(model.hidden(batch)[0], np.float64)
    dim = cfg.embed_dim
    frequencies = np.exp(-np.log(1e4) / (dim // 2 - 1) * np.arange(dim // 2))
    for row, last in enumerate((L - 1, 2)):
        for position in range(last + 1):
            angles = (position + 1) * frequencies
            x = states[row, last] + np.concatenate([np.sin(angles), np.cos(angles)])
            for norm, kernel in zip(readout.norms, (readout.wi, readout.wo), strict=False):
                x = x / np.sqrt(np.mean(x**2) + 1e-6) * np.asarray(norm.scale[...])
                x = np.asarray(jax.nn.gelu(x @ np.asarray(kernel[...], np.float64)))
            x = x / np.sqrt(np.mean(x**2) + 1e-6)
            np.testing.assert_allclose(found[row, position], x, atol=tolerances.REORDERED)


def test_its_parameters_and_flops_are_counted():
    cfg, _ = _model()
    plain = models.config("llama", family="decoder_only")
    dim = cfg.embed_dim
    with_it, without = (arch_zoo.count_params(one) for one in (cfg, plain))
    assert with_it.total - without.total == 2 * dim**2 + 3 * dim
    with_it, without = (arch_zoo.count_flops(one, L) for one in (cfg, plain))
    assert with_it.forward - without.forward == 2 * 2 * dim**2 * L
    assert with_it.by_part["readout"] == 2 * 2 * dim**2 * L


def test_the_rest_of_the_model_is_drawn_as_without_it():
    _, model = _model()
    plain = arch_zoo.build(models.config("llama", family="decoder_only"), jax.random.key(0))
    np.testing.assert_array_equal(model.embedding.table[...], plain.embedding.table[...])


def test_it_is_refused_where_it_means_nothing():
    with pytest.raises(arch_zoo.ConfigError, match="only family='decoder_only' has it"):
        models.config("llama", readout="last")
    _, model = _model()
    batch = {"decoder_input_tokens": jnp.zeros((1, 3), jnp.int32)}
    with pytest.raises(arch_zoo.ConfigError, match="readout='last' has no decoding"):
        model.prefill(batch, 2)
    packed = _batch([L]) | {
        "decoder_segment_ids": jnp.ones((1, L), jnp.int32),
        "decoder_positions": jnp.arange(L)[None],
    }
    with pytest.raises(arch_zoo.ConfigError, match="readout='last' has no packed rows"):
        model.hidden(packed)
