"""The mixture of softmaxes: its density against a direct computation, memory, counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import log_softmax, logsumexp

import arch_zoo
from arch_zoo.layers.embedding import Embedding
from tests import tolerances
from tests.arch_zoo import closed_form as on_paper
from tests.arch_zoo import models


@pytest.mark.parametrize("scale_context", [False, True])
def test_log_probabilities_equal_a_direct_mixture(scale_context):
    cfg = models.config("mos", num_components=3, scale_context=scale_context)
    head = cfg.architecture.head(cfg, jax.random.key(0))
    embedding = Embedding(cfg, jax.random.key(1))
    x = np.random.default_rng(0).normal(size=(2, 5, cfg.embed_dim)).astype(np.float32)
    targets = np.random.default_rng(1).integers(0, cfg.vocab_size, (2, 5))
    scaled = x * cfg.embed_dim**-0.5
    weights, contexts, table = (a[...] for a in (head.weights, head.contexts, embedding.table))
    vectors = jnp.tanh(jnp.einsum("BTD,KDE->BTKE", scaled, contexts)) * (
        cfg.embed_dim**-0.5 if scale_context else 1
    )
    components = (
        log_softmax(vectors @ table.T, axis=-1)
        + log_softmax(scaled @ weights.T, axis=-1)[..., None]
    )
    expected = np.asarray(logsumexp(components, axis=2))
    logits = head.logits(jnp.asarray(x), embedding)
    np.testing.assert_allclose(logits, expected, atol=tolerances.REORDERED)
    np.testing.assert_allclose(logsumexp(logits, axis=-1), 0, atol=tolerances.REORDERED)
    nll, log_z = head.nll(jnp.asarray(x), jnp.asarray(targets), embedding)
    wanted = -np.take_along_axis(expected, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(nll, wanted, atol=tolerances.REORDERED)
    assert not np.any(log_z)


def test_more_components_hold_no_more_logits():
    """Training memory without parameters' gradients grows by less than one set of logits."""

    def temporary_bytes(num_components: int) -> int:
        cfg = arch_zoo.config("mos", "nano", vocab_size=4096, num_components=num_components)
        head = cfg.architecture.head(cfg, jax.random.key(0))
        embedding = Embedding(cfg, jax.random.key(1))

        def loss(head, embedding, x_BTD):
            return head.nll(x_BTD, jnp.zeros((8, 64), jnp.int32), embedding)[0].sum()

        compiled = (
            jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
            .lower(head, embedding, jnp.ones((8, 64, 32)))
            .compile()
        )
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    one_set = 8 * 64 * 4096 * 4
    assert temporary_bytes(16) - temporary_bytes(2) < one_set


def test_the_backward_pass_computes_no_log_normaliser_again():
    cfg = models.config("mos", num_components=3)
    head, embedding = (
        cfg.architecture.head(cfg, jax.random.key(0)),
        Embedding(cfg, jax.random.key(1)),
    )

    def loss(head, x_BTD):
        return head.nll(x_BTD, jnp.zeros((2, 5), jnp.int32), embedding)[0].sum()

    programs = (
        jax.make_jaxpr(f)(head, jnp.ones((2, 5, cfg.embed_dim))) for f in (loss, jax.grad(loss))
    )
    forward, both = (str(program).count("reduce_max") for program in programs)
    assert forward == both == 2  # one log-normaliser of the weights, one of the components


def test_closed_form_counts_at_base():
    cfg = arch_zoo.config("mos", "base")
    K, D, V = 15, cfg.embed_dim, cfg.vocab_size
    params = arch_zoo.count_params(cfg)
    assert params.total == on_paper.vanilla_params(cfg) + K * (D * D + D)
    assert round(params.total / 1e6, 1) == 231.8
    S, T = 512, 114
    mixture = 2 * T * (K * D + K * D * D + K * D * V)
    flops = on_paper.vanilla_flops(cfg, S, T) - on_paper.head_flops(cfg, T) + mixture
    assert arch_zoo.count_flops(cfg, S, T).forward == flops
    assert arch_zoo.count_flops(cfg, S, T).by_part["head"] == mixture


def test_scaled_contexts_start_at_the_loss_of_guessing():
    """Unscaled, the paper's initialisation starts far above ln V.

    The class's docstring states both values.
    """
    x = jax.random.normal(jax.random.key(0), (8, 12, 256))
    targets = jax.random.randint(jax.random.key(1), (8, 12), 0, models.VOCAB)
    nll = {}
    for scale_context, variant in ((False, "unscaled"), (True, "scaled")):
        cfg = arch_zoo.config("mos", "tiny", vocab_size=models.VOCAB, variant=variant)
        assert cfg.architecture.scale_context == scale_context
        head = cfg.architecture.head(cfg, jax.random.key(2))
        nll[scale_context] = float(
            head.nll(x, targets, Embedding(cfg, jax.random.key(3)))[0].mean()
        )
    assert abs(nll[True] - np.log(models.VOCAB)) < 1
    assert nll[False] > 2 * np.log(models.VOCAB)


def test_an_empty_mixture_is_refused():
    with pytest.raises(arch_zoo.ConfigError, match="num_components"):
        arch_zoo.config("mos", "nano", num_components=0)
