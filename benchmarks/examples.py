"""Writes `examples/wandb.csv`: the runs of `examples/cpu.tar.gz` as a tracker would export them.

    python -m benchmarks.examples

The columns have the names that an export of Weights & Biases has.
"""

from pathlib import Path

import pandas as pd

import eval as evaluation
from eval.data import neutral

FOLDER = Path(__file__).parents[1] / "examples"
RECORDS, TABLE = FOLDER / "cpu.tar.gz", FOLDER / "wandb.csv"
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
    for name in (name for name in map(str, runs) if name.startswith("downstream_python_")):
        table[f"{name.removeprefix('downstream_')}/acc"] = runs[name]
    return table


def main() -> None:
    """Writes the table."""
    table = exported(evaluation.read_study(RECORDS).runs)
    TABLE.write_text(neutral.csv(table))
    print(f"{TABLE}: {len(table)} runs, {len(table.columns)} columns")


if __name__ == "__main__":
    main()
