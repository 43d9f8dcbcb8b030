"""Memory estimates against what XLA says that it allocates."""

import jax
import pytest

import arch_zoo
from arch_zoo import memory
from arch_zoo.accounting import abstract_model
from tests import tolerances


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "lconv", "mos"])
def test_estimate_is_close_to_what_xla_allocates(name):
    """Per sequence, of one training step: kept activations and what is held for a moment."""
    cfg = arch_zoo.config(name, "centi", vocab_size=2000)
    estimate = memory.estimate_memory(cfg, 128, 32)

    def gradient(model, batch):
        return jax.grad(memory._loss, allow_int=True)(model, batch, jax.random.key(0))

    allocated = [
        jax.jit(gradient)
        .lower(abstract_model(cfg), memory._batch(sequences, 128, 32))
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for sequences in (8, 16)
    ]
    per_sequence = (allocated[1] - allocated[0]) / 8
    estimated = estimate.step(1) - estimate.step(0)
    assert 1 / tolerances.MEMORY < estimated / per_sequence < tolerances.MEMORY, (estimated, per_sequence)


@pytest.mark.slow
def test_rematerialisation_scanning_and_half_precision_shrink_it():
    plain, remat, half = (
        memory.estimate_memory(arch_zoo.config("transformer", "centi-NL4", vocab_size=2000, **options), 128, 32)
        for options in ({}, {"remat": "full"}, {"dtype": "bfloat16"})
    )
    assert remat.activations < plain.activations / 3
    assert half.activations < plain.activations
    assert remat.parameters == half.parameters == plain.parameters
    cfg = arch_zoo.config("transformer", "centi-NL4", vocab_size=2000)
    assert plain.parameters == 4 * arch_zoo.count_params(cfg).total


@pytest.mark.slow
@pytest.mark.parametrize("name", arch_zoo.names())
def test_a_wider_model_keeps_more(name):
    narrow, wide = (memory.estimate_memory(arch_zoo.config(name, size, vocab_size=64)) for size in ("nano", "micro"))
    assert 0 < narrow.activations < wide.activations
    assert 0 < narrow.largest <= wide.largest
