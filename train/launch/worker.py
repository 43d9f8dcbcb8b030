"""One worker of the local pool: runs the cells of a manifest that nobody else runs, many in one process.

Workers need no scheduler: each goes through the cells in order and takes the lock of the next unfinished one. What
happens is told as JSON lines on standard output; progress goes to standard error.
"""

import json
import os
import sys
import threading
from pathlib import Path


def main(directory: Path, corpus: Path, core: int | None) -> None:
    """Runs cells until none is left.

    Args:
      directory: the study's, with its manifest.
      corpus: the prepared corpus.
      core: the CPU core to stay on, or None for all.
    """
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # before jax starts its threads
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from train import cell, loop, study
    from train.data.corpus import open_corpus

    declared = study.read_manifest(directory)
    data = open_corpus(corpus, verify=False)
    with cell.StopOnSignal() as stop:
        for config in declared.cells:
            report = {"cell": config.run_id, "state": "running", "error": None}
            try:
                report["state"] = cell.run_cell(config, data, directory / config.run_id, stop=stop)
            except loop.Preempted as reason:
                report |= {"state": "preempted", "error": str(reason)}
            except Exception as error:  # noqa: BLE001  one cell's failure is recorded, the others go on
                report |= {"state": "failed", "error": str(error).split("\n")[0] or type(error).__name__}
            print(json.dumps(report), flush=True)
            if stop():
                break


def _end_with_parent() -> None:
    """Ends this process as soon as the launcher, which holds the other end of standard input, is gone."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
