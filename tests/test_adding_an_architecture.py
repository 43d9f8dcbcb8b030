"""Follows the page about adding an architecture, step by step, on a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "adding_an_architecture.md").read_text()
NAME = "retention"
SOURCE = Path(f"arch_zoo/architectures/{NAME}.py")
TESTS = Path(f"tests/arch_zoo/test_{NAME}.py")
SITE = Path(f"docs/zoo/{NAME}.md")
# All tests that depend on the list of architectures would take two minutes. These are the parts of
# the contract that a mixer with a state fails first, and tests that one more architecture or file
# has broken before.
CHECKS = {
    "tests/arch_zoo/test_contract.py": f"{NAME} and (causal or decoding_equals "
    "or prefill_equals or packed_equals or products_stay)",
    "tests/arch_zoo/test_accounting.py": f"tables_of_positions or (scanning and {NAME})",
    "tests/arch_zoo/test_goldens.py": "left_over",
    "tests/docs/test_site.py": f"has_a_page or (every_part and {NAME})",
    "tests/eval/report/test_tables.py": "looks_the_same",
    "tests/parity/test_parity.py": "somebody or twelve",
    "tests/test_packaging.py": "not wheel",
    "tests/train/study/test_declare.py": "preset",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the page's files, in which its commands can run."""
    copy = tmp_path_factory.mktemp("project")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    for name in subprocess.run(
        listed, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for path, block in zip((SOURCE, TESTS), blocks, strict=True):
        assert f"`{path}`" in PAGE
        (copy / path).write_text(block)
    (page,) = re.findall(r"````markdown\n(.*?)````", PAGE, re.DOTALL)
    assert f"`{SITE}`" in PAGE
    (copy / SITE).write_text(page)
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *command], cwd=copy, check=True)
    (copy / ".venv").symlink_to(sys.prefix)  # where pyright looks
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    return copy, environment | {"PYTHONPATH": str(copy)}


def run(project, *arguments: str) -> str:
    copy, environment = project
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_page_works_as_written_and_breaks_nothing_else(project):
    """Only its three files and the golden are new; its commands and the tests of the zoo pass."""
    commands = re.findall(r"^python (.*)$", PAGE, re.MULTILINE)
    whole = f"-m pytest tests/arch_zoo -k {NAME}"
    assert len(commands) == 6 and whole in commands
    for command in commands:
        if command != whole:
            run(project, *command.split())
    chosen = " or ".join(f"({Path(path).stem} and ({which}))" for path, which in CHECKS.items())
    run(project, "-m", "pytest", "-q", *CHECKS, str(TESTS), "-k", f"{TESTS.stem} or {chosen}")
