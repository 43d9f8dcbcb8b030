"""How often a report says something false, and what it finds: simulated studies of known truth.

    python -m benchmarks.verdicts --out docs/verdicts.md  # about an hour: 1,000 studies a number
    python -m benchmarks.verdicts --replicates 100        # a quick look, to +-2 %
    python -m benchmarks.verdicts --journal verdicts.jsonl  # repeat it to continue where it stopped

Prints three Markdown tables (and writes them to --out): the share of studies without any difference
between twelve architectures in which a sentence names one; the same for the tests of slopes under
each choice of variances; and the share of studies in which a steeper slope is found. A column is a
design, sizes x seeds. Equal seeds give equal tables.
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval.simulation import sentences
from eval.simulation.sentences import Design

DESIGNS = ((4, 1), (4, 3), (5, 3))
VARIANCES = ("separate", "moderated", "pooled")
TRUTHS: dict[str, dict[str, float]] = {
    "straight": {},
    "straight, one three times noisier": {"noisier": 3.0},
    "straight, the reference three times noisier": {"reference_noisier": 3.0},
    "bent": {"bend": 0.2},
    "bent, one three times noisier": {"bend": 0.2, "noisier": 3.0},
    "bent, a tenth of the noise": {"bend": 0.2, "noise": 0.1},
}
_SETTING = (
    "Percent of {count} simulated studies of twelve architectures (in the second and third table a "
    "quarter as many); a column is a design, sizes x seeds. The standard error of a share of 5 % "
    "is {error}, in the other tables {larger}. Sizes are 0.6 decades of FLOPs apart, and the FLOPs "
    "of architectures at one size differ by up to 0.4. The noise of a size is 0.02 nats and 1 "
    "point, that of a seed half as much, around a slope of 0.54 nats and 6 points per decade. A "
    "bent law loses a fifth of its slope per decade."
)
STEEPER = (1.2, 1.5, 2.0, 3.0)


class Journal:
    """Numbers that are already computed, by what they are."""

    def __init__(self, path: Path | None):
        """Reads what an earlier call left."""
        self._path, self._known = path, dict[str, Any]()
        for line in path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []:
            row = json.loads(line)
            self._known[row["key"]] = row["value"]

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The number of that name, computed unless it is known."""
        if key not in self._known:
            self._known[key] = compute()
            print(f"{key}: {self._known[key]}", file=sys.stderr, flush=True)
            if self._path:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "value": self._known[key]}) + "\n")
        return self._known[key]


def main() -> None:
    """Computes the tables and prints them; progress goes to stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicates", type=int, default=1000, help="per number (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all simulations (%(default)s)")
    parser.add_argument("--journal", type=Path, help="keeps finished numbers, to continue later")
    parser.add_argument("--out", type=Path, help="file to write the tables to")
    given = parser.parse_args()
    if given.replicates < 4:
        parser.error(f"--replicates {given.replicates}: at least 4, as some tables have a quarter")
    journal = Journal(given.journal)
    count, fewer, seed = given.replicates, given.replicates // 4, given.seed

    def number(kind: str, what: str, size: tuple[int, int], compute: Callable[[], Any]) -> Any:
        times = count if kind == "sentences" else fewer
        return journal.get(f"{kind}; {what}; {size[0]} x {size[1]}; {times} from {seed}", compute)

    said: dict[str, dict[tuple[int, int], float]] = {}
    for name, truth in TRUTHS.items():
        for size in DESIGNS:
            design = Design(*size, **truth)
            run = functools.partial(sentences.errors, design, count, seed)
            for what, share in number("sentences", name, size, run).items():
                said.setdefault(f"{what} | {name}", {})[size] = share
    levels: dict[str, dict[tuple[int, int], float]] = {}
    found: dict[str, dict[tuple[int, int], float]] = {}
    for variance in VARIANCES:
        for name in list(TRUTHS)[:3]:
            for size in DESIGNS:
                design, what = Design(*size, **TRUTHS[name]), f"{variance} | {name}"
                run = functools.partial(sentences.level, design, fewer, variance, seed)
                levels.setdefault(what, {})[size] = number("level", what, size, run)
        for factor in STEEPER:
            for size in DESIGNS:
                what = f"{variance} | {factor:g}"
                run = functools.partial(
                    sentences.power, Design(*size), factor, fewer, variance, seed
                )
                found.setdefault(what, {})[size] = number("power", what, size, run)
    page = _page(count, seed, said, levels, found)
    print(page)
    if given.out:
        given.out.write_text(page, encoding="utf-8")


def _page(count: int, seed: int, *tables: Mapping[str, Mapping[tuple[int, int], float]]) -> str:
    error, larger = (f"{100 * np.sqrt(0.05 * 0.95 / n):.1f}" for n in (count, count // 4))
    options = f"--replicates {count} --seed {seed} --out docs/verdicts.md"
    said, levels, found = (
        _table(heads, rows)
        for heads, rows in zip(
            (
                ("a sentence names an architecture that", "law"),
                ("variances", "law"),
                ("variances", "slope, times the others'"),
            ),
            tables,
            strict=True,
        )
    )
    return f"""# What a report says, and how often it is wrong

Written by `python -m benchmarks.verdicts {options}`; the same command gives the same tables.

{_SETTING.format(count=count, error=error, larger=larger)}

## Nothing differs: how often a sentence names an architecture

All architectures follow one law. At most 5 % is right.

{said}

## Nothing differs: the test of slopes under each choice of variances

The default is `separate`, whose level holds whoever is noisier.

{levels}

## One slope is steeper: how often it is found

With equal noise and a straight law.

{found}
"""


def _table(heads: tuple[str, ...], rows: Mapping[str, Mapping[tuple[int, int], float]]) -> str:
    columns = [f"{sizes} x {seeds}" for sizes, seeds in DESIGNS]
    lines = [
        "| " + " | ".join([*heads, *columns]) + " |",
        "| " + " | ".join(["---"] * len(heads) + ["--:"] * len(columns)) + " |",
    ]
    for what, shares in rows.items():
        numbers = [f"{100 * shares[size]:.1f}" for size in DESIGNS]
        lines.append("| " + " | ".join([what, *numbers]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
