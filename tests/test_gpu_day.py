"""The script for a short stay on a GPU, at a tiny shape on this machine.

Its check of attention has a test of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu_day.sh"


@pytest.mark.slow
def test_every_part_writes_its_result(tmp_path):
    done = subprocess.run(
        ["sh", str(SCRIPT), str(tmp_path), "--tiny"],
        cwd=SCRIPT.parents[1],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(found) == {"lm", "encoder_decoder", "zoo_lm", "zoo", "seeds"}
    assert {row["name"] for row in found["lm"]["rows"]} == {"transformer", "llama"}
    assert all(row["seconds"] > 0 for row in found["lm"]["rows"])
