"""Measures how long the report of a large study takes, from its run directories to the page.

    python -m benchmarks.report  # 12 architectures x 7 sizes x 5 seeds, under a minute
    python -m benchmarks.report --seeds 120        # 10,080 runs

Writes simulated records of all 17 tasks as the trainer would, then times `python -m eval report` in
a separate process. Prints JSON: runs, seconds, the report's peak memory, and the size of the page.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.eval import run_directories


def main() -> None:
    """Writes the study and times the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds per cell (default: 5)")
    given = parser.parse_args()
    zoo, ladder = run_directories.ZOO, run_directories.LADDER
    with tempfile.TemporaryDirectory() as place:
        study = run_directories.write_study(
            Path(place), zoo, ladder, given.seeds, run_directories.PAPER_TASKS
        )
        start = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "eval",
            "report",
            str(study),
            "--out",
            str(Path(place) / "report"),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        page = (Path(place) / "report" / "report.html").stat().st_size
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    runs = len(zoo) * len(ladder) * given.seeds
    result = {
        "runs": runs,
        "seconds": seconds,
        "peak_memory_mb": memory * 1e-6,
        "page_mb": page * 1e-6,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
