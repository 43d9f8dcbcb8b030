"""Checks that every architecture has the same losses under every strategy as on one device.

    python -m benchmarks.parallel_matrix  # all of a family, about ten minutes on 2 cores
    python -m benchmarks.parallel_matrix --family decoder_only
    python -m benchmarks.parallel_matrix --architectures switch --settings pmap-4,mesh-2x2x1

Uses one process with eight virtual CPU devices. Each architecture is trained for a few steps on one
device, and then from the same parameters on the same global batches under `pmap` on 1, 2, 4 and 8
devices and under `mesh` (data x model x expert). The batches have padding, so that their parts
have unequal weights. `spread` is `pmap` as it works with several processes. Models with experts run
with little capacity, so that they drop tokens, and under `pmap` their experts are spread by
`all_to_all`. Dropout and jitter are off, because each part draws them separately.

Prints a line for each pair on stderr and the tally as JSON on stdout; exits with 1 if any pair
differs by more than `--tolerance`, relative, in loss, gradient norm, dropped tokens, or the biases
that even out the loads of experts.
"""

import argparse
import dataclasses
import json
import os
import sys
from typing import Any, get_args

# Set before anything imports jax.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
from jax.sharding import Mesh

import arch_zoo
from train.data.layouts import LAYOUTS, HostBatch
from train.run import parallel
from train.run.optimizers import make_optimizer
from train.run.step import balances, init_state, make_model, make_train_step
from train.run.tracking import fetch
from train.study.config import OptimizerConfig, OptimizerName, RunConfig, StageConfig

SETTINGS = (
    "pmap-1",
    "pmap-2",
    "pmap-4",
    "pmap-8",
    "spread-4",
    "mesh-2x2x1",
    "mesh-1x4x1",
    "mesh-2x1x2",
)
COMPARED = ("loss", "nll", "gradient_norm", "target_tokens", "expert_drop_rate", "expert_load")
BATCH, LENGTH = 16, 16
RATES, RATE = {"adafactor": 0.1}, 0.003  # Adafactor's is relative to the size of a parameter
# The parts have at least two rows, and a group is one row of either side. Every part then
# holds whole groups, so capacity does not depend on the parts.
_CROWDED = {"num_experts": 8, "group_size": LENGTH, "train_capacity_factor": 0.6}
OPTIONS = {"switch": _CROWDED | {"jitter": 0.0}, "moe": _CROWDED}
STAGE = StageConfig(
    batch_size=BATCH,
    input_length=LENGTH,
    target_length=LENGTH,
    optimizer=OptimizerConfig(learning_rate=0.1, min_factored_size=16),
)


def batch(step: int, family: str) -> HostBatch:
    """Rows of random tokens, each of a random length, to be copied."""
    rng = np.random.default_rng(step)
    ids = rng.integers(3, 64, (BATCH, LENGTH)).astype(np.int32)
    ids[np.arange(LENGTH) >= rng.integers(LENGTH // 2, LENGTH + 1, (BATCH, 1))] = 0
    return LAYOUTS[family].batch(ids, ids)


def strategy_of(setting: str, axes: parallel.Axes, params: Any) -> parallel.Strategy:
    """The strategy of a setting such as pmap-4 or mesh-2x2x1, on the first devices."""
    kind, _, shape = setting.partition("-")
    sizes = [int(size) for size in shape.split("x")]
    devices = jax.devices()[: int(np.prod(sizes))]
    if setting == "pmap-1":  # by itself, the trainer would use no strategy on one device
        return parallel.DataParallel(Mesh(np.array(devices), ("data",)), ("data",), axes)
    if kind == "spread":
        return parallel.SpreadParallel(
            Mesh(np.array(devices)[:, None], ("data", "expert")), ("data", "expert"), axes
        )
    config = RunConfig(pretrain=STAGE, finetune=None, parallel="pmap")
    if kind == "mesh":
        config = dataclasses.replace(config, parallel="mesh", mesh=tuple(sizes))
    return parallel.make_strategy(config, axes, params, devices)


def train(name: str, setting: str, args: argparse.Namespace) -> list[dict[str, float]]:
    """The metrics of the first steps of an architecture under a setting.

    `one` means one device without a strategy.
    """
    family = args.family
    rate = RATES.get(args.optimizer, RATE)
    limits = STAGE.task_shape(family).limits
    options = OPTIONS.get(name, {}) | args.options
    cfg = arch_zoo.config(name, "nano", vocab_size=64, family=family, **limits, **options)
    model, params = make_model(cfg, seed=0)
    settings = dataclasses.replace(STAGE.optimizer, name=args.optimizer)
    optimizer = make_optimizer(settings, model.axes)
    strategy = (
        parallel.SingleDevice() if setting == "one" else strategy_of(setting, model.axes, params)
    )
    step = strategy.compile(make_train_step(model, optimizer, STAGE, strategy.devices))
    state = strategy.place_state(init_state(params, optimizer))
    rows = []
    for number in range(args.steps):
        state, metrics = step(
            state, strategy.place_batch(batch(number, family)), np.float32(rate), np.uint32(0)
        )
        rows.append({key: value for key, value in fetch(metrics).items() if key in COMPARED})
        for bias in balances(model.axes):
            values = np.asarray(state.params[bias])
            rows[-1] |= {f"{bias}.{expert}": float(value) for expert, value in enumerate(values)}
    return rows


def difference(rows: list[dict[str, float]], reference: list[dict[str, float]]) -> float:
    """The largest relative difference of any metric at any step; below 1 it is absolute."""
    return max(
        abs(row[key] - expected[key]) / max(abs(expected[key]), 1.0)
        for row, expected in zip(rows, reference, strict=True)
        for key in expected
    )


def main() -> int:
    """Parses the arguments and runs the pairs; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    families = ("encoder_decoder", "decoder_only")
    parser.add_argument("--family", default="encoder_decoder", choices=families)
    parser.add_argument("--architectures", default="", help="(default: all of the family)")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--optimizer", default="adafactor", choices=get_args(OptimizerName))
    parser.add_argument("--options", type=json.loads, default={}, help="of the architectures, JSON")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tolerance", type=float, default=2e-4)
    args = parser.parse_args()
    every = [name for name in arch_zoo.names() if args.family in arch_zoo.get(name).families]
    rows = []
    for name in args.architectures.split(",") if args.architectures else every:
        reference = train(name, "one", args)
        dropped = reference[0].get("expert_drop_rate")
        row: dict[str, Any] = {"architecture": name}
        for setting in args.settings.split(","):
            row[setting] = far = difference(train(name, setting, args), reference)
            note = "" if dropped is None else f", {dropped:.0%} of the tokens dropped"
            verdict = "equal" if far <= args.tolerance else "DIFFERENT"
            print(
                f"{name:12} {setting:10} {verdict}: within {far:.1e}{note}",
                file=sys.stderr,
                flush=True,
            )
        rows.append(row)
        jax.clear_caches()
    pairs = [row[setting] for row in rows for setting in args.settings.split(",")]
    equal = sum(far <= args.tolerance for far in pairs)
    print(
        json.dumps(
            {"equal": equal, "of": len(pairs), "tolerance": args.tolerance, "differences": rows},
            indent=2,
        )
    )
    return 0 if equal == len(pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
