"""Checks the analysis on simulated studies: coverage of intervals, level and power of tests.

    python -m benchmarks.coverage --out docs/coverage.md  # 30 minutes: 1,000 studies a design,
                                                          # 200 for frontiers and claims
    python -m benchmarks.coverage --replicates 100        # a quick look, to +-2 %
    python -m benchmarks.coverage --only slopes           # experiments whose name contains this
    python -m benchmarks.coverage --design 5x3            # one design: five sizes, three seeds

Prints a Markdown table (and writes it to --out), with one row per quantity and one column per
design (sizes x seeds). `none` means that the analysis gives no interval, as for three sizes. The
same seed gives the same table.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import pandas as pd

from eval.simulation.recovery import DESIGNS, EXPERIMENTS

_COSTLY = ("recovery_of_frontiers", "level_of_claims")  # the slowest: a fifth of the studies


def main() -> None:
    """Runs the experiments and prints the table; progress goes to stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--replicates",
        type=int,
        default=1000,
        help="simulated studies per design (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of all simulations (default: %(default)s)"
    )
    parser.add_argument("--only", default="", help="run only experiments with this in their name")
    parser.add_argument(
        "--design",
        default="",
        help=f"one of {', '.join(f'{k}x{s}' for k, s in DESIGNS)} (default: all)",
    )
    parser.add_argument(
        "--out", type=Path, help="file to write the table to, with the command that made it"
    )
    arguments = parser.parse_args()
    designs = [d for d in DESIGNS if arguments.design in ("", f"{d[0]}x{d[1]}")]
    if not designs:
        parser.error(
            f"--design {arguments.design} is unknown; known: "
            f"{', '.join(f'{k}x{s}' for k, s in DESIGNS)}"
        )
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for experiment, needs_seeds in EXPERIMENTS:
        name = experiment.__name__
        if arguments.only not in name:
            continue
        replicates = max(arguments.replicates // 5, 1) if name in _COSTLY else arguments.replicates
        for sizes, seeds in designs:
            if needs_seeds and seeds < 2:
                continue
            started = time.monotonic()
            for what, share, nominal in experiment(sizes, seeds, replicates, arguments.seed):
                shown = "none" if pd.isna(share) else f"{100 * share:.1f}"
                found.setdefault((name, what, nominal), {})[f"{sizes} x {seeds}"] = shown
            print(
                f"{name} {sizes} x {seeds}: {time.monotonic() - started:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    columns = [f"{sizes} x {seeds}" for sizes, seeds in designs]
    lines = [
        "| quantity | nominal | " + " | ".join(columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for (_, what, nominal), shares in found.items():
        lines.append(
            f"| {what} | {nominal} | " + " | ".join(shares.get(c, "") for c in columns) + " |"
        )
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join([_head(arguments), *lines, ""]), encoding="utf-8")


def _head(arguments: argparse.Namespace) -> str:
    """What the table shows, the command that made it, and the standard error of its shares."""
    command = (
        f"python -m benchmarks.coverage --replicates {arguments.replicates} --seed {arguments.seed}"
    )
    counts = (arguments.replicates, max(arguments.replicates // 5, 1))
    errors = [f"{100 * math.sqrt(0.95 * 0.05 / n):.1f} ({n} studies)" for n in counts]
    return (
        "# Do the intervals cover the truth, and do the tests hold their level?\n\n"
        f"Written by `{command} --out {arguments.out.as_posix()}`; the same command gives the same "
        "table.\n\n"
        "The numbers are percentages of simulated studies; a column is a design, sizes x seeds. "
        "`none`: the analysis gives no interval or test, and its output says so. `power` and "
        "`reported` have no nominal value. Empty: needs two seeds. Standard error of a share near "
        f"95 % or 5 %: {errors[0]}; for claims and frontiers {errors[1]}. If one architecture is "
        "three times noisier, shares of tests that assume equal noise are only `reported`; "
        "verdicts use the tests with separate variances. All architectures cover the same range of "
        "FLOPs, except in the studies for frontiers.\n"
    )


if __name__ == "__main__":
    main()
