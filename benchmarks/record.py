"""Runs a benchmark, stores its result, and writes BENCHMARKS.md from all stored results.

    python -m benchmarks.record seeds -- python -m benchmarks.seeds
    python -m benchmarks.record tests -- make test  # prints no JSON, so only its time is stored
    python -m benchmarks.record                                    # only writes the page

benchmarks/results/NAME.json stores the command, its seconds and exit code, the JSON object at the
end of its stdout, the machine, and whether the code was that of the commit. No number in
BENCHMARKS.md is typed by hand.
"""

import argparse
import contextlib
import datetime
import json
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import summary as summaries
from train.run import cell

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "BENCHMARKS.md"

HEAD = """# Benchmarks

Written by `python -m benchmarks.record` from `benchmarks/results/`; each section names the \
command to repeat it.
Different sections were measured at different times, perhaps on different machines: compare \
ratios, which are measured in one run.
Each command's `--help` says what it measures and how.
"""


def last_json(lines: list[str]) -> dict[str, Any] | None:
    """The JSON object at the end of the output, if it begins at the start of a line; else None."""
    for start, line in enumerate(lines):
        if line.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                return json.loads("".join(lines[start:]))
    return None


def measure(command: list[str]) -> dict[str, Any]:
    """Runs a command, shows its output, and returns everything that is to be stored."""
    modified, lines, start = is_modified(), [], time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return {
        "command": shlex.join(command),
        "seconds": round(time.monotonic() - start, 1),
        "exit_code": process.returncode,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": {"processor": processor(), **cell.machine()},
        "modified": modified,
        "result": last_json(lines),
    }


def is_modified() -> bool:
    """Whether tracked files, except those that this script writes, differ from the commit."""
    others = [
        f":(exclude){path.relative_to(ROOT)}"
        for path in (RESULTS, PAGE)
        if path.is_relative_to(ROOT)
    ]
    command = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", *others]
    return bool(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )


def processor() -> str:
    """The processor's name, if the system provides it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested dictionaries, except tables, under its dotted name."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield from flat(item, f"{prefix}{key}.")
        elif not is_table(item):
            yield prefix + key, item


def is_table(value: Any) -> bool:
    """Whether a value is a list of rows."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def show(value: Any) -> str:
    """A value as a cell of a Markdown table."""
    if isinstance(value, float):
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:,}"
    elif isinstance(value, list):
        text = ", ".join(map(show, value)) or "none"
    else:
        text = "" if value is None else str(value)
    return text.replace("|", "\\|")


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table with numbers aligned to the right."""
    number = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(head))]
    lines = [
        head,
        ["--:" if right else "---" for right in number],
        *([show(value) for value in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(name: str, kept: dict[str, Any]) -> str:
    """The page's section about one benchmark."""
    machine, result = kept["machine"], kept["result"] or {}
    versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
    processor = f"{machine['cpu_cores']} cores of {machine['processor']}"
    where = f"{machine['devices']} x {machine['device']}, {processor}, Python {machine['python']}"
    commit = (machine["git_commit"] or "unknown")[:7] + (
        " with changes" if kept.get("modified") else ""
    )
    failed = f" It ended with exit code {kept['exit_code']}." if kept["exit_code"] else ""
    parts = [
        f"## {name.replace('_', ' ').capitalize()}",
        f"    {kept['command']}",
        f"{kept['seconds']:,.0f} s on {kept['date']}, commit {commit}; {where}; "
        f"{versions}.{failed}",
    ]
    if leaves := list(flat(result)):
        parts.append(table(["", "value"], [list(leaf) for leaf in leaves]))
    for rows in filter(is_table, result.values()):
        head = list(dict.fromkeys(key for row in rows for key in row))
        parts.append(table(head, [[row.get(key) for key in head] for row in rows]))
    return "\n\n".join(parts) + "\n"


def summary(kept: dict[str, dict[str, Any]]) -> str:
    """A line for each benchmark: what it asks, what it found, where and when."""
    rows = []
    for name, one in kept.items():
        title = name.replace("_", " ").capitalize()
        program = re.findall(r"benchmarks\.(\w+)", one["command"])
        asked, found = (
            (summaries.question(program[0]), summaries.finding(program[0], one["result"]))
            if program
            else ("", "")
        )
        link = f"[{title}](#{name.replace('_', '-')})"
        machine = one["machine"]["device"].replace("cpu", one["machine"]["processor"])
        rows.append([link, asked, found, f"{machine}, {one['date']}"])
    return table(["section", "what it does", "result", "where and when"], rows) + "\n"


def write_page() -> None:
    """Writes BENCHMARKS.md."""
    kept = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(RESULTS.glob("*.json"))
    }
    PAGE.write_text(
        "\n".join([HEAD, summary(kept), *(section(name, one) for name, one in kept.items())]),
        encoding="utf-8",
    )


def main() -> int:
    """Measures the given command, if any, and writes the page; returns the command's exit code."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    own, command = sys.argv[1:end], sys.argv[end + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", help="name of the section and of the file")
    given = parser.parse_args(own)
    if bool(given.name) != bool(command):
        parser.error(
            "a name and, after --, a command are needed; or neither, to write the page only"
        )
    code = 0
    if command:
        kept = measure(command)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{given.name}.json").write_text(
            json.dumps(kept, indent=1) + "\n", encoding="utf-8"
        )
        code = kept["exit_code"]
    write_page()
    return code


if __name__ == "__main__":
    sys.exit(main())
