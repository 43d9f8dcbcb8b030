"""Shows which mistakes the tests would miss, by making one at a time in a copy of the project.

    python -m benchmarks.mutation  # 150 mutants of all, about half an hour
    python -m benchmarks.mutation --named  # the mistakes of benchmarks/mutants.toml
    python -m benchmarks.mutation --targets train/run/losses.py,eval --sample 0  # all of some files
    python -m benchmarks.mutation --journal mutants.jsonl  # repeat it to continue where it stopped

A mutant is one edit: an operator swapped or replaced by one of its operands, a constant changed, a
condition negated, `min` for `max`, an argument dropped, a function of an array left out. It is
killed if a test fails or takes four times as long as without it. It survives if all tests of its
file pass (`TARGETS`; each of them is run first without a mutant). Docstrings, annotations, imports,
decorators, error messages and the `strict` of `zip` are left alone.

The sample holds the mutants whose hashes with the seed are smallest, so an edit of one line does
not change the rest of the sample. Once tests were written for its survivors, its rate says nothing
about the other mutants; use another seed then. Mutants that compute the same as the code are listed
with the reason in benchmarks/mutants.toml and do not count. Prints a line for each mutant on stderr
and a summary as JSON on stdout; exits with 1 if more survive than `--goal` allows.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.mutants import Mutant, edit, mutants

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "mutants.toml"

# The arguments of pytest for each file: the tests that should fail, the fastest first.
_ZOO = "tests/arch_zoo"
_STARTS = f"{_ZOO}/test_initialisation.py"
_VANILLA = (
    f"{_ZOO}/test_dropout.py {_ZOO}/test_head.py {_STARTS} tests/parity/test_parity.py"
    f" {_ZOO}/test_contract.py -k '(transformer or dropout.py or head.py) and not copy_task'"
)
TARGETS = {
    "arch_zoo/layers/attention.py": f"{_ZOO}/test_attention.py {_ZOO}/test_accounting.py "
    f"{_VANILLA.replace('head.py)', 'head.py or test_attention.py or conventions_of_attention)')}",
    "arch_zoo/layers/context.py": f"{_ZOO}/test_stack.py "
    f"{_VANILLA.replace('head.py)', 'head.py or test_stack.py)')}",
    "arch_zoo/layers/convolution.py": f"{_ZOO}/test_convolution.py {_ZOO}/test_convolutional.py",
    "arch_zoo/layers/embedding.py": _VANILLA,
    "arch_zoo/layers/experts.py": f"{_ZOO}/test_switch.py "
    "tests/train/run/test_parallel.py -k 'test_switch.py or strategy'",
    "arch_zoo/layers/favor.py": f"{_ZOO}/test_performer.py",
    "arch_zoo/layers/feed_forward.py": f"{_ZOO}/test_gradients.py "
    f"{_VANILLA.replace('head.py)', 'gradients.py)')}",
    "arch_zoo/layers/fused_attention.py": f"{_ZOO}/test_fused_attention.py",
    "arch_zoo/layers/head.py": f"{_ZOO}/test_head.py {_ZOO}/test_gradients.py {_ZOO}/test_mos.py",
    "arch_zoo/layers/norm.py": f"{_ZOO}/test_norm.py {_STARTS} -k 'test_norm.py or evolved'",
    "arch_zoo/layers/parameters.py": f"{_STARTS} {_ZOO}/test_head.py tests/parity/test_parity.py"
    f" {_ZOO}/test_contract.py -k 'initialisation.py or head.py or evolved-padded or axes and "
    "transformer'",
    "arch_zoo/layers/positions.py": f"{_ZOO}/test_positions.py {_ZOO}/test_performer.py {_STARTS}"
    " tests/parity/test_parity.py -k 'performer or sinusoids'",
    "arch_zoo/layers/relative_bias.py": f"{_ZOO}/test_positions.py "
    f"{_VANILLA.replace('head.py)', 'head.py or positions.py)')}",
    "arch_zoo/layers/stack.py": f"{_ZOO}/test_stack.py {_ZOO}/test_convolutional.py "
    f"{_ZOO}/test_memory.py {_VANILLA.replace('(', '(broken or period or test_stack.py or ')}",
    "eval/analyses/comparison.py": "tests/eval/analyses/test_comparison.py "
    "tests/eval/analyses/test_units.py",
    "eval/analyses/crossovers.py": "tests/eval/analyses/test_units.py "
    "tests/eval/analyses/test_comparison.py",
    "eval/analyses/paired.py": "tests/eval/data/test_examples.py",
    "eval/analyses/slopes.py": "tests/eval/analyses/test_slopes.py",
    "eval/analyses/verdicts.py": "tests/eval/analyses/test_verdicts.py",
    "eval/data/examples.py": "tests/eval/data/test_examples.py",
    "eval/data/quantity.py": "tests/eval/analyses/test_units.py tests/eval/data/test_cells.py",
    "eval/laws/score_test.py": "tests/eval/laws/test_groups.py -k '(verdict or noise or share)"
    " and not holds_its_level'",
    "eval/stats/moderation.py": "tests/eval/stats/test_moderation.py",
    "train/data/batches.py": "tests/train/data/test_batches.py tests/train/data/test_packing.py"
    " tests/train/run/test_evaluate.py",
    "train/data/windows.py": "tests/train/data/test_batches.py",
    "train/run/evaluators/heldout.py": "tests/train/run/test_evaluate.py",
    "train/run/evaluators/tasks.py": "tests/train/run/test_evaluate.py",
    "train/run/losses.py": "tests/train/run/test_step.py tests/train/run/test_evaluate.py",
    "train/run/optimizers.py": "tests/train/run/test_optimizers.py",
    "train/run/step.py": "tests/train/run/test_step.py tests/train/run/test_parallel.py"
    " -k 'test_step.py or strategy'",
}


def named(path: Path) -> list[tuple[str, Mutant, str]]:
    """The mistakes that a person has written down: their names, mutants, and tests.

    Raises:
      ValueError: the text that a mistake replaces does not occur exactly once in its file.
    """
    found = []
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["named"]:
        text = (path.parents[1] / entry["path"]).read_text(encoding="utf-8")
        if text.count(entry["before"]) != 1:
            raise ValueError(
                f"{path.name}: {entry['name']!r}: {entry['before']!r} is not in {entry['path']} "
                "once"
            )
        line = text[: text.index(entry["before"])].count("\n") + 1
        mutated = text.replace(entry["before"], entry["after"])
        tests = entry["tests"] if "tests" in entry else TARGETS[entry["path"]]
        found.append((entry["name"], edit(entry["path"], text, mutated, line, "named"), tests))
    return found


def equivalent(path: Path) -> set[tuple[str, str, str]]:
    """(path, before, after) of the mutants that are equivalent to the code."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])
    return {(entry["path"], entry["before"], entry["after"]) for entry in entries}


class Runner:
    """Runs tests in copies of a tree, one for each worker.

    Attributes:
      limits: seconds after which the tests of a file are stopped, by the tests.
    """

    def __init__(self, root: Path, scratch: Path, workers: int):
        """Makes the copies, without hidden files and without what a run of the project writes."""
        self.limits: dict[str, float] = {}
        self._idle: queue.Queue[Path] = queue.Queue()
        left_out = shutil.ignore_patterns(
            ".*", "__pycache__", "runs", "reports", "corpora", "shared", "*.egg-info"
        )
        for worker in range(workers):
            self._idle.put(Path(shutil.copytree(root, scratch / str(worker), ignore=left_out)))

    def baseline(self, tests: str) -> float:
        """Seconds that tests take without a mutant.

        Raises:
          RuntimeError: they fail even so, which would count as killing every mutant.
        """
        start = time.monotonic()
        outcome, by = self._in_a_copy(lambda copy: _pytest(copy, tests, None))
        if outcome != "survived":
            raise RuntimeError(f"without a mutant, {by or outcome} in: pytest {tests}")
        seconds = time.monotonic() - start
        self.limits[tests] = 4 * seconds + 30
        return seconds

    def run(self, mutant: Mutant, tests: str) -> tuple[str, str]:
        """(`killed`, `timeout` or `survived`; the test that failed)."""

        def mutated(copy: Path) -> tuple[str, str]:
            path = copy / mutant.path
            text = path.read_text(encoding="utf-8")
            path.write_text(mutant.text, encoding="utf-8")
            try:
                return _pytest(copy, tests, self.limits.get(tests))
            finally:
                path.write_text(text, encoding="utf-8")

        return self._in_a_copy(mutated)

    def _in_a_copy(self, function: Any) -> Any:
        copy = self._idle.get()
        try:
            return function(copy)
        finally:
            self._idle.put(copy)


def _pytest(copy: Path, tests: str, limit: float | None) -> tuple[str, str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    # Two mutants of equal length within one second would look the same to Python's cache of
    # compiled files.
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy), "PYTHONHASHSEED": "0"}
    command = f"{sys.executable} -m pytest -x -q --no-header --tb=no -p no:cacheprovider {tests}"
    with subprocess.Popen(
        ["sh", "-c", f"exec {command}"],
        cwd=copy,
        env=environment,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the tests' own processes
            process.communicate()
            return "timeout", ""
    if process.returncode in (4, 5):  # pytest: no such tests
        raise RuntimeError(f"pytest {tests}: {printed}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
    by = failed[1] if failed else f"exit code {process.returncode}"
    return ("survived", "") if process.returncode == 0 else ("killed", by)


def summary(rows: Sequence[dict[str, Any]], population: collections.Counter[str]) -> dict[str, Any]:
    """The survival rate, by file and overall, and every survivor."""
    by_target = []
    for path in sorted({row["path"] for row in rows}):
        outcomes = collections.Counter(row["outcome"] for row in rows if row["path"] == path)
        by_target.append(
            {
                "file": path,
                "mutants": population[path],
                "tried": outcomes.total(),
                **_rate(outcomes),
            }
        )
    survivors = [
        {k: row[k] for k in ("path", "line", "kind", "before", "after")}
        for row in rows
        if row["outcome"] == "survived"
    ]
    overall = _rate(collections.Counter(row["outcome"] for row in rows))
    return {
        "mutants": population.total(),
        "tried": len(rows),
        **overall,
        "files": by_target,
        "survivors": survivors,
    }


def _rate(outcomes: collections.Counter[str]) -> dict[str, Any]:
    count = {name: outcomes[name] for name in ("killed", "timeout", "survived", "equivalent")}
    tried = outcomes.total() - outcomes["equivalent"]
    return count | {"survival_rate": outcomes["survived"] / tried if tried else None}


class Journal:
    """The outcomes so far, as JSON lines; without a path, only those of this run.

    Killed mutants stay killed. Survivors are tried again if any test has changed.
    """

    def __init__(self, path: Path | None, root: Path):
        """Reads the existing outcomes."""
        self._path = path
        content = b"".join(file.read_bytes() for file in sorted((root / "tests").rglob("*.py")))
        self._tests = hashlib.sha256(content).hexdigest()[:16]
        self._rows: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []:
            with contextlib.suppress(
                json.JSONDecodeError
            ):  # the last line, torn because the run was killed
                row = json.loads(line)
                self._rows[row["key"]] = row

    def get(self, mutant: Mutant) -> dict[str, Any] | None:
        """The row of a mutant whose outcome is still valid."""
        row = self._rows.get(mutant.key)
        return (
            row if row and (row["outcome"] != "survived" or row["tests"] == self._tests) else None
        )

    def add(self, mutant: Mutant, outcome: str, by: str) -> dict[str, Any]:
        """Stores an outcome."""
        row = {"key": mutant.key, **mutant.row, "outcome": outcome, "by": by, "tests": self._tests}
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return row


def run_all(
    chosen: Sequence[tuple[Mutant, str]], runner: Runner, journal: Journal, workers: int
) -> list[dict[str, Any]]:
    """The outcome of every mutant under its tests, in the given order."""
    todo = [(mutant, tests) for mutant, tests in chosen if journal.get(mutant) is None]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        needed = sorted({tests for _, tests in todo})
        for tests, seconds in zip(needed, pool.map(runner.baseline, needed), strict=True):
            _tell(f"{seconds:6.1f} s without a mutant: {tests}")
        tried = {pool.submit(runner.run, mutant, tests): mutant for mutant, tests in todo}
        new = {}
        try:
            for done in concurrent.futures.as_completed(tried):
                mutant, (outcome, by) = tried[done], done.result()
                new[mutant.key] = journal.add(mutant, outcome, by)
                _tell(f"{len(new):4}/{len(todo)} {outcome:8} {mutant.path}:{mutant.line} {by}")
                if outcome == "survived":
                    _tell(f"     - {mutant.before}\n     + {mutant.after}")
        except BaseException:  # Ctrl-C waits only for the tests that are running
            pool.shutdown(cancel_futures=True)
            raise
    return [new.get(mutant.key) or journal.get(mutant) or {} for mutant, _ in chosen]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_sample(
    args: argparse.Namespace, runner: Runner, journal: Journal
) -> tuple[dict[str, Any], float]:
    """Tries a sample of the mutants; returns the summary and the survival rate."""
    wanted = tuple(args.targets.split(","))
    every = [
        mutant
        for path in TARGETS
        if path.startswith(wanted)
        for mutant in mutants(path, (ROOT / path).read_text(encoding="utf-8"))
    ]
    sample = sorted(every, key=lambda mutant: mutant.rank(args.seed))[: args.sample or None]
    same = equivalent(DATA)
    chosen = [mutant for mutant in sample if (mutant.path, mutant.before, mutant.after) not in same]
    spared = [mutant.row | {"outcome": "equivalent"} for mutant in sample if mutant not in chosen]
    rows = run_all(
        [(mutant, TARGETS[mutant.path]) for mutant in chosen], runner, journal, args.workers
    )
    result = summary([*rows, *spared], collections.Counter(mutant.path for mutant in every))
    return {"seed": args.seed, **result}, result["survival_rate"] or 0.0


def run_named(
    args: argparse.Namespace, runner: Runner, journal: Journal
) -> tuple[dict[str, Any], float]:
    """Tries the named mistakes; returns which test kills each, and the survival rate."""
    mistakes = named(DATA)
    rows = run_all(
        [(mutant, tests) for _, mutant, tests in mistakes], runner, journal, args.workers
    )
    table = [
        {"mistake": name, "outcome": row["outcome"], "killed_by": row["by"]}
        for (name, *_), row in zip(mistakes, rows, strict=True)
    ]
    killed = sum(row["outcome"] != "survived" for row in rows)
    return {"killed": killed, "of": len(rows), "named": table}, 1 - killed / len(rows)


def main() -> int:
    """Tries the requested mutants; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--targets", default="", help="beginnings of files in TARGETS, separated by commas"
    )
    parser.add_argument(
        "--named", action="store_true", help="try the mistakes of benchmarks/mutants.toml instead"
    )
    parser.add_argument(
        "--sample", type=int, default=150, help="most mutants to try; 0 for all (default: 150)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=2, help="mutants tried at the same time (default: 2)"
    )
    parser.add_argument(
        "--journal", type=Path, help="file of outcomes; mutants in it are not tried again"
    )
    parser.add_argument(
        "--goal", type=float, default=0.05, help="highest rate of survivors (default: 0.05)"
    )
    args = parser.parse_args()
    if args.sample < 0 or args.workers < 1:
        parser.error(
            f"--sample {args.sample} --workers {args.workers}: at least 0 and 1 are needed"
        )
    if not any(path.startswith(tuple(args.targets.split(","))) for path in TARGETS):
        parser.error(f"--targets {args.targets}: no file begins so; known: {', '.join(TARGETS)}")
    with tempfile.TemporaryDirectory() as scratch:
        runner, journal = Runner(ROOT, Path(scratch), args.workers), Journal(args.journal, ROOT)
        result, rate = (run_named if args.named else run_sample)(args, runner, journal)
    print(json.dumps(result, indent=1))
    return 1 if rate > args.goal else 0


if __name__ == "__main__":
    sys.exit(main())
