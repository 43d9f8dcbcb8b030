"""Sampling and beam search, against the model's own distribution and exhaustive search."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import arch_zoo
from arch_zoo import decoding
from arch_zoo.seq2seq import Seq2Seq
from tests import tolerances
from tests.arch_zoo import models

EOS = decoding.EOS


def inputs(rows: int = 3, vocab: int = models.VOCAB):
    rng = np.random.default_rng(0)
    return {"encoder_input_tokens": jnp.asarray(rng.integers(2, vocab, (rows, 6)), jnp.int32)}


class Timed:
    """A model whose rows all end at one given step."""

    def __init__(self, model, when: int):
        self.model, self.when = model, when
        self.steps = []
        self.init_cache = model.init_cache

    def adjust(self, logits, index):
        return logits.at[..., EOS].add(jnp.where(index == self.when, 200.0, -200.0))

    def prefill(self, batch, new_tokens):
        return Seq2Seq.prefill(self, batch, new_tokens)  # pyright: ignore[reportArgumentType]

    def decode_step(self, tokens_B, index, cache):
        logits_BV, cache = self.model.decode_step(tokens_B, index, cache)
        jax.debug.callback(self.steps.append, index)
        return self.adjust(logits_BV, index), cache


def log_prob(model, batch, ids_RT) -> np.ndarray:
    """Log-probabilities of rows of one example by teacher forcing, up to the end of each row."""
    ids_RT = jnp.asarray(ids_RT)
    shifted = jnp.pad(ids_RT, ((0, 0), (1, 0)))[:, :-1]
    inputs_RS = jnp.repeat(batch["encoder_input_tokens"], len(ids_RT), axis=0)
    forced = {"encoder_input_tokens": inputs_RS, "decoder_input_tokens": shifted}
    if isinstance(model, Timed):
        logits = model.adjust(
            models.forward(model.model, forced).logits, jnp.arange(ids_RT.shape[1])
        )
    else:
        logits = models.forward(model, forced).logits
    token = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.asarray(ids_RT)[..., None], -1
    )[..., 0]
    ended_before = np.cumsum(np.asarray(ids_RT) == EOS, axis=1) - (np.asarray(ids_RT) == EOS)
    return np.sum(token * (ended_before == 0), axis=1)


def row_lengths(ids) -> np.ndarray:
    ids = np.asarray(ids)
    return np.where((ids == EOS).any(-1), (ids == EOS).argmax(-1) + 1, ids.shape[-1])


def penalty(length, alpha: float):
    return ((5 + length) / 6) ** alpha


@functools.cache
def tiny_vocabulary():
    """A model with so few sequences that all can be tried, and with distinct probabilities."""
    cfg = arch_zoo.config(
        "transformer", "nano", vocab_size=4, max_input_length=6, max_target_length=4
    )
    return models.build(cfg), inputs(rows=2, vocab=4)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(alpha):
    model, batch = tiny_vocabulary()
    every = []
    for length in range(1, 5):
        every += [
            (*body, EOS, *(0,) * (4 - length))
            for body in itertools.product((0, 2, 3), repeat=length - 1)
        ]
    every = np.array(every)
    found = jax.jit(
        functools.partial(decoding.beam, num_beams=32, length_penalty=alpha), static_argnums=2
    )(model, batch, 4)
    for row in range(2):
        one = {"encoder_input_tokens": batch["encoder_input_tokens"][row : row + 1]}
        scores = log_prob(model, one, every) / penalty(row_lengths(every), alpha)
        order = np.argsort(-scores)[:8]
        np.testing.assert_allclose(found.scores[row, :8], scores[order], atol=tolerances.REORDERED)
        np.testing.assert_array_equal(found.ids[row, :8], every[order])


@pytest.mark.slow
@pytest.mark.parametrize("name", arch_zoo.names())
def test_scores_are_those_of_teacher_forcing(name):
    """A cache that is reordered wrongly would score a beam by the past of another beam.

    This is checked for every kind of cache.
    """
    length = models.TARGET_LENGTH
    model, batch = Timed(models.build(models.config(name)), when=length - 1), inputs()
    beams = jax.jit(lambda: decoding.beam(model, batch, length))()  # pyright: ignore[reportArgumentType]
    assert (np.diff(beams.scores, axis=1) <= 0).all()
    for row in range(3):
        assert len(np.unique(beams.ids[row], axis=0)) == 4
        one = {"encoder_input_tokens": batch["encoder_input_tokens"][row : row + 1]}
        expected = log_prob(model, one, beams.ids[row]) / penalty(length, 0.6)
        np.testing.assert_allclose(beams.scores[row], expected, atol=tolerances.REORDERED)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["greedy", "sample", "beam"])
def test_it_stops_when_all_rows_have_ended(search):
    """A thousand steps are allowed and three are needed.

    Beam search takes one or two more, to look for something better.
    """
    model, batch = (
        Timed(models.build(models.config("performer", max_target_length=1000)), when=2),
        inputs(),
    )
    if search == "greedy":
        ids = decoding.greedy(model, batch, 1000)  # pyright: ignore[reportArgumentType]
    elif search == "sample":
        ids = decoding.sample(model, batch, 1000, jax.random.key(0)).ids  # pyright: ignore[reportArgumentType]
    else:
        ids = decoding.beam(model, batch, 1000, num_beams=2).ids[:, 0]  # pyright: ignore[reportArgumentType]
    assert (np.asarray(ids[:, 2]) == EOS).all() and not np.asarray(ids[:, 3:]).any()
    jax.effects_barrier()
    assert 3 <= len(model.steps) <= (5 if search == "beam" else 3), len(model.steps)


@pytest.mark.slow
def test_unfinished_beams_are_returned_if_none_ends():
    model, batch = Timed(models.build(models.config("transformer")), when=99), inputs()
    beams = decoding.beam(model, batch, 5)  # pyright: ignore[reportArgumentType]
    assert np.isfinite(beams.scores).all() and (np.asarray(beams.ids) != EOS).all()


@pytest.mark.slow
def test_samples_follow_the_tempered_distribution():
    model, batch = tiny_vocabulary()
    rows, one = 20_000, {"encoder_input_tokens": batch["encoder_input_tokens"][:1, :2]}
    many = {"encoder_input_tokens": jnp.repeat(one["encoder_input_tokens"], rows, axis=0)}
    samples = decoding.sample(model, many, 1, jax.random.key(0), temperature=2.0)
    logits = models.forward(
        model, {**one, "decoder_input_tokens": jnp.zeros((1, 1), jnp.int32)}
    ).logits[0, 0]
    expected = np.asarray(jax.nn.softmax(logits / 2.0))
    frequencies = np.bincount(np.asarray(samples.ids[:, 0]), minlength=4) / rows
    np.testing.assert_allclose(frequencies, expected, atol=5 * 0.5 / np.sqrt(rows))
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    np.testing.assert_allclose(
        samples.log_probs, log_probs[np.asarray(samples.ids[:, 0])], atol=tolerances.REORDERED
    )


@pytest.mark.slow
def test_sampled_log_probabilities_are_those_of_teacher_forcing():
    model, batch = models.build(models.config("lconv")), inputs()
    samples = decoding.sample(model, batch, models.TARGET_LENGTH, jax.random.key(1))
    other = decoding.sample(model, batch, models.TARGET_LENGTH, jax.random.key(2))
    assert np.any(samples.ids != other.ids)
    for row in range(3):
        one = {"encoder_input_tokens": batch["encoder_input_tokens"][row : row + 1]}
        expected = log_prob(model, one, samples.ids[row : row + 1])
        np.testing.assert_allclose(
            samples.log_probs[row : row + 1], expected, atol=tolerances.REORDERED
        )


@pytest.mark.slow
def test_sampling_among_one_token_is_greedy():
    model, batch = models.build(models.config("lconv")), inputs()
    expected = decoding.greedy(model, batch, 6)
    np.testing.assert_array_equal(
        decoding.sample(model, batch, 6, jax.random.key(0), top_k=1).ids, expected
    )
    np.testing.assert_array_equal(
        decoding.sample(model, batch, 6, jax.random.key(0), top_p=1e-6).ids, expected
    )


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, 5),
        (2, 1.0, 2),
        (9, 1.0, 5),
        (0, 0.4, 1),
        (0, 0.41, 2),
        (0, 0.85, 3),
        (2, 0.5, 1),
        (2, 0.7, 2),
    ],
)
def test_truncation_keeps_the_likeliest(top_k, top_p, kept):
    """Probabilities .4 .3 .15 .1 .05, in another order; the first two become .57 and .43."""
    logits = jnp.log(jnp.asarray([[0.1, 0.4, 0.05, 0.3, 0.15]]))
    left = np.isfinite(decoding.truncate(logits, top_k, top_p))[0]
    np.testing.assert_array_equal(np.flatnonzero(left), np.sort([1, 3, 4, 0, 2][:kept]))


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_nonsense_in_sampling_is_refused(options):
    with pytest.raises(arch_zoo.ConfigError, match=next(iter(options))):
        decoding.sample(*tiny_vocabulary(), 4, jax.random.key(0), **options)


@pytest.mark.parametrize("options", [{"num_beams": 0}, {"length_penalty": -0.1}])
def test_nonsense_in_beam_search_is_refused(options):
    with pytest.raises(arch_zoo.ConfigError, match=next(iter(options))):
        decoding.beam(*tiny_vocabulary(), 4, **options)
