"""Compares the time per FLOP of recurrent mixers with that of attention, on a CPU.

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.mixers
    python -m benchmarks.mixers --lengths 64 --architectures mamba2 --rounds 30

Decoder-only models of equal parameters are measured: `llama`, and the recurrent architectures,
whose blocks are Llama's with another mixer. The gradient of the summed loss is computed for a batch
of the same number of tokens at each length. The optimizer's update, which is no part of the FLOPs,
is left out. The vocabulary is small, because the logits cost the same in all of them.

Prints a table on stderr and JSON on stdout: the processor time of a step in milliseconds; its
FLOPs; `over_llama`, the time per FLOP over Llama's at the same length; and the goal for it. Exits
with 1 if a goal is missed.

Contenders take turns of one step, and the fastest step of each counts: other work on the machine
only ever makes a step slower. Processor time is that of all threads. `make study` sets the huge
pages of the first command. Without them large arrays are mapped anew at every step, which takes
about as long as the computation.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

import arch_zoo
from benchmarks.step_time import Shape, batch_of, settings
from train.run import losses
from train.run.step import make_model

BASE = "llama"
GOALS = {"retnet": 1.25, "gla": 1.5, "gated_deltanet": 1.6, "mamba2": 1.75}
VOCABULARY = 64


def contender(name: str, shape: Shape) -> tuple[Callable[[], Any], int]:
    """A step, which waits until it is done, and its FLOPs."""
    cfg, _ = settings(name, shape)
    model, params = make_model(cfg, 0)
    batch = batch_of(shape)

    def loss(params):
        out = losses.token_losses(model.merge(params), batch, jax.random.key(0))
        return losses.token_sums(out, batch)[0]

    step = jax.jit(jax.grad(loss)).lower(params).compile()
    flops = arch_zoo.count_flops(cfg, *shape.batch.counted_lengths.values()).train
    return lambda: jax.block_until_ready(step(params)), flops * shape.batch_size


def fastest(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least processor time of each step in seconds, where they take turns."""
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            least[name] = min(least[name], time.process_time() - start)
    return least


def compare(length: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one length."""
    shape = Shape(options.size, VOCABULARY, options.tokens // length, 0, length, "decoder_only")
    made = {name: contender(name, shape) for name in (BASE, *options.architectures.split(","))}
    seconds = fastest({name: step for name, (step, _) in made.items()}, options.rounds)
    rows = []
    for name, (_, flops) in made.items():
        ratio = seconds[name] / seconds[BASE] * made[BASE][1] / flops
        goal = GOALS.get(name)
        rows.append(
            {
                "length": length,
                "name": name,
                "milliseconds": 1e3 * seconds[name],
                "flops": flops,
                "over_llama": ratio,
                "goal": goal,
                "met": None if goal is None else ratio <= goal,
            }
        )
    return rows


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--architectures", default=",".join(GOALS), help="besides llama (default: %(default)s)"
    )
    parser.add_argument("--size", default="centi", help="(default: %(default)s, of width 128)")
    parser.add_argument("--lengths", default="64,512", help="(default: %(default)s)")
    parser.add_argument(
        "--tokens", type=int, default=2048, help="number of tokens in a batch (default: 2048)"
    )
    parser.add_argument(
        "--rounds", type=int, default=40, help="number of steps of each contender (default: 40)"
    )
    options = parser.parse_args()
    if unknown := set(options.architectures.split(",")) - set(GOALS):
        parser.error(
            f"--architectures: {', '.join(sorted(unknown))}: not one of {', '.join(GOALS)}"
        )
    rows = []
    for length in map(int, options.lengths.split(",")):
        rows += (found := compare(length, options))
        for row in found:
            goal = "" if row["goal"] is None else f"  goal {row['goal']}"
            print(
                f"{row['length']:5} {row['name']:16}{row['milliseconds']:8.1f} ms"
                f"{row['over_llama']:7.2f}{goal}",
                file=sys.stderr,
            )
    device = f"{jax.devices()[0].device_kind}, {platform.processor() or platform.machine()}"
    print(json.dumps({"device": device, "rows": rows}, indent=1))
    return int(any(row["met"] is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
