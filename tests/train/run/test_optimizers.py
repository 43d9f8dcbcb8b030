"""Adafactor against optax where both agree, its factored axes elsewhere, and the schedules."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from arch_zoo.parametrization import Growth, Ratio
from train.records import InputError
from train.run import optimizers
from train.run.optimizers import is_factored, learning_rate, make_optimizer
from train.study.config import OptimizerConfig

SHAPES = {"a": (8, 16), "b": (8, 16), "c": (16, 4), "scale": (8,), "wide": (300, 400)}
AXES = {name: ("embed", "mlp")[: len(shape)] for name, shape in SHAPES.items()}


def _tree(seed):
    keys = jax.random.split(jax.random.key(seed), len(SHAPES))
    return {
        name: jax.random.normal(key, SHAPES[name]) for name, key in zip(SHAPES, keys, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("min_factored_size", [1, 8, 1000])
def test_adafactor_equals_optax_on_matrices(min_factored_size):
    ours = make_optimizer(OptimizerConfig(min_factored_size=min_factored_size), AXES)
    theirs = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=min_factored_size),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
    )
    params = _tree(0)
    our_state, their_state = ours.init(params), theirs.init(params)
    for step in range(1, 4):
        grads = jax.tree.map(lambda g, step=step: g * 10.0**-step, _tree(step))
        our_updates, our_state = ours.update(grads, our_state, params)
        their_updates, their_state = theirs.update(grads, their_state, params)
        for name in SHAPES:
            np.testing.assert_allclose(
                our_updates[name], their_updates[name], rtol=2e-6, err_msg=name
            )


def _adafactor_on_paper(gradients, p, factored, config):
    """The directions of some steps by the paper's equations, in float64.

    `factored` means over the last two axes.
    """

    def rms(x):
        return np.sqrt(np.mean(x**2))

    row = column = full = 0.0
    for t, g in enumerate(gradients, start=1):
        decay = 1 - t**-config.decay_exponent
        squares = g**2 + 1e-30
        row = decay * row + (1 - decay) * squares.mean(-1)
        column = decay * column + (1 - decay) * squares.mean(-2) if factored else 0.0
        full = decay * full + (1 - decay) * squares
        if factored:
            u = g / np.sqrt(
                row[..., :, None] * column[..., None, :] / row.mean(-1)[..., None, None]
            )
        else:
            u = g / np.sqrt(full)
        if config.clip_threshold:
            u = u / max(1.0, rms(u) / config.clip_threshold)
        yield u * max(1e-3, rms(p)) if config.scale_by_parameter else u


@pytest.mark.parametrize(
    ("clip_threshold", "scale"), [(0.5, True), (1.0, True), (2.0, False), (0.0, True)]
)
def test_adafactor_is_that_of_its_paper(clip_threshold, scale):
    """The gradients shrink, so that updates are clipped at first and later are not."""
    config = OptimizerConfig(
        min_factored_size=8,
        clip_threshold=clip_threshold,
        scale_by_parameter=scale,
        decay_exponent=0.7,
    )
    kinds = {
        "matrix": ((8, 16), ("embed", "mlp"), True),
        "narrow": ((7, 16), ("embed", "mlp"), False),
        "vector": ((16,), ("embed",), False),
        "experts": ((3, 8, 8), ("expert", "embed", "mlp"), True),
        "router": ((16, 8), ("embed", "expert"), False),
    }
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) * 0.1 for name, (shape, *_) in kinds.items()}
    steps = [
        {name: rng.normal(size=p.shape) ** 3 * 5.0**-t for name, p in params.items()}
        for t in range(4)
    ]
    optimizer = make_optimizer(config, {name: axes for name, (_, axes, _) in kinds.items()})
    given = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    state, found = optimizer.init(given), []
    for grads in steps:
        updates, state = optimizer.update(
            jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), grads), state, given
        )
        found.append(updates)
    for name, (_, _, factored) in kinds.items():
        wanted = _adafactor_on_paper(
            [grads[name] for grads in steps], params[name], factored, config
        )
        for step, direction in enumerate(wanted):
            np.testing.assert_allclose(
                found[step][name], direction, rtol=1e-4, err_msg=f"{name}, step {step}"
            )


def test_second_moments_begin_at_zero_and_are_kept_in_float32():
    """Factored: a row and a column per matrix, and per expert; everything else is kept whole."""
    shapes = {"matrix": (8, 16), "experts": (3, 8, 9), "vector": (16,), "narrow": (7, 16)}
    axes = {name: ("expert", "embed", "mlp")[-len(shape) :] for name, shape in shapes.items()}
    optimizer = optimizers.scale_by_adafactor(OptimizerConfig(min_factored_size=8), axes)
    params = {name: jnp.ones(shape, jnp.bfloat16) for name, shape in shapes.items()}
    count, row, column, full = optimizer.init(params)
    assert {name: x.shape for name, x in row.items()} == {"matrix": (8,), "experts": (3, 8)}
    assert {name: x.shape for name, x in column.items()} == {"matrix": (16,), "experts": (3, 9)}
    assert {name: x.shape for name, x in full.items()} == {"vector": (16,), "narrow": (7, 16)}
    for moment in (*row.values(), *column.values(), *full.values()):
        assert moment.dtype == jnp.float32 and not moment.any()
    assert count == 0 and count.dtype == jnp.int32


def test_second_moments_are_means_of_squares():
    """Means over rows and columns, decayed by 1 - t^-.8: at step 2 a share of 2^-.8 is new."""
    shapes = {"matrix": (8, 16), "experts": (3, 8, 9), "vector": (16,)}
    axes = {name: ("expert", "embed", "mlp")[-len(shape) :] for name, shape in shapes.items()}
    optimizer = optimizers.scale_by_adafactor(OptimizerConfig(min_factored_size=8), axes)
    rng = np.random.default_rng(0)
    first, second = ({name: rng.normal(size=s) for name, s in shapes.items()} for _ in range(2))
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    state = optimizer.init(params)
    for grads in (first, second):
        given = {name: jnp.asarray(g, jnp.float32) for name, g in grads.items()}
        _, state = optimizer.update(given, state, params)
    new = 2**-0.8
    squares = {name: (1 - new) * first[name] ** 2 + new * second[name] ** 2 for name in shapes}
    for name in ("matrix", "experts"):
        np.testing.assert_allclose(state.row[name], squares[name].mean(-1), rtol=1e-5)
        np.testing.assert_allclose(state.column[name], squares[name].mean(-2), rtol=1e-5)
    np.testing.assert_allclose(state.full["vector"], squares["vector"], rtol=1e-5)
    assert state.count == 2


def test_adafactor_adds_1e_30_to_a_squared_gradient():
    """The square of a gradient of 1e-15 is 1e-30.

    The direction is then the square root of a half, and nothing is clipped.
    """
    optimizer = make_optimizer(OptimizerConfig(min_factored_size=8), AXES)
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    grads = {name: jnp.full(shape, 1e-15) for name, shape in SHAPES.items()}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for name in SHAPES:
        np.testing.assert_allclose(updates[name], 0.5**0.5, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("shape", "axes", "min_size", "factored"),
    [
        ((8, 8), ("embed", "mlp"), 8, True),
        ((8, 7), ("embed", "mlp"), 8, False),
        ((7, 8), ("embed", "mlp"), 8, False),
        ((8,), ("embed",), 1, False),
        ((2, 8, 8), ("expert", "embed", "mlp"), 8, True),  # however few experts
        ((8, 2, 8), ("heads", "embed", "mlp"), 8, False),
        ((8, 8, 8), ("embed", "expert", "mlp"), 8, False),
        ((8, 8, 8), ("embed", "mlp", "expert"), 8, False),
    ],
)
def test_what_is_factored(shape, axes, min_size, factored):
    assert is_factored(shape, axes, min_size) == factored


def test_experts_are_factored_one_by_one():
    axes = ("expert", "embed", "mlp")
    config = OptimizerConfig(min_factored_size=1, clip_threshold=0, scale_by_parameter=False)
    grads = jax.random.normal(
        jax.random.key(0), (64, 4, 8)
    )  # more experts than rows or columns: optax would factor over the experts
    params = jnp.ones_like(grads)
    all_experts = make_optimizer(config, {"w": axes})
    updates, _ = all_experts.update({"w": grads}, all_experts.init({"w": params}), {"w": params})
    alone = make_optimizer(config, {"w": axes[1:]})
    one, _ = alone.update({"w": grads[5]}, alone.init({"w": params[5]}), {"w": params[5]})
    np.testing.assert_allclose(updates["w"][5], one["w"], rtol=1e-6)
    assert is_factored((64, 4, 8), axes, 1)
    assert not is_factored((4, 64), ("embed", "expert"), 1)


@pytest.mark.parametrize(
    ("small", "stack"), [(0, 1), (1 << 16, 1 << 26), (1 << 22, 1 << 26), (1 << 22, 200)]
)
def test_parameters_of_a_shape_keep_their_own_statistics(small, stack, monkeypatch):
    """Alone, stacked as on a CPU or on an accelerator, and in stacks of limited size."""
    monkeypatch.setattr(optimizers, "_SMALL_ON_CPU", small)
    monkeypatch.setattr(optimizers, "_STACK", stack)
    config = OptimizerConfig(min_factored_size=8)
    together = make_optimizer(config, AXES)
    params, grads = _tree(0), _tree(1)
    updates, _ = together.update(grads, together.init(params), params)
    for name in SHAPES:
        alone = make_optimizer(config, {name: AXES[name]})
        one, _ = alone.update(
            {name: grads[name]}, alone.init({name: params[name]}), {name: params[name]}
        )
        np.testing.assert_allclose(updates[name], one[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("backend", "shape", "count", "times"),
    [
        ("cpu", (256, 256), 3, 1),
        ("cpu", (256, 257), 3, 3),
        ("gpu", (2048, 2048), 16, 1),
        ("gpu", (2048, 2048), 17, 2),
        ("gpu", (2048, 2049), 3, 3),
    ],
)
def test_small_parameters_of_a_shape_are_treated_at_once(backend, shape, count, times, monkeypatch):
    """Up to 2^16 elements each on a CPU and 2^22 elsewhere, and up to 2^26 together."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    axes = {str(i): ("embed", "mlp") for i in range(count)}
    optimizer = optimizers.scale_by_adafactor(OptimizerConfig(min_factored_size=8), axes)
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name in axes}
    state = jax.eval_shape(optimizer.init, params)
    program = str(jax.make_jaxpr(optimizer.update)(params, state, params))
    assert program.count("= rsqrt ") == 2 * times  # one for rows and one for columns


def test_weight_decay_is_for_matrices_and_clipping_is_global():
    config = OptimizerConfig(name="adamw", weight_decay=0.1, clip_norm=1.0)
    optimizer = make_optimizer(config, AXES)
    params = _tree(0)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["a"], 0.1 * params["a"], rtol=1e-6)
    np.testing.assert_allclose(updates["scale"], 0.0)


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_adamw_is_that_of_its_paper(clip_norm):
    """Three steps in float64, with gradients whose norm falls from above the limit to below it."""
    config = OptimizerConfig(
        name="adamw", beta1=0.8, beta2=0.95, weight_decay=0.1, clip_norm=clip_norm
    )
    optimizer = make_optimizer(config, AXES)
    params = _tree(0)
    state = optimizer.init(params)
    first, second = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))
    for step in range(1, 4):
        grads = jax.tree.map(lambda g, step=step: g * 10.0 ** (1 - step), _tree(step))
        updates, state = optimizer.update(grads, state, params)
        exact = {name: np.asarray(g, np.float64) for name, g in grads.items()}
        norm = np.sqrt(sum(np.sum(g**2) for g in exact.values()))
        factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
        assert not clip_norm or (factor < 1) == (step < 3)
        for name, g in exact.items():
            first[name] = 0.8 * first[name] + 0.2 * factor * g
            second[name] = 0.95 * second[name] + 0.05 * (factor * g) ** 2
            direction = (
                first[name] / (1 - 0.8**step) / (np.sqrt(second[name] / (1 - 0.95**step)) + 1e-8)
            )
            decayed = 0.1 * np.asarray(params[name]) if len(SHAPES[name]) == 2 else 0.0
            np.testing.assert_allclose(
                updates[name], direction + decayed, rtol=1e-4, atol=1e-6, err_msg=name
            )


ROLE_AXES = {
    "matrix": ("embed", "mlp"),
    "experts": ("expert", "embed", "mlp"),
    "table": ("vocab", "embed"),
    "scale": ("embed",),
}
ROLE_SHAPES = {"matrix": (6, 10), "experts": (3, 6, 10), "table": (12, 6), "scale": (6,)}


def _of_roles(seed):
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.normal(size=shape), jnp.float32)
        for name, shape in ROLE_SHAPES.items()
    }


def _orthogonalised(g, steps=5):
    """Newton-Schulz iterations with the coefficients of Jordan et al., in float64."""
    a, b, c = 3.4445, -4.775, 2.0315
    x = np.asarray(g, np.float64) / np.linalg.norm(g)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def test_muon_makes_matrices_orthogonal_and_leaves_the_rest_to_adam():
    config = OptimizerConfig(name="muon", beta1=0.95, beta2=0.98)
    optimizer, params, grads = make_optimizer(config, ROLE_AXES), _of_roles(0), _of_roles(1)
    found, _ = optimizer.update(grads, optimizer.init(params), params)
    # Of the first step, momentum is the gradient up to a factor, which drops out. The RMS of an
    # orthogonal matrix [6, 10] is 1 / sqrt(10); that of AdamW's updates is about .2.
    expected = {"matrix": _orthogonalised(grads["matrix"])}
    expected["experts"] = np.stack([_orthogonalised(g) for g in grads["experts"]])
    for name, direction in expected.items():
        np.testing.assert_allclose(found[name], 0.2 * np.sqrt(10) * direction, atol=2e-3)
    adam = optax.scale_by_adam(b1=0.95, b2=0.98)
    theirs, _ = adam.update(grads, adam.init(params))
    for name in ("table", "scale"):
        np.testing.assert_allclose(found[name], theirs[name], rtol=1e-6)


def test_lion_moves_by_the_sign_of_its_momentum():
    config = OptimizerConfig(name="lion", beta1=0.9, beta2=0.5)
    optimizer, params = make_optimizer(config, ROLE_AXES), _of_roles(0)
    state, momentum = optimizer.init(params), 0.0
    for seed in (1, 2, 3):
        g = _of_roles(seed)
        found, state = optimizer.update(g, state, params)
        expected = np.sign(0.9 * momentum + 0.1 * np.asarray(g["matrix"]))
        np.testing.assert_array_equal(found["matrix"], expected)
        momentum = 0.5 * momentum + 0.5 * np.asarray(g["matrix"])


def test_decay_and_rates_follow_the_role():
    plain = OptimizerConfig(name="adamw")
    changed = dataclasses.replace(
        plain, weight_decay=0.5, decayed=("matrix",), rates={"embedding": 10, "matrix": 0.5}
    )
    params, grads = _of_roles(0), _of_roles(1)
    before, after = (
        optimizer.update(grads, optimizer.init(params), params)[0]
        for optimizer in (make_optimizer(config, ROLE_AXES) for config in (plain, changed))
    )
    expected = {
        "matrix": 0.5 * (before["matrix"] + 0.5 * params["matrix"]),
        "experts": before["experts"],
        "table": 10 * before["table"],
        "scale": before["scale"],
    }
    for name, direction in expected.items():
        np.testing.assert_allclose(after[name], direction, rtol=1e-6)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"table": 2.0}, "rates.table: unknown role; known: matrix, embedding"),
        ({"embedding": -1.0}, "rates.embedding = -1.0: must be a number, 0 or more"),
    ],
)
def test_rates_of_roles_are_checked(rates, message):
    with pytest.raises(InputError, match=message):
        OptimizerConfig(rates=rates)


def test_adafactor_moves_a_parameter_of_zeros_by_a_thousandth():
    """The update's RMS is one at first, and a parameter's scale counts as 1e-3 at least."""
    optimizer = make_optimizer(OptimizerConfig(min_factored_size=8), AXES)
    for scale, rms in ((0.0, 1e-3), (1e-4, 1e-3), (0.5, 0.5)):
        params = {name: jnp.full(shape, scale) for name, shape in SHAPES.items()}
        grads = {name: jnp.full(shape, -0.3) for name, shape in SHAPES.items()}
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        for name in SHAPES:
            np.testing.assert_allclose(updates[name], -rms, rtol=1e-5, err_msg=name)


def test_adafactor_of_gradients_that_are_zero_stands_still():
    optimizer = make_optimizer(OptimizerConfig(min_factored_size=8), AXES)
    params = _tree(0)
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    assert all(not update.any() for update in updates.values())


def test_t5_pretrains_at_one_hundredth_and_then_by_the_inverse_square_root():
    config = OptimizerConfig()
    assert learning_rate(config, 0, 1 << 19) == learning_rate(config, 10_000, 1 << 19) == 0.01
    assert learning_rate(config, 40_000, 1 << 19) == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("schedule", "middle", "end"), [("constant", 1, 1), ("cosine", 0.5, 0), ("linear", 0.5, 0)]
)
def test_schedules_warm_up_and_end(schedule, middle, end):
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup_steps=10)
    assert learning_rate(config, 4, 110) == pytest.approx(1.0)
    assert learning_rate(config, 60, 110) == pytest.approx(2.0 * middle)
    assert learning_rate(config, 110, 110) == pytest.approx(2.0 * end, abs=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_schedules_meet_where_the_warm_up_ends(schedule):
    """Steps are counted from 0.

    The first of 10 warm-up steps has a tenth of the rate; the last one and the next have all of it.
    """
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup_steps=10)
    assert [learning_rate(config, step, 110) for step in (0, 9, 10)] == pytest.approx(
        [0.2, 2.0, 2.0]
    )
    end = 2.0 if schedule == "constant" else 0.0
    assert learning_rate(config, 11, 11) == pytest.approx(end, abs=1e-9)
    assert learning_rate(config, 10, 10) == 2.0  # a stage that ends with its warm-up
    quarter = {"constant": 2.0, "cosine": 1 + 0.5**0.5, "linear": 1.5}[schedule]
    assert learning_rate(config, 35, 110) == pytest.approx(quarter)
    assert (
        learning_rate(OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup_steps=0), 0, 10)
        == 2.0
    )


def test_a_decay_at_the_end_falls_to_zero():
    config = OptimizerConfig(
        learning_rate=2.0, schedule="constant", warmup_steps=10, decay_steps=20
    )
    rates = [learning_rate(config, step, 100) for step in (4, 50, 80, 85, 99, 100)]
    assert rates == pytest.approx([1.0, 2.0, 2.0, 1.5, 0.1, 0.0])
    bent = dataclasses.replace(config, decay_shape="sqrt")
    rates = [learning_rate(bent, step, 100) for step in (80, 85, 96, 100)]
    assert rates == pytest.approx([2.0, 1.0, 2 * (1 - 0.8**0.5), 0.0])
    root = OptimizerConfig(learning_rate=2.0, warmup_steps=0, decay_steps=20)
    assert learning_rate(root, 64, 74) == pytest.approx(2 / 8 / 2)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_second_decay_to_zero_is_refused(schedule):
    with pytest.raises(InputError, match=f"decay_steps = 5: schedule '{schedule}' reaches zero"):
        OptimizerConfig(schedule=schedule, decay_steps=5)


def test_the_inverse_square_root_without_warm_up_begins_at_the_full_rate():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=0)
    assert [learning_rate(config, step, 10) for step in (0, 1, 2, 4)] == pytest.approx(
        [2.0, 2.0, 2 / 2**0.5, 1.0]
    )


@pytest.mark.parametrize(
    ("config", "of_matrix", "of_table"),
    [
        (OptimizerConfig(name="adamw"), 0.25, 0.5),
        (OptimizerConfig(name="lion"), 0.25, 0.5),
        (OptimizerConfig(name="muon"), 0.5, 0.5),
        (OptimizerConfig(scale_by_parameter=False), 0.25, 0.5),
        (OptimizerConfig(), 0.5, 1.0),
    ],
    ids=["adamw", "lion", "muon", "adafactor", "relative adafactor"],
)
def test_rates_carry_over_by_the_size_of_an_optimizers_steps(config, of_matrix, of_table):
    """A matrix of four times the fan-in, and a table whose entries are half as large."""
    grown = Growth({"matrix": Ratio(0.5, 4.0), "table": Ratio(0.5, 1.0)})
    config = dataclasses.replace(config, weight_decay=0.1)
    params, grads = _of_roles(0), _of_roles(1)
    before, after = (
        optimizer.update(grads, optimizer.init(params), params)[0]
        for optimizer in (make_optimizer(config, ROLE_AXES, g) for g in (Growth(), grown))
    )
    decay = {name: 0.1 * params[name] for name in ("matrix", "table")}
    for name, factor in (("matrix", of_matrix), ("table", of_table)):
        # The decay of a step is the same at all widths.
        expected = factor * (before[name] - decay[name]) + decay[name]
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(after["scale"], before["scale"])


def test_adams_epsilon_shrinks_with_the_gradients_of_a_wide_model():
    config, grads = OptimizerConfig(name="adamw"), _of_roles(1)
    tiny = jax.tree.map(lambda g: 1e-8 * g, grads)
    params = _of_roles(0)
    optimizer = make_optimizer(config, ROLE_AXES, Growth(epsilon=1e-3))
    found, _ = optimizer.update(tiny, optimizer.init(params), params)
    adam = optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=1e-11)
    expected, _ = adam.update(tiny, adam.init(params))
    np.testing.assert_allclose(found["matrix"], expected["matrix"], rtol=1e-5)
