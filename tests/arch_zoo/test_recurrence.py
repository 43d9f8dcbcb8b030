"""Both kernels: chunks against single positions in float64, segments, states, extreme inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arch_zoo.layers import decayed_attention, delta_rule, recurrence
from arch_zoo.layers.context import Context
from arch_zoo.layers.recurrence import MatrixState, Sequences
from tests import tolerances
from tests.arch_zoo import models

KERNELS = {
    "decay-of-head": (decayed_attention, 2, 1),
    "decay-of-row": (decayed_attention, 1, 4),
    "delta-rule": (delta_rule, 2, 1),
}
ROWS, GROUPS, KEY, VALUE = 2, 2, 4, 3
SETTINGS = settings(
    max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
LENGTHS = (1, 2, 16, 17, 64, 65, 130)  # around the chunks of 16 and 64


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64():
        yield


@pytest.fixture(params=KERNELS)
def kernel(request):
    return request.param


def sequences(rng, kernel: str, segments: np.ndarray, decay: float = 1.0) -> Sequences:
    """Random ones; keys of the delta rule have length 1, its rates are up to 2."""
    _, heads, rows = KERNELS[kernel]
    batch, length = segments.shape
    shared, own = (batch, GROUPS, 1, length), (batch, GROUPS, heads, length)
    key = rng.normal(size=(*shared, KEY))
    rate = None
    if kernel == "delta-rule":
        key /= np.linalg.norm(key, axis=-1, keepdims=True)
        rate = jnp.asarray(rng.uniform(0, 2, (*own, 1)))
    return Sequences(
        jnp.asarray(rng.normal(size=(*shared, KEY))),
        jnp.asarray(key),
        jnp.asarray(rng.normal(size=(*own, VALUE))),
        jnp.asarray(-decay * np.abs(rng.normal(size=(*own, rows)))),
        jnp.asarray(segments)[:, None, None, :, None],
        rate,
    )


def one_segment(length: int) -> np.ndarray:
    return np.ones((ROWS, length), np.int32)


@st.composite
def packed_rows(draw):
    """Segments of random lengths in a row of random length, with padding before and after."""
    length = draw(st.sampled_from(LENGTHS))
    rows = []
    for _ in range(ROWS):
        cuts = np.sort([draw(st.integers(0, length)) for _ in range(4)])
        row = np.searchsorted(cuts, np.arange(length), side="right")  # 0 is padding on the left
        row[length - draw(st.integers(0, min(length, 5))) :] = 0
        rows.append(row)
    return np.array(rows, np.int32), draw(st.integers(0, 2**32 - 1))


def run(kernel: str, form: str, given: Sequences, state: MatrixState | None = None):
    function = getattr(KERNELS[kernel][0], form)
    return models.jit(function)(given, recurrence.empty_like(given) if state is None else state)


def real(given: Sequences) -> np.ndarray:
    return np.broadcast_to(np.asarray(given.segment_ids_B11L1) != 0, given.value_BGRLV.shape)


def assert_equal(got, expected, where=True) -> None:
    got, expected = (np.where(where, x, 0) for x in (got, expected))
    np.testing.assert_allclose(got, expected, atol=tolerances.FLOAT64)


@SETTINGS
@given(packed=packed_rows())
def test_chunks_equal_single_positions(kernel, packed):
    """Outputs at tokens, and the state after the last one."""
    segments, seed = packed
    made = sequences(np.random.default_rng(seed), kernel, segments)
    (y, state), (expected, last) = (run(kernel, form, made) for form in ("chunked", "recurrent"))
    assert_equal(y, expected, real(made))
    assert_equal(state.memory_BGRKV, last.memory_BGRKV)
    np.testing.assert_array_equal(state.segment_B, last.segment_B)


@pytest.mark.parametrize("length", [5, 70])
def test_gradients_of_chunks_equal_those_of_single_positions(kernel, length):
    rng = np.random.default_rng(0)
    segments = one_segment(length)
    segments[1, length // 2 :] = 2
    made = sequences(rng, kernel, segments)
    weights = jnp.asarray(rng.normal(size=made.value_BGRLV.shape))

    def loss(floats, form):
        given = made._replace(**floats)
        y, state = getattr(KERNELS[kernel][0], form)(given, recurrence.empty_like(given))
        return jnp.sum(y * weights) + jnp.sum(jnp.square(state.memory_BGRKV))

    floats = {n: x for n, x in made._asdict().items() if n != "segment_ids_B11L1" and x is not None}
    got, expected = (
        models.jit(jax.grad(loss), static_argnums=1)(floats, form)
        for form in ("chunked", "recurrent")
    )
    for name in floats:
        assert_equal(got[name], expected[name])


def test_single_positions_follow_the_formula(kernel):
    """Written out in NumPy for one head."""
    made = sequences(np.random.default_rng(1), kernel, one_segment(9))
    y, _ = run(kernel, "recurrent", made)
    query, key, value, decay = (np.asarray(x)[0, 1, -1] for x in made[:4])
    memory = np.zeros((KEY, VALUE))
    for t in range(9):
        memory *= np.exp(decay[t])[:, None]
        error = value[t] - (key[t] @ memory if kernel == "delta-rule" else 0)
        rate = 1.0 if made.rate_BGRL1 is None else np.asarray(made.rate_BGRL1)[0, 1, -1, t]
        memory += np.outer(key[t], error * rate)
        assert_equal(y[0, 1, -1, t], query[t] @ memory)


@pytest.mark.parametrize("first", [1, 3, 64])
def test_a_state_carries_on(kernel, first):
    """A row in two parts, the second with padding on its left, equals the whole row."""
    made = sequences(np.random.default_rng(2), kernel, one_segment(70))
    expected, last = run(kernel, "chunked", made)
    parts = [
        jax.tree.map(lambda x, s=s: x[:, :, :, s], made) for s in (slice(first), slice(first, None))
    ]
    before, state = run(kernel, "attend", parts[0])
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, 0),) * 3 + ((2, 0), (0, 0))), parts[1])
    after, state = run(kernel, "attend", padded, state)
    assert_equal(jnp.concatenate([before, after[:, :, :, 2:]], axis=3), expected)
    assert_equal(state.memory_BGRKV, last.memory_BGRKV)


def test_two_directions_are_a_half_of_the_heads_each(kernel):
    made = sequences(np.random.default_rng(3), kernel, one_segment(20))
    module = KERNELS[kernel][0]
    ids = jnp.ones((ROWS, 20), jnp.int32)
    y, none = recurrence.mix(module.attend, made, Context(ids, ids, causal=False))
    ahead, _ = run(kernel, "recurrent", made)
    back, _ = run(kernel, "recurrent", recurrence.reverse(made))
    assert none is None
    assert_equal(y[:, :1], ahead[:, :1])
    assert_equal(y[:, 1:], recurrence.reverse(back)[:, 1:])


def test_a_single_group_is_divided_by_its_heads():
    made = sequences(np.random.default_rng(4), "decay-of-head", one_segment(7))
    one = jax.tree.map(lambda x: x[:, :1], made)
    ids = jnp.ones((ROWS, 7), jnp.int32)
    y, _ = recurrence.mix(decayed_attention.attend, one, Context(ids, ids, causal=False))
    back, _ = run("decay-of-head", "recurrent", recurrence.reverse(one))
    assert_equal(y[:, :, 1], recurrence.reverse(back)[:, :, 1])


@pytest.mark.parametrize("value", [0.0, -np.inf, -1e3])
def test_extreme_inputs_have_finite_gradients(kernel, value):
    """Zero queries, keys and rates, and decays that forget everything."""
    made = sequences(np.random.default_rng(5), kernel, one_segment(40))
    if value:
        at = np.random.default_rng(6).random(made.log_decay_BGRLJ.shape) < 0.1
        made = made._replace(log_decay_BGRLJ=jnp.where(at, value, made.log_decay_BGRLJ))
    else:
        made = jax.tree.map(
            lambda x: x if jnp.issubdtype(x.dtype, jnp.integer) else jnp.zeros_like(x), made
        )
    made = jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(jnp.float32), made
    )

    def loss(given):
        y, _ = KERNELS[kernel][0].chunked(given, recurrence.empty_like(given))
        return jnp.sum(jnp.square(y))

    value, gradient = models.jit(jax.value_and_grad(loss, allow_int=True))(made)
    assert np.isfinite(value)
    for name, slope in gradient._asdict().items():
        if slope is not None and name != "segment_ids_B11L1":
            assert np.all(np.isfinite(slope)), name


def test_a_decay_below_the_least_counts_as_the_least(kernel):
    module, _, rows = KERNELS[kernel]
    least = decayed_attention.LEAST_OF_ROW if rows > 1 else decayed_attention.LEAST_OF_HEAD
    made = sequences(np.random.default_rng(7), kernel, one_segment(20))
    lower, at_least = (
        made._replace(log_decay_BGRLJ=made.log_decay_BGRLJ.at[:, :, :, 5].set(value))
        for value in (-np.inf, least)
    )
    assert_equal(
        *(models.jit(module.attend)(x, recurrence.empty_like(x))[0] for x in (lower, at_least))
    )


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0])
def test_equal_keys_are_solved_as_well_as_others(rate):
    """A sum of powers of the system is off by orders of magnitude here."""
    lower = np.tril(np.full((64, 64), rate), -1)
    sides = np.random.default_rng(8).normal(size=(64, 5))
    expected = np.linalg.solve(np.eye(64) + lower, sides)
    got = delta_rule.solve(jnp.asarray(lower, jnp.float32), jnp.asarray(sides, jnp.float32))
    assert np.abs(got - expected).max() < tolerances.REORDERED * np.abs(expected).max()


@pytest.mark.parametrize("size", [1, 2, 3, 8, 21, 64])
def test_systems_of_any_size_are_solved(size):
    rng = np.random.default_rng(size)
    lower = np.tril(rng.normal(size=(2, size, size)) / size**0.5, -1)
    sides = rng.normal(size=(2, size, 3))
    expected = np.linalg.solve(np.eye(size) + lower, sides)
    assert_equal(delta_rule.solve(jnp.asarray(lower), jnp.asarray(sides)), expected)
