"""Recovery of known truth: coverage of every interval, level and power of every test, on simulated studies.

python benchmarks/coverage.py                        1,000 studies a design (200 where a study is costly): about an hour
python benchmarks/coverage.py --replicates 100       a quick look, to +-2 %
python benchmarks/coverage.py --only slopes          experiments whose name contains this
python benchmarks/coverage.py --design 5x3           one design: five sizes, three seeds

Prints a Markdown table, one row per quantity and one column per design (sizes x seeds). `none` means that no interval
was given, which is what three sizes are answered with. The same seed gives the same table.
"""

import argparse
import sys
import time

import pandas as pd

from eval.recovery import DESIGNS, EXPERIMENTS

_COSTLY = ("level_of_tests", "power", "recovery_of_frontiers", "level_of_claims")  # seconds a study; a fifth as many


def main() -> None:
    """Runs the experiments and prints the table; progress goes to stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=1000, help="simulated studies a design (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all simulations (default %(default)s)")
    parser.add_argument("--only", default="", help="experiments whose name contains this")
    parser.add_argument("--design", default="", help=f"one of {', '.join(f'{k}x{s}' for k, s in DESIGNS)}; default all")
    arguments = parser.parse_args()
    designs = [d for d in DESIGNS if arguments.design in ("", f"{d[0]}x{d[1]}")]
    if not designs:
        parser.error(f"--design {arguments.design} is unknown; known: {', '.join(f'{k}x{s}' for k, s in DESIGNS)}")
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
            print(f"{name} {sizes} x {seeds}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    columns = [f"{sizes} x {seeds}" for sizes, seeds in designs]
    print("| quantity | nominal | " + " | ".join(columns) + " |")
    print("|---|---|" + "---|" * len(columns))
    for (_, what, nominal), shares in found.items():
        print(f"| {what} | {nominal} | " + " | ".join(shares.get(c, "") for c in columns) + " |")


if __name__ == "__main__":
    main()
