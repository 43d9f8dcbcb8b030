"""Biases that even out the loads of experts: how the optimizer and the step treat them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from arch_zoo.parametrization import Growth, Ratio
from tests import tolerances
from tests.arch_zoo import models
from train.records import InputError
from train.run.checkpoint import Checkpoints
from train.run.optimizers import make_optimizer
from train.run.seeds import make_seeds_step
from train.run.step import balances, init_state, make_model, make_train_step, without
from train.study.config import OptimizerConfig, StageConfig

AXES = {
    "bias": ("router",),
    "matrix": ("embed", "mlp"),
    "experts": ("expert", "embed", "mlp"),
    "table": ("vocab", "embed"),
    "scale": ("embed",),
}
SHAPES = {"bias": (4,), "matrix": (6, 10), "experts": (4, 6, 10), "table": (12, 6), "scale": (6,)}
CONFIGS = {
    "adafactor": OptimizerConfig(min_factored_size=4),
    "adamw": OptimizerConfig(name="adamw"),
    "lion": OptimizerConfig(name="lion"),
    "muon": OptimizerConfig(name="muon"),
}
EXPERTS = {
    "num_experts": 8,
    "top_k": 2,
    "scores": "sigmoid",
    "balance_weight": 0.0,
    "train_capacity_factor": None,
}
RATE = 0.001


def _random(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in SHAPES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_bias_moves_by_its_own_rate_and_affects_no_other_parameter(name):
    config = dataclasses.replace(
        CONFIGS[name],
        balance_rate=0.25,
        clip_norm=0.5,
        weight_decay=0.1,
        rates={"vector": 3.0, "expert": 0.5},
    )
    growth = Growth({name: Ratio(0.5, 4.0) for name in AXES}, epsilon=0.5)
    ours = make_optimizer(config, AXES, growth)
    plain = make_optimizer(config, without(AXES, ("bias",)), growth)
    params = _random(0)
    state, other = ours.init(params), plain.init(without(params, ("bias",)))
    for seed, slope in ((1, [4.0, -1e-6, 0.0, 900.0]), (2, [-2.0, 0.0, 3.0, 1.0])):
        grads = _random(seed) | {"bias": jnp.asarray(slope)}
        found, state = ours.update(grads, state, params)
        rest = [without(tree, ("bias",)) for tree in (grads, params)]
        expected, other = plain.update(rest[0], other, rest[1])
        np.testing.assert_array_equal(found["bias"], 0.25 * np.sign(slope))
        for one, direction in expected.items():
            np.testing.assert_array_equal(found[one], direction, err_msg=one)
    jax.tree.map(np.testing.assert_array_equal, state, other)  # nothing is kept of the biases


def test_the_role_has_no_other_settings():
    with pytest.raises(InputError, match="decayed: 'balance' does not decay"):
        OptimizerConfig(decayed=("matrix", "balance"))
    with pytest.raises(InputError, match="rates.balance: unknown role"):
        OptimizerConfig(rates={"balance": 2.0})
    assert "balance" not in OptimizerConfig().decayed


class Training:
    """A small language model with experts, and its step."""

    def __init__(self, accumulate: int = 1, balance_rate: float = 0.25, **options):
        cfg = models.config("moe-lm", "nano-NL1", **(EXPERTS | options))
        optimizer = OptimizerConfig(name="adamw", clip_norm=0.1, balance_rate=balance_rate)
        self.stage = StageConfig(batch_size=8, accumulate=accumulate, optimizer=optimizer)
        self.model, params = make_model(cfg, 0)
        self.optimizer = make_optimizer(optimizer, self.model.axes, self.model.growth)
        self.state = init_state(params, self.optimizer)
        # A copy for each step, since a step may reuse the memory of its state.
        self.step = models.jit(make_train_step(self.model, self.optimizer, self.stage))

    def run(self, steps: int, state=None):
        """The states and metrics after each of so many steps."""
        state, rows = self.state if state is None else state, []
        for _ in range(steps):
            state, metrics = self.step(state, batch(int(state.step)), RATE, 0)
            rows.append((state, metrics))
        return rows


def batch(step: int) -> dict[str, np.ndarray]:
    """Rows of random tokens of which a few are frequent, with padding."""
    rng = np.random.default_rng(step)
    ids = np.minimum(rng.geometric(0.15, (8, 17)) + 2, models.VOCAB - 1).astype(np.int32)
    real = np.arange(17) < rng.integers(9, 18, (8, 1))
    ids *= real
    return {
        "decoder_input_tokens": ids[:, :-1],
        "decoder_target_tokens": ids[:, 1:],
        "decoder_loss_weights": real[:, 1:].astype(np.float32),
    }


def _slopes(training, params, number):
    """The gradient of the balance alone."""

    def loss(params):
        out = training.model.merge(params).token_nll(batch(number), train=True)
        return sum(out.aux.values())

    gradient = jax.jit(jax.grad(loss))(params)
    return {name: np.asarray(gradient[name]) for name in balances(training.model.axes)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_every_step_moves_the_biases_by_the_sign_of_the_loads(accumulate):
    training = Training(accumulate, balance_bias=True)
    (name,) = balances(training.model.axes)
    state, expected = training.state, np.zeros(8, np.float32)
    for number, (after, _) in enumerate(training.run(2)):
        slope = _slopes(training, state.params, number)[name]
        assert slope.any() and slope.sum() == 0
        expected = expected - np.float32(0.25) * np.sign(slope)
        np.testing.assert_array_equal(after.params[name], expected)
        state = after


@pytest.mark.slow
def test_loss_and_gradient_norm_do_not_count_them():
    """As long as the biases are zero, the model is the one without."""
    with_biases, without_biases = (Training(balance_bias=flag).run(1)[0] for flag in (True, False))
    for name in without_biases[1].keys() - {"parameter_norm"}:
        np.testing.assert_allclose(
            with_biases[1][name], without_biases[1][name], rtol=1e-6, err_msg=name
        )
    for name, p in without_biases[0].params.items():
        np.testing.assert_allclose(
            with_biases[0].params[name], p, atol=tolerances.REORDERED, err_msg=name
        )


@pytest.mark.slow
def test_loads_get_more_even():
    """Alike at first; after a short training the fullest expert has much less to do."""
    even, uneven = (
        [float(row["expert_load"]) for _, row in Training(balance_rate=0.01, **own).run(60)]
        for own in ({"balance_bias": True}, {})
    )
    assert even[0] == pytest.approx(uneven[0])
    assert np.mean(even[-10:]) < 0.75 * np.mean(uneven[-10:])


def test_a_checkpoint_has_them(tmp_path):
    training = Training(balance_bias=True)
    (middle, _), *_, (end, _) = training.run(4)
    with Checkpoints(tmp_path / "pretrain") as checkpoints:
        checkpoints.save(1, {"state": middle._asdict()}, {"hash": "h"})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    spec = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    with Checkpoints(tmp_path / "pretrain") as checkpoints:
        restored = checkpoints.restore({"state": jax.tree.map(spec, middle._asdict())})
    assert restored is not None
    again, _ = training.run(3, type(middle)(**restored[0]["state"]))[-1]
    (name,) = balances(training.model.axes)
    assert np.asarray(end.params[name]).any()
    np.testing.assert_array_equal(again.params[name], end.params[name])


@pytest.mark.slow
def test_seeds_in_one_program_move_their_own():
    training = Training(balance_bias=True)
    seeds = [
        make_model(models.config("moe-lm", "nano-NL1", **EXPERTS, balance_bias=True), seed)
        for seed in (0, 1)
    ]
    states = [init_state(params, training.optimizer) for _, params in seeds]
    stack = lambda *leaves: jnp.stack(leaves)
    step = make_seeds_step(training.model, training.optimizer, training.stage)
    together = jax.tree.map(stack, *states)
    constants = jax.tree.map(stack, *(model.constants for model, _ in seeds))
    batches = {name: np.stack([x, x]) for name, x in batch(0).items()}
    after, _ = step(together, constants, batches, np.float32(RATE), np.zeros(2, np.uint32))
    (name,) = balances(training.model.axes)
    for number, state in enumerate(states):
        alone, _ = training.step(state, batch(0), RATE, 0)
        np.testing.assert_array_equal(after.params[name][number], alone.params[name])
    assert not np.array_equal(after.params[name][0], after.params[name][1])
