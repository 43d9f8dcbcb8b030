"""Several seeds of the smallest cell in one program against as many runs alone, start-up included.

    python -m benchmarks.seeds                          # eight seeds of transformer-nano, about five minutes on 2 cores
    python -m benchmarks.seeds --seeds 4 --size micro --steps 350

Each side is a fresh process that starts, compiles, pretrains, evaluates and saves: one with all seeds by `vmap`
(`train.seeds`), and one process after the other with a seed each. Both compile from scratch unless `--cache` lets them
share a compilation cache, as a study does. Prints JSON: seconds of either, and their ratio.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import arguments

TOGETHER = """if True:
    import sys
    from pathlib import Path
    from benchmarks import seeds as benchmark
    from train import seeds
    from train.data.corpus import open_corpus
    corpus, study, size, steps, first, count = sys.argv[1:]
    runs = [benchmark.config(size, int(steps), int(first) + i) for i in range(int(count))]
    if len(runs) > 1:
        seeds.run_seeds(runs, open_corpus(corpus, verify=False), Path(study), quiet=True)
    else:
        from train import cell
        cell.run_cell(runs[0], open_corpus(corpus, verify=False), Path(study) / runs[0].run_id, quiet=True)
"""


def config(size: str, steps: int, seed: int):
    """Pretraining of one Transformer, as the CPU study has it."""
    from configs import cells

    run = cells.cpu("transformer", size, seed)
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


def main() -> None:
    """Times both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_corpus(parser)
    parser.add_argument("--size", default="nano")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--cache", default="", help="a directory; empty compiles everything in every process")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        alone = [seconds(args, Path(scratch, "alone"), seed, 1) for seed in range(args.seeds)]
        together = seconds(args, Path(scratch, "together"), 0, args.seeds)
    result = {"size": args.size, "seeds": args.seeds, "steps": args.steps, "together": together, "alone": sum(alone)}
    print(json.dumps(result | {"each_alone": alone, "ratio": together / sum(alone)}, indent=2))


if __name__ == "__main__":
    main()
