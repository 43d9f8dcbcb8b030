"""Memory estimates against the bytes that XLA reports to allocate."""

import json
from pathlib import Path

import jax
import pytest

import arch_zoo
from arch_zoo import memory
from arch_zoo.accounting import abstract_model
from arch_zoo.families import MODELS
from tests import tolerances


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "lconv", "mos"])
def test_estimate_is_close_to_what_xla_allocates(name):
    """Per sequence of a training step: activations that are kept, and the largest temporary."""
    cfg = arch_zoo.config(name, "centi", vocab_size=2000)
    estimate = memory.estimate_memory(cfg, 128, 32)

    def gradient(model, batch):
        return jax.grad(memory._loss, allow_int=True)(model, batch, jax.random.key(0))

    allocated = [
        jax.jit(gradient)
        .lower(abstract_model(cfg), MODELS[cfg.family].batch_spec(sequences, 128, 32))
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for sequences in (8, 16)
    ]
    per_sequence = (allocated[1] - allocated[0]) / 8
    estimated = estimate.step(1) - estimate.step(0)
    assert 1 / tolerances.MEMORY < estimated / per_sequence < tolerances.MEMORY, (
        estimated,
        per_sequence,
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"scan_layers": True}])
def test_estimate_for_a_gpu_is_close_to_what_xla_allocated_on_one(options):
    """Against the recorded result of `benchmarks.step_time`; a scan counts as unrolled blocks."""
    kept = json.loads(
        (Path(__file__).parents[2] / "benchmarks/results/step_time_gpu.json").read_text()
    )
    (row,) = [
        row
        for row in kept["result"]["rows"]
        if row["shape"] == "base" and row["name"] == "transformer"
    ]
    cfg = arch_zoo.config("transformer", "base", dtype="bfloat16", **options)
    estimated = memory.estimate_memory(cfg, 512, 114, gpu=True).step(128)
    assert 1 / tolerances.MEMORY < estimated / row["bytes"] < tolerances.MEMORY, estimated


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_scan_keeps_as_much_as_unrolled_blocks(remat):
    options = {"vocab_size": 64, "dtype": "bfloat16", "remat": remat}
    scanned, unrolled = (
        memory.estimate_memory(
            arch_zoo.config("transformer", "nano-NL8", scan_layers=scan, **options), gpu=True
        )
        for scan in (True, False)
    )
    assert scanned.activations == pytest.approx(unrolled.activations, rel=0.1)


@pytest.mark.slow
def test_a_gpu_keeps_attention_weights_only_with_dropout():
    size = {"size": "nano-NL1", "vocab_size": 64, "dtype": "bfloat16"}
    short, long, dropped = (
        memory.estimate_memory(
            arch_zoo.config("transformer", dropout_rate=rate, **size), length, 16, gpu=True
        )
        for length, rate in ((64, 0.0), (256, 0.0), (256, 0.1))
    )
    assert long.activations < 4.1 * short.activations  # nothing grows with the square of the length
    weights = 2 * 256 * 256 * 2  # heads, bytes
    assert dropped.activations > long.activations + weights


@pytest.mark.slow
def test_rematerialisation_scanning_and_half_precision_shrink_it():
    plain, remat, half = (
        memory.estimate_memory(
            arch_zoo.config("transformer", "centi-NL4", vocab_size=2000, **options), 128, 32
        )
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
    narrow, wide = (
        memory.estimate_memory(arch_zoo.config(name, size, vocab_size=64))
        for size in ("nano", "micro")
    )
    assert 0 < narrow.activations < wide.activations
    assert 0 < narrow.largest <= wide.largest
