"""Makes what lies in `examples` of the records of a study.

    python -m train study example --preset cpu --architectures transformer,glu,lconv \
        --sizes nano,micro,milli,centi --seeds 3
    python -m benchmarks.examples runs/example

`cpu.tar.gz` holds the records (`python -m eval archive`). `wandb.csv` holds the same runs under the
names that an export of Weights & Biases would have.
"""

import argparse
from pathlib import Path

import pandas as pd

import eval as evaluation
from eval.data import archive, neutral

FOLDER = Path(__file__).parents[1] / "examples"
NAMES = {
    "run_id": "Name",
    "architecture": "config.architecture",
    "size": "config.size",
    "seed": "config.seed",
    "params_non_embedding": "model/num_parameters",
    "flops_forward": "config.flops",
    "upstream_nll": "eval/loss",
}


def exported(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs under the names of a tracker."""
    table = runs[list(NAMES)].rename(columns=NAMES)
    table.insert(1, "State", "finished")
    tasks = [name for name in runs if name.startswith("downstream_python_")]
    for name in tasks:
        table[f"{name.removeprefix('downstream_')}/acc"] = runs[name]
    return table


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    runs = parser.parse_args().runs
    FOLDER.mkdir(exist_ok=True)
    count = archive.write(runs, FOLDER / "cpu.tar.gz")
    table = exported(evaluation.read_study(runs).runs)
    (FOLDER / "wandb.csv").write_text(neutral.csv(table))
    print(f"{FOLDER}: {count} runs, {len(table.columns)} columns")


if __name__ == "__main__":
    main()
