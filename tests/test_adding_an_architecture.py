"""The page that shows how to add an architecture, done as it says, on a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAME = "squared_relu"


@pytest.mark.slow
def test_the_page_works_as_written(tmp_path):
    """One new source file and its golden: nothing else is touched, and the contract holds."""
    page = (ROOT / "docs" / "adding_an_architecture.md").read_text()
    for room in ("arch_zoo", "tests", "docs"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    source = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    (tmp_path / "arch_zoo" / "architectures" / f"{NAME}.py").write_text(source)
    commands = re.findall(r"^python (.*)$", page, re.MULTILINE)
    assert len(commands) == 3

    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for command in commands:
        arguments = [sys.executable, *command.split()]
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    golden = json.loads((tmp_path / "tests" / "arch_zoo" / "goldens" / f"{NAME}.json").read_text())
    vanilla = json.loads((ROOT / "tests" / "arch_zoo" / "goldens" / "transformer.json").read_text())
    assert golden["counts"] == vanilla["counts"]
