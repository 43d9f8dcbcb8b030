"""What a step minimises, by hand and by finite differences; and the metrics of its arrays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import logsumexp

import arch_zoo
from tests import tolerances
from tests.arch_zoo import models
from train.run.losses import TokenLosses, sequence_sums, token_sums
from train.run.step import init_state, make_model, make_train_step, norm
from train.study.config import StageConfig

# Every term is large enough to be noticed if it were missing: auxiliary loss, z-loss and smoothing
# each change the loss by more than a tenth.
OPTIONS = {"every": 1, "num_experts": 3, "balance_weight": 0.5, "jitter": 0.0, "group_size": 16}
STAGE = StageConfig(batch_size=4, z_loss=0.02, label_smoothing=0.1)
SEED, RATE = 3, 0.25
MOVE = 3e-4  # so small that no token changes its expert, at which the loss would jump


class Trained:
    """One step of a sparse model on a padded batch, with an optimizer that keeps the gradient."""

    def __init__(self, accumulate: int = 1):
        cfg = models.config("switch", "nano-NL1", **OPTIONS)
        self.stage = dataclasses.replace(STAGE, accumulate=accumulate)
        self.model, self.params = make_model(cfg, 0)
        optimizer = optax.trace(0.0)  # its state is the last gradient
        self.state = init_state(self.params, optimizer)
        self.step = models.jit(make_train_step(self.model, optimizer, self.stage))
        self.batch = models.pad(
            models.examples(np.random.default_rng(0), [16, 9, 3, 12], [12, 7, 2, 1])
        )
        weights = np.array(self.batch["decoder_loss_weights"])
        weights[0, ::2] *= 0.5  # weights are not only zero and one
        self.batch["decoder_loss_weights"] = jnp.asarray(weights)
        self.after, metrics = self.step(self.state, self.batch, RATE, SEED)
        self.metrics = {name: float(value) for name, value in metrics.items()}

    @property
    def gradient(self) -> dict[str, np.ndarray]:
        """The gradient along which the parameters were moved."""
        return {name: np.asarray(g, np.float64) for name, g in self.after.optimizer.trace.items()}

    def loss(self, params) -> float:
        """The loss that a step reports for these parameters."""
        return float(
            self.step(self.state._replace(params=params), self.batch, 0.0, SEED)[1]["loss"]
        )


@pytest.fixture(scope="module")
def trained():
    return Trained()


def _by_hand(trained: Trained) -> dict[str, float]:
    """The terms of the loss in float64, token by token, from logits and auxiliary losses."""
    out = models.forward(
        trained.model.merge(trained.params), trained.batch, jax.random.key(0), train=True
    )
    logits = np.asarray(out.logits, np.float64)
    weights, targets = (
        np.asarray(trained.batch[f"decoder_{name}"]) for name in ("loss_weights", "target_tokens")
    )
    nll = z = total = 0.0
    for b, t in np.ndindex(weights.shape):
        log_z = logsumexp(logits[b, t])
        log_p = logits[b, t] - log_z
        share = np.full(models.VOCAB, 0.1 / models.VOCAB)
        share[targets[b, t]] += 0.9
        nll -= weights[b, t] * np.sum(share * log_p)
        z += weights[b, t] * 0.02 * log_z**2
        total += weights[b, t]
    balance = float(out.aux["load_balance"])
    terms = {"nll": nll / total, "z_loss": z / total, "load_balance": balance}
    return terms | {"loss": sum(terms.values()), "target_tokens": total}


def test_the_loss_is_that_computed_by_hand(trained):
    expected = _by_hand(trained)
    for name, value in expected.items():
        assert trained.metrics[name] == pytest.approx(value, rel=1e-5), name
    assert min(expected["z_loss"], expected["load_balance"]) > 0.1, (
        "or a missing term would be hard to see"
    )


def test_the_gradient_that_is_trained_on_is_the_slope_of_the_reported_loss(trained):
    """Along all parameters, and along the routers alone, which the auxiliary loss moves most."""
    routers = {name for name in trained.params if name.endswith("router")}
    assert len(routers) == 2
    for names in (set(trained.params), routers):
        length = np.sqrt(sum(np.sum(trained.gradient[name] ** 2) for name in names))
        along = {
            name: g / length if name in names else 0 * g for name, g in trained.gradient.items()
        }
        up, down = (
            trained.loss(
                {
                    name: p + move * along[name].astype(np.float32)
                    for name, p in trained.params.items()
                }
            )
            for move in (MOVE, -MOVE)
        )
        assert (up - down) / (2 * MOVE) == pytest.approx(
            length, rel=tolerances.FINITE_DIFFERENCE
        ), names


def test_a_step_goes_down_the_direction_by_the_learning_rate(trained):
    assert int(trained.after.step) == 1
    for name, p in trained.params.items():
        np.testing.assert_allclose(
            trained.after.params[name], p - RATE * trained.gradient[name], rtol=1e-6, atol=1e-7
        )
    norms = {"gradient_norm": trained.gradient, "parameter_norm": trained.after.params}
    for name, tree in norms.items():
        squares = sum(np.sum(np.asarray(x, np.float64) ** 2) for x in tree.values())
        assert trained.metrics[name] == pytest.approx(np.sqrt(squares), rel=1e-5)


@pytest.mark.slow
def test_micro_batches_leave_every_term_of_the_loss(trained):
    """Groups of experts are whole rows, so the mean over micro-batches is that over the batch."""
    parts = Trained(accumulate=2)
    for name, value in trained.metrics.items():
        assert parts.metrics[name] == pytest.approx(value, rel=tolerances.REORDERED_GRADIENT), name
    for name, g in trained.gradient.items():
        np.testing.assert_allclose(parts.gradient[name], g, atol=tolerances.REORDERED, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_randomness_follows_the_seed_and_the_step(label_smoothing):
    """Randomness is equal if a step is repeated; it differs for the next step and another seed."""
    model, params = make_model(models.config("transformer", "nano-NL1", dropout_rate=0.1), 0)
    optimizer = optax.identity()
    state = init_state(params, optimizer)
    batch = models.pad(models.examples(np.random.default_rng(0), [16, 9], [12, 12]))
    stage = StageConfig(batch_size=2, label_smoothing=label_smoothing)
    step = models.jit(make_train_step(model, optimizer, stage))
    steps = [(0, 0), (0, 0), (1, 0), (0, 1)]
    first, again, next_step, other_seed = (
        float(step(state._replace(step=jnp.int32(number)), batch, 0.0, seed)[1]["nll"])
        for number, seed in steps
    )
    assert first == again
    assert len({first, next_step, other_seed}) == 3


@pytest.mark.slow
def test_every_micro_batch_has_randomness_of_its_own():
    """The same example three times, of which only one at a time has weight.

    Without dropout the three steps are equal.
    """
    batch = models.pad(models.examples(np.random.default_rng(0), [9] * 3, [12] * 3))
    batch = {name: jnp.repeat(x[:1], 3, axis=0) for name, x in batch.items()}
    for rate, different in ((0.0, 1), (0.1, 3)):
        model, params = make_model(models.config("transformer", "nano-NL1", dropout_rate=rate), 0)
        state = init_state(params, optax.identity())
        stage = StageConfig(batch_size=3, accumulate=3)
        step = models.jit(make_train_step(model, optax.identity(), stage))
        losses = []
        for row in range(3):
            weights = batch["decoder_loss_weights"] * (jnp.arange(3) == row)[:, None]
            metrics = step(state, batch | {"decoder_loss_weights": weights}, 0.0, 0)[1]
            losses.append(round(float(metrics["nll"]), 4))
        assert len(set(losses)) == different


def test_the_norm_is_that_of_all_arrays_together():
    shapes = [(8,), (8, 16), (8, 16), (8, 4), (3, 8, 16), (16,), (1, 1)]
    keys = jax.random.split(jax.random.key(0), len(shapes))
    tree = {
        str(n): jax.random.normal(key, shape)
        for n, (key, shape) in enumerate(zip(keys, shapes, strict=True))
    }
    np.testing.assert_allclose(norm(tree), optax.tree.norm(tree), rtol=1e-6)
    assert norm({"w": jnp.array([3.0, 4.0])}) == 5.0
    assert not np.isfinite(norm(tree | {"w": jnp.array([np.nan])}))


def test_sums_are_sums_with_their_weight():
    batch = {"decoder_loss_weights": jnp.asarray([[1.0, 0.5], [0.0, 2.0]])}
    out = TokenLosses(
        jnp.asarray([[2.0, 4.0], [8.0, 3.0]]), jnp.asarray([[1.0, -2.0], [5.0, 3.0]]), {}, {}
    )
    total, sums = token_sums(out, batch, 0.1)
    assert {name: float(value) for name, value in sums.items()} == pytest.approx(
        {"nll": 10.0, "z_loss": 0.1 * (1 + 2 + 18), "weight": 3.5}
    )
    assert float(total) == pytest.approx(12.1)
    alone, sums = token_sums(out, batch)
    assert (float(alone), float(sums["z_loss"])) == (10.0, 0.0), "no z-loss unless it is asked for"
    losses, weights = sequence_sums(out, batch)
    assert (losses.tolist(), weights.tolist()) == ([4.0, 6.0], [1.5, 2.0])


def test_weights_of_any_type_are_summed_in_float32():
    """256 + 1 is 256 in bfloat16, and a loss cannot be divided by integers."""
    out = TokenLosses(jnp.ones((1, 257)), jnp.ones((1, 257)), {}, {})
    for dtype in (jnp.bfloat16, jnp.int32, jnp.float32):
        batch = {"decoder_loss_weights": jnp.ones((1, 257), dtype)}
        _, sums = token_sums(out, batch)
        for value in (sums["weight"], sums["nll"], *sequence_sums(out, batch)):
            assert value.dtype == jnp.float32 and value == 257


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (1.5, 1.0)])
def test_a_batch_of_little_weight_costs_no_more_than_its_targets(weight, share):
    """There is no division by a zero weight: a weight below one target counts as one target."""
    model, params = make_model(arch_zoo.config("transformer", "nano-NL1", vocab_size=32), 0)
    optimizer = optax.identity()
    batch = {
        name: jnp.zeros((2, 4), jnp.int32)
        for name in ("encoder_input_tokens", "decoder_input_tokens")
    }
    batch |= {
        "decoder_target_tokens": jnp.zeros((2, 4), jnp.int32).at[0, 0].set(5),
        "decoder_loss_weights": jnp.zeros((2, 4)).at[0, 0].set(weight),
    }
    step = models.jit(make_train_step(model, optimizer, StageConfig(batch_size=2, z_loss=0.0)))
    _, metrics = step(init_state(params, optimizer), batch, 0.1, 0)
    nll = models.token_nll(model.merge(params), batch).nll[0, 0]
    assert metrics["loss"] == pytest.approx(share * float(nll), rel=1e-5)
    assert (metrics["gradient_norm"] == 0) == (weight == 0) and metrics["target_tokens"] == weight
