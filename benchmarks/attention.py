"""Compares a GPU's attention in bfloat16, by cuDNN and by XLA, with float32 on the CPU.

    python -m benchmarks.attention

It runs padded and packed rows, the last of them empty, at two lengths in both families. For each it
prints the loss, the distance between all gradients and those in float32 over the norm of the
latter, and the largest such distance of a single parameter. `kernel` names what computed attention.
Then `repeated` gives the number of parameters that differ, in any bit, between two runs of five
steps from one state. If kernels add in no fixed order, a run that was stopped continues only up to
rounding. Prints JSON; exits with 1 if a number is not finite.
"""

import argparse
import dataclasses
import json
import sys
from typing import Any

import jax
import numpy as np

from benchmarks.step_time import VARIANTS, Shape, batch_of, settings
from train.run import losses
from train.run.optimizers import make_optimizer
from train.run.step import init_state, make_model, make_train_step

KINDS = ("as_is", "xla")
# Inputs, targets and family. cuDNN's backward pass is less exact at length 64.
LENGTHS = (
    (64, 16, "encoder_decoder"),
    (512, 114, "encoder_decoder"),
    (0, 64, "decoder_only"),
    (0, 512, "decoder_only"),
)


def padded(shape: Shape) -> dict[str, Any]:
    """Rows of decreasing length, the last of them empty."""
    batch = batch_of(shape)
    rows = np.arange(shape.batch_size)[:, None] / (shape.batch_size - 1)
    for key, x in batch.items():
        batch[key] = np.where(np.arange(x.shape[1]) < x.shape[1] * (1 - rows), x, 0).astype(x.dtype)
    return batch


def packed(shape: Shape) -> dict[str, Any]:
    """The same rows, each cut into two examples."""
    batch = padded(shape)
    sides = {"decoder": batch["decoder_loss_weights"] > 0}
    if "encoder_input_tokens" in batch:
        sides["encoder"] = batch["encoder_input_tokens"] != 0
    for side, real in sides.items():
        positions, cut = np.broadcast_to(np.arange(real.shape[1]), real.shape), real.shape[1] // 3
        batch[f"{side}_segment_ids"] = np.where(positions < cut, 1, 2).astype(np.int32) * real
        batch[f"{side}_positions"] = np.where(positions < cut, positions, positions - cut).astype(
            np.int32
        )
    return batch


def gradients(shape: Shape, dtype: str, variant: str, batch: dict[str, Any], device: Any):
    """The mean loss, the gradients by name, and the kernel that computed attention."""
    cfg, _ = settings("transformer", shape, dtype)
    model, params = make_model(cfg, 0)

    def loss(params):
        total, sums = losses.token_sums(
            losses.token_losses(model.merge(params), batch, jax.random.key(0)), batch
        )
        return total / sums["weight"]

    with jax.default_device(device), VARIANTS[variant][0]():
        params = jax.device_put(params, device)
        compiled = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
        value, grads = compiled(params)
    kernel = "cuDNN" if "__cudnn$fmha" in (compiled.as_text() or "") else "XLA"
    return float(value), {name: np.asarray(g, np.float64) for name, g in grads.items()}, kernel


def distances(shape: Shape, rows: str, batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The distance of each kind of attention from float32."""
    lengths = {"inputs": shape.input_length, "targets": shape.target_length}
    where = {"family": shape.family, **lengths, "rows": rows}
    value, exact, _ = gradients(shape, "float32", "xla", batch, jax.devices("cpu")[0])
    found = []
    for variant in KINDS:
        loss, grads, kernel = gradients(shape, "bfloat16", variant, batch, jax.devices()[0])
        apart = {name: float(np.linalg.norm(g - exact[name])) for name, g in grads.items()}
        norms = {name: float(np.linalg.norm(g)) for name, g in exact.items()}
        own = {name: apart[name] / norms[name] for name in apart}
        distance = float(
            np.linalg.norm(list(apart.values())) / np.linalg.norm(list(norms.values()))
        )
        row = {"kernel": kernel, "loss": loss, "loss_float32": value, "distance": distance}
        found.append(
            {**where, **row, "largest": max(own.values()), "of": max(own, key=own.__getitem__)}
        )
    return found


def repeated(shape: Shape, variant: str) -> dict[str, Any]:
    """The number of parameters that differ between two runs of five steps from one state."""
    cfg, stage = settings("transformer", shape, "bfloat16")
    model, params = make_model(cfg, 0)
    optimizer = make_optimizer(stage.optimizer, model.axes)
    step, ends = jax.jit(make_train_step(model, optimizer, stage)), []
    with VARIANTS[variant][0]():
        for _ in range(2):
            state = init_state(params, optimizer)
            for _ in range(5):
                state, _ = step(state, padded(shape), np.float32(0.01), np.uint32(0))
            ends.append(state.params)
    one, other = ends
    differ = [name for name in params if not np.array_equal(one[name], other[name])]
    return {
        "attention": variant,
        "differ": len(differ),
        "of": len(params),
        "such_as": ", ".join(differ[:3]),
    }


def main() -> int:
    """Compares, and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="small-NL2", help="(default: small-NL2)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows, at least 2 (default: 8)")
    given = parser.parse_args()
    shape = Shape(given.size, 2000, given.batch_size)
    shapes = [
        dataclasses.replace(shape, input_length=inputs, target_length=targets, family=family)
        for inputs, targets, family in LENGTHS
    ]
    rows = [
        row
        for shape in shapes
        for make in (padded, packed)
        for row in distances(shape, make.__name__, make(shape))
    ]
    same = [repeated(shapes[-1], variant) for variant in KINDS]
    print(
        json.dumps(
            {"device": jax.devices()[0].device_kind, "rows": rows, "repeated": same}, indent=1
        )
    )
    return 0 if all(np.isfinite([row["loss"], row["largest"]]).all() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
