"""What the training loop costs besides the step that it runs: batches, records, progress, checks.

    python -m benchmarks.loop_overhead  # transformer at d128 4+4, about three minutes on 2 cores
    python -m benchmarks.loop_overhead --size nano --steps 200

Runs `train.run.loop` for `--steps` steps without evaluations and saves in between, and the same
compiled step on batches made beforehand, alternating `--rounds` times in one process. Prints JSON:
median milliseconds per step of both; `overhead`, the loop's time over the bare step's minus one, as
the median over rounds; and `input_ms`, the time to make one batch, which happens while the device
computes. `overhead` varies as much as two runs of the same step do. `host_ms` does not: it is the
time per step of a loop whose model computes nothing, and so the most that the loop can add.
`host_share` is that over the bare step.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
import unittest.mock
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import arguments
from configs import presets
from train.data.corpus import Corpus, open_corpus
from train.records import RunWriter
from train.run import cell, loop
from train.run.optimizers import make_optimizer
from train.run.parallel import SingleDevice
from train.run.start import Job
from train.run.step import Batch, Metrics, State, Step, init_state, make_model, make_train_step
from train.study.config import RunConfig

_WARM_UP = 5  # steps, which include compilation and the first use of memory


class Clock:
    """Records the time of every step of a loop; it is used as `Job.stop`."""

    def __init__(self, steps: int):
        """Prepares for a loop of `steps` steps."""
        self.times, self._steps = [], steps

    def __call__(self) -> bool:
        """Records the time; never stops the loop."""
        self.times.append(time.perf_counter())
        return False

    @property
    def seconds_per_step(self) -> float:
        """Mean over the steps after warm-up, without the last, after which the loop evaluates."""
        first, last = self.times[_WARM_UP], self.times[self._steps - 2]
        return (last - first) / (self._steps - 2 - _WARM_UP)


def in_the_loop(config: RunConfig, corpus: Corpus) -> float:
    """Seconds per step in `loop.train`."""
    clock = Clock(config.pretrain.steps)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        model = cell.model_config(config, corpus)
        job = Job(config, "pretrain", model, {}, corpus, directory, stop=clock, quiet=True)
        loop.train(job, RunWriter(directory))
    return clock.seconds_per_step


def computes_nothing(*about: Any) -> Step:
    """A step with the same inputs and outputs that computes nothing; its metrics are ones."""
    step = make_train_step(*about)

    def run(state: State, batch: Batch, learning_rate: Any, seed: Any) -> tuple[State, Metrics]:
        _, metrics = jax.eval_shape(step, state, batch, learning_rate, seed)
        return state._replace(step=state.step + 1), {
            name: jnp.ones(x.shape, x.dtype) for name, x in metrics.items()
        }

    return run


def bare(config: RunConfig, corpus: Corpus) -> tuple[float, float]:
    """Seconds per step of the compiled step alone, and seconds to make a batch."""
    stage = config.pretrain
    model, params = make_model(cell.model_config(config, corpus), config.seed)
    optimizer = make_optimizer(stage.optimizer, model.axes)
    strategy = SingleDevice()
    step = strategy.compile(make_train_step(model, optimizer, stage))
    state = strategy.place_state(init_state(params, optimizer))
    job = Job(config, "pretrain", cell.model_config(config, corpus), {}, corpus, Path())
    source = loop.make_source(job)
    start = time.perf_counter()
    batches = [source.batch(number) for number in range(stage.steps)]
    making = (time.perf_counter() - start) / stage.steps
    for number in range(stage.steps):
        if number == _WARM_UP:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = step(
            state, strategy.place_batch(batches[number]), np.float32(0.01), np.uint32(0)
        )
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / (stage.steps - _WARM_UP), making


def main() -> None:
    """Measures both in turn and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_corpus(parser)
    parser.add_argument(
        "--size", default="centi-NL4", help="d128 with four layers each side by default"
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    corpus = open_corpus(args.corpus, verify=False)
    run = presets.cpu("transformer", args.size)
    stage = dataclasses.replace(
        run.pretrain, steps=args.steps, checkpoint_every=10 * args.steps, eval_batches=1
    )
    config = dataclasses.replace(run, pretrain=stage, finetune=None)
    loops, steps, makings = [], [], []
    for _ in range(args.rounds):
        loops.append(in_the_loop(config, corpus))
        step, making = bare(config, corpus)
        steps.append(step)
        makings.append(making)
    longer = dataclasses.replace(stage, steps=10 * args.steps, checkpoint_every=100 * args.steps)
    with unittest.mock.patch.object(loop, "make_train_step", computes_nothing):
        hosts = [
            in_the_loop(dataclasses.replace(config, pretrain=longer), corpus)
            for _ in range(args.rounds)
        ]
    in_loop, alone, making, host = (
        statistics.median(seconds) for seconds in (loops, steps, makings, hosts)
    )
    overhead = statistics.median(mine / its for mine, its in zip(loops, steps, strict=True)) - 1
    result = {
        "size": args.size,
        "loop_ms": 1e3 * in_loop,
        "step_ms": 1e3 * alone,
        "overhead": overhead,
    }
    result |= {
        "input_ms": 1e3 * making,
        "host_ms": 1e3 * host,
        "host_share": host / alone,
        "rounds": args.rounds,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
