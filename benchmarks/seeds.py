"""Compares several seeds of a cell in one program with the same seeds in separate processes.

    python -m benchmarks.seeds  # eight seeds of transformer-nano, about five minutes on 2 cores
    python -m benchmarks.seeds --seeds 4 --size micro --steps 350
    python -m benchmarks.seeds --steps-only --sizes nano,micro  # the steps alone; seconds
    python -m benchmarks.seeds --steps-only --preset t5 --seeds 4 --sizes nano,mini,tiny  # on a GPU

Every process starts, compiles, pretrains, evaluates and saves. One side is a single process with
all seeds by `vmap` (`train.run.seeds`); the other is a sequence of processes with one seed each.
`--alone` runs fewer of these, and their mean stands for the others. Both sides compile from scratch
unless `--cache` lets them share a compilation cache, as a study does. Prints JSON: seconds of both
sides, and their ratio.

With `--steps-only`, only the steps of pretraining are timed, in this process and on one device: a
step of all seeds together over as many steps of one seed, on random tokens that are already on the
device. The sides alternate in turns of about `--seconds`, and the median of `--rounds` counts. A
seed alone uses the fastest attention; together they use XLA's. On a CPU set
GLIBC_TUNABLES=glibc.malloc.hugetlb=1, as the launchers do: without it many seeds take up to twice
as long.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import arguments

TOGETHER = """if True:
    import sys
    from pathlib import Path
    from benchmarks import seeds as benchmark
    from train.data.corpus import open_corpus
    from train.run import seeds
    corpus, study, size, steps, first, count = sys.argv[1:]
    runs = [benchmark.config(size, int(steps), int(first) + i) for i in range(int(count))]
    if len(runs) > 1:
        seeds.run_seeds(runs, open_corpus(corpus, verify=False), Path(study), quiet=True)
    else:
        from train.run import cell
        directory = Path(study) / runs[0].run_id
        cell.run_cell(runs[0], open_corpus(corpus, verify=False), directory, quiet=True)
"""


def config(size: str, steps: int, seed: int):
    """The pretraining of one Transformer, as in the CPU study."""
    from configs import presets

    run = presets.cpu("transformer", size, seed)
    stage = dataclasses.replace(run.pretrain, steps=steps, checkpoint_every=steps)
    return dataclasses.replace(run, pretrain=stage, finetune=None)


def seconds(args: argparse.Namespace, study: Path, first: int, count: int) -> float:
    """Wall-clock time of a process that trains `count` seeds from `first` on."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", *filter(None, sys.path)])}
    environment |= {"JAX_COMPILATION_CACHE_DIR": args.cache} if args.cache else {}
    command = [sys.executable, "-c", TOGETHER, str(args.corpus), str(study), args.size]
    start = time.perf_counter()
    subprocess.run([*command, str(args.steps), str(first), str(count)], check=True, env=environment)
    return time.perf_counter() - start


def bare_steps(architecture: str, size: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of one seed and of all seeds, and the ratio for equally many steps."""
    import jax
    import numpy as np

    from benchmarks import step_time
    from configs import presets
    from train.run import seeds
    from train.run.optimizers import make_optimizer
    from train.run.step import init_state, make_model, make_train_step
    from train.study import declare

    run = getattr(presets, args.preset)(architecture, size)
    vocab_size = declare.PYTHON_VOCABULARY if args.preset == "cpu" else declare.T5_VOCABULARY
    stage, cfg = (
        run.pretrain,
        declare.model(run, vocab_size, accelerator=jax.default_backend() != "cpu"),
    )
    cfg = dataclasses.replace(cfg, dropout_rate=stage.dropout_rate)
    models = [make_model(cfg, seed) for seed in range(args.seeds)]
    model, optimizer = models[0][0], make_optimizer(stage.optimizer, models[0][0].axes)
    rng, rate = np.random.default_rng(0), np.float32(0.001)
    lengths = {
        name: stage.target_length for name in ("decoder_input_tokens", "decoder_target_tokens")
    }
    batches: dict[str, Any] = {
        name: rng.integers(2, vocab_size, (args.seeds, stage.batch_size, length), dtype=np.int32)
        for name, length in {"encoder_input_tokens": stage.input_length, **lengths}.items()
    }
    batches["decoder_loss_weights"] = np.ones(batches["decoder_target_tokens"].shape, np.float32)
    states = [init_state(params, optimizer) for _, params in models]
    several = jax.tree.map(lambda *leaves: np.stack(leaves), *states)
    constants = jax.tree.map(
        lambda *leaves: np.stack(leaves), *(own.constants for own, _ in models)
    )
    one = {name: x[0] for name, x in batches.items()}
    state, several, constants, batches, one = jax.device_put(
        (states[0], several, constants, batches, one)
    )
    step, numbers = (
        jax.jit(make_train_step(model, optimizer, stage), donate_argnums=0),
        np.arange(args.seeds),
    )
    step_of_all = seeds.make_seeds_step(model, optimizer, stage)

    def alone() -> Any:
        nonlocal state
        state, metrics = step(state, one, rate, np.uint32(0))
        return metrics

    def together() -> Any:
        nonlocal several
        several, metrics = step_of_all(several, constants, batches, rate, numbers.astype(np.uint32))
        return metrics

    row = {"architecture": architecture, "size": size, "dtype": cfg.dtype}
    try:
        turns = {"alone": step_time.in_flight(alone), "together": step_time.in_flight(together)}
        times = {
            name: median
            for name, (median, _) in step_time.measure(turns, args.rounds, args.seconds).items()
        }
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return row | {
            "error": str(error).splitlines()[0]
        }  # too large for the device; smaller cells may fit
    row |= {"step_alone": times["alone"]}
    ratio = times["together"] / (args.seeds * times["alone"])
    return row | {"step_together": times["together"], "ratio": ratio}


def main() -> None:
    """Times both sides and prints JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_corpus(parser)
    parser.add_argument("--size", default="nano")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument(
        "--alone",
        type=int,
        default=0,
        help="number of single runs that are timed (default: one for each seed)",
    )
    parser.add_argument(
        "--cache", default="", help="a directory; if empty, every process compiles everything"
    )
    bare = parser.add_argument_group("the steps alone, which need no corpus")
    bare.add_argument(
        "--steps-only", action="store_true", help="time bare steps of pretraining in this process"
    )
    bare.add_argument(
        "--preset", choices=("cpu", "t5"), default="cpu", help="batch and lengths (default: cpu)"
    )
    bare.add_argument("--architectures", default="transformer", help="names, separated by commas")
    bare.add_argument("--sizes", default="nano", help="names, separated by commas")
    bare.add_argument("--rounds", type=int, default=5, help="turns of each side (default: 5)")
    bare.add_argument(
        "--seconds",
        type=float,
        default=2.0,
        help="seconds per turn, at least one step (default: 2)",
    )
    if "--steps-only" in sys.argv:
        parser.set_defaults(corpus=None)  # otherwise argparse would look for the default corpus
    args = parser.parse_args()
    if args.steps_only:
        import jax

        names, sizes = args.architectures.split(","), args.sizes.split(",")
        rows = [bare_steps(name, size, args) for name in names for size in sizes]
        head = {"device": jax.devices()[0].device_kind, "preset": args.preset, "seeds": args.seeds}
        print(json.dumps({**head, "rows": rows}, indent=2))
        return
    with tempfile.TemporaryDirectory() as scratch:
        each_alone = [
            seconds(args, Path(scratch, "alone"), seed, 1)
            for seed in range(args.alone or args.seeds)
        ]
        together = seconds(args, Path(scratch, "together"), 0, args.seeds)
    alone = args.seeds * statistics.fmean(each_alone)
    result = {
        "size": args.size,
        "seeds": args.seeds,
        "steps": args.steps,
        "together": together,
        "alone": alone,
    }
    print(json.dumps(result | {"each_alone": each_alone, "ratio": together / alone}, indent=2))


if __name__ == "__main__":
    main()
