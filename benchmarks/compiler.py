"""Compares gradients with and without XLA's kernel library for CPUs, which has had errors.

    python -m benchmarks.compiler

On a CPU, XLA passes products and sums to a library (YNNPACK) whose first releases were wrong for
large arrays: in jaxlib 0.10.2 a product followed by a sum can be wrong
(github.com/jax-ml/jax/issues/39103). For every architecture, at lengths that fill no block, this
script compares the loss and every gradient of both compilations. It prints JSON. For each
architecture, `loss` is the relative difference of the losses, and `gradient` the largest difference
divided by the largest entry of the same parameter's gradient. `known_error` shows if this release
gets the example from that issue wrong. A ReLU whose input is zero up to rounding may go either way,
so every ReLU is replaced by a softplus here.
"""

import argparse
import contextlib
import importlib.metadata
import json
import unittest.mock
from typing import Any

import jax
import jax.numpy as jnp

import arch_zoo
from arch_zoo.architectures import evolved, switch
from arch_zoo.layers import feed_forward
from benchmarks.step_time import Shape, batch_of, settings
from train.run import losses
from train.run.step import make_model

WITHOUT: Any = {"xla_cpu_experimental_ynn_fusion_type": ""}
SHAPES = (Shape("micro", 1999, 7, 123, 37), Shape("centi-NL2", 1999, 33, 129, 57))


def differences(name: str, shape: Shape) -> dict[str, Any]:
    """The largest relative differences of an architecture's loss and gradients."""
    cfg, _ = settings(name, shape)
    model, params = make_model(cfg, 0)
    batch = batch_of(shape)
    batch["encoder_input_tokens"][:, -5:] = 0  # padding

    def loss(params):
        out = losses.token_losses(model.merge(params), batch, jax.random.key(0))
        total, sums = losses.token_sums(out, batch)
        return total / sums["weight"] + sum(out.aux.values())

    function = jax.jit(jax.value_and_grad(loss)).lower(params)
    (ours, grads), (theirs, others) = function.compile()(params), function.compile(WITHOUT)(params)
    worst = {
        key: float(jnp.abs(g - others[key]).max() / jnp.abs(others[key]).max())
        for key, g in grads.items()
    }
    return {
        "architecture": name,
        "size": shape.size,
        "loss": abs(float(ours / theirs) - 1),
        "gradient": max(worst.values()),
        "of": max(worst, key=worst.__getitem__),
    }


def known_error() -> dict[str, float]:
    """The example from the issue: the last of 32,769 sums, which is 2^30."""
    rows = jnp.arange(32_769.0)[:, None] * jnp.array([1.0, 0.0, 0.0])
    sums = jax.vmap(lambda row: jnp.sum(jnp.square(jnp.eye(3) @ row)))
    compiled = jax.jit(sums).lower(rows)
    return {
        "right": 2.0**30,
        "with": float(compiled.compile()(rows)[-1]),
        "without": float(compiled.compile(WITHOUT)(rows)[-1]),
    }


def main() -> None:
    """Compares, and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--architectures", default="", help="names, separated by commas (default: the whole zoo)"
    )
    given = parser.parse_args().architectures
    names = given.split(",") if given else arch_zoo.names()
    with contextlib.ExitStack() as stack:
        for module in (jax.nn, feed_forward, evolved, switch):
            stack.enter_context(unittest.mock.patch.object(module, "relu", jax.nn.softplus))
        rows = [differences(name, shape) for name in names for shape in SHAPES]
    jaxlib = importlib.metadata.version("jaxlib")
    print(json.dumps({"jaxlib": jaxlib, "known_error": known_error(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
